"""The whole pipeline by the number of rows, beside a plain TFX pipeline on the same rows: `make bench-pipeline`.

The rows are those of `ctr data synthetic --config criteo`, on seven days of which the last one is the eval split, so
that the best possible AUC is known. Both train the same DeepFM with the same batches and epochs; the plain one is
`benchmarks/plain_pipeline.py`. Each runs in a process of its own, one after the other; the seconds are the process's,
imports included. A run of some sizes keeps the figures of the others. Writes `benchmarks/results/pipeline.json`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import click
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks import results
from pipeline import planted, synthetic
from pipeline.environment import training_environment
from pipeline.synthetic import write_synthetic_log
from schemas.criteo import CRITEO

CACHE = pathlib.Path(".cache/bench/pipeline")
SIZES, PLAIN_UP_TO = (100_000, 1_000_000, 10_000_000), 1_000_000
NUM_DAYS = 7
TIMES_PLAIN, AUC_BELOW_BAYES, RSS_GIB, TIME_PER_ROW = 5.0, 0.005, 16.0, 1.1
SETTINGS = {"batch_size": 1024, "epochs": 1, "learning_rate": 0.0003, "dim": 8, "hidden_units": [64, 32]}


def prepare(num_rows: int, *, with_csv: bool) -> pathlib.Path:
    """Writes the log, where that has not been done yet, and returns the folder with `log/` and `csv/`."""
    source = hashlib.sha256("".join(map(inspect.getsource, (planted, synthetic))).encode()).hexdigest()[:8]
    folder = CACHE / f"{num_rows}-{source}"
    if not (folder / "log").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        write_synthetic_log(folder / "log", CRITEO, num_rows=num_rows, num_days=NUM_DAYS)
    if with_csv and not (folder / "csv" / "_SUCCESS").is_file():
        files = sorted((folder / "log").glob("day=*/*.parquet"))
        for number, file in enumerate(files):
            split = folder / "csv" / ("eval" if number == len(files) - 1 else "train")
            split.mkdir(parents=True, exist_ok=True)
            _write_csv(pq.ParquetFile(file), split / f"{number}.csv")
        (folder / "csv" / "_SUCCESS").touch()
    return folder


def _write_csv(rows: pq.ParquetFile, file: pathlib.Path) -> None:
    # Arrow quotes the header's names, and CsvExampleGen takes the quotes for a part of them.
    options = pyarrow.csv.WriteOptions(include_header=False)
    with file.open("wb") as content:
        content.write(",".join(rows.schema_arrow.names).encode() + b"\n")
        with pyarrow.csv.CSVWriter(content, rows.schema_arrow, write_options=options) as writer:
            for batch in rows.iter_batches():
                writer.write(batch)


def measure(name: str, num_rows: int) -> dict[str, Any]:
    """Returns the figures of one run of a pipeline, `ours` or `plain`."""
    folder = prepare(num_rows, with_csv=name == "plain")
    command = [sys.executable, "-m", "benchmarks.pipeline_run", name, str(folder), json.dumps(SETTINGS)]
    environment = (training_environment() if name == "ours" else {}) | dict(os.environ)
    start = time.monotonic()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, check=True)
    seconds = time.monotonic() - start
    figures = json.loads(process.stdout.splitlines()[-1])
    components = figures["components"]
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(found["cpu_seconds"] for found in components.values()), 1),
        "microseconds_per_row": round(1e6 * seconds / num_rows, 1),
        "peak_rss_mb": max(found["peak_rss_mb"] for found in components.values()),
        **figures,
    }


def goals_of(sizes: dict[str, Any]) -> list[results.Goal]:
    """Returns the goals of the sizes that were measured."""
    goals = []
    for rows, found in sizes.items():
        if int(rows) == SIZES[1] and "ours" in found and "plain" in found:
            ratio = round(found["plain"]["seconds"] / found["ours"]["seconds"], 2)
            goal = f"{int(rows):,} rows: times as fast as plain TFX, end to end"
            goals.append(results.at_least(goal, TIMES_PLAIN, ratio))
        if "ours" in found and int(rows) >= SIZES[1]:
            below = round(found["bayes_auc"] - found["ours"]["auc"], 4)
            goals.append(results.at_most(f"{int(rows):,} rows: AUC below the best possible", AUC_BELOW_BAYES, below))
    million, most = (sizes.get(str(size), {}).get("ours") for size in SIZES[1:])
    if most:
        gib = round(most["peak_rss_mb"] / 1024, 2)
        goals.append(results.at_most(f"{SIZES[2]:,} rows: peak memory in GiB", RSS_GIB, gib))
    if million and most:
        ratio = round(most["microseconds_per_row"] / million["microseconds_per_row"], 3)
        name = f"time per row at {SIZES[2]:,} rows, times that at {SIZES[1]:,}"
        goals.append(results.at_most(name, TIME_PER_ROW, ratio))
    return goals


@click.command()
@click.option("--rows", "sizes", type=int, multiple=True, default=SIZES, show_default=True, help="Rows of the log.")
@click.option("--only", type=click.Choice(["ours", "plain"]), help="One of the two.")
def main(sizes: tuple[int, ...], only: str | None) -> None:
    """Measures, prints and writes the seconds and the memory of each component."""
    for rows in sizes:
        for name in ("ours", "plain"):
            if only in (None, name) and (name == "ours" or rows <= PLAIN_UP_TO):
                found = measure(name, rows)
                print(f"{rows:,} rows, {name}: {json.dumps(found, indent=2)}")
                _report(rows, name, found)


def _report(num_rows: int, name: str, found: dict[str, Any]) -> None:
    """Adds one run to the figures, and writes them."""
    figures = results.read_figures("pipeline")
    by_size: dict[str, Any] = figures["sizes"] if figures.get("settings") == SETTINGS else {}
    log = json.loads((prepare(num_rows, with_csv=False) / "log" / "_SUCCESS").read_text(encoding="utf-8"))
    best = {"bayes_auc": round(log["last_day_auc"], 4), "bayes_log_loss": round(log["last_day_log_loss"], 4)}
    by_size[str(num_rows)] = by_size.get(str(num_rows), {}) | best | {name: found}
    ordered = {key: by_size[key] for key in sorted(by_size, key=int)}
    results.report("pipeline", {"settings": SETTINGS, "sizes": ordered}, goals_of(ordered))


if __name__ == "__main__":
    main()
