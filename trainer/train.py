"""The training loop: a row-sparse optimizer, early stopping on the eval split, the best epoch's weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from trainer.config import TrainingConfig
from trainer.model import DeepFM
from trainer.optimizers import ROW_RULES, RowSparse

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_LOGGER = logging.getLogger(__name__)


class EvalMetrics(keras.callbacks.Callback):
    """Measures the model on the eval split at the end of each epoch, for the callbacks after it.

    Not done by Keras's own metrics: these would be updated in every training step too, which costs more than the step,
    and their AUC is binned.

    Adds to the logs: `val_log_loss`; `val_auc`; `val_linear`, `val_fm` and `val_deep`, the terms' mean magnitudes.

    Args:
        batches: Batches of (features, label [batch, 1]).
    """

    def __init__(self, batches: tf.data.Dataset) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures."""
        terms, labels = [], []
        for features, label in self._batches:
            terms.append(self._terms(features).numpy())
            labels.append(label.numpy()[:, 0])
        term_values = np.concatenate(terms, axis=1)  # [3, num_examples]
        logits, clicks = term_values.sum(axis=0), np.concatenate(labels)
        figures = {"log_loss": log_loss(clicks, logits), "auc": auc(clicks, logits)}
        figures |= dict(zip(("linear", "fm", "deep"), np.abs(term_values).mean(axis=1), strict=True))
        if logs is not None:
            logs.update({f"val_{name}": float(value) for name, value in figures.items()})

    @tf.function(reduce_retracing=True)
    def _terms(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.stack([term[:, 0] for term in self.model.terms(features)])


class FillUnseen(keras.callbacks.Callback):
    """Gives the ids that training has not read the row for unseen ones, at the end of each epoch.

    A pass over the table, once an epoch. A row that is read later goes on from there.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Fills the rows."""
        (table,) = self.model.tables
        self.model.embedding_table.fill_unseen(self.model.optimizer.is_untouched(table))


def log_loss(labels: Floats, logits: Floats) -> float:
    """Returns the mean of -log p(label), natural logarithm.

    Args:
        labels: 0 or 1, float32 [num_examples].
        logits: float32 [num_examples].
    """
    return float(np.mean(np.logaddexp(0, np.where(labels > 0, -logits, logits), dtype=np.float64)))


def auc(labels: Floats, scores: Floats) -> float:
    """Returns the exact area under the ROC curve: the share of (click, no click) pairs in the right order, ties half.

    Args:
        labels: 0 or 1, float32 [num_examples].
        scores: float32 [num_examples].

    Returns:
        NaN where there is only one class.
    """
    _, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = (np.cumsum(counts) - (counts - 1) / 2)[position]  # [num_examples], from 1
    num_clicks = float(np.sum(labels > 0))
    num_pairs = num_clicks * (len(labels) - num_clicks)
    if not num_pairs:
        return math.nan
    return float((mean_rank[labels > 0].sum() - num_clicks * (num_clicks + 1) / 2) / num_pairs)


class EpochLog(keras.callbacks.Callback):
    """Logs one line at the end of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Logs the epoch's metrics."""
        figures = logs or {}
        _LOGGER.info(
            "epoch %d/%d: train loss %.4f, eval log loss %.4f, eval AUC %.4f",
            epoch + 1,
            self.params["epochs"],
            figures["loss"],
            figures["val_log_loss"],
            figures["val_auc"],
        )


def train(
    model: DeepFM,
    train_data: tf.data.Dataset,
    eval_data: tf.data.Dataset,
    config: TrainingConfig,
    tensorboard_dir: str,
) -> keras.callbacks.History:
    """Trains a model in place; it ends with the weights of the epoch with the best `config.monitor`.

    Args:
        model: The model.
        train_data: Batches of (features, label [batch, 1]), one epoch.
        eval_data: The same of the eval split.
        config: The training's settings.
        tensorboard_dir: Where TensorBoard's logs go.

    Returns:
        The metrics of each epoch.
    """
    monitor = {"monitor": f"val_{config.monitor}", "mode": "max" if config.monitor == "auc" else "min"}
    callbacks = [FillUnseen()] if model.has_unseen_rows else []
    callbacks += [EvalMetrics(eval_data), keras.callbacks.TensorBoard(tensorboard_dir), EpochLog()]
    if config.reduce_on_plateau:
        callbacks.append(keras.callbacks.ReduceLROnPlateau(**monitor, factor=config.reduce_on_plateau, patience=1))
    callbacks.append(keras.callbacks.EarlyStopping(**monitor, patience=config.patience, restore_best_weights=True))
    model.compile(
        optimizer=RowSparse(
            keras.optimizers.Adam(_learning_rate(config)), ROW_RULES[config.table_optimizer](), model.tables
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False,  # XLA gathers rows slowly on CPUs, and compiles for seconds
    )
    return model.fit(train_data, epochs=config.max_epochs, verbose=0, callbacks=callbacks)


def _learning_rate(config: TrainingConfig) -> Any:
    """Returns the step size, or the schedule that gives it for each step."""
    if not (config.warmup_steps or config.decay_steps):
        return config.learning_rate
    if config.decay_steps:
        return keras.optimizers.schedules.CosineDecay(
            0.0 if config.warmup_steps else config.learning_rate,
            config.decay_steps,
            warmup_target=config.learning_rate if config.warmup_steps else None,
            warmup_steps=config.warmup_steps,
        )
    return keras.optimizers.schedules.PolynomialDecay(0.0, config.warmup_steps, config.learning_rate)
