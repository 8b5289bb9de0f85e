"""The embedding table, what is made of its rows, and the terms of a DeepFM.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from schemas.features import IdField
from trainer.rows import Plan, ReadRows, RowTable, plan


class EmbeddingTable(RowTable):
    """All fields' embeddings in one table, read with one gather a batch.

    A row holds an id's linear weight `w` and its factors `v`: `[w, v_1 ... v_dim]`. Each field's buckets stand at an
    offset; fields that share a table share the offset. Row 0 belongs to nobody: padding reads it. It is 0, and
    `trainer/optimizers.py` never moves it. The row after a table's buckets stands for ids that were never seen.

    Args:
        fields: The id fields, in field order.
        num_rows: Rows of the table, row 0 included.
        dim: Length of an id's factor vector.
        stddev: Standard deviation of the initial factors, N(0, stddev^2). Linear weights start at 0.
        seed: Seed of the initial factors and of `id_dropout`.
        id_dropout: Share of the ids that are read as unseen ones in training, of all fields or of each.
    """

    def __init__(
        self,
        fields: Sequence[IdField],
        num_rows: int,
        dim: int,
        stddev: float,
        seed: int,
        id_dropout: float | Sequence[float] = 0.0,
    ) -> None:
        def initial(shape: tuple[int, int], dtype: str) -> tf.Tensor:
            factors = keras.random.normal((shape[0], shape[1] - 1), stddev=stddev, dtype=dtype, seed=seed)
            factors *= tf.cast(tf.range(shape[0]) > 0, dtype)[:, tf.newaxis]
            return tf.concat([tf.zeros([shape[0], 1], dtype), factors], axis=1)

        super().__init__(num_rows, 1 + dim, initial, name="embedding_table")
        self._fields = tuple(fields)
        rates = np.broadcast_to(np.float32(id_dropout), [len(fields)])
        self._id_dropout = np.repeat(rates, [field.max_length for field in fields])  # [num_ids]
        self._dropout_seed = keras.random.SeedGenerator(seed) if rates.any() else None
        sizes = [field.num_positions for field in fields]
        self._offsets = np.repeat(np.array([field.row_offset for field in fields], np.int32), sizes)
        self._unseen = np.repeat(np.array([field.unseen for field in fields], np.int32), sizes)  # [num_positions]
        starts = np.cumsum([0] + [field.max_length for field in fields[:-1]])
        self._id_of_position = np.concatenate(
            [
                np.tile(np.arange(start, start + field.max_length), field.num_hashes)
                for start, field in zip(starts, fields, strict=True)
            ]
        )  # [num_positions]: which of the row's ids stands there

    def call(self, ids: tf.Tensor, training: bool = False, read: ReadRows | None = None) -> tf.Tensor:
        """Looks the rows up.

        Args:
            ids: Bucket + 1 at each position, 0 for padding: int64 [batch, num_positions].
            training: Whether `id_dropout` is on.
            read: What has been read of the table for these ids; None where it is to be read.

        Returns:
            float32 [batch, num_ids, 1 + dim], the sum of an id's hashes; exactly 0 at padding.
        """
        rows = self.gather(self.rows_of(ids, training)) if read is None else read.of_positions()
        return _sum_hashes(rows, self._fields)

    def rows_of(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the number of each position's row, int32 [batch, num_positions]; see `call`."""
        is_id = ids > 0
        ids = tf.cast(ids, tf.int32)
        if training and self._dropout_seed is not None:
            shape = [tf.shape(ids)[0], len(self._id_dropout)]
            is_dropped = keras.random.uniform(shape, seed=self._dropout_seed) < self._id_dropout
            ids = tf.where(tf.gather(is_dropped, self._id_of_position, axis=1), self._unseen, ids)
        return (ids + self._offsets) * tf.cast(is_id, tf.int32)

    def plan(self, ids: tf.Tensor, training: bool = False) -> Plan:
        """Returns what a step will read for a batch; see `call`."""
        if not self.kernels:
            return plan(self.rows_of(ids, training))
        offsets = self._offsets
        if training and self._dropout_seed is not None:
            ids, offsets = tf.cast(self.rows_of(ids, training), tf.int64), np.zeros_like(offsets)
        rows, position = self.kernels.ctr_plan_rows(ids=ids, offsets=offsets)
        rows.set_shape([None])
        position.set_shape(ids.shape)
        return Plan(rows, position)

    def fill_unseen(self, is_unseen: tf.Tensor) -> None:
        """Gives rows that training has not read the values of their table's row for unseen ids.

        Args:
            is_unseen: bool [num_rows].
        """
        source = np.arange(self.shape[0])
        for field in self._fields:
            last = field.row_offset + field.unseen
            source[field.row_offset + 1 : last] = last
        values = self.values()
        self.assign(tf.where(is_unseen[:, tf.newaxis], tf.gather(values, source), values))


def _sum_hashes(rows: tf.Tensor, fields: Sequence[IdField]) -> tf.Tensor:
    """Adds the rows of an id's hashes up: [batch, num_positions, any] -> [batch, num_ids, any]."""
    if all(field.num_hashes == 1 for field in fields):
        return rows
    runs = [list(run) for _, run in itertools.groupby(fields, key=_hash_key)]
    parts = tf.split(rows, [sum(field.num_positions for field in run) for run in runs], axis=1)
    return tf.concat(
        [tf.add_n(tf.split(part, run[0].num_hashes, axis=1)) for part, run in zip(parts, runs, strict=True)],
        axis=1,
    )


def _hash_key(field: IdField) -> str:
    return "" if field.num_hashes == 1 else field.name


def present_ids(ids: tf.Tensor, fields: Sequence[IdField]) -> tf.Tensor:
    """Returns where there are ids.

    Args:
        ids: int64 [batch, num_positions], 0 at padding.
        fields: The id fields, in field order.

    Returns:
        bool [batch, num_ids], with one place for an id, whatever the number of its hashes.
    """
    if any(field.num_hashes > 1 for field in fields):
        first = np.concatenate([np.arange(field.start, field.start + field.max_length) for field in fields])
        ids = tf.gather(ids, first, axis=1)
    return ids > 0


_POOLINGS = {"sum": 0, "mean": 1, "sqrtn": 2, "target_attention": 1}  # as `row_kernels.cc` numbers them


class Interactions(NamedTuple):
    """What the terms need of a batch's rows.

    Attributes:
        linear: The sum of all ids' linear weights, float32 [batch, 1].
        total: The sum of the FM term's vectors, float32 [batch, dim].
        squares: The sum of their squared norms, float32 [batch, 1].
        tower: What the deep tower reads, float32 [batch, num_fields * dim + num_numbers]: each field's factors, pooled
            into one vector, and the numbers.
    """

    linear: tf.Tensor
    total: tf.Tensor
    squares: tf.Tensor
    tower: tf.Tensor


def interact(
    rows: tf.Tensor, is_id: tf.Tensor, numbers: tf.Tensor, fields: Sequence[IdField], over_positions: bool
) -> Interactions:
    """Sums and pools a batch's rows.

    A field's vector is the sum, the mean, or sum / sqrt(count) of its ids'; an empty one is 0. For `target_attention`
    it is the mean here, see `TargetAttention`.

    The gradient is written out: all of these are sums over a field, so that the field's gradient is made once and laid
    over its positions. What autodiff makes of the same sums reads and writes the whole batch of rows four times more.

    Args:
        rows: float32 [batch, num_ids, 1 + dim], 0 at padding.
        is_id: bool [batch, num_ids].
        numbers: float32 [batch, num_numbers].
        fields: The id fields, in field order.
        over_positions: Whether the FM term's vectors are those of all positions, not the fields' pooled ones.
    """
    runs, sizes = pool_runs(fields)
    widths = [len(run) for run in runs]
    scale = _pooling_scale(is_id, runs, sizes)
    dim = rows.shape[2] - 1

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def compute(rows: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., tf.Tensor]]:
        # One split, not a slice a field: the gradient of a slice is a tensor of the whole size.
        parts = tf.split(rows, sizes, axis=1)
        sums = tf.concat(
            [
                part if size == width else tf.reduce_sum(part, axis=1, keepdims=True)
                for part, size, width in zip(parts, sizes, widths, strict=True)
            ],
            axis=1,
        )  # [batch, num_fields, 1 + dim]
        weights, pooled = tf.split(sums, [1, dim], axis=2)
        linear = tf.reduce_sum(weights, axis=1)
        if over_positions:
            total = tf.reduce_sum(pooled, axis=1)
            squares = tf.reduce_sum(tf.reduce_sum(tf.square(rows), axis=1)[:, 1:], axis=1, keepdims=True)
        if scale is not None:
            pooled *= scale
        if not over_positions:
            total = tf.reduce_sum(pooled, axis=1)
            squares = tf.reduce_sum(tf.square(pooled), axis=[1, 2])[:, tf.newaxis]

        def gradient(d_linear: tf.Tensor, d_total: tf.Tensor, d_squares: tf.Tensor, d_pooled: tf.Tensor) -> tf.Tensor:
            d_total, d_squares = d_total[:, tf.newaxis], 2 * d_squares[:, tf.newaxis]
            if not over_positions:
                d_pooled += d_total + d_squares * pooled
            if scale is not None:
                d_pooled *= scale
            if over_positions:
                d_pooled += d_total
            d_weights = tf.broadcast_to(d_linear[:, tf.newaxis], tf.shape(weights))
            d_runs = tf.split(tf.concat([d_weights, d_pooled], axis=2), widths, axis=1)
            d_rows = tf.concat(
                [
                    run if size == width else tf.broadcast_to(run, tf.shape(part))
                    for run, part, size, width in zip(d_runs, parts, sizes, widths, strict=True)
                ],
                axis=1,
            )
            if over_positions:
                d_rows += d_squares * tf.constant([0.0] + [1.0] * dim) * rows
            return d_rows

        return (linear, total, squares, pooled), gradient

    linear, total, squares, pooled = compute(rows)
    flat = tf.reshape(pooled, [tf.shape(rows)[0], len(fields) * dim])
    return Interactions(linear, total, squares, tf.concat([flat, numbers], axis=1))


def interact_read(
    kernels: Any, read: ReadRows, numbers: tf.Tensor, fields: Sequence[IdField], over_positions: bool
) -> Interactions:
    """Does what `interact` does, from rows that have been read once each, in one operation.

    Args:
        kernels: See `trainer.kernels.own_kernels`.
        read: The rows.
        numbers: float32 [batch, num_numbers].
        fields: The id fields, in field order, of one hash each where the FM term is over positions.
        over_positions: See `interact`.
    """
    layout = {
        "sizes": np.array([field.num_positions for field in fields], np.int32),
        "hashes": np.array([field.num_hashes for field in fields], np.int32),
        "poolings": np.array([_POOLINGS[field.pooling] for field in fields], np.int32),
    }
    shared = {"rows": read.rows, "position": read.position, "over_positions": over_positions, **layout}
    width = read.values.shape[1]
    batch = read.position.shape[0]

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def compute(values: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., tf.Tensor]]:
        sums = kernels.ctr_interact(values=values, numbers=numbers, **shared)
        tower_width = len(fields) * (width - 1) + numbers.shape[1]
        for of, columns in zip(sums, (1, width - 1, 1, tower_width), strict=True):
            of.set_shape([batch, columns])

        def gradient(d_linear: tf.Tensor, d_total: tf.Tensor, d_squares: tf.Tensor, d_tower: tf.Tensor) -> tf.Tensor:
            d_values = kernels.ctr_interact_gradient(
                values=values,
                tower=sums.tower,
                d_linear=d_linear,
                d_total=d_total,
                d_squares=d_squares,
                d_tower=d_tower,
                **shared,
            )
            d_values.set_shape([None, width])
            return d_values

        return tuple(sums), gradient

    return Interactions(*compute(read.values))


def pool_runs(fields: Sequence[IdField]) -> tuple[list[list[IdField]], list[int]]:
    """Returns the fields in runs that are pooled in one way, and the number of ids of each run."""
    runs = [list(run) for _, run in itertools.groupby(fields, key=_position_key)]
    return runs, [sum(field.max_length for field in run) for run in runs]


def _position_key(field: IdField) -> str:
    """Groups neighbouring fields of one id; a sequence stands alone."""
    return "" if field.max_length == 1 else field.name


def _pooling_scale(is_id: tf.Tensor, runs: Sequence[Sequence[IdField]], sizes: Sequence[int]) -> tf.Tensor | None:
    """Returns what a field's sum is multiplied with, float32 [batch, num_fields, 1]; None where it is 1 for all."""
    if all(field.pooling == "sum" or field.max_length == 1 for run in runs for field in run):
        return None
    scales = []
    for run, part in zip(runs, tf.split(is_id, sizes, axis=1), strict=True):
        if run[0].max_length == 1 or run[0].pooling == "sum":
            scales.append(tf.ones([tf.shape(is_id)[0], len(run)]))
        else:
            count = tf.maximum(tf.reduce_sum(tf.cast(part, tf.float32), axis=1, keepdims=True), 1.0)
            scales.append(tf.math.rsqrt(count) if run[0].pooling == "sqrtn" else 1.0 / count)
    return tf.concat(scales, axis=1)[:, :, tf.newaxis]


class TargetAttention(keras.layers.Layer):
    """A sequence's vectors, weighted by how well each fits the target's.

    `sum_p a_p v_p` with `a = softmax_p(f([v_p, t, v_p - t, v_p * t]))`, where f is an MLP with one hidden layer of
    sigmoids: the activation unit of Zhou et al., "Deep Interest Network", KDD 2018, but normalized by a softmax, so
    that the length of the history does not scale the vector.

    Args:
        name: The layer's name.
        units: Width of the hidden layer.
        seed: Seed of the initial weights.
    """

    def __init__(self, name: str, units: int, seed: int) -> None:
        super().__init__(name=name)
        self.hidden = keras.layers.Dense(
            units, "sigmoid", kernel_initializer=keras.initializers.GlorotUniform(seed), name="hidden"
        )
        self.score = keras.layers.Dense(
            1, use_bias=False, kernel_initializer=keras.initializers.GlorotUniform(seed + 1), name="score"
        )

    def call(self, sequence: tf.Tensor, target: tf.Tensor, is_id: tf.Tensor) -> tf.Tensor:
        """Pools one sequence.

        Args:
            sequence: float32 [batch, max_length, dim].
            target: float32 [batch, 1, dim].
            is_id: bool [batch, max_length].

        Returns:
            float32 [batch, dim]; 0 for an empty sequence.
        """
        target = tf.broadcast_to(target, tf.shape(sequence))
        pairs = tf.concat([sequence, target, sequence - target, sequence * target], axis=2)
        scores = self.score(self.hidden(pairs))  # [batch, max_length, 1]
        mask = tf.cast(is_id, scores.dtype)[:, :, tf.newaxis]
        # Padding's score is not the greatest, from which all others would be too far.
        scores = tf.where(is_id[:, :, tf.newaxis], scores, scores.dtype.min)
        exponents = tf.exp(scores - tf.stop_gradient(tf.reduce_max(scores, axis=1, keepdims=True))) * mask
        weights = exponents / tf.maximum(tf.reduce_sum(exponents, axis=1, keepdims=True), 1e-9)
        return tf.reduce_sum(weights * sequence, axis=1)


def fm_term(total: tf.Tensor, squares: tf.Tensor) -> tf.Tensor:
    """The sum of the pairwise inner products, `sum_{i<j} <v_i, v_j>`.

    Computed as `0.5 * (|sum_i v_i|^2 - sum_i |v_i|^2)`, linear in the number of vectors: Rendle, "Factorization
    Machines", ICDM 2010, lemma 3.1.

    Args:
        total: The sum of the vectors, float32 [batch, dim].
        squares: The sum of their squared norms, float32 [batch, 1].

    Returns:
        float32 [batch, 1].
    """
    return 0.5 * (tf.reduce_sum(tf.square(total), axis=1, keepdims=True) - squares)
