"""Runs the pipeline on this machine: the child process of `ctr run`, from the first node on that is not cached."""

from __future__ import annotations

import logging
import sys

from tfx.dsl.compiler.compiler import Compiler
from tfx.proto.orchestration import pipeline_pb2

from pipeline.child import start_child
from pipeline.config import PipelineConfig
from pipeline.last_run import write_last_run, write_summary
from pipeline.pipeline import create_pipeline
from pipeline.runner import Emit, ReportingRunner, one_line_cause
from pipeline.summary import make_summary


class ProgressHandler(logging.Handler):
    """Passes the training's log lines on as progress of the component that is running."""

    def __init__(self, runner: ReportingRunner, emit: Emit) -> None:
        super().__init__(logging.INFO)
        self._runner = runner
        self._emit_event = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one line on."""
        self._emit_event({"event": "progress", "component": self._runner.running, "text": record.getMessage()})


def run(config: PipelineConfig, runner: ReportingRunner, emit: Emit) -> None:
    """Runs the pipeline and writes `summary.json`.

    Args:
        config: The pipeline's settings.
        runner: Runs its nodes.
        emit: Called with each event.

    Raises:
        Exception: Whatever stopped the run, after the event `failed`.
    """
    logging.getLogger("trainer").addHandler(ProgressHandler(runner, emit))
    logging.getLogger().addHandler(runner.job_errors)
    try:
        compiled = Compiler().compile(create_pipeline(config))
        without_run_id = pipeline_pb2.Pipeline()
        without_run_id.CopyFrom(compiled)
        runner.run(compiled)
        summary = make_summary(config, runner.run_id, runner.results, runner.seconds, runner.problems)
    except Exception as error:
        emit({"event": "failed", "component": runner.running, "cause": one_line_cause(error, runner.job_errors.last)})
        raise
    write_last_run(config, without_run_id, runner.results, summary)
    write_summary(config, summary, emit)


def main() -> int:
    """The child process; its exit status is 0 where the pipeline ran to its end."""
    child = start_child()
    try:
        run(child.config, ReportingRunner(child.emit, child.run_id, child.num_told), child.emit)
    except Exception:
        logging.exception("the run failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
