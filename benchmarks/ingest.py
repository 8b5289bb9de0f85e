"""Ingestion beside TFX's CsvExampleGen and its Parquet executor, on the same rows in one run: `make bench-ingest`.

Each in a process of its own, one after the other, on Beam's direct runner. To CsvExampleGen, which knows no lists, the
sequence is text. Writes `benchmarks/results/ingest.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click
import rich.console
import rich.table

from benchmarks import environments, results
from benchmarks.ingest_data import prepare

TIMES_CSV, TIMES_PARQUET, RSS_AT_TEN_TIMES = 10.0, 3.0, 1.3


def measure(component: str, file_format: str, num_rows: int) -> dict[str, Any]:
    """Returns the figures of one ingestion, and its rows/s."""
    log = str(prepare(num_rows) / file_format)
    figures = json.loads(
        environments.run_module(environments.OURS, "benchmarks.ingest_run", component, log).splitlines()[-1]
    )
    return {"rows": num_rows, "rows_per_second": round(num_rows / figures["seconds"]), **figures}


def goals_of(figures: dict[str, dict[str, Any]]) -> list[results.Goal]:
    """Returns the goals."""

    def times(ours: str, theirs: str) -> float:
        return round(figures[ours]["rows_per_second"] / figures[theirs]["rows_per_second"], 2)

    goals = [
        results.at_least("CSV: times CsvExampleGen's rows/s", TIMES_CSV, times("csv", "csv, TFX's CsvExampleGen")),
        results.at_least(
            "Parquet: times the Parquet executor's rows/s", TIMES_PARQUET, times("parquet", "parquet, TFX's executor")
        ),
    ]
    for name in ("csv", "parquet"):
        ratio = round(figures[f"{name}, 10 times the rows"]["peak_rss_mb"] / figures[name]["peak_rss_mb"], 3)
        goals.append(results.at_most(f"{name}: peak RSS at 10 times the rows, at most", RSS_AT_TEN_TIMES, ratio))
    return goals


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the log; at least 200,000.")
def main(rows: int) -> None:
    """Measures, prints and writes the ingestion's speed and memory."""
    console = rich.console.Console()
    for number in (rows, 10 * rows):  # in a process of its own: what it takes is not ours
        subprocess.run([sys.executable, "-c", f"import benchmarks.ingest_data as d; d.prepare({number})"], check=True)
    runs = {
        "csv": ("ours", "csv", rows),
        "parquet": ("ours", "parquet", rows),
        "csv, 10 times the rows": ("ours", "csv", 10 * rows),
        "parquet, 10 times the rows": ("ours", "parquet", 10 * rows),
        "parquet, TFX's executor": ("tfx_parquet", "parquet", rows),
        "csv, TFX's CsvExampleGen": ("tfx_csv", "csv", rows),
    }
    figures = {}
    table = rich.table.Table("", "rows", "rows/s", "CPU s", "peak MB")
    for name, (component, file_format, number) in runs.items():
        found = figures[name] = measure(component, file_format, number)
        cells = [f"{found[key]:,}" for key in ("rows", "rows_per_second", "cpu_seconds", "peak_rss_mb")]
        table.add_row(name, *cells)
        console.print(name, *cells)
    console.print(table)
    results.report("ingest", figures, goals_of(figures))


if __name__ == "__main__":
    main()
