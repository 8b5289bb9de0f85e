from __future__ import annotations

import importlib.machinery
import logging
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.framework import op_def_registry

import trainer.kernels
import trainer.rows
from schemas.features import FeatureSpec, IdFeature, IdSequence
from trainer.config import ModelConfig, TrainingConfig
from trainer.kernels import own_kernels
from trainer.layers import EmbeddingTable, interact, interact_read, present_ids
from trainer.model import model_fn
from trainer.rows import plan
from trainer.train import compile_model

ONE_HASH = FeatureSpec(
    "s",
    (
        IdFeature("user", 9),
        IdFeature("item", 10, table="item"),
        IdSequence("history", 10, max_length=5, table="item", pooling="mean"),
        IdSequence("tags", 10, max_length=4, pooling="sqrtn"),
        IdSequence("sum", 10, max_length=3, pooling="sum"),
        IdSequence("fit", 10, max_length=3, table="item", pooling="target_attention", target="item"),
    ),
)
TWO_HASHES = FeatureSpec(
    "s",
    (
        IdFeature("user", 9, num_hashes=2),
        IdSequence("history", 10, max_length=5, pooling="mean", num_hashes=2),
        IdSequence("tags", 10, max_length=4, pooling="sqrtn"),
    ),
)


def _table(spec, dim=3):
    table = EmbeddingTable(spec.id_fields, spec.num_table_rows, dim, stddev=1.0, seed=1)
    table.build()
    values = np.random.default_rng(0).normal(size=table.shape).astype(np.float32)
    table.assign(values * (np.arange(table.shape[0]) > 0)[:, np.newaxis])
    return table


def _ids(spec, is_padded, batch=7):
    generator = np.random.default_rng(1)
    ids = np.zeros([batch, spec.num_positions], np.int64)
    for field in spec.id_fields:
        is_id = np.tile(generator.random([batch, field.max_length]) < (0.6 if is_padded else 2), field.num_hashes)
        ids[:, field.positions] = np.where(is_id, generator.integers(1, field.unseen, is_id.shape), 0)
    if is_padded:
        ids[-1] = 0
    return ids


@pytest.mark.parametrize(("dim", "num_numbers"), [(1, 0), (3, 1), (8, 13), (16, 0), (32, 2)])
@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize(
    ("spec", "over_positions"),
    [(ONE_HASH, False), (ONE_HASH, True), (TWO_HASHES, False)],
    ids=["fields", "positions", "two hashes"],
)
def test_sums_and_gradients_of_read_rows_are_those_of_each_positions_row(
    spec, over_positions, is_padded, dim, num_numbers
):
    table, ids = _table(spec, dim), _ids(spec, is_padded)
    read = table.read(table.plan(tf.constant(ids)))
    num_fields = len(spec.id_fields)
    shapes = [[len(ids), 1], [len(ids), dim], [len(ids), 1], [len(ids), num_fields * dim + num_numbers]]
    generator = np.random.default_rng(2)
    numbers = tf.constant(generator.normal(size=[len(ids), num_numbers]).astype(np.float32))
    weights = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    found = []
    for is_own in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(read.values)
            if is_own:
                sums = interact_read(own_kernels(), read, numbers, spec.id_fields, over_positions)
            else:
                is_id = present_ids(ids, spec.id_fields)
                sums = interact(table(ids, read=read), is_id, numbers, spec.id_fields, over_positions)
            total = tf.add_n([tf.reduce_sum(part * weight) for part, weight in zip(sums, weights, strict=True)])
        gradient = tf.convert_to_tensor(tape.gradient(total, read.values)).numpy()
        if not is_own:
            gradient[read.rows.numpy() == 0] = 0  # row 0 is never moved, whatever its gradient
        found.append([*sums, gradient])
    assert (0 in read.rows) == is_padded
    for own, plain in zip(*found, strict=True):
        assert np.abs(plain).max() > 1e-3
        np.testing.assert_allclose(own, plain, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([2, 50, 2**31 - 20]), st.integers(0, 9))
@settings(deadline=None)
def test_a_plan_is_that_of_tensorflow(batch, num_positions, highest, seed):
    generator = np.random.default_rng(seed)
    ids = generator.integers(-1, highest, [batch, num_positions])
    offsets = generator.integers(0, 9, num_positions).astype(np.int32)
    rows, position = own_kernels().ctr_plan_rows(ids=ids, offsets=offsets)
    expected = plan(tf.constant(np.where(ids > 0, ids + offsets, 0), tf.int32))
    np.testing.assert_array_equal(rows, expected.rows)
    np.testing.assert_array_equal(position, expected.position)


def test_an_empty_batch_has_no_rows():
    rows, position = own_kernels().ctr_plan_rows(ids=np.zeros([0, 3], np.int64), offsets=np.zeros(3, np.int32))
    assert (rows.shape, position.shape) == ([0], [0, 3])


@pytest.mark.parametrize("rows", [[3, 24], [-1]])
def test_a_row_that_the_table_does_not_have_is_an_error_and_nothing_is_written(rows):
    table = _table(FeatureSpec("s", (IdFeature("user", 22),)))
    assert table.shape[0] == 24
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"row {rows[-1]} of a table of 24"):
        own_kernels().ctr_read_rows(**table.memory(), rows=rows, width=4)
    table.add_slots(4)
    before = table.table.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"row {rows[-1]} of a table of 24"):
        own_kernels().ctr_step_adagrad(
            **table.memory(), rows=rows, gradient=np.ones([len(rows), 4], np.float32), rate=1.0, epsilon=0.0
        )
    np.testing.assert_array_equal(table.table.numpy(), before)


def _interact(**changed):
    inputs = {
        "values": np.zeros([2, 3], np.float32),
        "rows": [1, 2],
        "position": [[0, 1]],
        "sizes": [1, 1],
        "hashes": [1, 1],
        "poolings": [0, 0],
        "numbers": np.zeros([1, 0], np.float32),
    }
    return own_kernels().ctr_interact(**inputs | changed, over_positions=False)


def _read(variable, **inputs):
    return own_kernels().ctr_read_rows(table=variable.handle, stored=variable, **inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: k.ctr_plan_rows(ids=np.zeros([2, 2], np.int64), offsets=[0, 0, 0]), "an offset for each position"),
        (lambda _: _read(tf.Variable([1.0]), rows=[1], width=1), "a variable with two axes"),
        (lambda _: _read(tf.Variable([[1.0]]), rows=[0], width=2), "a row is not as long"),
        (lambda _: _read(tf.Variable([[1.0]]), rows=[0], width=-1), "a row is not as long"),
        (lambda _: _read(tf.Variable([[1.0]]), rows=[0], width=np.zeros([0], np.int32)), "one width"),
        (lambda _: _interact(sizes=[3, -1]), "the fields have other positions"),
        (lambda _: _interact(position=[[0, 2]]), "a position's row has not been read"),
        (lambda _: _interact(position=[[0, -1]]), "a position's row has not been read"),
        (lambda _: _interact(sizes=[1, 2]), "the fields have other positions"),
        (lambda _: _interact(poolings=[0]), "the fields have other positions"),
        (lambda _: _interact(numbers=np.zeros([2, 1], np.float32)), "numbers for each example"),
    ],
)
def test_inputs_that_do_not_fit_are_an_error(call, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call(own_kernels())


def test_slots_of_another_rule_are_an_error():
    table = _table(FeatureSpec("s", (IdFeature("user", 22),)))
    gradient = np.ones([1, 4], np.float32)
    settings = {"to_m": 0.1, "to_v": 0.1, "epsilon": 0.1}
    with pytest.raises(tf.errors.InvalidArgumentError, match="the table has other slots"):
        own_kernels().ctr_step_adam(**table.memory(), rows=[1], gradient=gradient, rate=1.0, **settings)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one rate"):
        own_kernels().ctr_step_adam(
            **table.memory(), rows=[1], gradient=gradient, rate=np.zeros([0], np.float32), **settings
        )


def test_a_table_of_more_than_2_31_numbers_is_read_by_64_bits(monkeypatch):
    table = _table(FeatureSpec("s", (IdFeature("user", 22),)))
    monkeypatch.setattr(trainer.rows, "MAX_INT32", 24 * 4 - 1)
    graph = tf.function(table.gather).get_concrete_function(tf.TensorSpec([2], tf.int32)).graph
    (gather,) = (operation for operation in graph.get_operations() if "GatherNd" in operation.type)
    assert gather.inputs[1].dtype == tf.int64
    np.testing.assert_array_equal(table.gather(tf.constant([3, 1])), table.numpy()[[3, 1]])


def test_training_and_inference_pool_in_one_way():
    spec = FeatureSpec(
        "s",
        (
            IdFeature("item", 10, table="item"),
            IdSequence("fit", 10, max_length=3, table="item", pooling="target_attention", target="item"),
        ),
    )
    model = model_fn(spec, ModelConfig(use_deep=False, embedding_stddev=1.0))
    ids = tf.constant([[1, 2, 3, 0]], tf.int64)
    read = model.embedding_table.read(model.embedding_table.plan(ids))
    np.testing.assert_allclose(model({"ids": ids}, training=True, read=read), model({"ids": ids}), rtol=1e-5)


def test_without_the_library_tensorflows_operations_are_taken_and_the_log_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trainer.kernels, "__file__", str(tmp_path / "kernels.py"))
    with caplog.at_level(logging.WARNING):
        assert own_kernels.__wrapped__() is None
    assert "could not be compiled when this package was installed" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "file too short"), (None, f"no operations for TensorFlow {tf.__version__}")],
    ids=["cut off", "of another TensorFlow"],
)
def test_a_library_that_cannot_be_used_is_said_and_not_taken(content, message, tmp_path, monkeypatch, caplog):
    library = tmp_path / f"row_kernels{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if content is None:  # of nothing that registers operations
        subprocess.run(["c++", "-shared", "-fPIC", "-x", "c++", "/dev/null", "-o", library], check=True)
    else:
        library.write_bytes(content)
    monkeypatch.setattr(trainer.kernels, "__file__", str(tmp_path / "kernels.py"))
    with caplog.at_level(logging.WARNING):
        assert own_kernels.__wrapped__() is None
    assert message in caplog.text


def test_only_what_reads_or_writes_the_table_has_a_state():
    own_kernels()
    names = ["CtrPlanRows", "CtrInteract", "CtrInteractGradient", "CtrReadRows", "CtrStepAdam", "CtrStepAdagrad"]
    stateful = [name for name in names if op_def_registry.get(name).is_stateful]
    assert stateful == ["CtrReadRows", "CtrStepAdam", "CtrStepAdagrad"]


def test_gpus_have_tensorflows_operations(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"] * (kind == "GPU"))
    assert own_kernels.__wrapped__() is None


def test_a_table_whose_memory_is_given_out_as_copies_is_not_trained():
    spec = FeatureSpec("s", (IdFeature("user", 9),))
    model = model_fn(spec, ModelConfig(hidden_units=(4,)))
    compile_model(model, TrainingConfig(learning_rate=0.1))
    batch = {"ids": np.int64([[1], [2]])}
    data = tf.data.Dataset.from_tensors((batch, np.float32([[1], [0]])))
    model.fit(data, verbose=0)
    before = model.embedding_table.numpy()
    model(batch)
    model.evaluate(data, verbose=0)
    model.fit(data, verbose=0)  # to infer is no harm
    assert np.all(model.embedding_table.numpy()[1:3, 1:] != before[1:3, 1:])
    handle = model.embedding_table.memory()["table"]
    tf.raw_ops.ResourceGather(resource=handle, indices=[1], dtype=tf.float32)
    with pytest.raises(RuntimeError, match="embedding_table cannot be trained"):
        model.fit(data, verbose=0)
