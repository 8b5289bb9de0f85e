"""Speed and memory of `ctr data synthetic`, Parquet included: `make bench-synthetic`.

Criteo's columns at two sizes, each in a process of its own. Writes `benchmarks/results/synthetic.json`.
"""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import click

from benchmarks import results
from pipeline.synthetic import write_synthetic_log
from schemas.criteo import CRITEO

ROWS_PER_SECOND, RSS_AT_TEN_TIMES = 200_000, 1.1


def run(num_rows: int) -> dict[str, float]:
    """Returns the figures of one log, written by this process."""
    start, cpu_start = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        log = write_synthetic_log(pathlib.Path(folder) / "log", CRITEO, num_rows=num_rows, num_days=7)
        num_bytes = sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*.parquet"))
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu_start
    return {
        "rows": num_rows,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "rows_per_second": round(num_rows / seconds),
        "rows_per_cpu_second": round(num_rows / cpu_seconds),
        "bytes_per_row": round(num_bytes / num_rows, 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "bayes_auc": round(log.bayes_auc, 4),
        "bayes_log_loss": round(log.bayes_log_loss, 4),
    }


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of one log; the other has ten times as many.")
@click.option("--alone", is_flag=True, hidden=True)
def main(rows: int, alone: bool) -> None:
    """Measures, prints and writes."""
    if alone:
        print(json.dumps(run(rows)))
        return
    figures = {}
    for name, number in (("rows", rows), ("10 times the rows", 10 * rows)):
        command = [sys.executable, "-m", "benchmarks.synthetic", "--alone", "--rows", str(number)]
        figures[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{number:,} rows: {figures[name]}")
    few, many = figures.values()
    ratio = round(many["peak_rss_mb"] / few["peak_rss_mb"], 3)
    goals = [
        results.at_least("rows/s", ROWS_PER_SECOND, few["rows_per_second"]),
        results.at_least("rows per CPU second", ROWS_PER_SECOND, few["rows_per_cpu_second"]),
        results.at_most("peak RSS at 10 times the rows, times that at once", RSS_AT_TEN_TIMES, ratio),
    ]
    results.report("synthetic", figures, goals)


if __name__ == "__main__":
    main()
