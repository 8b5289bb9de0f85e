"""What the workers of one training tell each other: gradients, figures, settings.

TensorFlow's collective operations, without a `tf.distribute` strategy: with `MultiWorkerMirroredStrategy`, Keras 3's
`fit` fails. So each worker's `fit` is that of a single process, and what must be the same on all of them is exchanged
here. See `docs/multi-worker.md` and `docs/adr/0030-workers.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.cluster import Cluster, WorkersError

_PADDING = 256  # rows: gathered blocks are padded to multiples of it


class Workers:
    """A process that trains alone: what it exchanges is what it has.

    Attributes:
        rank: The place of this process among the workers; the chief has 0.
        number: How many workers there are.
    """

    rank = 0
    number = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the checkpoints and the model."""
        return self.rank == 0

    def mean(self, name: str, values: tf.Tensor) -> tf.Tensor:
        """Returns the mean of all workers' values, the same bits on each.

        Args:
            name: What is exchanged, the same on all workers; of one shape for one name.
            values: float32 or float64, of the same shape on all workers.
        """
        return values

    def gather(self, name: str, values: tf.Tensor) -> tf.Tensor:
        """Returns all workers' values one after the other, in the workers' order.

        Args:
            name: What is exchanged, the same on all workers.
            values: [any number, ...], whose first dimension may differ between workers.
        """
        return values

    def gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """Returns the mean of all workers' gradients.

        Args:
            gradients: A tensor, or the `tf.IndexedSlices` of a table's rows, for each variable. Of a table only the
                rows that were read are exchanged, each once.
        """
        return list(gradients)

    def text(self, text: str) -> str:
        """Returns the chief's text, on every worker."""
        return text

    def agree(self, state: str) -> None:
        """Makes sure that all workers go on from the same state.

        Args:
            state: It, in words.

        Raises:
            WorkersError: They do not; on every worker.
        """

    def wait(self) -> None:
        """Returns when all workers have come here."""


ALONE = Workers()


class ConnectedWorkers(Workers):
    """One of several processes that train together; made by `trainer.connection.connect`.

    Args:
        cluster: Who they are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.rank, self.number = cluster.rank, len(cluster.addresses)
        self._order = tf.Variable(0.0, trainable=False)  # collectives that are given it run one after the other
        self._numbers: dict[str, int] = {}

    def mean(self, name: str, values: tf.Tensor) -> tf.Tensor:
        """See `Workers.mean`."""
        with tf.device("CPU:0"):
            total = tf.raw_ops.CollectiveReduceV2(
                input=values, instance_key=self._key(name, 0), merge_op="Add", final_op="Id", **self._group()
            )
        return total / self.number

    def gather(self, name: str, values: tf.Tensor) -> tf.Tensor:
        """See `Workers.gather`."""
        count = tf.shape(values)[:1]
        counts = self._gather(self._key(f"{name}/count", 0), count)  # [number]
        # A collective's key stands for one shape: with few shapes there are few keys to keep.
        blocks = tf.maximum(1, -(-tf.reduce_max(counts) // _PADDING))
        num_rows = blocks * _PADDING
        padding = [[0, num_rows - count[0]]] + [[0, 0]] * (len(values.shape) - 1)
        everything = self._gather(self._key(name, blocks), tf.pad(values, padding))  # [number * num_rows, ...]
        parts = [everything[num_rows * rank : num_rows * rank + counts[rank]] for rank in range(self.number)]
        return tf.concat(parts, axis=0)

    def gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """See `Workers.gradients`."""
        gradients = list(gradients)
        dense = [index for index, g in enumerate(gradients) if not isinstance(g, tf.IndexedSlices)]
        if dense:
            shapes = [tf.shape(gradients[index]) for index in dense]
            flat = tf.concat([tf.reshape(gradients[index], [-1]) for index in dense], axis=0)
            sizes = [tf.size(gradients[index]) for index in dense]
            means = tf.split(self.mean("gradients", flat), sizes, num=len(dense))
            for index, mean, shape in zip(dense, means, shapes, strict=True):
                gradients[index] = tf.reshape(mean, shape)
        for index, gradient in enumerate(gradients):
            if isinstance(gradient, tf.IndexedSlices):
                rows, place = tf.unique(gradient.indices)
                summed = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows)) / self.number
                gradients[index] = tf.IndexedSlices(
                    self.gather(f"values/{index}", summed), self.gather(f"rows/{index}", rows), gradient.dense_shape
                )
        return gradients

    def text(self, text: str) -> str:
        """See `Workers.text`."""
        sent = list(text.encode()) if self.is_chief else []
        return bytes(self.gather("text", tf.constant(sent, tf.int32)).numpy().tolist()).decode()

    def agree(self, state: str) -> None:
        """See `Workers.agree`."""
        of_chief = self.text(state)
        share = float(self.mean("agree", tf.constant(float(state == of_chief))))
        if share < 1:
            mine = "" if state == of_chief else f"; worker {self.rank} goes on from {state}"
            raise WorkersError(
                f"the workers do not all go on from where the chief does, {of_chief}{mine}: put the folder on a file "
                "system that they share"
            )

    def wait(self) -> None:
        """See `Workers.wait`."""
        self.text("")

    def _gather(self, key: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:0"):
            return tf.raw_ops.CollectiveGatherV2(input=values, instance_key=key, **self._group())

    def _group(self) -> dict[str, Any]:
        return {
            "group_size": self.number,
            "group_key": 1,
            "ordering_token": [self._order.handle],
            "communication_hint": "ring",
        }

    def _key(self, name: str, blocks: tf.Tensor | int) -> tf.Tensor:
        """Returns the collective's key, the same on all workers, which come to all names in the same order."""
        return self._numbers.setdefault(name, len(self._numbers)) * 2**22 + blocks
