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
    masked away.

    Args:
        fields: The id fields, in field order.
        num_rows: Rows of the table, row 0 included.
        dim: Length of an id's factor vector.
        stddev: Standard deviation of the initial factors, N(0, stddev^2). Linear weights start at 0.
        seed: Seed of the initial factors.
    """

    def __init__(self, fields: Sequence[IdField], num_rows: int, dim: int, stddev: float, seed: int) -> None:
        super().__init__(name="embedding_table")
        self._num_rows = num_rows
        self._dim = dim
        self._stddev = stddev
        self._seed = seed
        self._offsets = np.concatenate(
            [np.full(field.max_length, field.row_offset, dtype=np.int64) for field in fields]
        )  # [num_positions]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the table."""

        def initial(shape: tuple[int, int], dtype: str) -> tf.Tensor:
            factors = keras.random.normal((shape[0], shape[1] - 1), stddev=self._stddev, dtype=dtype, seed=self._seed)
            return tf.concat([tf.zeros([shape[0], 1], dtype), factors], axis=1)

        self.table = self.add_weight(name="rows", shape=(self._num_rows, 1 + self._dim), initializer=initial)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Looks the rows up.

        Args:
            ids: Bucket + 1 at each position, 0 for padding: int64 [batch, num_positions].

        Returns:
            float32 [batch, num_positions, 1 + dim]; exactly 0 at padding.
        """
        is_id = ids > 0
        rows = tf.where(is_id, ids + self._offsets, 0)
        return tf.gather(self.table.value, rows) * tf.cast(is_id, self.compute_dtype)[:, :, tf.newaxis]


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
