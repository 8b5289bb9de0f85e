"""The project's models, trained on arrays for a given number of epochs."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from benchmarks.quality_data import Array, Rows
from schemas.features import IDS, NUMBERS, FeatureSpec
from trainer.average import AverageWeights
from trainer.config import ModelConfig, TrainingConfig
from trainer.model import DeepFM, model_fn
from trainer.train import EvalMetrics, FillUnseen, auc, compile_model, log_loss


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a model reaches on rows that it has not seen.

    Attributes:
        auc: Exact area under the ROC curve.
        log_loss: Mean of -log p(label), natural logarithm.
    """

    auc: float
    log_loss: float


def fit(
    spec: FeatureSpec,
    model_config: ModelConfig,
    config: TrainingConfig,
    train: Rows,
    num_epochs: int,
    validation: Rows | None = None,
    patience: int | None = None,
) -> tuple[DeepFM, list[Figures]]:
    """Trains a model as `trainer.train.train` does, but keeps the weights of the last epoch, not those of the best.

    Args:
        spec: The features.
        model_config: The model.
        config: The training; its `max_epochs`, `patience` and `monitor` are not used.
        train: What it learns from.
        num_epochs: Passes over `train`.
        validation: Rows to measure after each epoch, or None.
        patience: Epochs without a better validation log loss after which it ends, or None.

    Returns:
        The model, and the figures of each epoch on `validation`.
    """
    model = model_fn(spec, model_config, config.seed)
    callbacks: list[keras.callbacks.Callback] = [FillUnseen()] if model.has_unseen_rows else []
    if config.average_from:
        callbacks.append(AverageWeights(model, config.average_from, model.tables))
    if validation is not None:
        callbacks.append(EvalMetrics(batches(validation, 10_000)))
    if patience is not None:
        callbacks.append(keras.callbacks.EarlyStopping(monitor="val_log_loss", mode="min", patience=patience))
    compile_model(model, config)
    data = batches(train, config.batch_size, seed=config.seed)
    logs = model.fit(data, epochs=num_epochs, verbose=0, callbacks=callbacks).history
    return model, [Figures(*pair) for pair in zip(logs.get("val_auc", ()), logs.get("val_log_loss", ()), strict=True)]


def batches(rows: Rows, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
    """Returns batches of (features, label [batch, 1]); with a seed, shuffled over all rows and anew each epoch."""
    features = {IDS: tf.constant(rows.ids)}
    if rows.numbers.shape[1]:
        features[NUMBERS] = tf.constant(rows.numbers)
    labels = tf.constant(rows.labels[:, np.newaxis])
    order = tf.data.Dataset.range(len(rows))
    if seed is not None:
        order = order.shuffle(len(rows), seed=seed)

    def take(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        return {name: tf.gather(values, index) for name, values in features.items()}, tf.gather(labels, index)

    return order.batch(batch_size).map(take).prefetch(2)


def logits_of(model: DeepFM, rows: Rows) -> Array:
    """Returns the model's logits, float32 [num_rows]."""
    logits: Array = np.concatenate([model(features).numpy()[:, 0] for features, _ in batches(rows, 10_000)])
    return logits


def measure(labels: Array, logits: Array) -> Figures:
    """Returns the exact figures of logits, float32 [num_rows]."""
    return Figures(auc(labels, logits), log_loss(labels, logits))


def best_epoch(folds: list[list[Figures]]) -> tuple[int, Figures]:
    """Returns the epoch, from 1, with the best mean validation log loss of several runs, and its mean figures."""
    num_epochs = min(len(run) for run in folds)
    means = [
        Figures(
            float(np.mean([run[epoch].auc for run in folds])), float(np.mean([run[epoch].log_loss for run in folds]))
        )
        for epoch in range(num_epochs)
    ]
    losses = [mean.log_loss if not math.isnan(mean.log_loss) else math.inf for mean in means]
    best = int(np.argmin(losses))
    return best + 1, means[best]
