"""The TFX Trainer's entry, and the training that it and the Tuner's trials have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import shutil

import keras
import pydantic
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from schemas import training_log
from schemas.features import FeatureSpec, load_spec
from schemas.training_log import TrainingLog
from trainer.config import ModelConfig, TrainingConfig
from trainer.export import export
from trainer.hyperparameters import with_hyperparameters
from trainer.input import ordered_batches, read_chunks, shuffled_batches
from trainer.model import DeepFM, model_fn
from trainer.train import train
from trainer.warm_start import FOLDER, save_state

_LOGGER = logging.getLogger(__name__)


def run_fn(fn_args: FnArgs) -> None:
    """Trains a DeepFM on transformed examples and exports it with the transformation.

    Args:
        fn_args: `custom_config` has `features` (the spec's path), `model` and `training` (the fields of `ModelConfig`
            and `TrainingConfig`) and `checkpoints`, a folder that outlives a run that is killed. `hyperparameters`,
            where there are any, have the Tuner's choice, which goes before `custom_config`'s. `base_model`, where there
            is one, is what a `warm_start` goes on from. The SavedModel goes to `serving_model_dir`, the
            figures of the epochs and what a later training can go on from beside it, TensorBoard's logs to
            `model_run_dir`.
    """
    spec, model_config, training_config = read_settings(fn_args)
    if fn_args.hyperparameters:
        values = fn_args.hyperparameters["values"]
        model_config, training_config = with_hyperparameters(model_config, training_config, values)

    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    parsing = transform_output.transformed_feature_spec()
    checkpoints_dir = _checkpoints_dir(fn_args)
    model, history = fit(
        spec,
        model_config,
        training_config,
        read_chunks(fn_args.train_files, parsing, num_files=4),
        read_chunks(fn_args.eval_files, parsing),
        os.path.join(fn_args.model_run_dir, "tensorboard"),
        checkpoints_dir,
        _earlier_state(fn_args) if training_config.warm_start else None,
    )
    if training_config.warm_start:
        save_state(model, _state_beside(fn_args.serving_model_dir))
    for table in model.tables:
        table.add_slots(0, 0.0)  # what is served has no use for them
    card = {
        "model": dataclasses.asdict(model_config),
        "training": dataclasses.asdict(training_config),
        "epochs": {name: [float(value) for value in values] for name, values in history.history.items()},
    }
    export(model, transform_output, spec, fn_args.serving_model_dir, training_config.negative_sampling_rate, card)
    log = TrainingLog.from_history(history.history, f"val_{training_config.monitor}")
    pathlib.Path(fn_args.serving_model_dir).with_name(training_log.FILE).write_text(log.to_json(), encoding="utf-8")
    shutil.rmtree(os.path.dirname(checkpoints_dir))


def read_settings(fn_args: FnArgs) -> tuple[FeatureSpec, ModelConfig, TrainingConfig]:
    """Returns the data set and the settings that `custom_config` has; see `run_fn`."""
    return (
        load_spec(fn_args.custom_config["features"]),
        pydantic.TypeAdapter(ModelConfig).validate_json(fn_args.custom_config["model"]),
        pydantic.TypeAdapter(TrainingConfig).validate_json(fn_args.custom_config["training"]),
    )


def fit(
    spec: FeatureSpec,
    model_config: ModelConfig,
    training_config: TrainingConfig,
    train_chunks: tf.data.Dataset,
    eval_chunks: tf.data.Dataset,
    tensorboard_dir: str,
    checkpoints_dir: str | None = None,
    earlier_state: pathlib.Path | None = None,
) -> tuple[DeepFM, keras.callbacks.History]:
    """Makes a model and trains it, on all GPUs where there are several.

    Args:
        spec: The data set.
        model_config: The model's settings.
        training_config: The training's settings.
        train_chunks: What it learns from, see `trainer.input.read_chunks`.
        eval_chunks: What the best epoch is chosen on.
        tensorboard_dir: See `trainer.train.train`, and so for `checkpoints_dir`, the metrics and the errors.
        checkpoints_dir: See there.
        earlier_state: See there.

    Returns:
        The model with the best epoch's weights, and the metrics of each epoch.
    """
    position = tf.Variable([0, 0], dtype=tf.int64)
    train_data = shuffled_batches(
        train_chunks,
        training_config.batch_size,
        training_config.shuffle_buffer,
        training_config.seed,
        training_config.negative_sampling_rate,
        position,
    )
    eval_data = ordered_batches(eval_chunks, training_config.batch_size)
    several = len(tf.config.list_logical_devices("GPU")) > 1
    with tf.distribute.MirroredStrategy().scope() if several else contextlib.nullcontext():
        model = model_fn(spec, model_config, training_config.seed)
        history = train(
            model, train_data, eval_data, training_config, tensorboard_dir, checkpoints_dir, position, earlier_state
        )
    return model, history


def _earlier_state(fn_args: FnArgs) -> pathlib.Path | None:
    """Returns what the base model's training has left, if there is any."""
    if not fn_args.base_model:
        _LOGGER.info("cold start: there is no earlier blessed model")
        return None
    state = _state_beside(fn_args.base_model)
    if not state.is_dir():
        _LOGGER.info("cold start: the earlier blessed model was trained without training.warm_start, %s", state)
        return None
    return state


def _state_beside(saved_model: str) -> pathlib.Path:
    return pathlib.Path(saved_model).parent / FOLDER


def _checkpoints_dir(fn_args: FnArgs) -> str:
    """Returns where this training keeps its state: a folder that a training with other inputs or settings has not."""
    inputs = [fn_args.train_files, fn_args.eval_files, fn_args.transform_graph_path, fn_args.base_model]
    identity = json.dumps([*inputs, fn_args.custom_config, fn_args.hyperparameters], sort_keys=True)
    return os.path.join(fn_args.custom_config["checkpoints"], hashlib.sha256(identity.encode()).hexdigest()[:16])
