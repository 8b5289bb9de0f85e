from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from schemas.features import FeatureSpec, IdFeature, IdSequence
from trainer.config import ModelConfig
from trainer.kernels import own_kernels
from trainer.model import model_fn
from trainer.optimizers import ROW_RULES, Adagrad, Adam, FusedAdam, RowSparse, RowwiseAdagrad
from trainer.rows import RowTable, plan, stride_of


@pytest.fixture(autouse=True, params=["own kernels", "TensorFlow's operations"])
def _kernels(request, monkeypatch):
    if request.param == "own kernels":
        assert own_kernels()
    else:
        monkeypatch.setattr("trainer.rows.own_kernels", lambda: None)


DENSE = {"adam": keras.optimizers.Adam, "adagrad": keras.optimizers.Adagrad}
EVERY_ROW = [[5, 1, 2, 3, 4, 2, 2, 5], [4, 3, 2, 1, 5], [1, 1, 1, 5, 2, 3, 4]]


VALUES = np.linspace(-1, 1.1, 15, dtype=np.float32).reshape(5, 3)


def _rows(values):
    table = RowTable(*np.shape(values), lambda shape, dtype: tf.constant(values, dtype), name="table")
    table.build()
    return table


def _table():
    """Row 0, which is nobody's, and five more."""
    return _rows(np.concatenate([np.zeros([1, 3], np.float32), VALUES]))


def _loss(rows, weights):
    return tf.reduce_sum(tf.cast(weights or [1.0] * len(rows), tf.float32)[:, None] * tf.square(rows))


def _step(optimizer, table, ids, weights=None):
    """One step of sum_i w_i * |row_i|^2 over the ids of a batch, some of which come twice; of what it has read."""
    read = table.read(plan(tf.constant(ids, tf.int32)))
    with tf.GradientTape() as tape:
        tape.watch(read.values)
        loss = _loss(tf.gather(read.values, read.position), weights)
    gradient = tf.IndexedSlices(tf.convert_to_tensor(tape.gradient(loss, read.values)), read.rows)
    optimizer.apply([gradient], [table.table], read)


def _step_slices(optimizer, table, ids):
    """The same, of a gradient that has a row as often as the batch has it."""
    rows = table.gather(tf.constant(ids))
    optimizer.apply([tf.IndexedSlices(2 * rows, tf.constant(ids))], [table.table])


def _step_dense(optimizer, variable, ids):
    """The same, of a gradient of the whole table."""
    with tf.GradientTape() as tape:
        loss = _loss(tf.gather(variable.value, ids), None)
    # Keras 3's optimizers square the gradients of a row that comes twice one by one, where they are given as slices.
    optimizer.apply([tf.convert_to_tensor(tape.gradient(loss, variable.value))], [variable])


def _row_sparse(rule, table, learning_rate=0.1):
    optimizer = RowSparse(keras.optimizers.SGD(learning_rate), rule, [table])
    optimizer.build([table.table])
    return optimizer


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("step", [_step, _step_slices])
def test_a_batch_of_every_row_is_stepped_as_by_the_dense_optimizer(step, name):
    sparse_table, dense_table = _table(), keras.Variable(_table().numpy())
    sparse, dense = _row_sparse(ROW_RULES[name](), sparse_table), DENSE[name](0.1)
    for ids in EVERY_ROW:
        step(sparse, sparse_table, ids)
        _step_dense(dense, dense_table, ids)
    assert np.abs(dense_table.numpy() - _table().numpy())[1:].min() > 1e-3
    np.testing.assert_allclose(sparse_table.numpy(), dense_table.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ROW_RULES.values(), ids=ROW_RULES.keys())
def test_rows_that_a_batch_does_not_read_keep_their_values_and_slots_to_the_bit(rule):
    table = _table()
    optimizer = _row_sparse(rule(), table)
    for ids in EVERY_ROW:
        _step(optimizer, table, ids)
    values, slots = table.numpy(), table.slots().numpy()
    _step(optimizer, table, [1, 3, 3])
    np.testing.assert_array_equal(table.numpy()[[0, 2, 4, 5]], values[[0, 2, 4, 5]])
    np.testing.assert_array_equal(table.slots().numpy()[[0, 2, 4, 5]], slots[[0, 2, 4, 5]])
    assert np.all(table.numpy()[[1, 3]] != values[[1, 3]])
    assert np.all(table.slots().numpy()[[1, 3]] != slots[[1, 3]])


@pytest.mark.parametrize("rule", ROW_RULES.values(), ids=ROW_RULES.keys())
def test_a_row_counts_as_read_however_small_its_gradient_is(rule):
    table = _rows(np.ones([5, 2], np.float32))
    optimizer = _row_sparse(rule(), table)
    _step(optimizer, table, [1, 3], weights=[1e-6, 1e-9])
    np.testing.assert_array_equal(optimizer.is_untouched(table), [True, False, True, False, True])


@pytest.mark.parametrize("rule", ROW_RULES.values(), ids=ROW_RULES.keys())
def test_an_id_that_comes_twice_is_stepped_once_with_the_sum(rule):
    twice, once = _table(), _table()
    _step(_row_sparse(rule(), twice), twice, [2, 4, 2])
    _step(_row_sparse(rule(), once), once, [2, 4], weights=[2.0, 1.0])
    np.testing.assert_allclose(twice.numpy(), once.numpy(), rtol=1e-6)


@pytest.mark.parametrize("rule", ROW_RULES.values(), ids=ROW_RULES.keys())
def test_row_0_is_never_moved(rule):
    table = _rows(np.ones([3, 2], np.float32))
    optimizer = _row_sparse(rule(), table)
    for _ in range(3):
        _step(optimizer, table, [0, 1, 0])
    np.testing.assert_array_equal(table.numpy()[[0, 2]], np.ones([2, 2]))
    assert np.all(table.numpy()[1] < 1)


def test_the_tables_shrink_by_the_steps_of_gradient_descent_on_the_penalty():
    table = _table()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.25])
    optimizer = RowSparse(keras.optimizers.SGD(schedule), Adagrad(), [table], l2=0.1)
    optimizer.build([table.table])
    for _ in range(3):
        _step(optimizer, table, [1])
    before = table.numpy()
    np.testing.assert_array_equal(before[2:], _table().numpy()[2:])  # no step pays for it
    optimizer.shrink_tables()
    np.testing.assert_allclose(table.numpy(), before * (1 - 0.05) ** 2 * (1 - 0.025), rtol=1e-5)
    optimizer.shrink_tables()
    np.testing.assert_allclose(table.numpy(), before * (1 - 0.05) ** 2 * (1 - 0.025), rtol=1e-5)


def test_adagrads_known_answer():
    table = _rows(np.float32([[0.0, 0.0], [3.0, 1.0]]))
    optimizer = _row_sparse(Adagrad(initial_accumulator=0.0, epsilon=0.0), table)
    _step(optimizer, table, [1])  # gradient (6, 2)
    np.testing.assert_allclose(table.numpy(), [[0, 0], [3 - 0.1 * 6 / 6, 1 - 0.1 * 2 / 2]], rtol=1e-6)
    np.testing.assert_allclose(table.slots().numpy()[1:], [[36, 4]])


def test_rowwise_adagrads_known_answer():
    table = _rows(np.float32([[0.0, 0.0], [3.0, 1.0]]))
    optimizer = _row_sparse(RowwiseAdagrad(initial_accumulator=0.0, epsilon=0.0), table)
    _step(optimizer, table, [1])  # gradient (6, 2), whose mean square is 20
    np.testing.assert_allclose(table.numpy(), [[0, 0], [3 - 0.1 * 6 / 20**0.5, 1 - 0.1 * 2 / 20**0.5]], rtol=1e-6)
    np.testing.assert_allclose(table.slots().numpy()[1:], [[20]])


def test_adams_known_answer():
    table = _rows(np.float32([[0.0, 0.0], [3.0, -1.0]]))
    optimizer = _row_sparse(Adam(epsilon=0.0), table)
    _step(optimizer, table, [1])  # the first step of Adam is the rate, in the gradient's direction
    np.testing.assert_allclose(table.numpy(), [[0, 0], [2.9, -0.9]], rtol=1e-5)
    np.testing.assert_allclose(table.slots().numpy()[1:], [[0.6, -0.2, 0.036, 0.004]], rtol=1e-4)


def test_the_rest_is_stepped_by_its_own_optimizer_whose_rate_and_steps_are_the_whole_ones():
    table, bias = _table(), keras.Variable(np.float32([1.0]), name="bias")
    optimizer = RowSparse(keras.optimizers.SGD(0.5), Adam(), [table])
    optimizer.build([table.table, bias])
    gradients = [tf.IndexedSlices(tf.ones([1, 3]), tf.constant([1])), tf.constant([2.0])]
    optimizer.apply(gradients, [table.table, bias])
    np.testing.assert_allclose(bias.numpy(), [0.0])
    assert int(optimizer.iterations) == int(optimizer.rest.iterations) == 1
    before = table.numpy()
    optimizer.learning_rate = 0.0
    assert float(optimizer.rest.learning_rate) == 0.0
    _step(optimizer, table, [1])
    np.testing.assert_array_equal(table.numpy(), before)


def test_a_tables_learning_rate_may_be_a_multiple_of_the_rests():
    table, bias = _table(), keras.Variable(np.float32([1.0]), name="bias")
    faster = RowSparse(keras.optimizers.SGD(0.01), Adagrad(), [table], table_rate=10.0)
    faster.build([table.table, bias])
    gradient = tf.IndexedSlices(tf.ones([1, 3]), tf.constant([1]))
    faster.apply([gradient, tf.constant([1.0])], [table.table, bias])
    np.testing.assert_allclose(bias.numpy(), [0.99])
    same = _table()
    _row_sparse(Adagrad(), same, 0.1).apply([gradient], [same.table])
    np.testing.assert_allclose(table.numpy(), same.numpy())


def test_a_schedule_of_the_rest_is_the_tables_too():
    table = _table()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.0])
    optimizer = RowSparse(keras.optimizers.SGD(schedule), Adagrad(), [table])
    optimizer.build([table.table])
    _step(optimizer, table, [1])
    _step(optimizer, table, [1])
    after_two = table.numpy()
    assert np.all(after_two[1] != _table().numpy()[1])
    _step(optimizer, table, [1])
    np.testing.assert_array_equal(table.numpy(), after_two)


def test_fit_touches_the_rows_of_the_ids_and_row_0_never():
    spec = FeatureSpec("s", (IdFeature("item", 50, table="t"), IdSequence("history", 50, max_length=3, table="t")))
    model = model_fn(spec, ModelConfig(embedding_dim=4, hidden_units=(8,), embedding_l2=0.1))
    before = model.embedding_table.numpy()
    optimizer = RowSparse(keras.optimizers.Adam(0.01), Adam(), model.tables)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    ids = np.array([[3, 7, 0, 0], [9, 7, 8, 0]], np.int64)
    model.fit({"ids": ids}, np.float32([[1], [0]]), batch_size=1, epochs=3, verbose=0)
    changed = np.flatnonzero(np.any(model.embedding_table.numpy() != before, axis=1))
    np.testing.assert_array_equal(changed, [3, 7, 8, 9])
    assert int(optimizer.iterations) == 6


def test_the_fused_adam_is_keras_adam():
    generator = np.random.default_rng(0)
    start = [generator.normal(size=shape).astype(np.float32) for shape in ([3, 2], [4], [])]
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 5)
    ends = []
    for kind in (FusedAdam, keras.optimizers.Adam):
        variables = [keras.Variable(values) for values in start]
        optimizer = kind(schedule, beta_1=0.8, epsilon=1e-3)
        gradients = np.random.default_rng(1)
        for _ in range(5):
            optimizer.apply([tf.constant(gradients.normal(size=v.shape), tf.float32) for v in variables], variables)
        ends.append([variable.numpy() for variable in (*variables, *optimizer.variables)])
    assert len(ends[0]) == len(ends[1]) == 3 + 1 + 6
    for fused, kerass in zip(*ends, strict=True):
        np.testing.assert_allclose(fused, kerass, rtol=1e-5, atol=5e-6)
    assert np.abs(ends[0][0] - start[0]).min() > 0.01


@pytest.mark.parametrize(("width", "stride"), [(27, 32), (51, 51), (62, 64), (33, 33), (10, 10), (16, 16)])
def test_rows_begin_with_a_cache_line_where_that_is_at_most_a_quarter_more_memory(width, stride):
    assert stride_of(width) == stride


def test_what_fills_a_row_up_is_neither_a_value_nor_a_slot():
    values = np.random.default_rng(0).normal(size=[4, 9]).astype(np.float32)
    table = _rows(values)
    optimizer = _row_sparse(Adam(), table)
    assert table.table.shape == (4, 32)
    np.testing.assert_array_equal(table.numpy(), values)
    assert table.slots().shape == (4, 18)
    _step(optimizer, table, [1, 2, 2])
    slots = table.slots().numpy()
    assert np.all(slots[[1, 2]] != 0)
    table.assign_slots(slots + 1)
    table.assign(values + 1)
    np.testing.assert_array_equal(table.numpy(), values + 1)
    np.testing.assert_array_equal(table.slots(), slots + 1)
    np.testing.assert_array_equal(table.table.numpy()[:, 27:], np.zeros([4, 5]))


def test_rows_are_served_without_their_slots():
    table = _table()
    optimizer = _row_sparse(Adagrad(), table)
    _step(optimizer, table, [1, 2])
    values, path = table.numpy(), table.table.path
    assert table.table.shape == (6, 6)
    np.testing.assert_array_equal(table.gather(tf.constant([[2]])), values[[[2]]])
    table.add_slots(0)
    assert table.table.shape == (6, 3)
    assert table.table.path == path
    assert [variable.path for variable in table.trainable_variables] == [path]
    np.testing.assert_array_equal(table.numpy(), values)
    np.testing.assert_array_equal(table.gather(tf.constant([[2]])), values[[[2]]])
