"""Latency and throughput of the exported model from serialized examples: `make bench-serving`.

Beside it, in the same process and in turns: the same weights in a plain Keras functional DeepFM with an Embedding
layer a field, exported the usual way; and the bound, `tf.io.parse_example` of the same bytes alone, of which one number
is fetched. Each runs in a TF1 session with a thread a core, as TensorFlow Serving runs it. Writes
`benchmarks/results/serving.json`.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import rich.console
import rich.table
import tensorflow as tf

from benchmarks import results
from benchmarks.serving_models import SPEC, export_all, make_rows, to_example
from schemas.tfmd import SERVING
from trainer.signatures import raw_feature_spec

OURS, PLAIN, BOUND = "ours", "plain Keras", "parse_example alone"
CALLS = {1: 2000, 64: 600, 1024: 150}
SPEED_UP, OVER_BOUND = 2.0, 2.0

Call = Callable[[Any], Any]


def _session() -> tf.compat.v1.Session:
    threads = len(os.sched_getaffinity(0))
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    return tf.compat.v1.Session(config=config)


def load(directory: str) -> tuple[Call, int]:
    """Returns what runs `serving_default`, and the number of operations that it runs, constants left out."""
    with tf.Graph().as_default():
        session = _session()
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        signature = loaded.signature_def["serving_default"]
        (examples,), (ctr,) = signature.inputs.values(), signature.outputs.values()
        count = sum(operation != "Const" for operation in executed(session, ctr.name, examples.name))
        return session.make_callable(ctr.name, [examples.name]), count


def executed(session: tf.compat.v1.Session, fetched: str, fed: str) -> list[str]:
    """Returns the kinds of the operations that are left when TensorFlow has optimized the graph of a request."""
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    metadata = tf.compat.v1.RunMetadata()
    session.run(fetched, {fed: []}, options=options, run_metadata=metadata)
    return [node.op for graph in metadata.partition_graphs for node in graph.node]


def bound() -> Call:
    """Returns what parses examples as `serving_default` does, and does nothing else."""
    with tf.Graph().as_default():
        session = _session()
        examples = tf.compat.v1.placeholder(tf.string, [None])
        parsed = tf.io.parse_example(examples, raw_feature_spec(SPEC, SERVING))
        # One small number that depends on the parsing: to fetch each column costs as much as to parse it, and what
        # nothing depends on TensorFlow leaves out.
        count = tf.size(parsed["history"].values)
        if "ParseExampleV2" not in executed(session, count.name, examples.name):
            raise RuntimeError("the examples are not parsed: TensorFlow has optimized it away")
        return session.make_callable(count, [examples])


def measure(calls: dict[str, Call], examples: list[bytes], batch_size: int, count: int) -> dict[str, dict[str, float]]:
    """Returns each one's p50 and p99 in milliseconds, its examples/s and median CPU time, measured in turns."""
    batches = [
        np.array(examples[start : start + batch_size], dtype=object)
        for start in range(0, len(examples) - batch_size + 1, batch_size)
    ]
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in calls}  # of all threads
    for turn in range(-20, count):
        batch = batches[turn % len(batches)]
        for name, call in calls.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            call(batch)
            cpu_stop, stop = time.process_time(), time.perf_counter()
            if turn >= 0:
                seconds[name].append(stop - start)
                cpu_seconds[name].append(cpu_stop - cpu_start)
    return {
        name: {
            "p50_ms": round(1000 * float(np.percentile(times, 50)), 4),
            "p99_ms": round(1000 * float(np.percentile(times, 99)), 4),
            "examples_per_second": round(batch_size * len(times) / sum(times)),
            "cpu_ms": round(1000 * float(np.percentile(cpu_seconds[name], 50)), 4),
        }
        for name, times in seconds.items()
    }


def goals_of(figures: dict[str, dict[str, Any]]) -> list[results.Goal]:
    """Returns the goals: ratios of medians."""

    def ratio(batch_size: int, above: str, below: str) -> float:
        found = figures[f"batch {batch_size}"]
        return round(found[above]["p50_ms"] / found[below]["p50_ms"], 2)

    return [
        results.at_least("batch 1: plain Keras's time over ours", SPEED_UP, ratio(1, PLAIN, OURS)),
        results.at_least("batch 64: plain Keras's time over ours", SPEED_UP, ratio(64, PLAIN, OURS)),
        results.at_most("batch 1024: our time over that of parsing alone", OVER_BOUND, ratio(1024, OURS, BOUND)),
    ]


@click.command()
@click.option("--share", default=1.0, show_default=True, help="Of the calls: less for a first look.")
def main(share: float) -> None:
    """Measures, prints and writes the figures."""
    rows = make_rows(4096)
    examples = [to_example(row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        exports = export_all(rows, pathlib.Path(folder))
        (ours, our_size), (same, _), (plain, plain_size) = map(load, exports)
        np.testing.assert_allclose(same(examples[:64]), plain(examples[:64]), rtol=1e-3)
        calls = {OURS: ours, PLAIN: plain, BOUND: bound()}
        figures: dict[str, dict[str, Any]] = {
            f"batch {size}": measure(calls, examples, size, max(20, int(count * share)))
            for size, count in CALLS.items()
        }
    table = rich.table.Table("", "", "p50 ms", "p99 ms", "examples/s", "CPU ms")
    for batch, found in figures.items():
        for name, values in found.items():
            table.add_row(batch, name, *(f"{value:,}" for value in values.values()))
    rich.console.Console().print(table)
    goals = goals_of(figures)
    figures["graph"] = {"operations": {OURS: our_size, PLAIN: plain_size}}
    figures["load"] = {"average_1_minute": round(os.getloadavg()[0], 2)}
    results.report("serving", figures, goals)


if __name__ == "__main__":
    main()
