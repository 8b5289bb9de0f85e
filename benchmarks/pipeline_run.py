"""One pipeline in a process of its own: `python -m benchmarks.pipeline_run NAME LOG SETTINGS`. Prints figures as JSON.

The seconds and CPU seconds of a component are its launcher's, the driver included. Its peak memory is the largest
resident set of this process and of those that it has started together, looked at ten times a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import sys
import tempfile
import threading
import time
from typing import Any

from tfx.dsl.compiler.compiler import Compiler

from pipeline.runner import ReportingRunner


class Clock:
    """Takes down the seconds, CPU seconds and peak memory of each component of a run.

    Attributes:
        components: The figures by the component's name.
    """

    def __init__(self) -> None:
        self.components: dict[str, dict[str, float]] = {}
        self._cpu, self._peak_bytes = 0.0, 0
        threading.Thread(target=self._look, daemon=True).start()

    def take(self, event: dict[str, Any]) -> None:
        """Takes an event of `ReportingRunner`."""
        if event["event"] == "started":
            self._cpu, self._peak_bytes = cpu_seconds(), resident_bytes()
        elif event["event"] == "finished":
            self.components[event["component"]] = {
                "seconds": round(event["seconds"], 2),
                "cpu_seconds": round(cpu_seconds() - self._cpu, 2),
                "peak_rss_mb": max(self._peak_bytes, resident_bytes()) >> 20,
            }
            print(event["component"], self.components[event["component"]], file=sys.stderr)

    def _look(self) -> None:
        while True:
            self._peak_bytes = max(self._peak_bytes, resident_bytes())
            time.sleep(0.1)


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of those of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def resident_bytes(pid: int | str = "self") -> int:
    """Returns the resident set of a process and of all that it has started."""
    process = pathlib.Path("/proc") / str(pid)
    try:
        pages = int((process / "statm").read_text().split()[1])
        children = [child for task in (process / "task").iterdir() for child in (task / "children").read_text().split()]
    except (OSError, IndexError):  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, children))


def run_ours(home: pathlib.Path, log: pathlib.Path, settings: dict[str, Any], clock: Clock) -> dict[str, float]:
    """Runs this project's pipeline and returns its metrics."""
    from pipeline.config import CONFIGS, load_config
    from pipeline.pipeline import create_pipeline
    from pipeline.summary import make_summary

    values = {
        "runs_dir": str(home),
        "log.path": str(log / "log"),
        "training.batch_size": settings["batch_size"],
        "training.max_epochs": settings["epochs"],
        "training.learning_rate": settings["learning_rate"],
        "model.embedding_dim": settings["dim"],
        "model.hidden_units": settings["hidden_units"],
    }
    config = load_config(CONFIGS / "criteo.yaml", [f"{key}={json.dumps(value)}" for key, value in values.items()])
    (home / config.name).mkdir()
    runner = ReportingRunner(clock.take)
    runner.run(Compiler().compile(create_pipeline(config)))
    summary = make_summary(config, runner.run_id, runner.results, runner.seconds)
    return {name: summary["metrics"][name] for name in ("auc", "log_loss")}


def run_plain(home: pathlib.Path, log: pathlib.Path, settings: dict[str, Any], clock: Clock) -> dict[str, float]:
    """Runs the plain pipeline and returns its metrics."""
    # Its wheel needs pip, and costs some seconds.
    os.environ["UNSUPPORTED_DO_NOT_PACKAGE_USER_MODULES"] = "1"
    from benchmarks.plain_pipeline import make_pipeline, read_metrics

    runner = ReportingRunner(clock.take)
    runner.run(Compiler().compile(make_pipeline(home, log / "csv", settings)))
    (evaluation,) = runner.results["Evaluator"].outputs["evaluation"]
    return read_metrics(evaluation.uri)


def main() -> None:
    """Runs the pipeline."""
    name, log, settings = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), json.loads(sys.argv[3])
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=log) as folder, contextlib.redirect_stdout(sys.stderr):
        metrics = {"ours": run_ours, "plain": run_plain}[name](pathlib.Path(folder), log, settings, clock)
        size = sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.is_file())
    figures = {**metrics, "disk_mb": size >> 20, "components": clock.components}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
