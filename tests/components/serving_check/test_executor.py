"""The component's executor: a sample, a report, an InfraBlessing, and what the Pusher makes of it."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import json_format
from tfx.proto import pusher_pb2
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model, ModelBlessing, PushedModel, Schema

from components.model_pusher.executor import Executor as Pusher
from components.serving_check.executor import Executor, check_warmup_file, read_report, read_sample
from pipeline.config import EvaluationConfig
from pipeline.evaluation import make_eval_config
from schemas.tfmd import schema_text
from tests.components.serving_check.conftest import SETTINGS
from tests.small_model import SPEC

WARMUP = "assets.extra/tf_serving_warmup_requests"


@pytest.fixture
def examples_artifact(tmp_path, examples):
    split = tmp_path / "examples" / "Split-eval"
    split.mkdir(parents=True)
    for shard, part in enumerate([examples[:30], examples[20:]]):  # some twice
        with tf.io.TFRecordWriter(str(split / f"data-{shard}.gz"), "GZIP") as writer:
            for example in part:
                writer.write(example)
    artifact = Examples()
    artifact.uri, artifact.split_names = str(tmp_path / "examples"), '["eval"]'
    return artifact


@pytest.fixture
def check(tmp_path, examples_artifact):
    """Runs the component and then the Pusher on a SavedModel; returns both their outputs."""

    def run(saved_model: pathlib.Path, **settings: Any) -> tuple[InfraBlessing, PushedModel]:
        model, schema, blessing = Model(), Schema(), InfraBlessing()
        model.uri, schema.uri, blessing.uri = (str(tmp_path / name) for name in ("model", "schema", "blessing"))
        shutil.copytree(saved_model, tmp_path / "model" / "Format-Serving")
        (tmp_path / "schema").mkdir()
        (tmp_path / "schema" / "schema.pbtxt").write_text(schema_text(SPEC))
        properties = {
            "settings": json.dumps(SETTINGS | {"num_examples": 20} | settings),
            "eval_config": json_format.MessageToJson(make_eval_config(EvaluationConfig(), SPEC)),
        }
        inputs = {"model": [model], "examples": [examples_artifact], "schema": [schema]}
        Executor().Do(inputs, {"blessing": [blessing]}, properties)
        return blessing, _push(model, blessing, tmp_path)

    return run


def _push(model: Model, infra_blessing: InfraBlessing, folder: pathlib.Path) -> PushedModel:
    blessing, pushed = ModelBlessing(), PushedModel()
    blessing.set_int_custom_property("blessed", 1)
    pushed.uri = str(folder / "pushed")
    destination = pusher_pb2.PushDestination()
    destination.filesystem.base_directory = str(folder / "serving")
    inputs = {"model": [model], "model_blessing": [blessing], "infra_blessing": [infra_blessing]}
    properties = {
        "push_destination": json_format.MessageToJson(destination),
        "custom_config": json.dumps({"keep_versions": 10}),
    }
    Pusher().Do(inputs, {"pushed_model": [pushed]}, properties)
    return pushed


def test_a_good_model_is_blessed_and_pushed(check, small_model, tmp_path):
    blessing, pushed = check(small_model)
    report = read_report(blessing.uri)
    assert [entry for entry in report if not entry["ok"]] == []
    assert {"warm-up file", "same as the Evaluator", "hostile requests"} <= {entry["check"] for entry in report}
    assert sorted(path.name for path in pathlib.Path(blessing.uri).iterdir()) == ["INFRA_BLESSED", "serving_check.json"]
    assert blessing.get_int_custom_property("blessed") == 1
    assert pushed.get_int_custom_property("pushed") == 1
    assert len(list((tmp_path / "serving").iterdir())) == 1


def test_a_model_that_fails_is_not_blessed_and_nothing_is_pushed(check, small_model, tmp_path):
    blessing, pushed = check(small_model, max_size_mb=0.001)
    assert [entry["check"] for entry in read_report(blessing.uri) if not entry["ok"]] == ["size"]
    assert (pathlib.Path(blessing.uri) / "INFRA_NOT_BLESSED").is_file()
    assert not (pathlib.Path(blessing.uri) / "INFRA_BLESSED").exists()
    assert blessing.get_int_custom_property("blessed") == 0
    assert pushed.get_string_custom_property("not_pushed_because") == "it has not passed the serving check"
    assert not (tmp_path / "serving").exists()


def test_a_model_that_is_none_fails_and_does_not_stop_the_run(check, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "saved_model.pb").write_bytes(b"x")
    blessing, pushed = check(tmp_path / "none")
    failed = {entry["check"]: entry["text"] for entry in read_report(blessing.uri) if not entry["ok"]}
    assert list(failed) == ["warm-up file", "the Evaluator's predictions", "loads"]
    assert all("\n" not in text for text in failed.values())
    assert pushed.get_int_custom_property("pushed") == 0


def test_the_sample_has_each_impression_once_in_the_order_of_the_split(examples_artifact, examples):
    assert read_sample([examples_artifact], 1000) == examples
    assert read_sample([examples_artifact], 40) == examples[:40]


def test_an_empty_split_is_an_error(tmp_path):
    (tmp_path / "Split-eval").mkdir()
    artifact = Examples()
    artifact.uri, artifact.split_names = str(tmp_path), '["eval"]'
    with pytest.raises(ValueError, match="the split eval has no examples"):
        read_sample([artifact], 10)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"x", f"{WARMUP} holds no request"), (b"x" * 99, f"{WARMUP} cannot be read, TF Serving would not start")],
)
def test_warm_up_requests_that_tf_serving_could_not_read_fail(small_model, tmp_path, content, text):
    assert check_warmup_file(str(small_model))["ok"]
    copy = pathlib.Path(shutil.copytree(small_model, tmp_path / "copy"))
    (copy / WARMUP).write_bytes(content)
    report = check_warmup_file(str(copy))
    assert (report["ok"], report["text"][: len(text)]) == (False, text)
