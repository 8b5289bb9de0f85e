# No `from __future__ import annotations`: TFX reads the components' annotations as they are.
import pathlib

import pytest
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler.compiler import Compiler
from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import Model

from pipeline.node import NotCachedError, launch_node

State = metadata_store_pb2.Execution


@component
def Killed(model: OutputArtifact[Model], calls: Parameter[str]):  # noqa: N802, a component
    """Leaves a file and dies as if killed, the first time; then it writes what it has found."""
    folder, log = pathlib.Path(model.uri), pathlib.Path(calls)
    attempt = len(log.read_text()) if log.exists() else 0
    log.write_text("x" * (attempt + 1))
    found = sorted(path.name for path in folder.rglob("*"))
    (folder / f"attempt-{attempt}").write_text(str(found))
    if attempt == 0:
        raise SystemExit(137)  # no Exception: TFX's launcher has no time to clean up


@pytest.fixture
def run(tmp_path):
    """Launches a node of a pipeline of one component and one resolver, in a run."""

    def launch(node, run_id, **options):
        calls = tmp_path / f"calls-{run_id}"
        nodes = [
            Killed(calls=str(calls)),
            Resolver(strategy_class=LatestArtifactStrategy, model=Channel(type=Model)).with_id("Latest"),
        ]
        store = sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
        pipeline = Compiler().compile(
            Pipeline("small", str(tmp_path / "root"), components=nodes, metadata_connection_config=store)
        )
        runtime_parameter_utils.substitute_runtime_parameter(pipeline, {PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
        return launch_node(pipeline, node, **options)

    return launch


def _states(folder):
    store = metadata_store.MetadataStore(sqlite_metadata_connection_config(str(folder / "metadata.sqlite")))
    return [execution.last_known_state for execution in store.get_executions()]


def test_a_second_attempt_goes_on_with_the_killed_ones_execution_in_an_empty_folder(run, tmp_path):
    with pytest.raises(SystemExit):
        run("Killed", "one")
    assert _states(tmp_path) == [State.RUNNING]
    (model,) = run("Killed", "one").outputs["model"]
    assert [path.name for path in pathlib.Path(model.uri).iterdir()] == ["attempt-1"]
    assert pathlib.Path(model.uri, "attempt-1").read_text() == "[]"
    assert _states(tmp_path) == [State.COMPLETE]


def test_what_was_written_with_another_metadata_store_is_not_found_in_the_outputs(run, tmp_path):
    (tmp_path / "calls-one").write_text("x")
    (tmp_path / "calls-two").write_text("xx")
    (before,) = run("Killed", "one").outputs["model"]
    (tmp_path / "metadata.sqlite").unlink()
    (after,) = run("Killed", "two").outputs["model"]
    assert after.uri == before.uri
    assert [path.name for path in pathlib.Path(after.uri).iterdir()] == ["attempt-2"]
    assert pathlib.Path(after.uri, "attempt-2").read_text() == "[]"


def test_a_node_that_has_succeeded_is_not_run_again(run, tmp_path):
    with pytest.raises(SystemExit):
        run("Killed", "one")
    first, second = run("Killed", "one"), run("Killed", "one")
    assert [a.uri for a in first.outputs["model"]] == [a.uri for a in second.outputs["model"]]
    assert (tmp_path / "calls-one").read_text() == "xx"


def test_a_resolver_resolves_once_in_a_run(run, tmp_path):
    for run_id in ("one", "two"):
        with pytest.raises(SystemExit):
            run("Killed", run_id)
    run("Killed", "one")
    (before,) = run("Latest", "one").outputs["model"]
    run("Killed", "two")
    (after,) = run("Latest", "one").outputs["model"]
    assert before.uri == after.uri
    (newer,) = run("Latest", "two").outputs["model"]
    assert newer.uri != before.uri
    assert len(_states(tmp_path)) == 4


def test_a_missing_input_is_an_error(run):
    with pytest.raises(RuntimeError, match="Latest did not run: its inputs could not be resolved"):
        run("Latest", "one")


def test_without_executors_a_node_that_is_not_cached_is_left_to_the_next_attempt(run, tmp_path):
    with pytest.raises(NotCachedError, match="Killed"):
        run("Killed", "one", only_cached=True)
    assert _states(tmp_path) == [State.RUNNING]
    assert not (tmp_path / "calls-one").exists()
    with pytest.raises(SystemExit):
        run("Killed", "one")
    (model,) = run("Killed", "one").outputs["model"]
    assert pathlib.Path(model.uri, "attempt-1").is_file()
    assert _states(tmp_path) == [State.COMPLETE]
