from __future__ import annotations

import contextlib
import pathlib

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils

import schemas
from schemas.criteo import CRITEO
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.movielens import MOVIELENS
from schemas.notebook import NOTEBOOK
from schemas.tfmd import SERVING, TRAINING, features_in, main, make_schema, schema_text


@pytest.mark.parametrize("spec", [MOVIELENS, CRITEO, NOTEBOOK], ids=lambda spec: spec.name)
def test_checked_in_schema_is_the_specs(spec):
    file = pathlib.Path(schemas.__file__).with_name(f"{spec.name}.pbtxt")
    checked_in = text_format.Parse(file.read_text(encoding="utf-8"), schema_pb2.Schema())
    assert checked_in == make_schema(spec), (
        f"run: python -m schemas.tfmd schemas.{spec.name}:{spec.name.upper()} {file} --force"
    )


def test_schema_of_each_kind_of_feature():
    spec = FeatureSpec(
        "s",
        (
            IdFeature("gender", 10, dtype="string", domain=("F", "M"), min_presence=1.0),
            IdSequence("history", 10, max_length=3),
            NumericFeature("price", minimum=0.0),
            NumericFeature("age", dtype="int64", minimum=1, maximum=120),
        ),
        timestamp="time",
    )
    gender, history, price, age, label, time = make_schema(spec).feature
    assert (gender.type, list(gender.string_domain.value)) == (schema_pb2.BYTES, ["F", "M"])
    assert (gender.presence.min_fraction, gender.presence.min_count) == (1.0, 1)
    assert (gender.value_count.min, gender.value_count.max) == (1, 1)
    assert history.int_domain.is_categorical
    assert history.int_domain.min == 0
    assert not history.HasField("value_count")
    assert (price.type, price.float_domain.min, price.float_domain.HasField("max")) == (schema_pb2.FLOAT, 0.0, False)
    assert (age.type, age.int_domain.min, age.int_domain.max) == (schema_pb2.INT, 1, 120)
    assert (label.name, label.int_domain.min, label.int_domain.max) == ("label", 0, 1)
    assert list(label.not_in_environment) == list(time.not_in_environment) == ["SERVING"]
    assert not any(feature.HasField("shape") for feature in make_schema(spec).feature)


@pytest.mark.parametrize(
    ("minimum", "maximum", "least", "greatest"),
    [(1.9, 5.9, 2, 5), (-1.9, -0.1, -1, -1), (-(2**63), 2**63 - 1, -(2**63), 2**63 - 1)],
)
def test_bounds_of_an_int64_are_the_whole_numbers_between(minimum, maximum, least, greatest):
    spec = FeatureSpec("s", (NumericFeature("age", dtype="int64", minimum=minimum, maximum=maximum),))
    domain = features_in(make_schema(spec), SERVING)["age"].int_domain
    assert (domain.min, domain.max) == (least, greatest)


def test_schema_text_can_be_read_back():
    assert text_format.Parse(schema_text(MOVIELENS), schema_pb2.Schema()) == make_schema(MOVIELENS)


def test_a_weight_is_required_in_training_and_absent_in_serving():
    schema = make_schema(FeatureSpec("s", (IdFeature("user", 7),), weight="importance"))
    weight = features_in(schema, TRAINING)["importance"]
    assert (weight.type, weight.float_domain.min, weight.float_domain.disallow_nan) == (schema_pb2.FLOAT, 0, True)
    assert weight.presence.min_fraction == 1.0
    assert list(features_in(schema, SERVING)) == ["user"]


def test_a_single_value_is_read_as_dense_and_a_sequence_as_ragged():
    spec = FeatureSpec(
        "s",
        (
            IdFeature("user", 7),
            IdFeature("country", 7, dtype="string"),
            IdSequence("history", 7, 3),
            NumericFeature("price"),
            NumericFeature("age", dtype="int64"),
        ),
    )
    parsing = schema_utils.schema_as_feature_spec(make_schema(spec)).feature_spec
    assert parsing == {
        "user": tf.io.FixedLenFeature([], tf.int64, -1),
        "country": tf.io.FixedLenFeature([], tf.string, ""),
        "history": tf.io.RaggedFeature(tf.int64, value_key="history", partitions=[], row_splits_dtype=tf.int64),
        "price": tf.io.FixedLenFeature([], tf.float32, float("-inf")),
        "age": tf.io.FixedLenFeature([], tf.int64, -(2**63)),
        "label": tf.io.FixedLenFeature([], tf.int64, None),  # an impression without one is an error
    }


def test_a_schema_that_was_edited_is_overwritten_only_by_force(tmp_path, monkeypatch, capsys):
    file = tmp_path / "movielens.pbtxt"

    def write(*words):
        monkeypatch.setattr("sys.argv", ["tfmd", *words])
        with contextlib.suppress(SystemExit):
            main()
        return capsys.readouterr().err

    assert write("schemas.movielens:MOVIELENS", str(file)) == ""
    text = file.read_text()
    assert text == schema_text(MOVIELENS)
    assert write("schemas.movielens:MOVIELENS", str(file)) == ""
    file.write_text(text + "# tightened")
    assert write("schemas.movielens:MOVIELENS", str(file)) == (
        f"{file} is there and says otherwise: --force overwrites it, and what was edited in it\n"
    )
    assert file.read_text() == text + "# tightened"
    assert write("schemas.movielens:MOVIELENS", str(file), "--force") == ""
    assert file.read_text() == text
    assert "schemas.movielens has no FeatureSpec NOSUCH" in write("schemas.movielens:NOSUCH", str(file))
    assert write("schemas.movielens:MOVIELENS", str(tmp_path / "no" / "a.pbtxt")).startswith("[Errno 2] No such file")
