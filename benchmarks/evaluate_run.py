"""One evaluation in a process of its own: `python -m benchmarks.evaluate_run NAME FOLDER`. Prints figures as JSON."""

from __future__ import annotations

import contextlib
import json
import pathlib
import resource
import sys
import tempfile
import time
from typing import Any

from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation, Schema

from benchmarks.evaluate_data import SLICES, SPEC
from components.evaluation.component import Executor
from components.evaluation.extractors import custom_extractors
from pipeline.beam import LOCAL_BEAM_ARGS
from pipeline.config import EvaluationConfig
from pipeline.evaluation import make_eval_config

TFMA_METRICS = ("ExampleCount", "AUC", "AUCPrecisionRecall", "BinaryCrossentropy", "Calibration")


def make_run(name: str) -> tuple[type, dict[str, Any]]:
    """Returns the executor and its properties: "ours", or "tfma", TFX's own with TFMA's metrics alone."""
    config = make_eval_config(EvaluationConfig(slices=SLICES), SPEC, "benchmarks.evaluate_data:SPEC")
    properties: dict[str, Any] = {"example_splits": "null"}
    if name == "ours":
        properties["module_path"] = custom_extractors.__module__
    else:
        metrics = [config_pb2.MetricConfig(class_name=metric) for metric in TFMA_METRICS]
        del config.metrics_specs[:]
        config.metrics_specs.add(metrics=metrics)
    properties["eval_config"] = json_format.MessageToJson(config, preserving_proto_field_name=True)
    return (Executor if name == "ours" else TfxExecutor), properties


def main() -> None:
    """Runs the executor on the folder's examples; imports do not count."""
    name, home = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()

    def put(artifact: Any, uri: pathlib.Path) -> list[Any]:
        artifact.uri = str(uri)
        return [artifact]

    examples = put(Examples(), home / "examples")
    examples[0].split_names = artifact_utils.encode_split_names(["eval"])
    inputs = {
        "examples": examples,
        "schema": put(Schema(), home / "schema"),
        "model": put(Model(), home / "model"),
        "baseline_model": [],
    }
    executor, properties = make_run(name)
    with tempfile.TemporaryDirectory(dir=home) as text, contextlib.redirect_stdout(sys.stderr):
        folder = pathlib.Path(text)
        outputs = {
            "evaluation": put(ModelEvaluation(), folder / "evaluation"),
            "blessing": put(ModelBlessing(), folder / "blessing"),
        }
        context = BaseBeamExecutor.Context(list(LOCAL_BEAM_ARGS), tmp_dir=str(folder / "tmp"), unique_id="1")
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        executor(context).Do(inputs, outputs, properties)
        seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_rss_mb": after.ru_maxrss // 1024,
        "rss_before_mb": before.ru_maxrss // 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
