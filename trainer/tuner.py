"""The TFX Tuner's entry: a random search, compared on the newest rows of the training split."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import pydantic
import tensorflow as tf
import tensorflow_transform as tft
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from tensorflow.python.framework import ops
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from schemas.features import FeatureSpec
from schemas.tfmd import TRAINING
from trainer.finite import NonFiniteLossError
from trainer.hyperparameters import TunerConfig, find_choices, with_hyperparameters
from trainer.input import CHUNK
from trainer.loop import fit
from trainer.run import read_settings
from trainer.signatures import raw_feature_spec

_LOGGER = logging.getLogger(__name__)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Returns the search.

    Args:
        fn_args: `train_files` are raw examples, whose files in the order of their names are the log in order;
            `custom_config` has what `run_fn`'s has, but no `checkpoints`, and `tuner` (the fields of `TunerConfig`).
            Everything that is written goes to `working_dir`.
    """
    spec, model_config, training_config = read_settings(fn_args)
    config = pydantic.TypeAdapter(TunerConfig).validate_json(fn_args.custom_config["tuner"])
    train_chunks, validation_chunks = split_newest(
        fn_args.train_files,
        spec,
        tft.TFTransformOutput(fn_args.transform_graph_path),
        config.validation_share,
        fn_args.working_dir,
    )
    figure = f"val_{training_config.monitor}"
    direction = "max" if training_config.monitor == "auc" else "min"

    def measure(values: Mapping[str, Any]) -> float:
        of_model, of_training = with_hyperparameters(model_config, training_config, values)
        of_training = dataclasses.replace(of_training, max_epochs=config.epochs or of_training.max_epochs)
        with tempfile.TemporaryDirectory(dir=fn_args.working_dir) as logs, released_models():
            _, training = fit(spec, of_model, of_training, train_chunks, validation_chunks, logs)
        figures = [value for value in training.history[figure] if math.isfinite(value)]
        return (max if direction == "max" else min)(figures, default=math.nan)

    hyperparameters = keras_tuner.HyperParameters()
    for name, choices in find_choices(config, model_config, training_config).items():
        hyperparameters.Choice(name, choices)
    oracle = ConfigFirst(
        objective=keras_tuner.Objective(figure, direction),
        max_trials=config.trials,
        seed=training_config.seed or 2**31,  # KerasTuner takes 0 for none
        hyperparameters=hyperparameters,
        max_consecutive_failed_trials=config.trials + 1,
    )
    return TunerFnResult(tuner=RandomSearch(measure, oracle, fn_args.working_dir), fit_kwargs={})


def split_newest(
    patterns: Sequence[str],
    spec: FeatureSpec,
    transform_output: tft.TFTransformOutput,
    newest_share: float,
    directory: str,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Transforms the rows of a split and separates its newest ones.

    Raw examples, because Transform writes its files in any order. They are transformed once, for all trials.

    Args:
        patterns: File patterns of gzipped TFRecords of raw examples; the files in the order of their names are the log
            in order.
        spec: The data set.
        transform_output: The output of TFX Transform.
        newest_share: Share of the rows that is separated, at least one row.
        directory: Where the transformed rows go.

    Returns:
        The older rows and the newest ones, as `trainer.input.read_chunks` has them.

    Raises:
        ValueError: There are fewer than two rows.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP")
    num_rows = int(records.batch(CHUNK).reduce(np.int64(0), lambda rows, chunk: rows + tf.size(chunk, tf.int64)))
    if num_rows < 2:
        raise ValueError(f"the training split has {num_rows} rows: too few to keep some of them for tuning")
    num_newest = min(max(1, round(num_rows * newest_share)), num_rows - 1)
    transform_layer = transform_output.transform_features_layer()
    parsing = raw_feature_spec(spec, TRAINING)

    def transform(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(transform_layer(tf.io.parse_example(examples, parsing)))

    def write(rows: tf.data.Dataset, name: str) -> tf.data.Dataset:
        path = os.path.join(directory, name)
        rows.batch(CHUNK).map(transform, num_parallel_calls=tf.data.AUTOTUNE).save(path, compression="GZIP")
        return tf.data.Dataset.load(path, compression="GZIP")

    num_older = num_rows - num_newest
    _LOGGER.info(
        "trials learn from the %d oldest rows of the training split; what they call eval are its %d newest",
        num_older,
        num_newest,
    )
    return write(records.take(num_older), "older"), write(records.skip(num_older), "newest")


@contextlib.contextmanager
def released_models() -> Iterator[None]:
    """Frees the memory of the models that are trained within.

    TensorFlow keeps what a trace has registered as long as the process lives: a `tf.custom_gradient` in its table of
    gradients, a `tf.numpy_function` in the default graph. Each of them keeps its model, with the embedding table and
    the optimizer's slots.
    """
    gradients = ops.gradient_registry._registry
    before = set(gradients)
    try:
        yield
    finally:
        for name in set(gradients) - before:
            del gradients[name]
        keras.utils.clear_session()  # a new default graph


class ConfigFirst(keras_tuner.oracles.RandomSearchOracle):
    """A random search that begins with the first choice of each: the config's own values.

    So what is best is at least as good as these, on the rows on which trials are compared.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of the next trial, see `keras_tuner.Oracle`."""
        if self.trials:
            return dict(super().populate_space(trial_id))
        own = {choice.name: choice.default for choice in self.hyperparameters.space}
        return {"status": TrialStatus.RUNNING, "values": own}


class RandomSearch(BaseTuner):
    """Runs the trials and logs a line for each.

    A trial whose loss is not finite has failed; with the config's own values this ends the search, as any other error
    does. KerasTuner itself would go on after every error.

    Args:
        measure: Trains with the values of one trial and returns the objective, NaN where there is none.
        oracle: Chooses the values.
        directory: Where KerasTuner keeps its state. What an earlier search has left there is removed: a search that was
            killed begins anew.
    """

    def __init__(
        self, measure: Callable[[Mapping[str, Any]], float], oracle: keras_tuner.Oracle, directory: str
    ) -> None:
        super().__init__(oracle, directory=directory, project_name="trials", overwrite=True)
        oracle.verbose = 0
        self._measure = measure

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Returns the objective of one trial.

        Raises:
            FailedTrialError: The trial has none; the search goes on.
            FatalError: Anything else, or the first trial has none.
        """
        values = trial.hyperparameters.values
        objective = self.oracle.objective.name
        try:
            figure = self._measure(values)
            if math.isnan(figure):
                raise NonFiniteLossError(f"{objective} is not a number: the validation rows may be of one class only")
        except NonFiniteLossError as error:
            if int(trial.trial_id) == 0:
                raise keras_tuner.errors.FatalError(str(error)) from error
            self._log(trial, f"failed: {error}")
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(str(error)) from error
        return {objective: figure}

    def on_trial_end(self, trial: Trial) -> None:
        """Logs what became of it."""
        super().on_trial_end(trial)
        if trial.status == TrialStatus.COMPLETED:
            (best,) = self.oracle.get_best_trials(1)
            name = self.oracle.objective.name
            self._log(trial, f"{name} {trial.score:.4f}, best {best.score:.4f} of trial {int(best.trial_id) + 1}")

    def _log(self, trial: Trial, outcome: str) -> None:
        values = ", ".join(f"{name} {value}" for name, value in trial.hyperparameters.values.items())
        _LOGGER.info("trial %d/%d: %s; %s", int(trial.trial_id) + 1, self.oracle.max_trials, outcome, values)
