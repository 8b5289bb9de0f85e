"""The embedding table and the terms of a DeepFM.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from schemas.features import IdField


class EmbeddingTable(keras.layers.Layer):
    """All fields' embeddings in one table, read with one gather a batch.

    A row holds an id's linear weight `w` and its factors `v`: `[w, v_1 ... v_dim]`. Each field's buckets stand at an
    offset; fields that share a table share the offset. Row 0 belongs to nobody: padding reads it, and its value is
    masked away. The row after a table's buckets stands for ids that were never seen.

    Args:
        fields: The id fields, in field order.
        num_rows: Rows of the table, row 0 included.
        dim: Length of an id's factor vector.
        stddev: Standard deviation of the initial factors, N(0, stddev^2). Linear weights start at 0.
        seed: Seed of the initial factors and of `id_dropout`.
        id_dropout: Share of the ids that are read as unseen ones in training.
    """

    def __init__(
        self,
        fields: Sequence[IdField],
        num_rows: int,
        dim: int,
        stddev: float,
        seed: int,
        id_dropout: float = 0.0,
    ) -> None:
        super().__init__(name="embedding_table")
        self._fields = tuple(fields)
        self._id_dropout = id_dropout
        self._dropout_seed = keras.random.SeedGenerator(seed) if id_dropout else None
        self._num_rows = num_rows
        self._dim = dim
        self._stddev = stddev
        self._seed = seed
        lengths = [field.max_length for field in fields]
        self._offsets = np.repeat(np.array([field.row_offset for field in fields], np.int64), lengths)
        self._unseen = np.repeat(np.array([field.unseen for field in fields], np.int64), lengths)  # [num_positions]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the table."""

        def initial(shape: tuple[int, int], dtype: str) -> tf.Tensor:
            factors = keras.random.normal((shape[0], shape[1] - 1), stddev=self._stddev, dtype=dtype, seed=self._seed)
            return tf.concat([tf.zeros([shape[0], 1], dtype), factors], axis=1)

        self.table = self.add_weight(name="rows", shape=(self._num_rows, 1 + self._dim), initializer=initial)

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Looks the rows up.

        Args:
            ids: Bucket + 1 at each position, 0 for padding: int64 [batch, num_positions].
            training: Whether `id_dropout` is on.

        Returns:
            float32 [batch, num_positions, 1 + dim]; exactly 0 at padding.
        """
        is_id = ids > 0
        if training and self._id_dropout:
            is_dropped = keras.random.uniform(tf.shape(ids), seed=self._dropout_seed) < self._id_dropout
            ids = tf.where(is_dropped, self._unseen, ids)
        rows = tf.where(is_id, ids + self._offsets, 0)
        return tf.gather(self.table.value, rows) * tf.cast(is_id, self.compute_dtype)[:, :, tf.newaxis]

    def fill_unseen(self, is_unseen: tf.Tensor) -> None:
        """Gives rows that training has not read the values of their table's row for unseen ids.

        Args:
            is_unseen: bool [num_rows].
        """
        source = np.arange(self._num_rows)
        for field in self._fields:
            last = field.row_offset + field.unseen
            source[field.row_offset + 1 : last] = last
        values = self.table.value
        self.table.assign(tf.where(is_unseen[:, tf.newaxis], tf.gather(values, source), values))


def pool_fields(factors: tf.Tensor, ids: tf.Tensor, fields: Sequence[IdField]) -> tf.Tensor:
    """Pools each field's factors into one vector: their sum, mean, or sum / sqrt(count). An empty field gives 0.

    Args:
        factors: float32 [batch, num_positions, dim], 0 at padding.
        ids: int64 [batch, num_positions], 0 at padding.
        fields: The id fields, in field order.

    Returns:
        float32 [batch, num_fields, dim].
    """
    runs = [list(run) for _, run in itertools.groupby(fields, key=_position_key)]
    sizes = [sum(field.max_length for field in run) for run in runs]
    # One split, not a slice a field: the gradient of a slice is a tensor of the whole size.
    pooled = [
        _pool(part, part_ids, run[0])
        for run, part, part_ids in zip(
            runs, tf.split(factors, sizes, axis=1), tf.split(ids, sizes, axis=1), strict=True
        )
    ]
    return tf.concat(pooled, axis=1)


def _position_key(field: IdField) -> str:
    """Groups neighbouring fields of one position; a sequence stands alone."""
    return "" if field.max_length == 1 and field.pooling == "sum" else field.name


def _pool(factors: tf.Tensor, ids: tf.Tensor, field: IdField) -> tf.Tensor:
    """Pools one sequence to [batch, 1, dim]; leaves fields of one position, [batch, num_fields, dim], as they are."""
    if not _position_key(field):
        return factors
    total = tf.reduce_sum(factors, axis=1, keepdims=True)  # [batch, 1, dim]
    if field.pooling == "sum":
        return total
    count = tf.math.count_nonzero(ids, axis=1, keepdims=True, dtype=factors.dtype)[:, :, tf.newaxis]
    count = tf.maximum(count, 1)  # [batch, 1, 1]
    return total / (count if field.pooling == "mean" else tf.sqrt(count))


def fm_term(factors: tf.Tensor) -> tf.Tensor:
    """The sum of the pairwise inner products, `sum_{i<j} <v_i, v_j>`.

    Computed as `0.5 * sum_d ((sum_i v_id)^2 - sum_i v_id^2)`, linear in the number of vectors: Rendle, "Factorization
    Machines", ICDM 2010, lemma 3.1.

    Args:
        factors: float32 [batch, num_vectors, dim].

    Returns:
        float32 [batch, 1].
    """
    square_of_sum = tf.square(tf.reduce_sum(factors, axis=1))  # [batch, dim]
    sum_of_squares = tf.reduce_sum(tf.square(factors), axis=1)  # [batch, dim]
    return 0.5 * tf.reduce_sum(square_of_sum - sum_of_squares, axis=1, keepdims=True)
