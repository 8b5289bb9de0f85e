"""The training loop: a row-sparse optimizer, early stopping on the eval split, the best epoch's weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import keras
import tensorflow as tf

from trainer.config import TrainingConfig
from trainer.model import DeepFM
from trainer.optimizers import ROW_RULES, RowSparse

_LOGGER = logging.getLogger(__name__)


class EpochLog(keras.callbacks.Callback):
    """Logs one line at the end of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Logs the epoch's metrics."""
        figures = logs or {}
        _LOGGER.info(
            "epoch %d/%d: train log loss %.4f, eval log loss %.4f, eval AUC %.4f",
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
    model.compile(
        optimizer=RowSparse(
            keras.optimizers.Adam(config.learning_rate), ROW_RULES[config.table_optimizer](), model.tables
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.BinaryCrossentropy(from_logits=True, name="log_loss"),
            keras.metrics.AUC(num_thresholds=2000, from_logits=True, name="auc"),
        ],
        jit_compile=False,  # XLA gathers rows slowly on CPUs, and compiles for seconds
    )
    return model.fit(
        train_data,
        validation_data=eval_data,
        epochs=config.max_epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.TensorBoard(tensorboard_dir),
            EpochLog(),
            keras.callbacks.EarlyStopping(
                f"val_{config.monitor}",
                mode="max" if config.monitor == "auc" else "min",
                patience=config.patience,
                restore_best_weights=True,
            ),
        ],
    )
