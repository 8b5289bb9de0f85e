"""The rows of a table, each with what the optimizer keeps for it right beside it.

A row of a large table is somewhere in memory where the processor has not been lately, and a training step has to go
there. With the row's slots beside it, a step goes there once: it reads each different row of the batch, computes with
what it has read, and writes the row back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.kernels import own_kernels

CACHE_LINE = 16  # float32 numbers
MAX_INT32 = 2**31 - 1


class ReadRows(NamedTuple):
    """What a step has read of a table: each different row of the batch once.

    Attributes:
        rows: The numbers of the different rows, int32 [num_read].
        position: Where in `rows` the row of each of the batch's positions is, int32 [batch, num_positions].
        values: The rows, float32 [num_read, width].
        stored: The rows with what is kept for each, float32 [num_read, stride]; None where the table has kernels of
            its own, which step a row where it is.
    """

    rows: tf.Tensor
    position: tf.Tensor
    values: tf.Tensor
    stored: tf.Tensor | None

    def of_positions(self) -> tf.Tensor:
        """Returns each position's row, float32 [batch, num_positions, width]."""
        return tf.gather(self.values, self.position)


def stride_of(width: int) -> int:
    """Returns how many numbers apart rows of a width stand: whole cache lines, where that is at most a quarter more.

    A row that begins with a cache line is on fewer of them. Rows of dim 8 with Adam's moments, 27 numbers, take 32.
    """
    whole = -(-width // CACHE_LINE) * CACHE_LINE
    return whole if whole <= 1.25 * width else width


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


def without_tables(variables: Iterable[Any], tables: Iterable[RowTable]) -> list[Any]:
    """Returns the variables that are no table's."""
    of_tables = {table.table.path for table in tables}
    return [variable for variable in variables if variable.path not in of_tables]


class RowTable(keras.layers.Layer):
    """A variable of rows that are read by their numbers.

    Attributes:
        table: The variable, float32 [num_rows, stride]: a row, its slots, which an optimizer adds (`add_slots`), and
            what fills its last cache line up, see `stride_of`.
        kernels: What `own_kernels` gives on one device; several mirror the table, and have TensorFlow's operations.

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
        self.kernels = own_kernels() if tf.distribute.get_strategy().num_replicas_in_sync == 1 else None

    def build(self, input_shape: Any = None) -> None:
        """Makes the rows."""
        self.table = self.add_weight(name="rows", shape=self.shape, initializer=self._initializer)

    def add_slots(self, width: int) -> None:
        """Puts slots of zeros beside the rows, in the place of those that there are.

        Args:
            width: How many numbers are kept for a row; 0 takes the slots away.
        """
        values = self.values()

        def initializer(shape: tuple[int, int], dtype: str) -> tf.Tensor:
            return tf.concat([values, tf.zeros([shape[0], shape[1] - self.shape[1]], dtype)], axis=1)

        del self.table
        self._tracker.unlock()  # as Keras's own layers do that get variables after they are built
        stride = stride_of(self.shape[1] + width) if width else self.shape[1]
        self.table = self.add_weight(name="rows", shape=(self.shape[0], stride), initializer=initializer)
        self._tracker.lock()
        self.slot_width = width

    def memory(self) -> dict[str, tf.Tensor]:
        """Returns the variable, and its memory itself, for an operation of our own that reads or writes it in place.

        What TensorFlow reads of a variable is its memory, until an operation of TensorFlow's has gone to single rows of
        the variable: from then on it is a copy, see `check_memory`. So what is read of the variable elsewhere, and kept
        over a step, has to be a copy too.
        """
        handle = self.table.value.handle
        return {"table": handle, "stored": tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)}

    def check_memory(self) -> None:
        """Makes sure, outside of any graph, that what an operation of our own writes is the variable.

        Raises:
            RuntimeError: It is a copy.
        """
        if self.kernels:
            both = [self.memory()["stored"] for _ in range(2)]  # at once: a copy may be where one before it was
            if len({np.asarray(memoryview(stored)).ctypes.data for stored in both}) > 1:
                raise RuntimeError(
                    f"{self.name} cannot be trained: an operation other than RowTable.gather has read single rows of "
                    "its variable, and TensorFlow gives out copies since"
                )

    def values(self) -> tf.Tensor:
        """Returns all rows, float32 [num_rows, width]."""
        return tf.convert_to_tensor(self.table.value)[:, : self.shape[1]]

    def slots(self) -> tf.Tensor:
        """Returns what is kept for all rows, float32 [num_rows, slot_width]."""
        return tf.convert_to_tensor(self.table.value)[:, self.shape[1] : self.shape[1] + self.slot_width]

    def numpy(self) -> np.ndarray[Any, Any]:
        """Returns all rows, float32 [num_rows, width]."""
        values: np.ndarray[Any, Any] = self.values().numpy()
        return values

    def assign(self, values: Any) -> None:
        """Sets all rows, float32 [num_rows, width]."""
        self._assign(tf.cast(values, self.table.dtype), self.slots())

    def assign_slots(self, slots: Any) -> None:
        """Sets what is kept for all rows, float32 [num_rows, slot_width]."""
        self._assign(self.values(), tf.cast(slots, self.table.dtype))

    def _assign(self, values: tf.Tensor, slots: tf.Tensor) -> None:
        filler = tf.zeros([self.shape[0], self.table.shape[1] - self.shape[1] - self.slot_width])
        self.table.assign(tf.concat([values, slots, filler], axis=1))

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows by their numbers: [any shape] -> float32 [any shape, width]."""
        read = self._stored(rows)
        return read[..., : self.shape[1]] if self.slot_width else read

    def read(self, planned: Plan) -> ReadRows:
        """Reads rows for a step, each once, and their slots."""
        if self.kernels:
            values = self.kernels.ctr_read_rows(**self.memory(), rows=planned.rows, width=self.shape[1])
            values.set_shape([None, self.shape[1]])
            return ReadRows(planned.rows, planned.position, values, None)
        read = self._stored(planned.rows)
        return ReadRows(planned.rows, planned.position, read[:, : self.shape[1]], read)

    def _stored(self, rows: tf.Tensor) -> tf.Tensor:
        # Not from the variable while it is trained, see `memory`. Not `tf.gather`, which waits for one row's place in
        # memory after the other.
        table = self.memory()["stored"] if self.kernels and self.slot_width else self.table.value
        if self.table.shape[0] * self.table.shape[1] > MAX_INT32:  # TensorFlow multiplies the two in the rows' dtype
            rows = tf.cast(rows, tf.int64)
        return tf.gather_nd(table, tf.expand_dims(rows, -1))
