"""What the workers' exchange of a step's gradients costs: `make bench-exchange`.

Two processes on loopback exchange the gradients of a batch of the speed benchmark's model on the table of 10 million
rows: the tower's 17 thousand weights, and of the table as many rows as a worker's half of the batch reads, of which the
workers have a half in common. No network is so near, and no cores are so few: it is the cost of the operations
themselves. Writes `benchmarks/results/exchange.json`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import statistics
import time
from typing import Any

import numpy as np

from benchmarks import results

WIDTH, DENSE = 9, 17_000
ROWS = {1024: 10_793, 8192: 63_769}  # read by a half of a batch, expected from the ids' power law
STEPS = 60


def measure(rank: int, addresses: tuple[str, ...], answers: Any) -> None:
    """Exchanges, as one worker of two, and puts the milliseconds of each step for each batch size."""
    import tensorflow as tf

    from trainer.cluster import Cluster
    from trainer.connection import connect

    figures = {}
    with connect(Cluster(addresses, rank), wait_minutes=10) as workers:
        for batch_size, num_rows in ROWS.items():
            rows = tf.constant(np.arange(num_rows) + rank * (num_rows // 2), tf.int32)
            gradients = [tf.ones([DENSE]), tf.IndexedSlices(tf.ones([num_rows, WIDTH]), rows, tf.constant([0, WIDTH]))]

            @tf.function
            def step(gradients: Any = gradients) -> Any:
                return workers.gradients(gradients)

            seconds = []
            for _ in range(STEPS):
                start = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - start)
            figures[batch_size] = [1000 * s for s in seconds[5:]]
    answers.put(figures)


def main() -> None:
    """Measures, prints and writes."""
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("localhost", 0))
        addresses = tuple(f"localhost:{each.getsockname()[1]}" for each in (one, two))
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [context.Process(target=measure, args=(rank, addresses, answers), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    measured = answers.get(timeout=900)
    for worker in workers:
        worker.join(60)
    figures = {}
    for batch_size, milliseconds in measured.items():
        num_bytes = 4 * DENSE + ROWS[batch_size] * (4 + 4 * WIDTH)
        figures[str(batch_size)] = {
            "rows_of_a_worker": ROWS[batch_size],
            "bytes_received_by_a_worker": num_bytes,
            "median_ms": statistics.median(milliseconds),
            "best_ms": min(milliseconds),
        }
    print(json.dumps(figures, indent=2))
    results.report("exchange", figures, [])


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
