"""Runs the whole pipeline on this machine: the child process of `ctr run`.

The configuration comes as JSON on standard input; what happens goes as JSON lines to the file descriptor that
`--events-fd` names, the log to standard error.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import logging
import os
import pathlib
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import absl.logging
from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline.config import PipelineConfig, config_from_json
from pipeline.node import NodeResult, clear_away, launch_node
from pipeline.pipeline import OPTIONAL_NODES, create_pipeline
from pipeline.summary import make_summary

Emit = Callable[[dict[str, Any]], None]


class ReportingDagRunner(LocalDagRunner):
    """TFX's LocalDagRunner, which also tells what it is doing and keeps what came of it.

    Attributes:
        run_id: The TFX run id.
        results: The result of each node that has run.
        seconds: Seconds that each of them took.
        problems: Why a node has failed that the run goes on without, by its id.
    """

    def __init__(self, emit: Emit) -> None:
        super().__init__()
        self._emit = emit
        self.run_id = datetime.datetime.now(datetime.timezone.utc).isoformat()
        self.results: dict[str, NodeResult] = {}
        self.seconds: dict[str, float] = {}
        self.problems: dict[str, str] = {}
        self.running: str | None = None

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None) -> None:
        """Runs the nodes in topological order, one after the other.

        Args:
            pipeline: The compiled pipeline.
            run_options: Must be None.
        """
        if run_options is not None:
            raise ValueError("partial runs are not supported")
        runtime_parameter_utils.substitute_runtime_parameter(pipeline, {PIPELINE_RUN_ID_PARAMETER_NAME: self.run_id})
        clear_away(pipeline)
        for node in pipeline.nodes:
            self.running = node.pipeline_node.node_info.id
            self._emit({"event": "started", "component": self.running})
            start = time.monotonic()
            try:
                result = launch_node(pipeline, self.running)
            except Exception as error:
                if self.running not in OPTIONAL_NODES:
                    raise
                logging.exception("the run goes on without %s", self.running)
                cause = self.problems[self.running] = one_line_cause(error)
                self._emit({"event": "skipped", "component": self.running, "cause": cause})
                continue
            self.results[self.running] = result
            self.seconds[self.running] = time.monotonic() - start
            self._emit(
                {
                    "event": "finished",
                    "component": self.running,
                    "seconds": self.seconds[self.running],
                    "cached": result.cached,
                }
            )
        self.running = None


class ProgressHandler(logging.Handler):
    """Passes the training's log lines on as progress of the component that is running."""

    def __init__(self, runner: ReportingDagRunner, emit: Emit) -> None:
        super().__init__(logging.INFO)
        self._runner = runner
        self._emit_event = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one line on."""
        self._emit_event({"event": "progress", "component": self._runner.running, "text": record.getMessage()})


def run(config: PipelineConfig, emit: Emit) -> None:
    """Runs the pipeline and writes `summary.json`.

    Args:
        config: The pipeline's settings.
        emit: Called with each event.

    Raises:
        Exception: Whatever stopped the run, after the event `failed`.
    """
    runner = ReportingDagRunner(emit)
    logging.getLogger("trainer").addHandler(ProgressHandler(runner, emit))
    try:
        runner.run(create_pipeline(config))
        summary = make_summary(config, runner.run_id, runner.results, runner.seconds, runner.problems)
    except Exception as error:
        emit({"event": "failed", "component": runner.running, "cause": one_line_cause(error)})
        raise
    file = pathlib.Path(config.runs_dir) / config.name / "summary.json"
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    temporary.replace(file)
    emit({"event": "summary", "path": str(file)})


def one_line_cause(error: BaseException) -> str:
    """Returns what went wrong in one line, without the wrapping of Beam and of the metadata store's launcher."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line for line in str(root).splitlines() if line.strip()]
    message = re.sub(r"\s*\[(while running|in) .*\]$", "", lines[0]) if lines else ""
    return message if isinstance(root, ValueError) and message else f"{type(root).__name__}: {message}"


def _die_with_the_parent() -> None:
    """Has the kernel kill this process when its parent ends: nobody would see what a run without one comes to."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> int:
    """The child process; its exit status is 0 where the pipeline ran to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events-fd", type=int, required=True, help="file descriptor for the events")
    events_fd = parser.parse_args().events_fd
    _die_with_the_parent()

    def emit(event: dict[str, Any]) -> None:
        os.write(events_fd, (json.dumps(event) + "\n").encode())

    absl.logging.set_verbosity(absl.logging.INFO)
    logging.getLogger().setLevel(logging.INFO)
    try:
        run(config_from_json(sys.stdin.read()), emit)
    except Exception:
        logging.exception("the run failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
