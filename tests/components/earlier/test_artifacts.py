from __future__ import annotations

import json
import os

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types.standard_artifacts import Examples, ExampleStatistics

from components.earlier.artifacts import EarlierArtifactStrategy


class Runs:
    """A metadata store of runs' Examples and statistics."""

    def __init__(self, folder):
        self._folder = folder
        config = mlmd.ConnectionConfig()
        config.fake_database.SetInParent()
        self.store = MetadataStore(config)
        self.statistics = []

    def _put(self, artifact):
        artifact.type_id = self.store.put_artifact_type(artifact.artifact_type)
        artifact.uri = str(self._folder / f"{len(self.store.get_artifacts()) + 1}")
        os.mkdir(artifact.uri)
        (artifact.id,) = self.store.put_artifacts([artifact.mlmd_artifact])
        return artifact

    def examples(self, train, evaluate):
        examples = Examples()
        examples.set_string_custom_property("days", json.dumps({"train": train, "eval": evaluate}))
        return self._put(examples)

    def run(self, train, evaluate):
        examples, statistics = self.examples(train, evaluate), self._put(ExampleStatistics())
        execution = mlmd.Execution(type_id=self.store.put_execution_type(mlmd.ExecutionType(name="StatisticsGen")))
        (execution_id,) = self.store.put_executions([execution])
        self.store.put_events(
            [
                mlmd.Event(artifact_id=examples.id, execution_id=execution_id, type=mlmd.Event.INPUT),
                mlmd.Event(artifact_id=statistics.id, execution_id=execution_id, type=mlmd.Event.OUTPUT),
            ]
        )
        self.statistics.append(statistics)
        return examples, statistics

    def resolve(self, examples):
        inputs = {"examples": [examples], "statistics": list(self.statistics)}
        resolved = EarlierArtifactStrategy().resolve_artifacts(self.store, inputs)
        assert set(resolved) == set(inputs)
        return [statistics.id for statistics in resolved["statistics"]]


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def test_a_run_is_compared_with_the_latest_of_earlier_days(runs):
    runs.run(["01"], ["02"])
    _, second = runs.run(["01", "02"], ["03"])
    examples, _ = runs.run(["02", "03"], ["04"])
    assert runs.resolve(examples) == [second.id]


def test_a_repeated_run_is_compared_with_the_same_as_before(runs):
    _, first = runs.run(["01"], ["02"])
    runs.run(["02"], ["03"])
    assert runs.resolve(runs.examples(["02"], ["03"])) == [first.id]


def test_an_older_day_is_not_compared_with_what_came_after(runs):
    runs.run(["02"], ["03"])
    assert runs.resolve(runs.examples(["01"], ["02"])) == []


def test_a_day_that_was_run_again_does_not_take_the_place_of_a_newer_one(runs):
    runs.run(["01"], ["02"])
    _, newest = runs.run(["02"], ["03"])
    _, again = runs.run(["01"], ["02"])
    assert runs.resolve(runs.examples(["03"], ["04"])) == [newest.id]
    assert runs.resolve(runs.examples(["02"], ["03"])) == [again.id]


def test_statistics_whose_folder_is_gone_are_passed_over(runs):
    _, first = runs.run(["01"], ["02"])
    _, second = runs.run(["02"], ["03"])
    os.rmdir(second.uri)
    assert runs.resolve(runs.examples(["03"], ["04"])) == [first.id]
