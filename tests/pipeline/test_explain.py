from __future__ import annotations

import json

import pytest
import tensorflow as tf
from click.testing import CliRunner
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import cli
from schemas.features import FeatureSpec, IdFeature, NumericFeature

SPEC = FeatureSpec("s", (IdFeature("shop", 10), NumericFeature("price")))
OTHER = FeatureSpec("s", (IdFeature("shop", 10, dtype="string"), IdFeature("country", 10)))


class _Price(tf.Module):
    """A model that looks at the price alone, times something."""

    def __init__(self, times):
        super().__init__()
        self._times = times

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64, name="shop"), tf.TensorSpec([None], tf.float32, name="price")]
    )
    def predict(self, shop, price):
        return {"ctr": tf.sigmoid(self._times * price)[:, tf.newaxis] + 0 * tf.cast(shop, tf.float32)[:, tf.newaxis]}


def _example(number):
    price = (number % 20) / 10 - 1
    features = {
        "shop": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 3])),
        "price": tf.train.Feature(float_list=tf.train.FloatList(value=[price])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(price > 0)])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def home(tmp_path):
    """The folder of a pipeline that has run once, with nothing pushed."""
    home = tmp_path / "runs" / "shop"
    (home / "examples" / "Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(home / "examples" / "Split-eval" / "data-0.gz"), "GZIP") as writer:
        for number in range(100):
            writer.write(_example(number))
    (home / "transformed").mkdir()
    _save(home / "model" / "Format-Serving", 1.0)
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(home / "metadata.sqlite")
    connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = MetadataStore(connection)
    raw = {
        "days": json.dumps({"train": ["2026-01-01"], "eval": ["2026-01-02"]}),
        "num_examples": json.dumps({"train": 0, "eval": 100}),
    }
    examples = _put(store, "Examples", home / "examples", raw)
    transformed = _put(store, "Examples", home / "transformed", {})
    _put(store, "Model", home / "model", {})
    (home / "evaluation").mkdir()
    evaluation = _put(store, "ModelEvaluation", home / "evaluation", {})
    evaluator = store.put_execution_type(mlmd.ExecutionType(name="Evaluator"))
    (execution,) = store.put_executions([mlmd.Execution(type_id=evaluator)])
    inputs = [(artifact, mlmd.Event.INPUT) for artifact in (examples, transformed)]
    store.put_events(
        [
            mlmd.Event(artifact_id=artifact, execution_id=execution, type=kind)
            for artifact, kind in [*inputs, (evaluation, mlmd.Event.OUTPUT)]
        ]
    )
    # Of a run that has failed since, before its Evaluator.
    (home / "failed" / "Split-eval").mkdir(parents=True)
    _put(store, "Examples", home / "failed", raw)
    return home


def _save(folder, times):
    model = _Price(times)
    tf.saved_model.save(model, str(folder), signatures={"predict": model.predict})


def _put(store, kind, uri, properties):
    artifact = mlmd.Artifact(
        type_id=store.put_artifact_type(mlmd.ArtifactType(name=kind)), uri=str(uri), state=mlmd.Artifact.LIVE
    )
    for name, value in properties.items():
        artifact.custom_properties[name].string_value = value
    return store.put_artifacts([artifact])[0]


@pytest.fixture
def ctr(tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text(f"name: shop\nfeatures: {__name__}:SPEC\nruns_dir: {tmp_path / 'runs'}\n")
    return lambda *words: CliRunner().invoke(cli.main, ["explain", "--config", str(file), *words])


def test_the_model_trained_last_is_explained_where_none_has_been_pushed(home, ctr):
    result = ctr("--json", "--repeats", "2")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["model"] == str(home / "model" / "Format-Serving")
    assert (found["num_examples"], found["num_repeats"], found["auc"]) == (100, 2, 1)
    assert found["eval_days"] == ["2026-01-02"]
    price, shop = found["fields"]
    assert (price["field"], shop["field"]) == ("price", "shop")
    assert 0.3 < price["auc"]["value"] < 0.7
    assert shop["auc"] == shop["log_loss"] == {"value": 0, "spread": 0}


def test_the_pushed_model_goes_before_it_and_a_named_one_before_both(home, ctr, tmp_path):
    _save(home / "serving" / "7", 2.0)
    _save(tmp_path / "other", 3.0)
    losses = {}
    for words in ((), ("--model", str(tmp_path / "other"))):
        found = json.loads(ctr("--json", *words).output)
        losses[found["model"]] = found["log_loss"]
    assert list(losses) == [str(home / "serving" / "7"), str(tmp_path / "other")]
    assert losses[str(tmp_path / "other")] < losses[str(home / "serving" / "7")]


def test_people_get_a_table(home, ctr):
    lines = ctr("--repeats", "3").output.splitlines()
    assert lines[0].endswith("model/Format-Serving")
    assert lines[1].startswith("AUC 1.0000, log loss 0.")
    assert "on 100 impressions of 2026-01-02; each field shuffled 3 times" in lines[1]
    assert lines[2].split() == ["field", "AUC", "lost", "log", "loss", "added"]
    assert [line.split()[0] for line in lines[3:]] == ["price", "shop"]
    assert lines[4].split()[1:4] == ["+0.0000", "±", "0.0000"]


def test_of_one_shuffle_no_deviation_is_told(home, ctr):
    output = ctr("--repeats", "1").output
    assert "each field shuffled once\n" in output
    assert "±" not in output


def test_what_is_missing_is_named(ctr, tmp_path, home):
    _save(tmp_path / "other", 1.0)
    (home / "model").rename(tmp_path / "away")
    result = ctr()
    assert result.exit_code == 1
    assert "shop has no model yet: run `ctr run` first" in result.output
    (home / "examples").rename(tmp_path / "moved")
    gone = f"the examples of the newest evaluation are gone, {home}/examples: `ctr run` makes them anew"
    assert gone in ctr().output.replace("\n     ", " ")
    (home / "evaluation").rename(tmp_path / "moved evaluation")
    assert "shop has no evaluation yet: run `ctr run` to its end first" in ctr().output
    (home / "metadata.sqlite").unlink()
    assert "shop has no runs" in ctr().output


def test_a_model_of_another_spec_is_an_error_of_one_line_that_names_the_features(home, ctr, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SPEC", OTHER)
    result = ctr()
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"ctr: the model at {home / 'model' / 'Format-Serving'} is of another feature spec: it has no feature country, "
        "it has price, which the spec has not, its shop is int64, the spec's string: train it again, or name the spec "
        "that it was trained with"
    ]
