"""The pipeline's Beam steps in one process and in several, by turns: `make bench-beam`.

Each run is a whole `ctr run` on Criteo-shaped rows, with a training of a few steps, in a folder of its own. Writes
`benchmarks/results/beam.json`.
"""

from __future__ import annotations

import json
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
from benchmarks.ingest_data import prepare

SPEC = "benchmarks.speed_specs:ROWS_10K"
STEPS = ("ImpressionLogExampleGen", "StatisticsGen", "Transform", "Evaluator")
_SECONDS_BETWEEN_LOOKS = 1.0


def measure(log: pathlib.Path, workers: int) -> dict[str, Any]:
    """Returns the seconds of each step, CPU seconds and peak memory (PSS, in MB) of a run and all its processes."""
    with tempfile.TemporaryDirectory(dir=log.parent) as folder:
        schema = f"{folder}/schema.pbtxt"
        subprocess.run([sys.executable, "-m", "schemas.tfmd", SPEC, schema], check=True)
        settings: dict[str, Any] = {
            "name": "bench",
            "features": SPEC,
            "schema_file": schema,
            "runs_dir": f"{folder}/runs",
            "log": {"path": str(log)},
            "training": {"max_steps": 10},
            "serving_check": {"num_examples": 8},
            "beam": {"workers": workers},
        }
        config = pathlib.Path(folder, "bench.yaml")
        config.write_text(json.dumps(settings), encoding="utf-8")
        command = [pathlib.Path(sys.executable).with_name("ctr"), "run", "--config", config]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, sum(_pss(pid) for pid in _tree(process.pid)))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        if process.returncode:
            raise RuntimeError(f"`ctr run` ended with status {process.returncode}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = json.loads(pathlib.Path(folder, "runs/bench/summary.json").read_text(encoding="utf-8"))["seconds"]
    return {
        **{step: round(seconds[step], 1) for step in STEPS},
        "all four": round(sum(seconds[step] for step in STEPS), 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_pss_mb": peak >> 20,
    }


def _tree(root: int) -> list[int]:
    """Returns a process and all that descend from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parents[int(entry)] = int(
                    pathlib.Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1]
                )
            except OSError:  # it has ended
                continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def _pss(pid: int) -> int:
    """Returns the bytes of a process, of shared pages its share; 0 if it has ended."""
    try:
        lines = pathlib.Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


@click.command()
@click.option("--rows", default=200_000, show_default=True, help="Rows of the log; at least 200,000.")
@click.option("--workers", default=len(os.sched_getaffinity(0)), show_default=True, help="Processes beside one.")
@click.option("--repeats", default=2, show_default=True, help="How often each is measured; the medians count.")
def main(rows: int, workers: int, repeats: int) -> None:
    """Measures, prints and writes the seconds and the memory of the Beam steps."""
    subprocess.run([sys.executable, "-c", f"import benchmarks.ingest_data as d; d.prepare({rows})"], check=True)
    log = (prepare(rows) / "parquet").resolve()
    runs: dict[int, list[dict[str, Any]]] = {1: [], workers: []}
    for _ in range(repeats):
        for number, found in runs.items():
            found.append(measure(log, number))
            print(number, found[-1], flush=True)
    medians = {
        f"{number} workers": {key: statistics.median(run[key] for run in found) for key in found[0]}
        for number, found in runs.items()
    }
    results.report("beam", {"rows": rows, "repeats": repeats, **medians}, [])


if __name__ == "__main__":
    main()
