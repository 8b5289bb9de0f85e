"""From chunks of examples to a trained model, for the Trainer, its helping workers and the Tuner's trials."""

from __future__ import annotations

import contextlib
import functools
import pathlib

import tensorflow as tf

from schemas.features import FeatureSpec
from trainer.cluster import check_batch_size
from trainer.config import ModelConfig, TrainingConfig
from trainer.input import ALL, Share, ordered_batches, shuffled_batches
from trainer.model import DeepFM, model_fn
from trainer.train import Training, train
from trainer.workers import ALONE, Workers


def fit(
    spec: FeatureSpec,
    model_config: ModelConfig,
    training_config: TrainingConfig,
    train_chunks: tf.data.Dataset,
    eval_chunks: tf.data.Dataset,
    tensorboard_dir: str,
    checkpoints_dir: str | None = None,
    earlier_state: pathlib.Path | None = None,
    workers: Workers = ALONE,
) -> tuple[DeepFM, Training]:
    """Makes a model and trains it; a process that trains alone takes all GPUs, a worker the first.

    Args:
        spec: The data set.
        model_config: The model's settings.
        training_config: The training's settings.
        train_chunks: What it learns from, see `trainer.input.read_chunks`; the same for all workers.
        eval_chunks: What the best epoch is chosen on.
        tensorboard_dir: See `trainer.train.train`, and so for `checkpoints_dir`, the metrics and the errors.
        checkpoints_dir: See there.
        earlier_state: See there.
        workers: See there.

    Returns:
        The model with the best epoch's weights, and what the training came to.

    Raises:
        WorkersError: A batch cannot be divided among the workers.
    """
    check_batch_size(training_config.batch_size, workers.number)
    share = ALL if workers is ALONE else Share(workers.rank, workers.number)
    position = tf.Variable([0, 0], dtype=tf.int64)
    train_data = shuffled_batches(
        train_chunks,
        training_config.batch_size,
        training_config.shuffle_buffer,
        training_config.seed,
        training_config.negative_sampling_rate,
        position,
        share,
    )
    eval_data = ordered_batches(eval_chunks, training_config.batch_size, share)
    several = workers is ALONE and len(tf.config.list_logical_devices("GPU")) > 1
    strategy = _mirrored() if several else tf.distribute.get_strategy()
    if several and model_config.batch_norm:
        train_data = _for_each(train_data, training_config.batch_size, strategy.num_replicas_in_sync)
    with strategy.scope() if several else contextlib.nullcontext():
        model = model_fn(spec, model_config, training_config.seed)
        training = train(
            model,
            train_data,
            eval_data,
            training_config,
            tensorboard_dir,
            checkpoints_dir,
            position,
            earlier_state,
            workers,
        )
    return model, training


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    """Returns the strategy of the process: a second one would number what its devices exchange from the start again."""
    return tf.distribute.MirroredStrategy()


def _for_each(batches: tf.data.Dataset, batch_size: int, num_devices: int) -> tf.data.Dataset:
    """Leaves a last batch out that is too small for each device to get a part: the moments of no examples are NaN."""
    least = (num_devices - 1) * -(-batch_size // num_devices)
    return batches.filter(lambda features, *rest: tf.shape(rest[0])[0] > least)
