"""The peers' command line and clock. Needs numpy only."""

from __future__ import annotations

import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable

from benchmarks.quality_peers.common import Array, Arrays, read

THREADS = 2
SECONDS = 6.0
MIN_STEPS = 4  # a dense step costs the same each time
MAX_STEPS = 150

Fit = Callable[[dict[str, Array], int], None]


def run(prepare: Callable[[Arrays, str], Fit]) -> None:
    """Measures a peer: `prepare` makes its model and returns what trains it for one epoch of rows, in batches."""
    file, batch_size, variant = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    arrays = read(pathlib.Path(file))
    fit = prepare(arrays, variant)

    def seconds_of(steps: int) -> float:
        rows = {kind: values[: steps * batch_size] for kind, values in arrays.train.items()}
        start = time.perf_counter()
        fit(rows, batch_size)
        return time.perf_counter() - start

    available = len(arrays.train["labels"]) // batch_size
    seconds_of(2)  # compiles, makes the slots
    trial = seconds_of(2) / 2
    steps = max(MIN_STEPS, min(MAX_STEPS, available, int(SECONDS / trial)))
    taken = min(seconds_of(steps) for _ in range(2))
    figures = {
        "rows_per_second": steps * batch_size / taken,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "steps": steps,
    }
    print(json.dumps(figures))
