from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature, no_value
from schemas.tfmd import make_schema
from trainer.config import ModelConfig
from trainer.export import export
from trainer.model import model_fn

SPEC = FeatureSpec(
    "test",
    (
        IdFeature("item", 50, table="item"),
        IdSequence("history", 50, max_length=3, table="item"),
        IdFeature("country", 20, dtype="string"),
        NumericFeature("age", dtype="int64"),
        NumericFeature("price", "quantile_buckets", num_buckets=3),
    ),
    timestamp="time",
)
ROWS = [
    {"item": [1], "history": [2, 3, 4, 5], "country": [b"DE"], "age": [10], "price": [0.5], "label": [1], "time": [1]},
    {"item": [2], "history": [], "country": [b"FR"], "age": [30], "price": [1.5], "label": [0], "time": [2]},
    {"item": [3], "history": [1], "country": [], "age": [], "price": [2.5], "label": [0], "time": [3]},
]
KINDS = {int: ("int64_list", tf.train.Int64List), float: ("float_list", tf.train.FloatList)}


def _example(row):
    feature = {}
    for name, values in row.items():
        if values:
            kind, make = KINDS.get(type(values[0]), ("bytes_list", tf.train.BytesList))
            feature[name] = tf.train.Feature(**{kind: make(value=values)})
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _pack(inputs):
    """A transformation of the test's own: the trainer does not know the project's."""

    def place(is_id, buckets):
        return tf.where(is_id, tf.cast(buckets, tf.int64) + 1, 0)[:, tf.newaxis]

    item, country, price = inputs["item"], inputs["country"], inputs["price"]
    age = tf.cast(inputs["age"], tf.float32)
    age = tf.where(age < 0, float("nan"), age)
    scores = tft.scale_to_z_score(age)
    ids = [
        place(item >= 0, item % 50),
        (inputs["history"][:, -3:] % 50 + 1).to_tensor(shape=[None, 3]),
        place(country != "", tft.hash_strings(country, 20)),
        place(price >= 0, tft.bucketize(price, 3)),
    ]
    return {
        "ids": tf.concat(ids, axis=1),
        "numbers": tf.where(age >= 0, scores, 0.0)[:, tf.newaxis],
        "label": tf.cast(inputs["label"], tf.float32),
    }


def _instance(row):
    """A row as TFT's instances have it: one value where there is one at most, with what stands for none."""
    singles = {f.name: no_value(f) for f in SPEC.features if f.name != "history"} | {"label": None}
    return {name: (values or [singles[name]])[0] if name in singles else values for name, values in row.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with weights that look trained, its transformed batch, and the directory that it was exported to."""
    with tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("tft"))):
        rows = [_instance(row) for row in ROWS]
        raw = (rows, dataset_metadata.DatasetMetadata(make_schema(SPEC)))
        (instances, _), transform_fn = raw | tft_beam.AnalyzeAndTransformDataset(_pack)
        graph = str(tmp_path_factory.mktemp("graph"))
        _ = transform_fn | tft_beam.WriteTransformFn(graph)
    model = model_fn(SPEC, ModelConfig(embedding_dim=4, hidden_units=(8,)), seed=1)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.3, size=weight.shape).astype(np.float32))
    directory = str(tmp_path_factory.mktemp("export") / "model")
    export(model, tft.TFTransformOutput(graph), SPEC, directory)
    batch = {name: np.stack([instance[name] for instance in instances]) for name in ("ids", "numbers")}
    return model, batch, directory


@pytest.fixture(scope="module")
def serve(exported):
    return tf.saved_model.load(exported[2]).signatures["serving_default"]


def _request(*rows):
    return tf.constant([_example(row) for row in rows], tf.string)


def test_exported_model_equals_the_one_in_memory(exported, serve):
    model, batch, _ = exported
    answer = serve(_request(*ROWS))
    assert set(answer) == {"ctr"}
    assert (answer["ctr"].dtype, answer["ctr"].shape) == (tf.float32, (3, 1))
    expected = tf.sigmoid(model(batch)).numpy()
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(answer["ctr"], expected)  # bit for bit


def test_exported_model_loads_in_a_tf1_session_as_tf_serving_does(exported):
    model, batch, directory = exported
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        signature = loaded.signature_def["serving_default"]
        (examples,) = (tensor.name for tensor in signature.inputs.values())
        ctr = session.run(signature.outputs["ctr"].name, {examples: [_example(row) for row in ROWS]})
    np.testing.assert_allclose(ctr, tf.sigmoid(model(batch)), rtol=1e-6)


def test_a_request_needs_no_label(serve):
    without = [{name: values for name, values in row.items() if name not in ("label", "time")} for row in ROWS]
    np.testing.assert_array_equal(serve(_request(*without))["ctr"], serve(_request(*ROWS))["ctr"])


def test_an_example_without_features_gets_the_ctr_of_missing_values(exported, serve):
    model = exported[0]
    nothing = {"ids": np.zeros([1, 6], np.int64), "numbers": np.zeros([1, 1], np.float32)}
    np.testing.assert_allclose(serve(_request({}))["ctr"], tf.sigmoid(model(nothing)), rtol=1e-6)


def test_a_feature_that_holds_no_list_is_a_missing_one(serve):
    # What tfx_bsl writes for a null.
    row = ROWS[0]
    for column in row:
        example = tf.train.Example.FromString(_example(row))
        example.features.feature[column].Clear()
        without = {name: value for name, value in row.items() if name != column}
        answer = serve(tf.constant([example.SerializeToString()]))["ctr"]
        np.testing.assert_array_equal(answer, serve(_request(without))["ctr"])


def test_one_request_is_answered_as_in_a_batch(serve):
    np.testing.assert_allclose(serve(_request(ROWS[1]))["ctr"], serve(_request(*ROWS))["ctr"][1:2], rtol=1e-6)


def test_an_empty_batch_gets_an_empty_answer(serve):
    assert serve(tf.constant([], tf.string))["ctr"].shape == (0, 1)


def test_malformed_bytes_are_an_invalid_argument(serve):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse example"):
        serve(tf.constant([b"not an example"]))


@pytest.mark.parametrize("column", ["item", "country", "age", "price"])
def test_two_values_for_one_are_an_invalid_argument(serve, column):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"Key: {column}"):
        serve(_request(ROWS[0], ROWS[0] | {column: ROWS[0][column] * 2}))


def test_transform_features_gives_what_the_trainer_read(exported):
    _, batch, directory = exported
    transform = tf.saved_model.load(directory).signatures["transform_features"]
    features = transform(_request(*ROWS))
    np.testing.assert_array_equal(features["ids"], batch["ids"])
    np.testing.assert_allclose(features["numbers"], batch["numbers"], rtol=1e-6)
    np.testing.assert_array_equal(features["label"], [1, 0, 0])


def test_the_schema_goes_with_the_model(exported):
    with open(f"{exported[2]}/assets.extra/schema.pbtxt", encoding="utf-8") as file:
        assert text_format.Parse(file.read(), schema_pb2.Schema()) == make_schema(SPEC)


def test_saved_model_cli_shows_and_runs_it(exported, tmp_path):
    tool = [sys.executable, "-W", "ignore", "-m", "tensorflow.python.tools.saved_model_cli"]
    model = ["--dir", exported[2], "--tag_set", "serve", "--signature_def"]

    def run(*arguments):
        return subprocess.run([*tool, *arguments], check=True, capture_output=True, text=True).stdout

    shown = run("show", *model, "serving_default")
    assert "inputs['examples']" in shown
    assert "outputs['ctr']" in shown
    row = {"item": [1], "history": [2, 3, 4, 5], "country": [b"DE"], "age": [10], "price": [0.5]}
    run("run", *model, "serving_default", "--input_examples", f"examples=[{row}]", "--outdir", str(tmp_path))
    serve = tf.saved_model.load(exported[2]).signatures["serving_default"]
    np.testing.assert_allclose(np.load(tmp_path / "ctr.npy"), serve(_request(ROWS[0]))["ctr"], rtol=1e-6)


def test_inputs_of_different_batch_sizes_are_an_invalid_argument(exported):
    predict = tf.saved_model.load(exported[2]).signatures["predict"]
    inputs = {
        "item": tf.constant([1, 2], tf.int64),
        "history": tf.constant([[1]], tf.int64),
        "history_length": tf.constant([1], tf.int64),
        "country": tf.constant(["DE"]),
        "age": tf.constant([1.0]),
        "price": tf.constant([1.0]),
    }
    assert predict(**inputs | {"item": tf.constant([1], tf.int64)})["ctr"].shape == (1, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="the same number of impressions"):
        predict(**inputs)
