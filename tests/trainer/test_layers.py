from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from schemas.features import IdField
from trainer.layers import EmbeddingTable, TargetAttention, fm_term, interact, present_ids

# Two fields that share a table, and one of its own: 1 + 1 + 2 positions.
FIELDS = (
    IdField("item", start=0, max_length=1, pooling="sum", row_offset=0, num_buckets=4),
    IdField("history", start=1, max_length=2, pooling="mean", row_offset=0, num_buckets=4),
    IdField("user", start=3, max_length=1, pooling="sum", row_offset=4, num_buckets=3),
)


def _table(dim=2):
    table = EmbeddingTable(FIELDS, num_rows=8, dim=dim, stddev=0.1, seed=1)
    table.build((None, 4))
    return table


def test_each_position_reads_its_fields_row():
    table = _table()
    table.table.assign(np.concatenate([np.zeros([1, 3]), np.arange(3, 24).reshape(7, 3)]))
    rows = table(tf.constant([[1, 4, 2, 1], [4, 0, 0, 3]], tf.int64))
    np.testing.assert_array_equal(
        rows,
        [
            [[3, 4, 5], [12, 13, 14], [6, 7, 8], [15, 16, 17]],  # rows 1, 4, 2 and 4 + 1
            [[12, 13, 14], [0, 0, 0], [0, 0, 0], [21, 22, 23]],  # rows 4, padding, padding, 4 + 3
        ],
    )


def test_padding_reads_row_0_which_starts_at_zero():
    np.testing.assert_array_equal(_table()(tf.zeros([1, 4], tf.int64)), np.zeros([1, 4, 3]))


def test_an_id_with_two_hashes_is_the_sum_of_their_rows_and_is_dropped_as_one():
    fields = [
        IdField("user", 0, 1, "sum", row_offset=0, num_buckets=3),
        IdField("item", 1, 1, "sum", row_offset=4, num_buckets=5, num_hashes=2),
        IdField("history", 3, 2, "mean", row_offset=4, num_buckets=5, num_hashes=2),
    ]
    table = EmbeddingTable(fields, num_rows=11, dim=1, stddev=0.1, seed=1, id_dropout=0.5)
    table.build((None, 7))
    table.table.assign(np.repeat(np.square(np.arange(11, dtype=np.float32))[:, None], 2, axis=1))
    ids = tf.constant([[2, 1, 3, 1, 2, 4, 0], [0, 5, 5, 3, 0, 1, 0]] * 100, tf.int64)
    np.testing.assert_array_equal(
        table(ids)[:2, :, 0],
        [[4, 5**2 + 7**2, 5**2 + 8**2, 6**2 + 0], [0, 9**2 + 9**2, 7**2 + 5**2, 0]],
    )
    np.testing.assert_array_equal(present_ids(ids, fields)[:2], [[True, True, True, True], [False, True, True, False]])
    dropped = table(ids, training=True)[::2, 1, 0].numpy()
    assert set(dropped) == {5**2 + 7**2, 2 * 10**2}  # both rows, or the row for unseen ids for both


def test_linear_weights_start_at_zero_and_factors_spread_as_asked():
    table = EmbeddingTable(FIELDS, num_rows=8, dim=5000, stddev=0.1, seed=1)
    table.build((None, 4))
    values = table.table.numpy()
    np.testing.assert_array_equal(values[:, 0], np.zeros(8))
    assert np.std(values[1:, 1:]) == pytest.approx(0.1, rel=0.05)


POOLINGS = {
    "sum": [[4.0, 6.0], [1.0, 2.0], [0.0, 0.0]],
    "mean": [[2.0, 3.0], [1.0, 2.0], [0.0, 0.0]],
    "sqrtn": [[4 / 2**0.5, 6 / 2**0.5], [1.0, 2.0], [0.0, 0.0]],
}


def _autodiff_interact(rows, is_id, numbers, fields, over_positions):
    """What `interact` computes, written down plainly."""
    start, pooled = 0, []
    for field in fields:
        part = rows[:, start : start + field.max_length, 1:]
        count = tf.reduce_sum(tf.cast(is_id[:, start : start + field.max_length], tf.float32), axis=1, keepdims=True)
        count = tf.maximum(count, 1.0)
        total = tf.reduce_sum(part, axis=1)
        pooled.append(total / {"sum": 1, "mean": count, "sqrtn": tf.sqrt(count)}[field.pooling])
        start += field.max_length
    pooled = tf.stack(pooled, axis=1)
    vectors = rows[:, :, 1:] if over_positions else pooled
    return (
        tf.reduce_sum(rows[:, :, :1], axis=1),
        tf.reduce_sum(vectors, axis=1),
        tf.reduce_sum(tf.square(vectors), axis=[1, 2])[:, tf.newaxis],
        tf.concat([*tf.unstack(pooled, axis=1), numbers], axis=1),
    )


@pytest.mark.parametrize("over_positions", [False, True], ids=["fields", "positions"])
@pytest.mark.parametrize("pooling", ["sum", "mean", "sqrtn"])
def test_the_interactions_and_their_gradient_are_those_of_autodiff(pooling, over_positions):
    fields = [
        IdField("a", 0, 1, "sum", 0, 9),
        IdField("b", 1, 3, pooling, 0, 9),
        IdField("c", 4, 1, "sum", 0, 9),
        IdField("d", 5, 1, "sum", 0, 9),
        IdField("e", 6, 2, "sum", 0, 9),
    ]
    generator = np.random.default_rng(0)
    is_id = np.array([[1, 1, 1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1, 0, 0]], bool)
    rows = generator.normal(size=[2, 8, 4]).astype(np.float32) * np.float32(is_id)[:, :, None]
    outer = [generator.normal(size=shape).astype(np.float32) for shape in ([2, 1], [2, 3], [2, 1], [2, 17])]
    numbers = generator.normal(size=[2, 2]).astype(np.float32)
    results = []
    for function in (interact, _autodiff_interact):
        rows = tf.constant(rows)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            outputs = function(rows, is_id, numbers, fields, over_positions)
            loss = tf.add_n([tf.reduce_sum(output * weight) for output, weight in zip(outputs, outer, strict=True)])
        gradient = tape.gradient(loss, rows) * tf.cast(is_id, tf.float32)[:, :, tf.newaxis]
        results.append([*outputs, gradient])
    for ours, plain in zip(*results, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_of_two_one_and_no_ids(pooling):
    field = IdField("history", start=0, max_length=2, pooling=pooling, row_offset=0, num_buckets=4)
    is_id = np.array([[1, 1], [1, 0], [0, 0]], bool)
    rows = tf.constant([[[9.0, 1, 2], [9, 3, 4]], [[9, 1, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    sums = interact(rows, is_id, tf.zeros([3, 0]), [field], over_positions=False)
    np.testing.assert_allclose(sums.tower, POOLINGS[pooling], rtol=1e-6)
    np.testing.assert_array_equal(sums.linear, [[18], [9], [0]])


@pytest.mark.parametrize("num_vectors", [1, 2, 5])
def test_fm_term_is_the_sum_over_all_pairs(num_vectors):
    factors = np.random.default_rng(num_vectors).normal(size=[3, num_vectors, 4]).astype(np.float32)
    expected = [
        [sum(np.dot(vectors[i], vectors[j]) for i, j in itertools.combinations(range(num_vectors), 2))]
        for vectors in factors
    ]
    total, squares = factors.sum(axis=1), np.square(factors).sum(axis=(1, 2))[:, None]
    np.testing.assert_allclose(fm_term(total, squares), expected, rtol=1e-4, atol=1e-5)


def test_target_attention_is_the_mean_weighted_by_the_softmax_of_the_fit():
    attention = TargetAttention("attention", units=3, seed=1)
    generator = np.random.default_rng(0)
    sequence = generator.normal(size=[3, 2, 2]).astype(np.float32)
    target = generator.normal(size=[3, 1, 2]).astype(np.float32)
    is_id = np.array([[1, 1], [1, 0], [0, 0]], bool)
    pooled = attention(sequence, target, is_id).numpy()
    kernel, bias, score = (weight.numpy() for weight in attention.weights)
    for row in range(3):
        exponents = []
        for v in sequence[row][is_id[row]]:
            t = target[row, 0]
            hidden = 1 / (1 + np.exp(-(np.concatenate([v, t, v - t, v * t]) @ kernel + bias)))
            exponents.append(np.exp(hidden @ score)[0])
        weights = np.array(exponents) / max(sum(exponents), 1e-9)
        expected = weights @ sequence[row][is_id[row]] if len(weights) else np.zeros(2)
        np.testing.assert_allclose(pooled[row], expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(pooled[0], sequence[0].mean(axis=0), rtol=1e-3)


def test_target_attention_does_not_look_at_padding_however_well_that_fits():
    attention = TargetAttention("attention", units=1, seed=1)
    sequence, target = np.float32([[[1, 1], [-1, -1]]]), np.float32([[[1, 1]]])
    attention(sequence, target, np.array([[True, True]]))
    attention.set_weights([np.float32([[-9]] * 2 + [[0]] * 6), np.float32([0]), np.float32([[90]])])
    np.testing.assert_allclose(attention(sequence, target, np.array([[True, True]])).numpy(), [[-1, -1]])
    np.testing.assert_allclose(attention(sequence, target, np.array([[True, False]])).numpy(), [[1, 1]])


def test_id_dropout_reads_ids_as_unseen_ones_in_training_only():
    fields = [IdField("a", 0, 1, "sum", row_offset=0, num_buckets=3), IdField("b", 1, 1, "sum", 4, 2)]
    table = EmbeddingTable(fields, num_rows=8, dim=1, stddev=0.1, seed=1, id_dropout=0.25)
    table.build((None, 2))
    table.table.assign(np.repeat(np.arange(8, dtype=np.float32)[:, None], 2, axis=1))
    ids = tf.constant([[2, 1], [2, 0]] * 4000, tf.int64)
    np.testing.assert_array_equal(table(ids)[:2, :, 0], [[2, 5], [2, 0]])
    rows = table(ids, training=True)[:, :, 0].numpy()
    assert set(rows[:, 0]) == {2, 4}  # the bucket, or the row after the three buckets
    assert set(rows[0::2, 1]) == {5, 7}
    assert set(rows[1::2, 1]) == {0}  # padding stays padding
    assert np.mean(rows[:, 0] == 4) == pytest.approx(0.25, abs=0.02)


def test_id_dropout_of_one_field_leaves_the_others_as_they_are():
    fields = [IdField("a", 0, 1, "sum", row_offset=0, num_buckets=3), IdField("b", 1, 2, "sum", 4, 2)]
    table = EmbeddingTable(fields, num_rows=8, dim=1, stddev=0.1, seed=1, id_dropout=[0.75, 0.0])
    table.build((None, 3))
    table.table.assign(np.repeat(np.arange(8, dtype=np.float32)[:, None], 2, axis=1))
    rows = table(tf.constant([[2, 1, 2]] * 8000, tf.int64), training=True)[:, :, 0].numpy()
    assert np.mean(rows[:, 0] == 4) == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(rows[:, 1:], [[5, 6]] * 8000)


def test_rows_that_were_not_read_get_their_own_tables_unseen_row():
    fields = [IdField("a", 0, 1, "sum", row_offset=0, num_buckets=3), IdField("b", 1, 1, "sum", 4, 2)]
    table = EmbeddingTable(fields, num_rows=8, dim=1, stddev=0.1, seed=1, id_dropout=0.25)
    table.build((None, 2))
    table.table.assign(np.repeat(np.arange(8, dtype=np.float32)[:, None], 2, axis=1))
    table.fill_unseen(tf.constant([True, False, True, True, False, True, False, False]))
    np.testing.assert_array_equal(table.table.numpy()[:, 0], [0, 1, 4, 4, 4, 7, 6, 7])
