"""Puts the report together from the artifacts of a run."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from typing import Any

from absl import logging
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from components.drift_gate.executor import read_drift
from components.evaluation.results import read_evaluation
from components.evaluation_report.collisions import find_collisions, read_statistics
from components.evaluation_report.files import FIGURES, PAGE
from components.evaluation_report.importance import Importance, explain, load_scorer, read_sample
from components.evaluation_report.page import render
from components.evaluation_report.report import Context, Examples, Split, make_report
from components.schema_gate.executor import describe, read_anomalies
from schemas import training_log
from schemas.features import FeatureSpec, load_spec
from schemas.training_log import TrainingLog

PACKAGES = {
    "tfx": "tfx",
    "tensorflow": "tensorflow",
    "keras": "keras",
    "tensorflow_model_analysis": "tensorflow-model-analysis",
    "beam": "apache-beam",
}


_NUM_REPEATS = 3  # of each field's shuffle


class Executor(BaseExecutor):
    """Reads what the other components have left, and writes two files."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `report.html` and `report.json`.

        Args:
            input_dict: One artifact each of `evaluation`, `examples`, `statistics`, `anomalies`, `drift` and `model`,
                and at most one `baseline_model`.
            output_dict: `report`, one EvaluationReport artifact.
            exec_properties: The component's parameters.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        evaluation = artifact_utils.get_single_instance(input_dict["evaluation"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        baseline = input_dict.get("baseline_model") or []
        context = Context(
            pipeline=self._context.pipeline_info.id if self._context and self._context.pipeline_info else "",
            run_id=self._context.pipeline_run_id or "" if self._context else "",
            made_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            model=model.uri,
            baseline=baseline[0].uri if baseline else None,
            evaluation=evaluation.uri,
            examples=read_examples(input_dict, exec_properties["features"]),
            training=read_training(model),
            config=json.loads(exec_properties["config"]),
            versions=find_versions(),
            importance=_find_importance(input_dict, load_spec(exec_properties["features"])),
        )
        figures = make_report(read_evaluation(evaluation.uri), context).to_json()
        page = render(json.loads(figures))
        folder = artifact_utils.get_single_uri(output_dict["report"])
        for name, text in ((FIGURES, figures), (PAGE, page)):
            with fileio.open(os.path.join(folder, name), "w") as file:
                file.write(text)
        logging.info("the report is %s", os.path.join(folder, PAGE))


def find_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a model depends on."""
    packages = {name: importlib.metadata.version(package) for name, package in PACKAGES.items()}
    return {"python": platform.python_version(), **packages}


def read_examples(input_dict: dict[str, list[Artifact]], features: str) -> Examples:
    """Returns what is known of the examples.

    Args:
        input_dict: The executor's inputs.
        features: The feature spec, as `package.module:NAME`.
    """
    examples, statistics, found = (
        artifact_utils.get_single_instance(input_dict[key]) for key in ("examples", "statistics", "anomalies")
    )
    days = json.loads(examples.get_string_custom_property("days"))
    numbers = json.loads(examples.get_string_custom_property("num_examples"))
    training = os.path.join(artifact_utils.get_split_uri([statistics], "train"), "FeatureStats.pb")
    anomalies = read_anomalies(found)
    return Examples(
        splits=tuple(Split(name, tuple(days[name]), numbers[name]) for name in days),
        rows=int(examples.get_string_custom_property("num_rows")),
        quarantined=json.loads(examples.get_string_custom_property("quarantined")),
        quarantine=examples.get_string_custom_property("quarantine") or None,
        anomalies=tuple(f"{split}: {line}" for split, of_split in anomalies.items() for line in describe(of_split)),
        drift=tuple(read_drift(artifact_utils.get_single_uri(input_dict["drift"]))),
        collisions=find_collisions(load_spec(features), read_statistics(training)),
    )


def _find_importance(input_dict: dict[str, list[Artifact]], spec: FeatureSpec) -> Importance | None:
    """Returns the importance of the fields, None where the model or the examples are not fit for it."""
    model = artifact_utils.get_single_instance(input_dict["model"])
    examples = artifact_utils.get_single_instance(input_dict["examples"])
    count = json.loads(examples.get_string_custom_property("num_examples"))["eval"]
    sample = read_sample(artifact_utils.get_split_uris([examples], "eval"), count, spec, _NUM_REPEATS)
    saved_model = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
    try:
        return explain(spec, load_scorer(saved_model, spec), sample, _NUM_REPEATS)
    except ValueError as error:
        logging.warning("the report is without the fields' importance: %s", error)
        return None


def read_training(model: Artifact) -> TrainingLog | None:
    """Returns the log of a model's training, None where the Trainer has left none."""
    path = os.path.join(model.uri, training_log.FILE)
    if not fileio.exists(path):
        return None
    with fileio.open(path) as file:
        return TrainingLog.from_json(file.read())
