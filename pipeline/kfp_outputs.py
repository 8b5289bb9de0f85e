"""The evaluation's results as outputs of Kubeflow Pipelines, so that its UI shows them."""

from __future__ import annotations

import html
import json
import math
import os
import pathlib
import shutil
from typing import Any

from tfx.dsl.io import fileio

from components.evaluation.results import read_evaluation
from components.evaluation_report.files import PAGE
from pipeline.node import NodeResult

METRICS = "metrics"
REPORT = "report"
# The KFP outputs of the nodes that have any: their names and schema titles.
KFP_OUTPUTS = {
    "Evaluator": {METRICS: "system.Metrics"},
    "EvaluationReport": {REPORT: "system.HTML"},
}


def write_outputs(executor_input: dict[str, Any], result: NodeResult | None, problem: str = "") -> None:
    """Writes a node's results where KFP's launcher collects them.

    Args:
        executor_input: What KFP puts in the place of `{{$}}`: a KFP ExecutorInput in JSON.
        result: What the node has left; None where it has failed and the run goes on without it.
        problem: Why it has failed.
    """
    outputs = executor_input["outputs"]
    written: dict[str, Any] = {}
    for name, artifact_list in outputs.get("artifacts", {}).items():
        (artifact,) = artifact_list["artifacts"]
        page = pathlib.Path(_local_path(artifact))
        if name == METRICS and result:
            artifact["metadata"] = _metrics(result.outputs["evaluation"][0].uri)
        elif name == REPORT and result:
            _copy(os.path.join(result.outputs["report"][0].uri, PAGE), page)
        elif name == REPORT:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(f"<p>There is no report: {html.escape(problem)}</p>\n", encoding="utf-8")
        written[name] = {"artifacts": [artifact]}
    file = pathlib.Path(outputs["outputFile"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"artifacts": written}), encoding="utf-8")


def _metrics(evaluation_uri: str) -> dict[str, float]:
    evaluation = read_evaluation(evaluation_uri)
    values = {name: figure.value for name, figure in evaluation.overall.candidate.items()}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return finite | {"blessed": float(evaluation.blessed)}


def _copy(source: str, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with fileio.open(source, "rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write)


def _local_path(artifact: dict[str, Any]) -> str:
    """Returns where KFP's launcher expects the content of an artifact: it uploads it from there to its URI."""
    uri = str(artifact["uri"])
    for scheme, folder in (("gs", "gcs"), ("s3", "s3"), ("minio", "minio")):
        if uri.startswith(f"{scheme}://"):
            return uri.replace(f"{scheme}://", f"/{folder}/", 1)
    return uri
