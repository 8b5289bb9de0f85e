"""The mean of the weights at the ends of several epochs, which generalizes better than those of the last one.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, with a constant step
size. The weights that training does not change by gradients, batch normalization's moving moments, are not averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.rows import RowTable, without_tables


class AverageWeights(keras.callbacks.Callback):
    """Gives the model, from some epoch's end on, the mean of the weights at the epochs' ends since then.

    Training goes on from its own weights: the mean is there between an epoch's end and the next one's begin, for what
    measures and writes the model then. A pass over all weights an epoch, nothing in the step; two more copies of them.

    Args:
        model: The model.
        first_epoch: The first epoch that counts, from 1; 0 for the weights that training begins with, too.
        tables: The model's tables: their rows are averaged, and not the slots beside them.

    Attributes:
        state: What a checkpoint must hold beside the model.
    """

    def __init__(self, model: keras.Model, first_epoch: int, tables: Sequence[RowTable] = ()) -> None:
        super().__init__()
        self._first_epoch = first_epoch
        self._parts = [*tables, *without_tables(model.trainable_variables, tables)]
        self._own = [tf.Variable(_read(part)) for part in self._parts]
        self._means = [tf.Variable(tf.zeros_like(own)) for own in self._own]
        self._count = tf.Variable(0)
        self._is_mean = tf.Variable(False)
        self.state = [*self._own, *self._means, self._count, self._is_mean]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Gives the model its own weights back."""
        if self._is_mean.numpy():
            self._give(self._own)
            self._is_mean.assign(False)
        if self._first_epoch == 0 and not self._count.numpy():  # a training that was killed has counted them
            self._take()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the epoch's weights into the mean, and gives the model the mean."""
        if epoch + 1 < self._first_epoch:
            return
        self._take()
        self._give(self._means)
        self._is_mean.assign(True)

    def _take(self) -> None:
        self._count.assign_add(1)
        for part, own, mean in zip(self._parts, self._own, self._means, strict=True):
            own.assign(_read(part))
            mean.assign_add((own - mean) / tf.cast(self._count, own.dtype))

    def _give(self, values: Sequence[tf.Variable]) -> None:
        for part, value in zip(self._parts, values, strict=True):
            part.assign(value)


def _read(part: RowTable | keras.Variable) -> tf.Tensor:
    return part.values() if isinstance(part, RowTable) else tf.convert_to_tensor(part.value)
