from __future__ import annotations

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from components.evaluation import training_ids
from components.evaluation.derived import derive, derived_columns
from components.evaluation.training_ids import TrainingIds, WriteTrainingIds, training_fields
from pipeline.beam import LOCAL_BEAM_ARGS
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.hashing import hash_ids

SPEC = FeatureSpec(
    "s",
    (
        IdFeature("user", 30),
        IdFeature("item", 50, dtype="string", table="item"),
        IdSequence("history", 50, 5, dtype="string", table="item"),
        IdFeature("shop", 4, num_hashes=2),
        IdFeature("country", 1000, dtype="string"),
        NumericFeature("price"),
    ),
)
COLUMNS = {"user_new", "user_colliding", "item_new", "item_colliding", "shop_colliding", "country_colliding"}
TRAINING = {
    "user": [[1], [2], [3], [2], [-4], []],
    "item": [["a"], ["b"], [""], ["c"], ["a"], ["b"]],
    "history": [["x", "y"], [], ["z"], ["a", "w"], [], ["x"]],
    "shop": [[1], [2], [3], [1], [1], [1]],
    "country": [["NO"], [], ["SE"], ["NO"], ["NO"], ["DK"]],
}


def _batch(columns):
    return pa.RecordBatch.from_pydict(
        {
            name: pa.array(rows, pa.large_list(pa.int64() if name in ("user", "shop") else pa.large_binary()))
            for name, rows in columns.items()
        }
    )


def _write(folder, *batches):
    with beam.Pipeline(argv=list(LOCAL_BEAM_ARGS)) as pipeline:
        _ = pipeline | beam.Create(list(batches)) | WriteTrainingIds(training_fields(SPEC, COLUMNS), str(folder))
    return TrainingIds(SPEC, str(folder), COLUMNS)


@pytest.fixture(scope="module")
def ids(tmp_path_factory):
    """Of two batches, one of which lacks a column's values."""
    second = {name: [[]] for name in TRAINING} | {"user": [[7]]}
    return _write(tmp_path_factory.mktemp("ids"), _batch(TRAINING), _batch(second))


def _brute_force(asked, training, num_buckets, num_hashes=1):
    """Which ids have the buckets of another one."""
    ids = [*asked, *training]
    raw = tf.constant(ids, tf.int64 if isinstance(ids[0], int) else tf.string)
    hashes = [hash_ids(raw, num_buckets, number).numpy().tolist() for number in range(num_hashes)]
    buckets = {id_: sorted(row) for id_, row in zip(ids, zip(*hashes, strict=True), strict=True)}
    return [any(other != id_ and buckets[other] == buckets[id_] for other in training) for id_ in asked]


def test_an_id_is_known_where_its_own_column_has_it_in_training(ids):
    assert ids.are_known("user", [1, 2, -4, 7, 4, 99]).tolist() == [True] * 4 + [False] * 2
    assert ids.are_known("item", [b"a", b"c", b"x", b"NO"]).tolist() == [True, True, False, False]


def test_an_id_collides_where_another_of_its_table_has_its_buckets(ids):
    asked = list(range(60))
    found = ids.are_colliding("user", asked)
    assert found.tolist() == _brute_force(asked, [1, 2, 3, -4, 7], 30)
    assert 0 < found.sum() < 60
    texts = [b"a", b"x", *(b"item %d" % number for number in range(100))]
    of_table = [b"a", b"b", b"c", b"x", b"y", b"z", b"w"]
    expected = _brute_force(texts, of_table, 50)
    assert ids.are_colliding("item", texts).tolist() == expected
    assert expected != _brute_force(texts, of_table[:3], 50)  # the sequence's ids make a difference


def test_with_two_hashes_both_buckets_must_be_the_same_in_any_order(ids):
    asked = list(range(80))
    found = ids.are_colliding("shop", asked).tolist()
    assert found == _brute_force(asked, [1, 2, 3], 4, 2)
    assert found != _brute_force(asked, [1, 2, 3], 4)


def test_columns_say_it_in_words_and_a_missing_or_empty_id_is_none(ids):
    features = {
        "user": np.array([[1], [99]]),
        "item": tf.compat.v1.SparseTensorValue(np.array([[0, 0]]), np.array([b""], object), np.array([2, 1])),
    }
    found = derive(SPEC, features, {"user_new", "item_new", "item_colliding"}, ids)
    assert {name: values.tolist() for name, values in found.items()} == {
        "user_new": ["known", "new"],
        "item_new": ["none", "none"],
        "item_colliding": ["none", "none"],
    }


def test_only_what_columns_need_is_read():
    names = [field.name for field in training_fields(SPEC, COLUMNS)]
    assert names == ["user", "item", "history", "shop", "country"]
    assert [field.name for field in training_fields(SPEC, {"item_new", "user_length", "user"})] == ["item", "history"]
    assert training_fields(SPEC, {"history_length", "user"}) == ()
    assert {"user_new", "shop_colliding"} < set(derived_columns(SPEC))
    assert not {"history_new", "price_new"} & set(derived_columns(SPEC))


def test_a_field_without_ids_has_a_file_and_no_file_is_an_error(tmp_path):
    ids = _write(tmp_path, _batch({name: [[]] for name in TRAINING}))
    assert not ids.are_known("user", [1]).any()
    assert not ids.are_colliding("item", [b"a"]).any()
    (tmp_path / "user.fingerprints").unlink()
    with pytest.raises(Exception, match=r"user\.fingerprints"):
        TrainingIds(SPEC, str(tmp_path), COLUMNS)


def test_many_parts_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(training_ids, "_MIN_PENDING", 10)
    batches = [
        _batch({name: [[]] * 30 for name in TRAINING} | {"user": [[(7 * part + row) % 100] for row in range(30)]})
        for part in range(20)
    ]
    ids = _write(tmp_path, *batches)
    assert ids.are_known("user", list(range(-10, 110))).sum() == 100
    assert (tmp_path / "user.fingerprints").stat().st_size == 8 * 102
