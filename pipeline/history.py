"""All evaluations of a pipeline, told from its metadata store."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.earlier.days import days_of, origins
from components.evaluation_report.files import FIGURES, PAGE
from components.model_pusher import ROLLED_BACK
from pipeline.config import PipelineConfig
from pipeline.metadata_file import find_damage

State = Literal["pushed", "rolled back", "blessed", "not blessed"]
_KINDS = ("ModelEvaluation", "ModelBlessing", "EvaluationReport", "PushedModel")


class ReportError(RuntimeError):
    """There is no report to show; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One evaluation of one model.

    Attributes:
        made_at: When, ISO 8601, UTC.
        run_id: The TFX run id.
        evaluation: The folder of TFMA's results.
        report: The folder of the report, or None.
        state: `pushed`; `rolled back`, which was pushed before; `blessed`, but not pushed; or `not blessed`.
        days: The eval days, oldest first, YYYY-MM-DD; empty where the metadata store does not know them any more.
    """

    made_at: str
    run_id: str
    evaluation: str
    report: str | None
    state: State
    days: tuple[str, ...] = ()

    @property
    def page(self) -> pathlib.Path | None:
        """The report's page."""
        return None if self.report is None else pathlib.Path(self.report, PAGE)


def read_history(config: PipelineConfig) -> list[Evaluated]:
    """Returns the evaluations of a pipeline, oldest first.

    A run whose Evaluator was cached adds none: it has the figures of the run before.

    Args:
        config: The pipeline's settings.

    Raises:
        ReportError: There is no metadata store, or it is damaged, or there is no evaluation in it.
    """
    found = _Store(open_store(config)).evaluations()
    if not found:
        raise ReportError(f"{config.name} has no evaluation yet: run `ctr run` to its end first")
    return found


def open_store(config: PipelineConfig) -> MetadataStore:
    """Opens a pipeline's metadata store to read it.

    Args:
        config: The pipeline's settings.

    Raises:
        ReportError: There is none, or it is damaged.
    """
    database = pathlib.Path(config.runs_dir) / config.name / "metadata.sqlite"
    if not database.is_file() or not database.stat().st_size:
        raise ReportError(f"{config.name} has no runs: there is no {database}; run `ctr run` first")
    if damage := find_damage(database):
        raise ReportError(damage)
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(database)
    connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
    return MetadataStore(connection)


class _Store:
    """What the metadata store knows of evaluations: the artifacts of `_KINDS`, and the executions that made them."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        existing = {kind.name for kind in store.get_artifact_types()}
        self._artifacts = {
            kind: [
                artifact
                for artifact in store.get_artifacts_by_type(kind)
                if artifact.state not in (mlmd.Artifact.DELETED, mlmd.Artifact.ABANDONED)
            ]
            if kind in existing
            else []
            for kind in _KINDS
        }
        self._makers = self._find_makers()
        self._inputs = collections.defaultdict(set)
        if self._makers:
            for event in store.get_events_by_execution_ids(sorted({maker.id for maker in self._makers.values()})):
                if event.type == mlmd.Event.INPUT:
                    self._inputs[event.execution_id].add(event.artifact_id)

    def _find_makers(self) -> dict[int, mlmd.Execution]:
        """Returns the execution that made each artifact; one that took it from the cache did not."""
        ids = [artifact.id for artifacts in self._artifacts.values() for artifact in artifacts]
        events = [event for event in self._store.get_events_by_artifact_ids(ids) if event.type == mlmd.Event.OUTPUT]
        executions = {
            execution.id: execution
            for execution in self._store.get_executions_by_id(sorted({event.execution_id for event in events}))
            if execution.last_known_state == mlmd.Execution.COMPLETE
        }
        made = [event for event in events if event.execution_id in executions]
        return {event.artifact_id: executions[event.execution_id] for event in made}

    def evaluations(self) -> list[Evaluated]:
        """Returns all evaluations, oldest first."""
        blessings = {self._makers[b.id].id: b for b in self._artifacts["ModelBlessing"] if b.id in self._makers}
        examples = origins(self._store, [evaluation.id for evaluation in self._artifacts["ModelEvaluation"]])
        found = []
        for evaluation in sorted(self._artifacts["ModelEvaluation"], key=lambda artifact: artifact.id):
            maker = self._makers.get(evaluation.id)
            if maker is None:
                continue
            report = self._made_from("EvaluationReport", evaluation.id)
            blessing = blessings.get(maker.id)
            found.append(
                Evaluated(
                    made_at=datetime.datetime.fromtimestamp(
                        maker.last_update_time_since_epoch / 1000, datetime.timezone.utc
                    ).isoformat(timespec="seconds"),
                    run_id=self._run_id(maker.id),
                    evaluation=evaluation.uri,
                    report=report[-1].uri if report else None,
                    state=self._state(blessing),
                    days=tuple(day for one in examples[evaluation.id][:1] for day in days_of(one, "eval")),
                )
            )
        return found

    def _made_from(self, kind: str, input_id: int) -> list[mlmd.Artifact]:
        """Returns the artifacts of a kind whose execution read an artifact, oldest first."""
        made = [artifact for artifact in self._artifacts[kind] if artifact.id in self._makers]
        made = [artifact for artifact in made if input_id in self._inputs[self._makers[artifact.id].id]]
        return sorted(made, key=lambda artifact: artifact.id)

    def _state(self, blessing: mlmd.Artifact | None) -> State:
        if blessing is None or not blessing.custom_properties["blessed"].int_value:
            return "not blessed"
        pushed = self._made_from("PushedModel", blessing.id)
        if not any(model.custom_properties["pushed"].int_value for model in pushed):
            return "blessed"
        models = self._store.get_artifacts_by_id([blessing.custom_properties["current_model_id"].int_value])
        return "rolled back" if any(ROLLED_BACK in model.custom_properties for model in models) else "pushed"

    def _run_id(self, execution_id: int) -> str:
        contexts = self._store.get_contexts_by_execution(execution_id)
        return next((context.name for context in contexts if context.type == "pipeline_run"), "")


def read_metrics(run: Evaluated) -> tuple[dict[str, Mapping[str, float | None]], tuple[str, ...]]:
    """Returns the candidate's figures over all impressions, by name, and a sentence for each gate that failed.

    They come from the report or, without one, from TFMA's results; there are none where these are gone or too old.

    Args:
        run: The evaluation.
    """
    if run.report is not None and pathlib.Path(run.report, FIGURES).is_file():
        report = read_figures(run.report)
        return report["slices"][0]["candidate"], tuple(
            gate["sentence"] for gate in report["gates"] if not gate["passed"]
        )
    from components.evaluation.results import read_evaluation  # TFMA takes ten seconds to import

    try:
        evaluation = read_evaluation(run.evaluation)
    except (OSError, ValueError):
        return {}, ()
    metrics: dict[str, Mapping[str, float | None]] = {
        name: {end: v if v is not None and math.isfinite(v) else None for end, v in dataclasses.asdict(figure).items()}
        for name, figure in evaluation.slices[0].candidate.items()
    }
    return metrics, tuple(gate.sentence for gate in evaluation.gates if not gate.passed)


def read_figures(report_uri: str) -> dict[str, Any]:
    """Returns the content of `report.json`.

    Args:
        report_uri: Folder of the EvaluationReport artifact.
    """
    content: dict[str, Any] = json.loads(pathlib.Path(report_uri, FIGURES).read_text(encoding="utf-8"))
    return content
