"""The training: a row-sparse optimizer, early stopping on the eval split, the best epoch's weights, resumption."""

from __future__ import annotations

import logging
import math
import os
import pathlib
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from schemas.features import IDS
from trainer.average import AverageWeights
from trainer.checkpoints import Checkpoints, KeepBest, KeepState, Progress, loss_metric, number, steps_taken
from trainer.config import TrainingConfig
from trainer.finite import NonFiniteLossError, find_offender
from trainer.model import DeepFM
from trainer.optimizers import ROW_RULES, FusedAdam, RowSparse
from trainer.warm_start import read_steps, warm_start
from trainer.workers import ALONE, Workers

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_LOGGER = logging.getLogger(__name__)

STEPS_PER_CALL = 32  # at most: of TensorFlow from Python, and of the callbacks


class EvalMetrics(keras.callbacks.Callback):
    """Measures the model on the eval split at the end of each epoch, for the callbacks after it.

    Not done by Keras's own metrics: these would be updated in every training step too, which costs more than the step,
    and their AUC is binned.

    Adds to the logs: `val_log_loss`; `val_auc`; `val_linear`, `val_fm` and `val_deep`, the terms' mean magnitudes.

    Args:
        batches: Batches of (features, label [batch, 1]) or (features, label, weight [batch]).
        logit_shift: Added to the logits, which come from a sample of the negatives.
        workers: Those that have a part of the eval split each.
    """

    def __init__(self, batches: tf.data.Dataset, logit_shift: float = 0.0, workers: Workers = ALONE) -> None:
        super().__init__()
        self._batches = batches
        self._workers = workers
        self._logit_shift = logit_shift

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures."""
        parts = [tf.zeros([0, 5])]
        for features, label, *weight in self._batches:
            of_example = weight[0] if weight else tf.ones(len(label))
            parts.append(tf.concat([self._terms(features), label, of_example[:, tf.newaxis]], axis=1))
        columns = self._workers.gather("evaluation", tf.concat(parts, axis=0)).numpy().T  # [5, num_examples]
        term_values, clicks, of_example = columns[:3], columns[3], columns[4]
        if not np.isfinite(term_values).all():  # of all workers, which stop together
            raise NonFiniteLossError(self._find_offender())
        if not of_example.sum() > 0:
            all_zero = f"the weight, {self.model.spec.weight}, is 0 in each of its impressions"
            why = all_zero if len(clicks) else "it is empty"
            raise ValueError(f"nothing can be measured on the eval split: {why}")
        logits = term_values.sum(axis=0) + self._logit_shift
        figures = {"log_loss": log_loss(clicks, logits, of_example), "auc": auc(clicks, logits, of_example)}
        figures |= dict(zip(("linear", "fm", "deep"), np.abs(term_values).mean(axis=1), strict=True))
        if logs is not None:
            logs.update({f"val_{name}": float(value) for name, value in figures.items()})

    def _find_offender(self) -> str:
        """Returns in words what has made a logit of this worker's part NaN or infinite."""
        for features, *_ in self._batches:
            if not np.isfinite(self._terms(features)).all():
                table = self.model.embedding_table if IDS in features else None
                rows = table.gather(table.rows_of(features[IDS])) if table else None
                return find_offender(self.model.spec, {name: values.numpy() for name, values in features.items()}, rows)
        return "the logits of another worker's part are not finite"

    @tf.function(reduce_retracing=True)
    def _terms(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.concat(self.model.terms(features), axis=1)  # [batch, 3]


class FillUnseen(keras.callbacks.Callback):
    """Gives the ids that training has not read the row for unseen ones, at the end of each epoch.

    A pass over the table, once an epoch. A row that is read later goes on from there.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Fills the rows."""
        (table,) = self.model.tables
        self.model.embedding_table.fill_unseen(self.model.optimizer.is_untouched(table))


def log_loss(labels: Floats, logits: Floats, weights: Floats | None = None) -> float:
    """Returns the mean of -log p(label), natural logarithm.

    Args:
        labels: 0 or 1, float32 [num_examples].
        logits: float32 [num_examples].
        weights: Of the examples, float32 [num_examples]; None for all alike.
    """
    losses = np.logaddexp(0, np.where(labels > 0, -logits, logits), dtype=np.float64)
    return float(np.average(losses, weights=weights))


def auc(labels: Floats, scores: Floats, weights: Floats | None = None) -> float:
    """Returns the exact area under the ROC curve: the share of (click, no click) pairs in the right order, ties half.

    Args:
        labels: 0 or 1, float32 [num_examples].
        scores: float32 [num_examples].
        weights: Of the examples, float32 [num_examples]: a pair weighs the product of its two. None for all alike.

    Returns:
        NaN where there is only one class, or a score is NaN.
    """
    if np.isnan(scores).any():  # they would be the highest
        return math.nan
    of_example = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    _, position = np.unique(scores, return_inverse=True)
    clicks = np.bincount(position, of_example * (labels > 0))  # [num_scores], in ascending order of the scores
    others = np.bincount(position, of_example * (labels <= 0))
    num_pairs = clicks.sum() * others.sum()
    if not num_pairs:
        return math.nan
    return float(np.sum(clicks * (np.cumsum(others) - others / 2)) / num_pairs)


def logit_shift(negative_sampling_rate: float) -> float:
    """Returns what corrects the logit of a model that saw a sample of the negatives.

    p / (p + (1 - p) / rate) is the sigmoid of logit(p) + ln(rate): He et al., "Practical Lessons from Predicting Clicks
    on Ads at Facebook", ADKDD 2014, section 6.3.
    """
    return math.log(negative_sampling_rate)


class EpochLog(keras.callbacks.Callback):
    """Logs one line at the end of each epoch, and its metrics for TensorBoard.

    Args:
        max_epochs: How many epochs there are at most.
        directory: Where TensorBoard's logs go: `train/` and `validation/`, as Keras's own callback has them.
    """

    def __init__(self, max_epochs: int, directory: str) -> None:
        super().__init__()
        self._max_epochs = max_epochs
        self._writers = {
            kind: tf.summary.create_file_writer(os.path.join(directory, kind)) for kind in ("train", "validation")
        }

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Logs the epoch's metrics."""
        figures = logs or {}
        for name, value in figures.items():
            with self._writers["validation" if name.startswith("val_") else "train"].as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value, step=epoch)
        for writer in self._writers.values():
            writer.flush()
        _LOGGER.info(
            "epoch %d/%d: train loss %.4f, eval log loss %.4f, eval AUC %.4f",
            epoch + 1,
            self._max_epochs,
            figures["loss"],
            figures["val_log_loss"],
            figures["val_auc"],
        )


class ShrinkTables(keras.callbacks.Callback):
    """Applies the penalty on the whole table, at the end of each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Shrinks the rows."""
        self.model.optimizer.shrink_tables()


class ShareEpoch(keras.callbacks.Callback):
    """Gives all workers the mean of what each has of its own at the end of an epoch.

    That is the training loss, and the running means of batch normalization.

    Args:
        workers: They.
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self._workers = workers

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Exchanges."""
        for index, variable in enumerate(self.model.non_trainable_variables):
            if keras.backend.is_float_dtype(variable.dtype):
                variable.assign(self._workers.mean(f"statistics/{index}", variable.value))
        if logs and "loss" in logs:
            metric = loss_metric(self.model)
            sums = tf.constant([number(metric.total), number(metric.count)], tf.float64)
            total, count = self._workers.mean("loss", sums).numpy()
            logs["loss"] = float(total / count) if count else 0.0


def compile_model(model: DeepFM, config: TrainingConfig, first_step: int = 0, workers: Workers = ALONE) -> None:
    """Gives a model the loss and the optimizer that `fit` trains it with.

    Args:
        model: The model.
        config: The optimizer's settings.
        first_step: How many steps an earlier training took that this one goes on from.
        workers: Those that take each step together.
    """
    rest = FusedAdam() if config.optimizer == "adam" else keras.optimizers.get(config.optimizer)
    rest.name = (
        config.optimizer
    )  # not one with a number, which a process's second optimizer has: a warm start goes by it
    rest.learning_rate = _learning_rate(config, first_step)
    rate = config.table_learning_rate / config.learning_rate if config.table_learning_rate else 1.0
    model.compile(
        optimizer=RowSparse(rest, ROW_RULES[config.table_optimizer](), model.tables, model.table_l2, workers, rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False,  # XLA gathers rows slowly on CPUs, and compiles for seconds
    )
    model.optimizer.build(model.trainable_variables)  # a step reads the slots with the rows
    if workers is ALONE:
        model.steps_per_call = min(STEPS_PER_CALL, config.checkpoint_steps or STEPS_PER_CALL)


class Training(NamedTuple):
    """What a training came to, besides its model.

    Attributes:
        history: The metrics of each epoch, by their names.
        cold: What had no counterpart in the state that it went on from, in words; empty where it went on from none.
    """

    history: dict[str, list[float]]
    cold: tuple[str, ...]


def train(
    model: DeepFM,
    train_data: tf.data.Dataset,
    eval_data: tf.data.Dataset,
    config: TrainingConfig,
    tensorboard_dir: str,
    checkpoints_dir: str | None = None,
    position: tf.Variable | None = None,
    earlier_state: pathlib.Path | None = None,
    workers: Workers = ALONE,
) -> Training:
    """Trains a model in place; it ends with the weights of the epoch with the best `config.monitor`.

    Of several workers only the chief writes anything, and has the best epoch's weights at the end.

    Where `checkpoints_dir` has the state of a training that did not end, that one is gone on with.

    Args:
        model: The model.
        train_data: Batches of (features, label [batch, 1]) or (features, label, weight [batch]), one epoch.
        eval_data: The same of the eval split.
        config: The training's settings.
        tensorboard_dir: Where TensorBoard's logs go.
        checkpoints_dir: Where the training's state is kept; the caller removes it when it is needed no more. None for
            a training that cannot be resumed.
        position: The `position` of `train_data`, see `trainer.input.shuffled_batches`.
        earlier_state: What `trainer.warm_start.save_state` wrote of the training that this one goes on from, or None.
        workers: Those that train together, each on its share of the batches.

    Returns:
        The metrics of each epoch, and what started cold.

    Raises:
        WorkersError: The workers go on from different states.
        NonFiniteLossError: The loss is NaN or infinite. The last checkpoint is that of a state before.
        ValueError: There is nothing to learn from, or nothing to measure.
    """
    first_step = read_steps(earlier_state) if earlier_state else 0
    compile_model(model, config, first_step, workers)
    cold: tuple[str, ...] = ()
    if earlier_state:
        cold = warm_start(model, earlier_state, config.negative_sampling_rate)
        _LOGGER.info(
            "warm start from %s; %s", earlier_state, f"cold are {', '.join(cold)}" if cold else "nothing is cold"
        )
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        train_data = train_data.map(model.plan_batch).prefetch(tf.data.AUTOTUNE)
    average = None
    if config.average_from is not None:
        # What starts cold has no weights yet that are worth a share of the mean.
        begins_trained = earlier_state is not None and not cold
        average = AverageWeights(model, max(config.average_from, 0 if begins_trained else 1), model.tables)
    with tempfile.TemporaryDirectory() as temporary:
        state = average.state if average else []
        checkpoints = Checkpoints(pathlib.Path(checkpoints_dir or temporary), model, workers.is_chief, state)
        workers.wait()  # until the chief's checkpoints are in order
        progress = checkpoints.restore()
        workers.agree(f"{progress.epoch} epochs and {progress.batch} batches, the state of {checkpoints_dir}")
        _draw_otherwise(model, workers.rank)
        if progress.epoch or progress.batch:
            _LOGGER.info("resumed after %d epochs and %d batches", progress.epoch, progress.batch)
        best = KeepBest(checkpoints, progress, f"val_{config.monitor}", config.patience, config.reduce_on_plateau)
        callbacks = [ShareEpoch(workers)] if workers.number > 1 else []
        callbacks += [FillUnseen()] if model.has_unseen_rows else []
        callbacks += [ShrinkTables()] if model.table_l2 else []
        callbacks += [average] if average else []
        callbacks += [
            EvalMetrics(eval_data, logit_shift(config.negative_sampling_rate), workers),
            KeepState(checkpoints, progress, config.checkpoint_steps, config.checkpoint_minutes),
        ]
        callbacks += [EpochLog(config.max_epochs, tensorboard_dir)] if workers.is_chief else []
        callbacks += [best]
        while progress.epoch < config.max_epochs and not best.is_over():
            data = train_data
            if config.max_steps:
                left = config.max_steps - (steps_taken(model) - first_step)
                if not left and not progress.batch:
                    _LOGGER.info("ended after %d steps, which is training.max_steps", config.max_steps)
                    break
                data = train_data.take(left)
            if position is not None:
                position.assign([progress.epoch, progress.batch])
            _fit_epoch(model, data, progress, callbacks, checkpoints_dir)
        if workers.is_chief:
            checkpoints.restore_best(progress)
    return Training({name: [epoch[name] for epoch in progress.history] for name in progress.history[0]}, cold)


def _fit_epoch(
    model: DeepFM,
    train_data: tf.data.Dataset,
    progress: Progress,
    callbacks: list[keras.callbacks.Callback],
    kept_in: str | None,
) -> None:
    """Trains for one epoch, or the rest of one: Keras takes the first one's number of batches for all."""
    first = steps_taken(model) - progress.batch
    try:
        with warnings.catch_warnings():
            # Of a data set that does not know its length Keras thinks that it has ended too early.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            model.fit(
                train_data, initial_epoch=progress.epoch, epochs=progress.epoch + 1, verbose=0, callbacks=callbacks
            )
    except (tf.errors.OpError, NonFiniteLossError) as error:
        if isinstance(error, NonFiniteLossError):  # `EvalMetrics`'
            where, offender = f"on the eval split after epoch {progress.epoch + 1}", str(error)
        elif model.offender:
            where = f"in epoch {progress.epoch + 1}, batch {steps_taken(model) - first + 1}"
            offender = model.offender
        else:
            raise
        has_kept = kept_in and any(pathlib.Path(kept_in).glob("*"))
        kept = f". The last good checkpoint is kept in {kept_in}" if has_kept else ""
        raise NonFiniteLossError(f"the loss is not finite {where}: {offender}{kept}") from None


def _draw_otherwise(model: DeepFM, rank: int) -> None:
    """Lets a worker draw other numbers for dropout than the chief, whose seeds a checkpoint has."""
    for variable in model.non_trainable_variables:
        if variable.path.endswith("seed_generator_state"):
            variable.assign(variable.value + tf.constant([rank, 0], variable.dtype))


class _From(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that counts from a training's own first step."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, first_step: int) -> None:
        self._schedule = schedule
        self._first_step = first_step

    def __call__(self, step: Any) -> Any:
        return self._schedule(step - self._first_step)


def _learning_rate(config: TrainingConfig, first_step: int) -> Any:
    """Returns the step size, or the schedule that gives it for each step."""
    if not (config.warmup_steps or config.decay_steps):
        return config.learning_rate
    if config.decay_steps:
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0 if config.warmup_steps else config.learning_rate,
            config.decay_steps,
            warmup_target=config.learning_rate if config.warmup_steps else None,
            warmup_steps=config.warmup_steps,
        )
    else:
        schedule = keras.optimizers.schedules.PolynomialDecay(0.0, config.warmup_steps, config.learning_rate)
    return _From(schedule, first_step)
