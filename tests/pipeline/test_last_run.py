from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from tfx.proto.orchestration import pipeline_pb2
from tfx.types.standard_artifacts import Model, ModelBlessing

from pipeline import last_run
from pipeline.config import LogConfig, PipelineConfig
from pipeline.last_run import LastRun, digest_artifacts, digest_settings, read_last_run, repeat, write_last_run
from pipeline.node import NodeResult, NotCachedError
from pipeline.runner import ReportingRunner


@pytest.fixture
def config(tmp_path):
    config = PipelineConfig(runs_dir=str(tmp_path))
    (tmp_path / config.name).mkdir()
    return config


def _model(**properties):
    model = Model()
    model.id, model.uri = 3, "root/Trainer/model/3"
    for name, value in properties.items():
        model.set_string_custom_property(name, value)
    return {"Trainer": NodeResult(cached=True, outputs={"model": [model]})}


def test_what_is_written_is_read(config):
    pipeline = pipeline_pb2.Pipeline()
    pipeline.pipeline_info.id = "movielens"
    write_last_run(config, pipeline, _model(), {"blessed": True})
    found = read_last_run(config)
    assert (found.pipeline, found.summary) == (pipeline, {"blessed": True})
    assert found.artifacts == digest_artifacts(_model())


def _other_setting(config, monkeypatch):
    return dataclasses.replace(config, log=LogConfig(eval_days=2))


def _other_sources(config, monkeypatch):
    monkeypatch.setattr(last_run, "source_fingerprint", lambda *packages, suffixes: "edited")
    return config


def _other_folder(config, monkeypatch):
    monkeypatch.chdir(config.runs_dir)  # the log's path is relative
    return config


def _other_tfx(config, monkeypatch):
    monkeypatch.setattr(last_run.importlib.metadata, "version", lambda package: "2.0")
    return config


def _half_a_file(config, monkeypatch):
    file = last_run._file(config)
    file.write_text(file.read_text()[:-100])
    return config


@pytest.mark.parametrize("change", [_other_setting, _other_sources, _other_folder, _other_tfx, _half_a_file])
def test_nothing_is_known_after_a_change(config, monkeypatch, change):
    write_last_run(config, pipeline_pb2.Pipeline(), _model(), {})
    assert read_last_run(config)
    assert read_last_run(change(config, monkeypatch)) is None


def test_an_edit_of_the_schema_is_a_change(config, tmp_path):
    import schemas.movielens

    file = tmp_path / "schema.pbtxt"
    file.write_text((last_run.pathlib.Path(schemas.movielens.__file__).with_name("movielens.pbtxt")).read_text())
    config = dataclasses.replace(config, schema_file=str(file))
    before = digest_settings(config)
    file.write_text(file.read_text() + "# reviewed\n")
    assert digest_settings(config) != before


def test_a_property_that_was_set_since_is_a_change():
    assert digest_artifacts(_model()) == digest_artifacts(_model())
    assert digest_artifacts(_model(rolled_back="2026-11-25")) != digest_artifacts(_model())


def test_another_blessing_of_the_same_baseline_is_no_change():
    def baseline(model, blessing):
        found = {"model": Model(), "model_blessing": ModelBlessing()}
        found["model"].id, found["model_blessing"].id = model, blessing
        outputs = {name: [artifact] for name, artifact in found.items()}
        return {"LatestBlessedModel": NodeResult(cached=False, outputs=outputs)}

    assert digest_artifacts(baseline(10, 16)) == digest_artifacts(baseline(10, 12))
    assert digest_artifacts(baseline(11, 12)) != digest_artifacts(baseline(10, 12))


def test_the_process_that_repeats_a_run_imports_neither_tensorflow_nor_beam():
    # In a process of its own, as only its first imports count.
    code = """
import json, sys
from pipeline.repeat import do_without_executors
do_without_executors()
import pipeline.last_run, pipeline.runner
import tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy
import components.impression_log_example_gen.driver, components.earlier.artifacts, components.earlier.model
print(json.dumps([name for name, module in sys.modules.items() if module]))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in json.loads(process.stdout.splitlines()[-1])}
    assert {"tfx", "ml_metadata", "pipeline"} <= imported
    assert not imported & {"tensorflow", "keras", "apache_beam", "tensorflow_data_validation"}
    assert not imported & {"tensorflow_model_analysis", "tensorflow_transform"}


@pytest.mark.parametrize(
    ("artifacts", "error", "is_done"),
    [
        (_model(), None, True),
        (_model(rolled_back="now"), None, False),
        (_model(), NotCachedError("Trainer"), False),
        (_model(), ImportError("tensorflow"), False),
    ],
    ids=["all cached", "an artifact has changed", "a node is not cached", "an error"],
)
def test_a_repeated_run_has_the_last_summary_or_is_not_done(config, tmp_path, monkeypatch, artifacts, error, is_done):
    class Runner(ReportingRunner):
        def run(self, pipeline, launch):
            if error:
                raise error
            self.results, self.seconds = artifacts, {"Trainer": 0.01}

    events = []
    runner = Runner(events.append, "a run")
    last = LastRun(pipeline_pb2.Pipeline(), digest_artifacts(_model()), {"blessed": True, "run_id": "before"})
    assert repeat(last, runner, config, events.append) is is_done
    file = tmp_path / config.name / "summary.json"
    assert file.exists() is is_done
    if is_done:
        assert json.loads(file.read_text()) == {"blessed": True, "run_id": "a run", "seconds": {"Trainer": 0.01}}
        assert events == [{"event": "summary", "path": str(file)}]
