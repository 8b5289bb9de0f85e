"""Training speed beside the peers', by the size of the embedding table: `make bench-speed`.

All train the same DeepFM (dim 8, tower 64-32, Adam, two threads, no penalties) on the same rows in the same buckets, in
turn. This project reads them from the pipeline's transformed examples; the peers have them in memory. Writes
`benchmarks/results/speed.json`.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import subprocess
import sys
from typing import Any

import click
import rich.console
import rich.table

from benchmarks import environments, results
from benchmarks.speed_data import folder_of
from benchmarks.speed_specs import SIZES

OURS = "this project"
IN_TURN = "this project in turn/1024"
TURNS = 7  # epochs of each process
PEERS = {
    "DeepCTR": ("deepctr", "deepctr", "shipped"),
    "DeepCTR, legacy Adam": ("deepctr", "deepctr", "legacy_adam"),
    "DeepCTR-Torch": ("torch", "deepctr_torch", "shipped"),
    "DeepCTR-Torch, sparse by hand": ("torch", "deepctr_torch", "sparse"),
    "FuxiCTR's layers": ("torch", "fuxictr", "shipped"),
    "FuxiCTR's layers, sparse by hand": ("torch", "fuxictr", "sparse"),
}
SHIPPED = [name for name, (_, _, variant) in PEERS.items() if variant == "shipped"]
SPARSE = [name for name in PEERS if name not in SHIPPED]


def measure_ours(size: str, batch_size: int) -> dict[str, Any]:
    """Returns `benchmarks/speed_ours.py`'s figures; the bounds are those of the number of threads that allows more."""
    command = (environments.OURS, "benchmarks.speed_ours")
    measured = _measure(*command, "training", size, str(batch_size))
    bounds = [
        _measure(*command, "bounds", size, str(batch_size), TF_NUM_INTRAOP_THREADS=threads) for threads in ("1", "2")
    ]
    return measured | {"bounds": max(bounds, key=lambda bound: float(bound.get("rows_per_second", math.inf)))}


def measure_peer(name: str, size: str, batch_size: int) -> dict[str, Any]:
    """Returns a peer's figures."""
    environment, module, variant = PEERS[name]
    arrays = str(folder_of(size) / "arrays.npz")
    return _measure(environment, f"benchmarks.speed_peers.{module}", arrays, str(batch_size), variant)


def measure_in_turn(sizes: tuple[str, ...], batch_size: int) -> dict[str, Any]:
    """Returns each size's median rows a second, of processes that train an epoch each in turn, the first one apart.

    The machine's speed changes from minute to minute, by more than what is to be compared.
    """
    with contextlib.ExitStack() as stack:
        command = ("benchmarks.speed_ours", "turns")
        processes = {
            size: stack.enter_context(environments.start_module(*command, size, str(batch_size))) for size in sizes
        }
        rates: dict[str, list[float]] = {size: [] for size in sizes}
        for turn in range(TURNS):
            for size, process in processes.items():
                if process.stdin is None or process.stdout is None:
                    raise TypeError("the process has no pipes")
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write("\n" if turn else f"{TURNS}\n\n")
                    process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    return {"error": f"the training of {size} rows has ended"}
                rates[size].append(json.loads(line))
    return {size: statistics.median(of_size[1:]) for size, of_size in rates.items()}


def _measure(*command: str, **variables: str) -> dict[str, Any]:
    """Returns the figures in the last line of what a module prints, or its `error`."""
    try:
        return dict(json.loads(environments.run_module(*command, **variables).splitlines()[-1]))
    except environments.ChildError as error:
        return {"error": str(error)}


def goals_of(figures: dict[str, Any]) -> list[results.Goal]:
    """Returns the goals, of batches of 1024."""

    def rate(size: str, name: str) -> float:
        return float(figures.get(f"{size}/1024", {}).get(name, {}).get("rows_per_second", float("nan")))

    def fastest(size: str, names: list[str]) -> float:
        rates = [rate(size, name) for name in names]
        return float("nan") if any(r != r for r in rates) else max(rates)  # one that failed might be the fastest

    in_turn = figures.get(IN_TURN, {})
    goals = [
        ("4M rows: times the fastest peer as shipped", 10.0, rate("4M", OURS) / fastest("4M", SHIPPED)),
        ("4M rows: times the fastest peer, sparse by hand", 1.5, rate("4M", OURS) / fastest("4M", SPARSE)),
        ("10k rows: times the fastest peer", 1.0, rate("10k", OURS) / fastest("10k", list(PEERS))),
        (
            "10M rows: of the speed at 10k rows, in turn",
            0.8,
            in_turn.get("10M", math.nan) / in_turn.get("10k", math.nan),
        ),
    ]
    for size in SIZES:
        bound = figures.get(f"{size}/1024", {}).get(OURS, {}).get("bounds", {}).get("rows_per_second", float("nan"))
        goals.append((f"{size} rows: of what the bounds allow", 0.6, rate(size, OURS) / bound))
    # A comparison with NaN is false: what was not measured is not met.
    return [results.at_least(name, goal, round(measured, 3)) for name, goal, measured in goals]


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), help="Table sizes; all by default.")
@click.option("--batch", "batches", multiple=True, type=int, help="Batch sizes; 1024 and 8192 by default.")
def main(sizes: tuple[str, ...], batches: tuple[int, ...]) -> None:
    """Measures, prints and writes the training speed."""
    console = rich.console.Console()
    figures: dict[str, Any] = results.read_figures("speed")
    for size in sizes or tuple(SIZES):
        subprocess.run([sys.executable, "-c", f"import benchmarks.speed_data as d; d.prepare({size!r})"], check=True)
        for batch_size in batches or (1024, 8192):
            row = figures[f"{size}/{batch_size}"] = {OURS: measure_ours(size, batch_size)}
            for name in PEERS:
                row[name] = measure_peer(name, size, batch_size)
            table = rich.table.Table("", "rows/s", "of ours", "peak MB", title=f"{size} rows, batches of {batch_size}")
            for name, measured in row.items():
                if "error" in measured:
                    table.add_row(name, "error", "", measured["error"])
                    continue
                ratio = measured["rows_per_second"] / row[OURS].get("rows_per_second", float("nan"))
                cells = (f"{measured['rows_per_second']:,.0f}", f"{ratio:.3f}", f"{measured['peak_rss_mb']:,.0f}")
                table.add_row(name, *cells)
            console.print(table)
    if not sizes and 1024 in (batches or (1024,)):
        figures[IN_TURN] = measure_in_turn(("10k", "10M"), 1024)
    results.report("speed", figures, goals_of(figures))


if __name__ == "__main__":
    main()
