"""`ctr explain`: what a pipeline's newest model relies on, measured on the newest eval split."""

from __future__ import annotations

import json
import os
import pathlib

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.earlier.days import days_of, origins
from components.evaluation_report.importance import Importance, explain, load_scorer, read_sample
from pipeline.config import PipelineConfig
from pipeline.history import ReportError, open_store
from pipeline.preflight import PreflightError, find_latest_model
from schemas.features import load_spec


def explain_newest(
    config: PipelineConfig, model: pathlib.Path | None = None, num_repeats: int = 5
) -> tuple[Importance, str, list[str]]:
    """Explains a model on the raw eval examples of the newest evaluation.

    Args:
        config: The pipeline's settings.
        model: A SavedModel; by default the pushed one or, where none has been pushed, the one trained last.
        num_repeats: How often each field is shuffled.

    Returns:
        The importance, where the model is, and the days of the examples.

    Raises:
        ReportError: There are no examples, or no model.
        ValueError: The model or the examples cannot be used; the message says why.
    """
    spec = load_spec(config.features)
    store = open_store(config)
    examples = _evaluated_examples(config.name, store)
    folder = str(model or _find_model(config, store))
    days = days_of(examples, "eval")
    count = json.loads(examples.custom_properties["num_examples"].string_value)["eval"]
    sample = read_sample([os.path.join(examples.uri, "Split-eval")], count, spec, num_repeats)
    return explain(spec, load_scorer(folder, spec), sample, num_repeats), folder, days


def _find_model(config: PipelineConfig, store: MetadataStore) -> pathlib.Path:
    try:
        return find_latest_model(config)
    except PreflightError:
        trained = _newest(store, "Model")
        if trained is None:
            raise ReportError(f"{config.name} has no model yet: run `ctr run` first") from None
        return pathlib.Path(trained.uri, "Format-Serving")


def _evaluated_examples(name: str, store: MetadataStore) -> mlmd.Artifact:
    """Returns the examples that the newest evaluation was made on: not those of a run that failed before it."""
    evaluation = _newest(store, "ModelEvaluation")
    found = origins(store, [evaluation.id])[evaluation.id] if evaluation else None
    if not found:
        raise ReportError(f"{name} has no evaluation yet: run `ctr run` to its end first")
    if not os.path.isdir(found[0].uri):
        raise ReportError(f"the examples of the newest evaluation are gone, {found[0].uri}: `ctr run` makes them anew")
    return found[0]


def _newest(store: MetadataStore, kind: str) -> mlmd.Artifact | None:
    """Returns the newest artifact of a type whose files are there."""
    if kind not in {found.name for found in store.get_artifact_types()}:
        return None
    made = [
        artifact
        for artifact in store.get_artifacts_by_type(kind)
        if artifact.state == mlmd.Artifact.LIVE and os.path.isdir(artifact.uri)
    ]
    return max(made, key=lambda artifact: artifact.id, default=None)
