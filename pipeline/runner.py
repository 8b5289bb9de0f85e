"""Runs the nodes of a compiled pipeline on this machine, one after the other, and tells what comes of each."""

from __future__ import annotations

import datetime
import logging
import re
import time
from collections.abc import Callable
from typing import Any

from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline.node import OPTIONAL_NODES, NodeResult, clear_away, launch_node
from schemas.errors import one_line

_SQLITE_FULL = "database or disk is full"  # what SQLite says where a file says ENOSPC

_JOB_FAILED = " failed in state FAILED: "  # Beam's own words, for each runner that is asked over a network

Emit = Callable[[dict[str, Any]], None]
Launch = Callable[[pipeline_pb2.Pipeline, str], NodeResult]


class JobErrors(logging.Handler):
    """Keeps what a Beam job elsewhere tells of its failure: the exception here says no more than that it has failed.

    Attributes:
        last: The last error that came from a step of the job, in one line; empty while there is none.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Takes the error from a message with a worker's traceback."""
        for line in re.findall(r"^(.*\S)\s*\[while running .*\]$", record.getMessage(), re.MULTILINE):
            self.last = line.strip().removeprefix("ValueError: ")


class ReportingRunner:
    """The loop of TFX's LocalDagRunner, which also tells what it is doing and keeps what came of it.

    Attributes:
        run_id: The TFX run id.
        results: The result of each node that has run.
        seconds: Seconds that each of them took.
        problems: Why a node has failed that the run goes on without, by its id.
        running: The node that is running, or None.
        job_errors: What Beam's jobs tell of their failure; for the root logger.
    """

    def __init__(self, emit: Emit, run_id: str | None = None, num_told: int = 0) -> None:
        """Makes the runner.

        Args:
            emit: Called with each event.
            run_id: The id of a run to go on with; its nodes that have succeeded are not run again.
            num_told: How many of its nodes have been told of already.
        """
        self._emit = emit
        self._num_told = num_told
        self._goes_on = run_id is not None
        self.run_id = run_id or datetime.datetime.now(datetime.timezone.utc).isoformat()
        self.results: dict[str, NodeResult] = {}
        self.seconds: dict[str, float] = {}
        self.problems: dict[str, str] = {}
        self.running: str | None = None
        self.job_errors = JobErrors()

    def run(self, pipeline: pipeline_pb2.Pipeline, launch: Launch = launch_node) -> None:
        """Runs the nodes in topological order.

        Args:
            pipeline: The compiled pipeline, whose run id is set here.
            launch: Runs one node.
        """
        runtime_parameter_utils.substitute_runtime_parameter(pipeline, {PIPELINE_RUN_ID_PARAMETER_NAME: self.run_id})
        if not self._goes_on:
            clear_away(pipeline)
        for number, node in enumerate(pipeline.nodes):
            emit = self._emit if number >= self._num_told else lambda event: None
            self._run_node(pipeline, node.pipeline_node.node_info.id, launch, emit)
        self.running = None

    def _run_node(self, pipeline: pipeline_pb2.Pipeline, node_id: str, launch: Launch, emit: Emit) -> None:
        self.running, self.job_errors.last = node_id, ""
        emit({"event": "started", "component": node_id})
        start = time.monotonic()
        try:
            result = launch(pipeline, node_id)
        except Exception as error:
            if node_id not in OPTIONAL_NODES:
                raise
            logging.exception("the run goes on without %s", node_id)
            cause = self.problems[node_id] = one_line_cause(error, self.job_errors.last)
            emit({"event": "skipped", "component": node_id, "cause": cause})
            return
        self.results[node_id] = result
        seconds = self.seconds[node_id] = time.monotonic() - start
        emit({"event": "finished", "component": node_id, "seconds": seconds, "cached": result.cached})


def one_line_cause(error: BaseException, of_job: str = "") -> str:
    """Returns what went wrong in one line, without the wrapping of Beam and of the metadata store's launcher.

    Args:
        error: What was raised.
        of_job: What a Beam job elsewhere has told of its failure, see `JobErrors`.
    """
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    if of_job and _JOB_FAILED in str(root):
        return of_job
    if _SQLITE_FULL in str(root):
        return "No space left on device: the metadata store could not be written"
    message = re.sub(r"\s*\[(while running|in) .*\]$", "", one_line(str(root)))
    return message if isinstance(root, ValueError) and message else f"{type(root).__name__}: {message}"
