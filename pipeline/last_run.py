"""What a run leaves for one of which nothing has changed: the compiled pipeline, and its summary. See ADR 31."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from tfx.proto.orchestration import pipeline_pb2

from pipeline.config import PipelineConfig, config_to_json
from pipeline.fingerprint import source_fingerprint
from pipeline.node import NodeResult, NotCachedError, launch_node
from pipeline.runner import Emit, ReportingRunner
from pipeline.schema_file import find_schema
from schemas.features import load_spec

_LOGGER = logging.getLogger(__name__)

FILE = "last_run.json"
REPEATED = "nothing has changed since the last run"  # in the log
_PACKAGES = ("tfx", "ml-metadata", "tensorflow", "tensorflow-model-analysis", "keras", "apache-beam")
_SUFFIXES = (".py", ".j2", ".css", ".js", ".pbtxt")
# By which blessing the baseline was found: each comparison of the same model adds one, and nothing reads it.
_IDLE_OUTPUTS = {("LatestBlessedModel", "model_blessing")}


@dataclasses.dataclass(frozen=True)
class LastRun:
    """The last run that came to its end.

    Attributes:
        pipeline: The compiled pipeline, without a run id.
        artifacts: `digest_artifacts` of its results.
        summary: The content of `summary.json`.
    """

    pipeline: pipeline_pb2.Pipeline
    artifacts: str
    summary: dict[str, Any]


def digest_settings(config: PipelineConfig) -> str:
    """Returns a digest of all that `create_pipeline` makes a pipeline of, and of the code that runs it.

    Raises:
        ConfigError: The schema file is missing or does not fit the feature spec.
        ValueError: The feature spec cannot be loaded.
    """
    spec = load_spec(config.features)
    schema = find_schema(config, spec)
    parts = [
        config_to_json(config),
        repr(spec),
        str(schema),
        schema.read_text(encoding="utf-8"),
        os.path.realpath(config.runs_dir),
        os.path.realpath(config.log.path),
        source_fingerprint("pipeline", "components", "transform", "trainer", "schemas", suffixes=_SUFFIXES),
        platform.python_version(),
        str(os.cpu_count()),
        *map(importlib.metadata.version, _PACKAGES),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def digest_artifacts(results: Mapping[str, NodeResult]) -> str:
    """Returns a digest of the nodes' artifacts, with their properties, as far as a node or the summary reads them."""
    parts = [
        (node, key, artifact.id, artifact.uri, sorted(map(str, artifact.mlmd_artifact.custom_properties.items())))
        for node, result in sorted(results.items())
        for key, artifacts in sorted(result.outputs.items())
        if (node, key) not in _IDLE_OUTPUTS
        for artifact in artifacts
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_last_run(config: PipelineConfig) -> LastRun | None:
    """Returns the last run, or None where there was none, or none with the same settings and code."""
    try:
        content = json.loads(_file(config).read_text(encoding="utf-8"))
        if content["settings"] != digest_settings(config):
            return None
        pipeline = pipeline_pb2.Pipeline.FromString(base64.b64decode(content["pipeline"]))
        return LastRun(pipeline, content["artifacts"], content["summary"])
    except Exception:  # whatever it is, a run that takes nothing from here finds it, and can say it
        return None


def write_last_run(
    config: PipelineConfig, pipeline: pipeline_pb2.Pipeline, results: Mapping[str, NodeResult], summary: dict[str, Any]
) -> None:
    """Writes what `read_last_run` reads.

    Args:
        config: The pipeline's settings.
        pipeline: The compiled pipeline, without a run id.
        results: The result of each node, by its id.
        summary: The content of `summary.json`.
    """
    content = {
        "settings": digest_settings(config),
        "pipeline": base64.b64encode(pipeline.SerializeToString()).decode(),
        "artifacts": digest_artifacts(results),
        "summary": summary,
    }
    write_json(_file(config), content)


def repeat(last_run: LastRun, runner: ReportingRunner, config: PipelineConfig, emit: Emit) -> bool:
    """Runs the last run's pipeline again without an executor, and writes `summary.json`.

    Returns:
        Whether nothing had to be done. Otherwise the run is to go on in a process that has executors.
    """
    try:
        runner.run(last_run.pipeline, functools.partial(launch_node, only_cached=True))
    except NotCachedError as node:
        _LOGGER.info("%s is not cached", node)
        return False
    except Exception:
        _LOGGER.exception("to be tried again with executors")
        return False
    if digest_artifacts(runner.results) != last_run.artifacts:
        _LOGGER.info("an artifact is not what it was: a model was rolled back, say")
        return False
    seconds = {node: round(taken, 3) for node, taken in runner.seconds.items()}
    summary = last_run.summary | {"run_id": runner.run_id, "seconds": seconds}
    write_summary(config, summary, emit)
    _LOGGER.info(REPEATED)
    return True


def write_summary(config: PipelineConfig, summary: dict[str, Any], emit: Emit) -> None:
    """Writes `summary.json` and tells where it is."""
    file = pathlib.Path(config.runs_dir) / config.name / "summary.json"
    write_json(file, summary)
    emit({"event": "summary", "path": str(file)})


def write_json(file: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes a file whole, or not at all."""
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(file)


def _file(config: PipelineConfig) -> pathlib.Path:
    return pathlib.Path(config.runs_dir) / config.name / FILE
