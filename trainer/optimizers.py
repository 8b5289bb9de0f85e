"""Optimizers whose step costs what the batch's rows cost, not what the table costs.

A gather's gradient is a `tf.IndexedSlices`: the rows that a batch read, each as often as it was read. Keras 3's own
optimizers make a dense tensor of it, of the table's size. `RowSparse` hands it to a rule that reads and writes these
rows only, and everything else to any Keras optimizer.

Row 0 of a table stands for "nothing", see `trainer/layers.py`: it is never moved.

A row that a batch does not read keeps its value and its slots, to the bit. That makes the rules with momentum "lazy":
dense Adam would go on moving such a row by its decaying momentum. On a batch that reads every row both are the same.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.rows import ReadRows, RowTable
from trainer.workers import ALONE, Workers


class RowRule(abc.ABC):
    """How one table's rows are updated."""

    @abc.abstractmethod
    def slot_widths(self, width: int) -> list[int]:
        """Returns how many float32 numbers each slot has of a row of `width` numbers."""

    @abc.abstractmethod
    def step(
        self,
        values: tf.Tensor,
        gradient: tf.Tensor,
        slots: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Computes one step of the rows that a batch read.

        Args:
            values: The rows, float32 [num_rows, width].
            gradient: The sum of a row's gradients over the batch, float32 [num_rows, width].
            slots: What is kept for the row, each float32 [num_rows, its width]; 0 before the first step.
            learning_rate: float32 [].
            step: The number of this step, from 1: float32 [].

        Returns:
            The new rows and their new slots, of the same shapes.
        """

    def rate(self, learning_rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns what the rule takes for the learning rate in a step, float32 []; see `step`."""
        return learning_rate

    @property
    @abc.abstractmethod
    def kernel(self) -> tuple[str, dict[str, float]]:
        """The operation of `row_kernels.cc` that does what `step` does, in place and not to row 0, and its settings."""


class Adam(RowRule):
    """Kingma and Ba, "Adam", ICLR 2015, in the form and with the defaults of `keras.optimizers.Adam`.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; row -= rate sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon),
    with t the number of steps of the whole training, not of the row.

    Args:
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
    """

    def __init__(self, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> None:
        self._beta_1 = beta_1
        self._beta_2 = beta_2
        self._epsilon = epsilon

    def slot_widths(self, width: int) -> list[int]:
        """Both moments."""
        return [width, width]

    def step(
        self,
        values: tf.Tensor,
        gradient: tf.Tensor,
        slots: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> list[tf.Tensor]:
        """See `RowRule.step`."""
        m, v = slots
        m += (gradient - m) * (1 - self._beta_1)
        v += (tf.square(gradient) - v) * (1 - self._beta_2)
        return [values - self.rate(learning_rate, step) * m / (tf.sqrt(v) + self._epsilon), m, v]

    def rate(self, learning_rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns the rate with what corrects the moments for their beginning at 0, float32 []."""
        return learning_rate * tf.sqrt(1 - tf.pow(self._beta_2, step)) / (1 - tf.pow(self._beta_1, step))

    @property
    def kernel(self) -> tuple[str, dict[str, float]]:
        """See `RowRule.kernel`."""
        settings = {"to_m": 1 - self._beta_1, "to_v": 1 - self._beta_2, "epsilon": self._epsilon}
        return "ctr_step_adam", settings


class Adagrad(RowRule):
    """Duchi et al., "Adaptive Subgradient Methods", JMLR 2011, in the form of `keras.optimizers.Adagrad`.

    a = a + g^2; row -= rate * g / sqrt(a0 + a + epsilon), with a from 0: what a small gradient adds would be lost in
    a0, and a row that was read would look as if it was not.

    Args:
        initial_accumulator: a0.
        epsilon: See the formula.
    """

    def __init__(self, initial_accumulator: float = 0.1, epsilon: float = 1e-7) -> None:
        self._offset = initial_accumulator + epsilon

    def slot_widths(self, width: int) -> list[int]:
        """An accumulator for each number."""
        return [width]

    def step(
        self,
        values: tf.Tensor,
        gradient: tf.Tensor,
        slots: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> list[tf.Tensor]:
        """See `RowRule.step`."""
        accumulator = slots[0] + self._squares(gradient)
        return [values - learning_rate * gradient / tf.sqrt(accumulator + self._offset), accumulator]

    @property
    def kernel(self) -> tuple[str, dict[str, float]]:
        """See `RowRule.kernel`."""
        return "ctr_step_adagrad", {"epsilon": self._offset}

    def _squares(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.square(gradient)


class RowwiseAdagrad(Adagrad):
    """Adagrad with one accumulator a row, the mean of the squares: a = a + mean(g^2).

    As in Meta's DLRM (Naumov et al., 2019): the slots of a row of 1 + 8 numbers take 4 bytes, not 36.
    """

    def slot_widths(self, width: int) -> list[int]:
        """One accumulator for the row."""
        return [1]

    def _squares(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(gradient), axis=1, keepdims=True)

    @property
    def kernel(self) -> tuple[str, dict[str, float]]:
        """See `RowRule.kernel`."""
        return "ctr_step_rowwise_adagrad", {"epsilon": self._offset}


ROW_RULES = {"adam": Adam, "adagrad": Adagrad, "rowwise_adagrad": RowwiseAdagrad}


class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`, which is a dozen operations a variable, as one operation a variable."""

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        """Updates a variable and its moments in place."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        own = variable.value if isinstance(variable, keras.Variable) else variable
        tf.raw_ops.ResourceApplyAdam(
            var=own.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class RowSparse(keras.optimizers.Optimizer):
    """A Keras optimizer for all variables but the tables, which are updated row by row.

    The learning rate, its schedule and the number of steps are those of `rest`; a table's is a multiple of it.

    Args:
        rest: The optimizer of all other variables.
        rule: How a table's rows are updated.
        tables: The tables, which get their slots when the optimizer is built.
        l2: lambda of the penalty `lambda / 2 * |table|^2`, which `shrink_tables` applies.
        workers: Those whose gradients make a step together.
        table_rate: The tables' learning rate, as a multiple of that of `rest`; a `tf.Variable` where it is to change.
    """

    def __init__(
        self,
        rest: keras.optimizers.Optimizer,
        rule: RowRule,
        tables: Sequence[RowTable],
        l2: float = 0.0,
        workers: Workers = ALONE,
        table_rate: float | tf.Variable = 1.0,
    ) -> None:
        super().__init__(learning_rate=0.0, name="row_sparse")
        self.table_rate = table_rate
        self._workers = workers
        self._l2 = l2
        self.rest = rest
        self._rule = rule
        self._tables = {table.table.path: table for table in tables}

    @property
    def learning_rate(self) -> Any:
        """The learning rate of `rest`."""
        return self.rest.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.rest.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """The number of steps taken: int64 []."""
        return self.rest.iterations

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the slots.

        Args:
            variables: All trainable variables of the model.
        """
        # Not the tables, which are other variables afterwards.
        dense = [variable for variable in variables if variable.path not in self._tables]
        super().build(dense)
        if self._l2:
            # The logarithm of what the tables shrink by, of the steps since they last did.
            self._shrinkage = self.add_variable(shape=(), initializer="zeros", name="shrinkage")
        self.rest.build(dense)
        for table in self._tables.values():
            table.add_slots(sum(self._rule.slot_widths(table.shape[1])))

    def is_untouched(self, table: RowTable) -> tf.Tensor:
        """Returns which of a table's rows no step has read: bool [num_rows]."""
        return tf.reduce_all(tf.equal(table.slots(), 0.0), axis=1)

    def shrink_tables(self) -> None:
        """Applies the penalty of all steps since the last call: every row times the product of (1 - rate * lambda)."""
        if self._l2:
            for table in self._tables.values():
                table.assign(table.values() * tf.exp(self._shrinkage.value))
            self._shrinkage.assign(0.0)

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable],
        read: ReadRows | None = None,
    ) -> None:
        """Takes one step.

        Args:
            grads: The gradients, None for a variable that the loss does not depend on. That of a table is a
                `tf.IndexedSlices` of rows, [any, width].
            trainable_variables: Their variables, of those that the optimizer was built with.
            read: What the step has read of the one table. The table's gradient is then that of `read.rows`. None where
                the table has to be read.
        """
        pairs = [(g, variable) for g, variable in zip(grads, trainable_variables, strict=True) if g is not None]
        gradients = self._workers.gradients([g for g, _ in pairs])
        pairs = [(g, variable) for g, (_, variable) in zip(gradients, pairs, strict=True)]
        if self._workers is not ALONE:
            read = None  # the rows of all workers' batches are more than this one has read
        step = tf.cast(self.rest.iterations.value + 1, tf.float32)
        learning_rate = self.table_rate * tf.cast(keras.ops.convert_to_tensor(self.rest.learning_rate), tf.float32)
        if self._l2:
            self._shrinkage.value.assign_add(tf.math.log1p(-learning_rate * self._l2))
        for gradient, variable in pairs:
            if variable.path in self._tables:
                self._step_table(gradient, self._tables[variable.path], learning_rate, step, read)
        dense = [(g, variable) for g, variable in pairs if variable.path not in self._tables]
        if dense:
            self.rest.apply([g for g, _ in dense], [variable for _, variable in dense])
        else:  # Keras does not count a step without gradients
            self.rest.iterations.assign_add(1)

    def _step_table(
        self,
        gradient: tf.IndexedSlices,
        table: RowTable,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
        read: ReadRows | None,
    ) -> None:
        """Steps the table, on each device where it is mirrored: with the slices of all replicas together."""
        replica = tf.distribute.get_replica_context()
        if table.kernels:
            rows, summed = (read.rows, gradient.values) if read else _sum_slices(gradient)
            name, settings = self._rule.kernel
            rate = self._rule.rate(learning_rate, step)
            getattr(table.kernels, name)(**table.memory(), rows=rows, gradient=summed, rate=rate, **settings)
            return
        if replica is None or replica.num_replicas_in_sync == 1:
            self._step_rows(table.table.value, table.shape[1], gradient, learning_rate, step, read)
            return

        def update(
            strategy: tf.distribute.Strategy,
            gradient: tf.IndexedSlices,
            learning_rate: tf.Tensor,
            step: tf.Tensor,
        ) -> None:
            arguments = (table.shape[1], gradient, learning_rate, step)
            strategy.extended.update(table.table.value, self._step_rows, args=arguments, group=False)

        replica.merge_call(update, args=(replica.all_reduce("SUM", gradient), learning_rate, step))

    def _step_rows(
        self,
        table: tf.Variable,
        width: int,
        gradient: tf.IndexedSlices,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
        read: ReadRows | None = None,
    ) -> None:
        rows, summed = (read.rows, gradient.values) if read else _sum_slices(gradient)
        stored = tf.gather(table, rows) if read is None or read.stored is None else read.stored
        ends = list(itertools.accumulate([width, *self._rule.slot_widths(width)], initial=0))
        values, *slots = [stored[:, start:end] for start, end in itertools.pairwise(ends)]
        row_0 = tf.gather(table, [0])
        new = self._rule.step(values, summed, slots, learning_rate, step)
        table.scatter_update(tf.IndexedSlices(tf.concat([*new, stored[:, ends[-1] :]], axis=1), rows))
        # Padding has a gradient. To put back one row costs less than to mask it among all.
        table.scatter_update(tf.IndexedSlices(row_0, tf.constant([0])))


def _sum_slices(gradient: tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the different rows of a gradient, int32 [num_rows], and the sum of each one's slices."""
    rows, position = tf.unique(gradient.indices)
    return rows, tf.math.unsorted_segment_sum(gradient.values, position, tf.shape(rows)[0])
