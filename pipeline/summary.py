"""`summary.json`: what one run came to."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import math
import os
import platform
from collections.abc import Mapping
from typing import Any

from tfx.types import artifact_utils

from components.drift_gate.executor import read_drift
from components.evaluation.results import Evaluation, Figure, read_evaluation
from components.evaluation_report.collisions import describe, find_collisions, read_statistics
from components.evaluation_report.executor import read_training
from components.evaluation_report.files import PAGE
from components.serving_check.executor import read_report
from pipeline.config import PipelineConfig
from pipeline.node import NodeResult
from pipeline.tuning import read_tuned
from schemas.features import load_spec
from schemas.training_log import TrainingLog

_LOGGER = logging.getLogger(__name__)

_PACKAGES = {"tfx": "tfx", "tensorflow": "tensorflow", "keras": "keras", "beam": "apache-beam"}


def make_summary(
    config: PipelineConfig,
    run_id: str,
    results: Mapping[str, NodeResult],
    seconds: Mapping[str, float],
    problems: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns the content of `summary.json`, but for `total_seconds` and `peak_rss_mb`.

    Args:
        config: The pipeline's settings.
        run_id: The TFX run id.
        results: The result of each node, by its id.
        seconds: Seconds that each node took.
        problems: Why a node has failed that the run went on without, by its id.
    """
    (examples,) = results["ImpressionLogExampleGen"].outputs["examples"]
    served = next((model.uri for model in results["LatestBlessedModel"].outputs.get("model", [])), None)
    evaluation = read_evaluation(_output(results, "Evaluator", "evaluation").uri)
    statistics = artifact_utils.get_split_uri([_output(results, "StatisticsGen", "statistics")], "train")
    spec = load_spec(config.features)
    collisions = find_collisions(spec, read_statistics(os.path.join(statistics, "FeatureStats.pb")))
    for name, found in collisions.items():
        _LOGGER.info("%s", describe(name, found))
    tuned = None
    if "Tuner" in results:
        tuned = dataclasses.asdict(read_tuned(_output(results, "Tuner", "tuner_results").uri, config.training.monitor))
    pushed = _output(results, "Pusher", "pushed_model")
    return {
        "pipeline": config.name,
        "run_id": run_id,
        "stack": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(package) for name, package in _PACKAGES.items()},
        },
        "rows": int(examples.get_string_custom_property("num_rows")),
        "quarantined": json.loads(examples.get_string_custom_property("quarantined")),
        "quarantine": examples.get_string_custom_property("quarantine") or None,
        "examples": json.loads(examples.get_string_custom_property("num_examples")),
        "collisions": {name: dataclasses.asdict(found) for name, found in collisions.items()},
        "drift": [
            dataclasses.asdict(movement) | {"is_beyond": movement.is_beyond}
            for movement in read_drift(_output(results, "DriftGate", "drift").uri)
        ],
        "tuned": tuned,
        "training": _describe_training(read_training(_output(results, "Trainer", "model"))),
        **_describe_evaluation(evaluation),
        "serving_check": read_report(_output(results, "ServingCheck", "blessing").uri),
        "baseline": served if config.evaluation.baseline else None,
        "not_compared_with": None if config.evaluation.baseline else served,
        "report": _report(results),
        "no_report_because": (problems or {}).get("EvaluationReport"),
        "pushed_model": pushed.get_string_custom_property("pushed_destination") or None,
        "not_pushed_because": pushed.get_string_custom_property("not_pushed_because") or None,
        "seconds": {node: round(taken, 3) for node, taken in seconds.items()},
    }


def _describe_training(log: TrainingLog | None) -> dict[str, Any] | None:
    """Returns how a training began, and which of its epochs was kept."""
    if log is None:
        return None
    return {"start": log.start or None, "epochs": len(log.epochs), "best_epoch": log.best_epoch}


def _report(results: Mapping[str, NodeResult]) -> str | None:
    """Returns the page of the evaluation, if there is one."""
    if "EvaluationReport" not in results:
        return None
    return os.path.join(_output(results, "EvaluationReport", "report").uri, PAGE)


def _describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the figures of all impressions together, and every gate that failed, whatever its slice."""
    overall = evaluation.overall
    failed = [gate for gate in evaluation.gates if not gate.passed]
    return {
        "metrics": {name: _finite(figure.value) for name, figure in overall.candidate.items()},
        "intervals": {name: [_finite(figure.low), _finite(figure.high)] for name, figure in overall.candidate.items()},
        "differences": None
        if overall.difference is None
        else {name: _finite_figure(figure) for name, figure in overall.difference.items()},
        "blessed": evaluation.blessed,
        "not_blessed_because": [gate.sentence for gate in failed],
        "failed_gates": [
            dataclasses.asdict(gate) | {"slice": dict(gate.slice), "figure": _finite_figure(gate.figure)}
            for gate in failed
        ],
    }


def _finite_figure(figure: Figure) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in dataclasses.asdict(figure).items()}


def _finite(value: float | None) -> float | None:
    """Returns what JSON can write: null for NaN and infinity."""
    return value if value is not None and math.isfinite(value) else None


def _output(results: Mapping[str, NodeResult], node_id: str, key: str) -> Any:
    (artifact,) = results[node_id].outputs[key]
    return artifact
