from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature, no_value
from schemas.hashing import hash_ids
from schemas.tfmd import make_schema
from transform.preprocessing import preprocessing_fn, transform_impressions

SPEC = FeatureSpec(
    "test",
    (
        IdFeature("user", 1000),
        IdFeature("country", 50, dtype="string"),
        IdSequence("history", 100, max_length=3),
        IdSequence("tags", 20, max_length=2, dtype="string"),
        NumericFeature("age", dtype="int64"),
        NumericFeature("price", "log1p_z_score"),
        NumericFeature("constant"),
        NumericFeature("visits", "quantile_buckets", dtype="int64", num_buckets=2),
    ),
)
NAN = float("nan")
COLUMNS = ("user", "country", "history", "tags", "age", "price", "constant", "visits", "label")
# The last three columns' statistics are easy to follow: ages 10 and 30, log(1 + price) of 0 and 2, a constant.
ROWS = [
    ([7], [b"DE"], [1, 2, 3], [b"a", b"b"], [10], [0.0], [5.0], [1], [1]),  # everything is there
    ([8], [b"FR"], [1, 2, 3, 4, 5], [b"a", b"b", b"c"], [30], [math.e**2 - 1], [5.0], [9], [0]),  # over-long
    ([], [], [], [], [], [], [], [], [0]),  # nothing is there
    ([9], [b""], [6], [b"", b"c"], [10], [0.0], [5.0], [2], [1]),  # empty strings
    ([7], [b"DE"], [6, 6], [b"b", b""], [30], [math.e**2 - 1], [5.0], [8], [0]),  # the same id twice
    ([-5], ["Çà".encode()], [-1], [b"\xff"], [10], [0.0], [5.0], [1], [0]),  # negative, not ASCII, not UTF-8
    ([2**63 - 1], [b"x" * 100], [0], [b"a"], [30], [math.e**2 - 1], [5.0], [9], [1]),  # the greatest id
    ([1], [b"DE"], [4], [b"a", b"", b"b"], [10], [0.0], [5.0], [3], [1]),  # an empty string takes a place
    ([7], [b"DE"], [1], [b"a"], [30], [NAN], [NAN], [7], [0]),  # not a number
    ([7], [b"DE"], [1], [b"a"], [], [math.inf], [-math.inf], [], [0]),  # missing and infinite
]


def _bucket(raw, num_buckets):
    """What the model reads for one id: by TensorFlow's own hash of its bytes, plus one."""
    text = raw if isinstance(raw, bytes) else struct.pack("<q", raw)
    return 1 + int(tf.strings.to_hash_bucket_fast([text], num_buckets)[0])


def _example(row):
    """A row as the serialized tf.Example that the ingestion makes of it."""
    example = tf.train.Example()
    for feature, values in zip(make_schema(SPEC).feature, row, strict=True):
        kind = {schema_pb2.INT: "int64_list", schema_pb2.FLOAT: "float_list", schema_pb2.BYTES: "bytes_list"}
        if values:
            getattr(example.features.feature[feature.name], kind[feature.type]).value.extend(values)
    return example.SerializeToString()


def _instance(row):
    """A row as TFT's instances have it: one value where there is one at most, with what stands for none."""
    singles = {feature.name: no_value(feature) for feature in SPEC.features if not isinstance(feature, IdSequence)}
    values = dict(zip(COLUMNS, row, strict=True))
    return {
        name: (values[name] or [singles[name]])[0] if name in singles or name == "label" else values[name]
        for name in COLUMNS
    }


def _transform(rows, spec, folder):
    metadata = dataset_metadata.DatasetMetadata(make_schema(spec))
    with tft_beam.Context(temp_dir=str(folder / "temp")):
        (instances, _), transform_fn = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(
            lambda inputs: transform_impressions(inputs, spec)
        )
        _ = transform_fn | tft_beam.WriteTransformFn(str(folder / "graph"))
    return instances, tft.TFTransformOutput(str(folder / "graph"))


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """The ten rows through TFT on Beam, and the transform graph that this leaves."""
    instances, graph = _transform([_instance(row) for row in ROWS], SPEC, tmp_path_factory.mktemp("tft"))
    return {name: np.stack([instance[name] for instance in instances]) for name in ("ids", "numbers", "label")}, graph


def test_ids_of_ten_literal_rows(transformed):
    def user(raw):
        return _bucket(raw, 1000)

    def country(raw):
        return _bucket(raw, 50)

    def item(raw):
        return _bucket(raw, 100)

    def tag(raw):
        return _bucket(raw, 20)

    low, high = 1, 2  # visits: 1, 2, 1, 3 and 9, 8, 9, 7
    expected = [
        [user(7), country(b"DE"), item(1), item(2), item(3), tag(b"a"), tag(b"b"), low],
        [user(8), country(b"FR"), item(3), item(4), item(5), tag(b"b"), tag(b"c"), high],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [user(9), 0, 0, 0, item(6), 0, tag(b"c"), low],
        [user(7), country(b"DE"), 0, item(6), item(6), tag(b"b"), 0, high],
        [0, country("Çà".encode()), 0, 0, 0, 0, tag(b"\xff"), low],
        [user(2**63 - 1), country(b"x" * 100), 0, 0, item(0), 0, tag(b"a"), high],
        [user(1), country(b"DE"), 0, 0, item(4), 0, tag(b"b"), low],
        [user(7), country(b"DE"), 0, 0, item(1), 0, tag(b"a"), high],
        [user(7), country(b"DE"), 0, 0, item(1), 0, tag(b"a"), 0],
    ]
    ids = transformed[0]["ids"]
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, expected)


def test_numbers_of_ten_literal_rows(transformed):
    ages = np.array([10, 30, 10, 30, 10, 30, 10, 30])
    age = {raw: (raw - ages.mean()) / ages.std() for raw in (10, 30)}
    logs = np.array([0, 2, 0, 2, 0, 2, 0])
    log = {raw: (raw - logs.mean()) / logs.std() for raw in (0, 2)}
    expected = [
        [age[10], log[0], 0],
        [age[30], log[2], 0],
        [0, 0, 0],
        [age[10], log[0], 0],
        [age[30], log[2], 0],
        [age[10], log[0], 0],
        [age[30], log[2], 0],
        [age[10], log[0], 0],
        [age[30], 0, 0],
        [0, 0, 0],
    ]
    numbers = transformed[0]["numbers"]
    assert numbers.dtype == np.float32
    np.testing.assert_allclose(numbers, expected, rtol=1e-5, atol=1e-6)


def test_a_number_far_from_all_of_the_training_split_is_bounded_and_one_that_was_never_there_is_nothing(tmp_path):
    spec = FeatureSpec(
        "test",
        (
            NumericFeature("share"),
            NumericFeature("flag", dtype="int64"),
            NumericFeature("never"),
            NumericFeature("never_log", "log1p_z_score"),
            NumericFeature("never_int", dtype="int64"),
        ),
    )
    never = {"never": NAN, "never_log": NAN, "never_int": no_value(NumericFeature("never_int", dtype="int64"))}
    rows = [{"share": value / 4, "flag": value % 2, **never, "label": value % 2} for value in range(4)]
    layer = _transform(rows, spec, tmp_path)[1].transform_features_layer()
    greatest = float(np.finfo(np.float32).max)
    requests = {
        "share": tf.constant([greatest, -greatest, 1e19, NAN]),
        "flag": tf.constant([2**63 - 1, 0, 1, 2**62], tf.int64),
        "never": tf.constant([5.0, NAN, greatest, 0.0]),
        "never_log": tf.constant([5.0, NAN, greatest, 0.0]),
        "never_int": tf.constant([5, 0, 2**63 - 1, -1], tf.int64),
        "label": tf.zeros([4], tf.int64),
    }
    numbers = layer(requests)["numbers"].numpy()
    np.testing.assert_allclose(numbers[:, 0], [1e6, -1e6, 1e6, 0])
    np.testing.assert_allclose(numbers[:, 1], [1e6, -1, 1, 1e6])
    np.testing.assert_array_equal(numbers[:, 2:], 0)


def test_labels_of_ten_literal_rows(transformed):
    np.testing.assert_array_equal(transformed[0]["label"], np.float32([1, 0, 0, 1, 0, 0, 1, 1, 0, 0]))


def test_transform_graph_gives_for_a_request_what_it_gave_in_training(transformed):
    outputs, graph = transformed
    examples = tf.constant([_example(row) for row in ROWS])
    raw = tf.io.parse_example(examples, schema_utils.schema_as_feature_spec(make_schema(SPEC)).feature_spec)
    del raw["label"]
    served = graph.transform_features_layer()(raw)
    assert set(served) == {"ids", "numbers"}  # no label in a request
    np.testing.assert_array_equal(served["ids"], outputs["ids"])
    np.testing.assert_array_equal(served["numbers"], outputs["numbers"])


def test_transformed_features_have_the_fixed_shapes_that_the_trainer_parses(transformed):
    shapes = {name: (spec.dtype, spec.shape) for name, spec in transformed[1].transformed_feature_spec().items()}
    assert shapes == {"ids": (tf.int64, [8]), "numbers": (tf.float32, [3]), "label": (tf.float32, [])}


@pytest.mark.parametrize("dtype", [tf.int64, tf.string], ids=lambda dtype: dtype.name)
def test_notebook_ids_hash_as_its_feature_columns_do(dtype):
    ids = tf.constant([1100, 1101, 1103, 1102, 1101, 1100, 1103, 1102, 1103, 1100], tf.int64)
    ids = tf.strings.as_string(ids) if dtype == tf.string else ids
    indices = [[row, 0] for row in range(10)]
    buckets = hash_ids(ids, 10, hashing="digits" if dtype == tf.int64 else "bytes")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        column = tf.feature_column.categorical_column_with_hash_bucket("seq", 10, dtype=dtype)
        features = {"seq": tf.SparseTensor(indices, tf.constant(ids.numpy()), [10, 1])}
        one_hot = tf.compat.v1.feature_column.input_layer(features, [tf.feature_column.indicator_column(column)])
        by_feature_column = np.argmax(session.run(one_hot), axis=1)
    np.testing.assert_array_equal(buckets, by_feature_column)
    strings = ids if dtype == tf.string else tf.strings.as_string(ids)
    np.testing.assert_array_equal(buckets, tf.strings.to_hash_bucket_fast(strings, 10))
    assert len(set(by_feature_column)) > 1


def test_preprocessing_fn_takes_its_spec_from_the_config():
    columns = {
        "seq": tf.ragged.constant([[1100, 1101, 1103]], tf.int64),
        "target": tf.ragged.constant([[1102]], tf.int64),
        "label": tf.constant([1], tf.int64),
    }
    outputs = preprocessing_fn(columns, {"features": "schemas.notebook:NOTEBOOK"})
    expected = [[_bucket(str(raw).encode(), 10) for raw in (1100, 1101, 1103, 1102)]]  # its hash is of the digits
    np.testing.assert_array_equal(outputs["ids"], expected)
    assert "numbers" not in outputs


def test_a_second_hash_has_positions_of_its_own_and_other_collisions():
    spec = FeatureSpec("s", (IdFeature("user", 7, num_hashes=2), IdSequence("history", 50, 3, num_hashes=2)))
    histories = [[5, 6], [1, 2, 3, 4], []] + [[]] * 197
    inputs = {
        "user": tf.range(200, dtype=tf.int64),
        "history": tf.RaggedTensor.from_row_lengths(
            np.concatenate(histories).astype(np.int64), [len(history) for history in histories]
        ),
        "label": tf.ones([200], tf.int64),
    }
    ids = transform_impressions(inputs, spec)["ids"].numpy()
    assert ids.shape == (200, spec.num_positions) == (200, 8)
    user, history = (ids[:, field.positions] for field in spec.id_fields)
    np.testing.assert_array_equal(user[:, 0], [_bucket(number, 7) for number in range(200)])
    assert 0.05 < np.mean(user[:, 0] == user[:, 1]) < 0.3  # independent: one in seven
    expected = [[0, _bucket(5, 50), _bucket(6, 50)], [_bucket(2, 50), _bucket(3, 50), _bucket(4, 50)], [0, 0, 0]]
    np.testing.assert_array_equal(history[:3, :3], expected)
    np.testing.assert_array_equal(history[:, :3] > 0, history[:, 3:] > 0)
    assert not np.array_equal(history[:2, :3], history[:2, 3:])


def test_hashes_of_every_kind_stand_at_the_positions_of_their_fields():
    spec = FeatureSpec(
        "s",
        (
            IdFeature("country", 20, dtype="string"),
            IdFeature("old", 30, hashing="digits"),
            IdSequence("tags", 40, 2, dtype="string", num_hashes=2),
            IdFeature("user", 50),
            IdSequence("items", 60, 2, hashing="digits"),
        ),
    )
    inputs = {
        "country": tf.constant([b"NO", b""]),
        "old": tf.constant([12, -1], tf.int64),
        "tags": tf.ragged.constant([[b"a"], []], dtype=tf.string),
        "user": tf.constant([-1, 7], tf.int64),
        "items": tf.ragged.constant([[3, 4, 5], [6]], dtype=tf.int64),
        "label": tf.constant([1, 0], tf.int64),
    }
    second = int(hash_ids(tf.constant([b"a"]), 40, 1)[0]) + 1
    expected = [
        [
            _bucket(b"NO", 20),
            _bucket(b"12", 30),
            0,
            _bucket(b"a", 40),
            0,
            second,
            0,
            _bucket(b"4", 60),
            _bucket(b"5", 60),
        ],
        [0, 0, 0, 0, 0, 0, _bucket(7, 50), 0, _bucket(b"6", 60)],
    ]
    np.testing.assert_array_equal(transform_impressions(inputs, spec)["ids"], expected)


def test_a_weight_is_passed_on_as_it_is():
    spec = FeatureSpec("s", (IdFeature("user", 7),), weight="importance")
    column = tf.ones([2], tf.int64)
    weights = tf.constant([0.25, 3.0])
    outputs = transform_impressions({"user": column, "label": column, "importance": weights}, spec)
    np.testing.assert_array_equal(outputs["weight"], [0.25, 3.0])
