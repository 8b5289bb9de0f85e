"""The TFX Trainer's entry."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil

import pydantic
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from schemas.features import load_spec
from trainer.config import ModelConfig, TrainingConfig
from trainer.export import export
from trainer.input import eval_batches, train_batches
from trainer.model import model_fn
from trainer.train import train


def run_fn(fn_args: FnArgs) -> None:
    """Trains a DeepFM on transformed examples and exports it with the transformation.

    Args:
        fn_args: `custom_config` has `features` (the spec's path), `model` and `training` (the fields of `ModelConfig`
            and `TrainingConfig`) and `checkpoints`, a folder that outlives a run that is killed. The SavedModel goes to
            `serving_model_dir`, TensorBoard's logs to `model_run_dir`.
    """
    spec = load_spec(fn_args.custom_config["features"])
    model_config = pydantic.TypeAdapter(ModelConfig).validate_json(fn_args.custom_config["model"])
    training_config = pydantic.TypeAdapter(TrainingConfig).validate_json(fn_args.custom_config["training"])

    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    parsing = transform_output.transformed_feature_spec()
    position = tf.Variable([0, 0], dtype=tf.int64)
    train_data = train_batches(
        fn_args.train_files,
        parsing,
        training_config.batch_size,
        training_config.shuffle_buffer,
        training_config.seed,
        training_config.negative_sampling_rate,
        position,
    )
    eval_data = eval_batches(fn_args.eval_files, parsing, training_config.batch_size)
    checkpoints_dir = _checkpoints_dir(fn_args)
    several = len(tf.config.list_logical_devices("GPU")) > 1
    with tf.distribute.MirroredStrategy().scope() if several else contextlib.nullcontext():
        model = model_fn(spec, model_config, training_config.seed)
        train(
            model,
            train_data,
            eval_data,
            training_config,
            os.path.join(fn_args.model_run_dir, "tensorboard"),
            checkpoints_dir,
            position,
        )
    export(model, transform_output, spec, fn_args.serving_model_dir, training_config.negative_sampling_rate)
    shutil.rmtree(os.path.dirname(checkpoints_dir))


def _checkpoints_dir(fn_args: FnArgs) -> str:
    """Returns where this training keeps its state: a folder that a training with other inputs or settings has not."""
    identity = json.dumps(
        [fn_args.train_files, fn_args.eval_files, fn_args.transform_graph_path, fn_args.custom_config], sort_keys=True
    )
    return os.path.join(fn_args.custom_config["checkpoints"], hashlib.sha256(identity.encode()).hexdigest()[:16])
