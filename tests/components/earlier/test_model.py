from __future__ import annotations

import json
import os

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing

from components.earlier.model import EarlierModelStrategy


class History:
    """A metadata store of runs, as TFX's launcher leaves them."""

    def __init__(self, folder):
        self._folder = folder
        config = mlmd.ConnectionConfig()
        config.fake_database.SetInParent()
        self.store = MetadataStore(config)
        self.models, self.blessings = [], []
        self._execution_type = self.store.put_execution_type(mlmd.ExecutionType(name="node"))

    def _put(self, kind, **properties):
        artifact = kind()
        for name, value in properties.items():
            setter = artifact.set_int_custom_property if isinstance(value, int) else artifact.set_string_custom_property
            setter(name, value)
        artifact.type_id = self.store.put_artifact_type(artifact.artifact_type)
        artifact.uri = str(self._folder / f"{len(self.store.get_artifacts()) + 1}")
        os.mkdir(artifact.uri)
        (artifact.id,) = self.store.put_artifacts([artifact.mlmd_artifact])
        return artifact

    def _execute(self, inputs, outputs):
        (execution,) = self.store.put_executions([mlmd.Execution(type_id=self._execution_type)])
        events = [(artifact, mlmd.Event.INPUT) for artifact in inputs]
        events += [(artifact, mlmd.Event.OUTPUT) for artifact in outputs]
        self.store.put_events(
            [mlmd.Event(artifact_id=artifact.id, execution_id=execution, type=kind) for artifact, kind in events]
        )

    def examples(self, train, evaluate):
        return self._put(Examples, days=json.dumps({"train": train, "eval": evaluate}))

    def run(self, train, evaluate, *, is_blessed=True, base=()):
        examples, transformed, model = self.examples(train, evaluate), self._put(Examples), self._put(Model)
        self._execute([examples], [transformed])
        self._execute([transformed, *base], [model])
        self.models.append(model)
        self.blessings.append(self._put(ModelBlessing, current_model_id=model.id, blessed=int(is_blessed)))
        return examples, model

    def resolve(self, examples):
        inputs = {"examples": [examples], "model": list(self.models), "model_blessing": list(self.blessings)}
        resolved = EarlierModelStrategy().resolve_artifacts(self.store, inputs)
        assert set(resolved) == set(inputs)
        assert len(resolved["model"]) == len(resolved["model_blessing"]) <= 1
        return [model.id for model in resolved["model"]]


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def test_the_first_run_has_none(history):
    assert history.resolve(history.examples(["2026-01-01"], ["2026-01-02"])) == []


def test_a_day_goes_on_from_the_blessed_model_of_the_days_before(history):
    _, first = history.run(["2026-01-01"], ["2026-01-02"])
    _, second = history.run(["2026-01-02"], ["2026-01-03"], base=[first])
    history.run(["2026-01-03"], ["2026-01-04"], base=[second], is_blessed=False)
    assert history.resolve(history.examples(["2026-01-04"], ["2026-01-05"])) == [second.id]


def test_a_repeated_run_goes_on_from_the_same_model_as_before(history):
    _, first = history.run(["2026-01-01"], ["2026-01-02"])
    examples, _ = history.run(["2026-01-02"], ["2026-01-03"], base=[first])
    assert history.resolve(examples) == [first.id]


def test_an_older_day_does_not_go_on_from_a_model_that_has_seen_it(history):
    examples, _ = history.run(["2026-01-01", "2026-01-02"], ["2026-01-03"])
    history.run(["2026-01-03"], ["2026-01-04"])
    assert history.resolve(examples) == []


def test_a_day_that_was_run_again_does_not_take_the_place_of_a_newer_one(history):
    history.run(["2026-01-01"], ["2026-01-02"])
    _, newest = history.run(["2026-01-02"], ["2026-01-03"])
    _, again = history.run(["2026-01-01"], ["2026-01-02"])
    assert history.resolve(history.examples(["2026-01-03"], ["2026-01-04"])) == [newest.id]
    assert history.resolve(history.examples(["2026-01-02"], ["2026-01-03"])) == [again.id]


def test_a_model_whose_folder_is_gone_is_passed_over_with_a_warning(history, caplog):
    _, first = history.run(["2026-01-01"], ["2026-01-02"])
    _, second = history.run(["2026-01-02"], ["2026-01-03"], base=[first])
    examples = history.examples(["2026-01-03"], ["2026-01-04"])
    os.rmdir(second.uri)
    assert history.resolve(examples) == [first.id]
    assert f"{second.uri} is gone: an older Model is used, or none" in caplog.text
    os.rmdir(first.uri)
    assert history.resolve(examples) == []
