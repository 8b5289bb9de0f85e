"""The rows of a table, each with what the optimizer keeps for it right beside it.

A row of a large table is somewhere in memory where the processor has not been lately, and a training step has to go
there. With the row's slots beside it, a step goes there once: it reads each different row of the batch, computes with
what it has read, and writes the row back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class ReadRows(NamedTuple):
    """What a step has read of a table: each different row of the batch once.

    Attributes:
        rows: The numbers of the different rows, int32 [num_read].
        position: Where in `rows` the row of each of the batch's positions is, int32 [batch, num_positions].
        values: The rows, float32 [num_read, width].
        stored: The rows with what is kept for each, float32 [num_read, width + slot_width].
    """

    rows: tf.Tensor
    position: tf.Tensor
    values: tf.Tensor
    stored: tf.Tensor

    def of_positions(self) -> tf.Tensor:
        """Returns each position's row, float32 [batch, num_positions, width]."""
        return tf.gather(self.values, self.position)

    def sum_of(self, position: tf.Tensor) -> tf.Tensor:
        """Returns sums of rows; the gradient of one goes to all of its rows in one operation.

        Args:
            position: Some columns of `self.position`, int32 [batch, num_summed].

        Returns:
            float32 [batch, width].
        """

        @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
        def add(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def gradient(d_sums: tf.Tensor) -> tf.Tensor:
                example = tf.broadcast_to(tf.range(tf.shape(position)[0])[:, tf.newaxis], tf.shape(position))
                return tf.raw_ops.SparseSegmentSumGrad(
                    grad=d_sums,
                    indices=tf.reshape(position, [-1]),
                    segment_ids=tf.reshape(example, [-1]),
                    output_dim0=tf.shape(values)[0],
                )

            return tf.reduce_sum(tf.gather(values, position), axis=1), gradient

        return add(self.values)


class Plan(NamedTuple):
    """Which rows of a table a step will read; see `ReadRows`.

    Attributes:
        rows: int32 [num_read].
        position: int32 [batch, num_positions].
    """

    rows: tf.Tensor
    position: tf.Tensor


def plan(rows: tf.Tensor) -> Plan:
    """Returns what to read, each different row once.

    Args:
        rows: The rows' numbers, int32 [batch, num_positions].
    """
    different, position = tf.unique(tf.reshape(rows, [-1]))
    return Plan(different, tf.reshape(position, tf.shape(rows)))


class RowTable(keras.layers.Layer):
    """A variable of rows that are read by their numbers.

    Attributes:
        table: The variable, float32 [num_rows, width + slot_width]; an optimizer adds the slots, see `add_slots`.

    Args:
        num_rows: Number of rows.
        width: Length of a row.
        initializer: Makes the rows: (shape, dtype) -> [num_rows, width].
        name: The layer's name.
    """

    def __init__(self, num_rows: int, width: int, initializer: Callable[..., Any], name: str) -> None:
        super().__init__(name=name)
        self.shape = (num_rows, width)
        self._initializer = initializer
        self.slot_width = 0

    def build(self, input_shape: Any = None) -> None:
        """Makes the rows."""
        self.table = self.add_weight(name="rows", shape=self.shape, initializer=self._initializer)

    def add_slots(self, width: int, initial: float) -> None:
        """Puts slots beside the rows, in the place of those that there are.

        Args:
            width: How many numbers are kept for a row; 0 takes the slots away.
            initial: What each of them is.
        """
        values = self.values()

        def initializer(shape: tuple[int, int], dtype: str) -> tf.Tensor:
            return tf.concat([values, tf.fill([shape[0], width], tf.cast(initial, dtype))], axis=1) if width else values

        del self.table
        self._tracker.unlock()  # as Keras's own layers do that get variables after they are built
        self.table = self.add_weight(name="rows", shape=(self.shape[0], self.shape[1] + width), initializer=initializer)
        self._tracker.lock()
        self.slot_width = width

    def values(self) -> tf.Tensor:
        """Returns all rows, float32 [num_rows, width]."""
        return tf.convert_to_tensor(self.table.value)[:, : self.shape[1]]

    def slots(self) -> tf.Tensor:
        """Returns what is kept for all rows, float32 [num_rows, slot_width]."""
        return tf.convert_to_tensor(self.table.value)[:, self.shape[1] :]

    def numpy(self) -> np.ndarray[Any, Any]:
        """Returns all rows, float32 [num_rows, width]."""
        values: np.ndarray[Any, Any] = self.values().numpy()
        return values

    def assign(self, values: Any) -> None:
        """Sets all rows, float32 [num_rows, width]."""
        self.table.assign(tf.concat([tf.cast(values, self.table.dtype), self.slots()], axis=1))

    def assign_slots(self, slots: Any) -> None:
        """Sets what is kept for all rows, float32 [num_rows, slot_width]."""
        self.table.assign(tf.concat([self.values(), tf.cast(slots, self.table.dtype)], axis=1))

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows by their numbers: [any shape] -> float32 [any shape, width]."""
        read = self._stored(rows)
        return read[..., : self.shape[1]] if self.slot_width else read

    def read(self, planned: Plan) -> ReadRows:
        """Reads rows and their slots for a step, each once."""
        read = self._stored(planned.rows)
        return ReadRows(planned.rows, planned.position, read[:, : self.shape[1]], read)

    def _stored(self, rows: tf.Tensor) -> tf.Tensor:
        # Not `tf.gather`, which waits for one row's place in memory after the other.
        return tf.gather_nd(self.table.value, tf.expand_dims(rows, -1))
