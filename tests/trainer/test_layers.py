from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from schemas.features import IdField
from trainer.layers import EmbeddingTable, fm_term, pool_fields

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
    table.table.assign(np.arange(24, dtype=np.float32).reshape(8, 3))
    rows = table(tf.constant([[1, 4, 2, 1], [4, 0, 0, 3]], tf.int64))
    np.testing.assert_array_equal(
        rows,
        [
            [[3, 4, 5], [12, 13, 14], [6, 7, 8], [15, 16, 17]],  # rows 1, 4, 2 and 4 + 1
            [[12, 13, 14], [0, 0, 0], [0, 0, 0], [21, 22, 23]],  # rows 4, padding, padding, 4 + 3
        ],
    )


def test_padding_is_zero_whatever_row_0_holds():
    table = _table()
    table.table.assign(np.full([8, 3], np.float32(7)))
    np.testing.assert_array_equal(table(tf.zeros([1, 4], tf.int64)), np.zeros([1, 4, 3]))


def test_row_0_gets_no_gradient():
    table = _table()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(table(tf.constant([[1, 0, 0, 2]], tf.int64)))
    gradient = tf.convert_to_tensor(tape.gradient(loss, table.table.value))
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 0, 0, 0, 0, 1, 0])


def test_linear_weights_start_at_zero_and_factors_spread_as_asked():
    table = EmbeddingTable(FIELDS, num_rows=8, dim=5000, stddev=0.1, seed=1)
    table.build((None, 4))
    values = table.table.numpy()
    np.testing.assert_array_equal(values[:, 0], np.zeros(8))
    assert np.std(values[:, 1:]) == pytest.approx(0.1, rel=0.05)


POOLINGS = {
    "sum": [[4.0, 6.0], [1.0, 2.0], [0.0, 0.0]],
    "mean": [[2.0, 3.0], [1.0, 2.0], [0.0, 0.0]],
    "sqrtn": [[4 / 2**0.5, 6 / 2**0.5], [1.0, 2.0], [0.0, 0.0]],
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_of_two_one_and_no_ids(pooling):
    field = IdField("history", start=0, max_length=2, pooling=pooling, row_offset=0, num_buckets=4)
    ids = tf.constant([[3, 4], [3, 0], [0, 0]], tf.int64)
    factors = tf.constant([[[1.0, 2], [3, 4]], [[1, 2], [0, 0]], [[0, 0], [0, 0]]])
    np.testing.assert_allclose(pool_fields(factors, ids, [field])[:, 0], POOLINGS[pooling], rtol=1e-6)


@pytest.mark.parametrize("num_vectors", [1, 2, 5])
def test_fm_term_is_the_sum_over_all_pairs(num_vectors):
    factors = np.random.default_rng(num_vectors).normal(size=[3, num_vectors, 4]).astype(np.float32)
    expected = [
        [sum(np.dot(vectors[i], vectors[j]) for i, j in itertools.combinations(range(num_vectors), 2))]
        for vectors in factors
    ]
    np.testing.assert_allclose(fm_term(tf.constant(factors)), expected, rtol=1e-4, atol=1e-5)


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


def test_rows_that_were_not_read_get_their_own_tables_unseen_row():
    fields = [IdField("a", 0, 1, "sum", row_offset=0, num_buckets=3), IdField("b", 1, 1, "sum", 4, 2)]
    table = EmbeddingTable(fields, num_rows=8, dim=1, stddev=0.1, seed=1, id_dropout=0.25)
    table.build((None, 2))
    table.table.assign(np.repeat(np.arange(8, dtype=np.float32)[:, None], 2, axis=1))
    table.fill_unseen(tf.constant([True, False, True, True, False, True, False, False]))
    np.testing.assert_array_equal(table.table.numpy()[:, 0], [0, 1, 4, 4, 4, 7, 6, 7])
