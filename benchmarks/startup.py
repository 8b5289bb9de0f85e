"""`ctr run` of which nothing has changed, beside the imports of TensorFlow and TFX alone: `make bench-startup`.

Whole processes, one after the other in turns; CPU time is that of a process and of all that it has started. Writes
`benchmarks/results/startup.json`.
"""

from __future__ import annotations

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import click

from benchmarks import results
from pipeline.last_run import REPEATED

TIMES_IMPORT = 1.2
IMPORT, RUN = "import tensorflow, tfx", "ctr run, all cached"
_CTR = str(pathlib.Path(sys.executable).with_name("ctr"))
_SETTINGS = ("--config", "criteo", "--set", "training.max_epochs=1")
COMMANDS = {
    IMPORT: [sys.executable, "-c", "import tensorflow, tfx"],
    "import tensorflow; from tfx import v1": [sys.executable, "-c", "import tensorflow; from tfx import v1"],
    RUN: [_CTR, "run", *_SETTINGS],
}


def measure(command: list[str], folder: str) -> dict[str, float]:
    """Returns the seconds and CPU seconds of one process."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def prepare(folder: str) -> None:
    """Runs the pipeline on 20,000 rows until all is cached and the last run has been repeated."""
    if not (pathlib.Path(folder) / "logs/criteo").is_dir():
        subprocess.run([_CTR, "data", "synthetic", "--config", "criteo", "--rows", "20000"], cwd=folder, check=True)
    for _ in range(4):
        subprocess.run([_CTR, "run", *_SETTINGS], cwd=folder, check=True)
        log = max(pathlib.Path(folder, "runs/criteo/logs").glob("*.log"), key=lambda file: file.stat().st_mtime)
        if REPEATED in log.read_text(encoding="utf-8", errors="replace"):
            return
    raise RuntimeError("not all is cached after four runs")


@click.command()
@click.option("--turns", default=7, show_default=True, help="How often each process is run.")
@click.option("--folder", type=click.Path(exists=True), help="A folder that a run before has left.")
def main(turns: int, folder: str | None) -> None:
    """Measures, prints and writes the medians."""
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or temporary
        prepare(place)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
        for _ in range(turns):
            for name, command in COMMANDS.items():
                runs[name].append(measure(command, place))
    figures: dict[str, dict[str, Any]] = {
        name: {key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}
        for name, found in runs.items()
    }
    for name, found in figures.items():
        print(f"{name}: {found['seconds']} s, {found['cpu_seconds']} s of CPU")
    goals = [
        results.at_most(f"{key} of `ctr run`, times those of `{IMPORT}`", TIMES_IMPORT,
                        round(figures[RUN][key] / figures[IMPORT][key], 2))
        for key in ("seconds", "cpu_seconds")
    ]  # fmt: skip
    results.report("startup", {"turns": turns, **figures}, goals)


if __name__ == "__main__":
    main()
