"""The Evaluator beside TFX's own with TFMA's metrics alone, on the same rows in one run: `make bench-evaluate`.

One model, three kinds of slices, Beam's direct runner; each in a process of its own, one after the other. Ours has all
of the pipeline's metrics with their intervals, TFMA's own has five. Writes `benchmarks/results/evaluate.json`.
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
from benchmarks.evaluate_data import prepare

TIMES_TFMA = 1.3
NAMES = {"ours": "this project", "tfma": "TFMA alone"}


def measure(name: str, num_rows: int) -> dict[str, Any]:
    """Returns the figures of one evaluation, and its rows/s."""
    folder = str(prepare(num_rows))
    output = environments.run_module(environments.OURS, "benchmarks.evaluate_run", name, folder)
    figures = json.loads(output.splitlines()[-1])
    return {"rows": num_rows, "rows_per_second": round(num_rows / figures["seconds"]), **figures}


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the eval split.")
def main(rows: int) -> None:
    """Measures, prints and writes the evaluation's speed and memory."""
    console = rich.console.Console()
    # In a process of its own: what it takes is not ours.
    subprocess.run([sys.executable, "-c", f"import benchmarks.evaluate_data as d; d.prepare({rows})"], check=True)
    figures = {}
    table = rich.table.Table("", "rows", "rows/s", "seconds", "CPU s", "peak MB")
    for name, label in NAMES.items():
        found = figures[label] = measure(name, rows)
        keys = ("rows", "rows_per_second", "seconds", "cpu_seconds", "peak_rss_mb")
        table.add_row(label, *(f"{found[key]:,}" for key in keys))
    console.print(table)
    ratio = round(figures[NAMES["ours"]]["seconds"] / figures[NAMES["tfma"]]["seconds"], 3)
    results.report("evaluate", figures, [results.at_most("times TFMA's seconds, at most", TIMES_TFMA, ratio)])


if __name__ == "__main__":
    main()
