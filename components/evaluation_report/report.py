"""All that the page shows: what was measured, and what is known of the model besides. `report.json` is this as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from components.drift_gate.measure import Movement
from components.evaluation.results import Evaluation
from components.evaluation_report.collisions import Collisions
from components.evaluation_report.curves import Curves, make_curves
from components.evaluation_report.importance import Importance
from schemas.training_log import TrainingLog

FORMAT = 1  # of report.json


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one split.

    Attributes:
        name: `train` or `eval`.
        days: Their days, oldest first, as YYYY-MM-DD.
        examples: How many they are.
    """

    name: str
    days: tuple[str, ...]
    examples: int


@dataclasses.dataclass(frozen=True)
class Examples:
    """What the model was trained and measured on.

    Attributes:
        splits: The splits.
        rows: Rows of the log's window.
        quarantined: Bad rows that were left out, by reason.
        quarantine: The file that has them, or None.
        anomalies: What does not fit the schema, a sentence each.
        drift: How far each feature has moved, as DriftGate measured it.
        collisions: Ids that share a bucket, by field.
    """

    splits: tuple[Split, ...]
    rows: int
    quarantined: Mapping[str, int]
    quarantine: str | None
    anomalies: tuple[str, ...]
    drift: tuple[Movement, ...]
    collisions: Mapping[str, Collisions]


@dataclasses.dataclass(frozen=True)
class Context:
    """What is known of a model besides its evaluation.

    Attributes:
        pipeline: The pipeline's name.
        run_id: The run that the evaluation was made in.
        made_at: When this was put together, ISO 8601, UTC.
        model: Where the model is.
        baseline: Where the model is that it was compared with; None if there was none.
        evaluation: Where TFMA's own results are.
        examples: What it was trained and measured on.
        training: The epochs of its training; None if the Trainer has left none.
        config: The pipeline's settings.
        versions: The packages' versions.
        importance: How much it relies on each field; None where that could not be measured.
    """

    pipeline: str
    run_id: str
    made_at: str
    model: str
    baseline: str | None
    evaluation: str
    examples: Examples
    training: TrainingLog | None
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    importance: Importance | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        context: What is known of the model.
        evaluation: What was measured, but for the histograms of the scores.
        curves: Of the `candidate` and, where there is one, of the `baseline`.
    """

    context: Context
    evaluation: Evaluation
    curves: Mapping[str, Curves]

    def to_json(self) -> str:
        """Returns it as JSON, with numbers to seven digits; one that is not finite is null."""
        tree: dict[str, Any] = {
            "format": FORMAT,
            "blessed": self.evaluation.blessed,
            **dataclasses.asdict(self.context),
            "gates": [dataclasses.asdict(gate) for gate in self.evaluation.gates],
            "slices": [dataclasses.asdict(part) for part in self.evaluation.slices],
            "curves": {model: dataclasses.asdict(curves) for model, curves in self.curves.items()},
        }
        moved = zip(self.context.examples.drift, tree["examples"]["drift"], strict=True)
        tree["examples"]["drift"] = [of | {"is_beyond": movement.is_beyond} for movement, of in moved]
        return json.dumps(_finite(tree), allow_nan=False)


def make_report(evaluation: Evaluation, context: Context) -> Report:
    """Returns the report on an evaluation."""
    histograms = {"candidate": evaluation.candidate_scores, "baseline": evaluation.baseline_scores}
    curves = {model: make_curves(scores) for model, scores in histograms.items() if scores is not None}
    return Report(context, evaluation, curves)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
