"""Latency and throughput of the exported model from serialized examples: `make bench-serving`.

Beside it, in the same process and in turns: the same weights in a plain Keras functional DeepFM with an Embedding
layer a field, exported the usual way; and the bound, `tf.io.parse_example` of the same bytes alone, of which one number
is fetched. Each runs in a TF1 session, as TensorFlow Serving runs it, and is called without the Python of
`Session.run`, which no server has (here 0.12 ms a call; 0.007 without). There is a thread a core for the work within an
operation; the operations are handed to a pool of a thread a core, or run by the thread that calls. Which is faster
depends on the model, the batch, and what it costs the machine to wake a thread (here more than a small model): each is
taken by the faster of the two. Writes `benchmarks/results/serving.json`.
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
from tensorflow.core.protobuf import config_pb2

from benchmarks import results
from benchmarks.serving_models import SPEC, export_all, make_rows, to_example
from schemas.tfmd import SERVING
from trainer.signatures import raw_feature_spec

OURS, PLAIN, BOUND = "ours", "plain Keras", "parse_example alone"
CALLS = {1: 2000, 64: 600, 1024: 150}
BLOCK, WARM_UP = 20, 3  # calls of one model before the next one's turn, and how many of them are not counted
SPEED_UP, OVER_BOUND = 2.0, 2.0

Call = Callable[[Any], Any]
Times = dict[str, dict[str, list[float]]]  # by setting, by name


def _settings() -> dict[str, int]:
    """Returns how many threads operations are handed to; -1 for the thread that calls."""
    return {"pool": len(os.sched_getaffinity(0)), "caller": -1}


def _session(inter_op_threads: int) -> tf.compat.v1.Session:
    threads = len(os.sched_getaffinity(0))
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=inter_op_threads
    )
    return tf.compat.v1.Session(config=config)


def load(directory: str, inter_op_threads: int) -> tuple[Call, int]:
    """Returns what runs `serving_default`, and the number of operations that it runs, constants left out."""
    with tf.Graph().as_default():
        session = _session(inter_op_threads)
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        signature = loaded.signature_def["serving_default"]
        (examples,), (ctr,) = signature.inputs.values(), signature.outputs.values()
        count = sum(operation != "Const" for operation in executed(session, ctr.name, examples.name))
        return _callable(session, ctr.name, examples.name), count


def _callable(session: tf.compat.v1.Session, fetched: str, fed: str) -> Call:
    """Returns what hands strings, object [batch], to TensorFlow, and gives back what it makes of them."""
    options = config_pb2.CallableOptions(feed=[fed], fetch=[fetched])
    run = session._make_callable_from_options(options)
    return lambda values: run(values)[0]


def executed(session: tf.compat.v1.Session, fetched: str, fed: str) -> list[str]:
    """Returns the kinds of the operations that are left when TensorFlow has optimized the graph of a request."""
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    metadata = tf.compat.v1.RunMetadata()
    session.run(fetched, {fed: []}, options=options, run_metadata=metadata)
    return [node.op for graph in metadata.partition_graphs for node in graph.node]


def bound(inter_op_threads: int) -> Call:
    """Returns what parses examples as `serving_default` does, and does nothing else."""
    with tf.Graph().as_default():
        session = _session(inter_op_threads)
        examples = tf.compat.v1.placeholder(tf.string, [None])
        parsed = tf.io.parse_example(examples, raw_feature_spec(SPEC, SERVING))
        # One small number that depends on the parsing: to fetch each column costs as much as to parse it, and what
        # nothing depends on TensorFlow leaves out.
        count = tf.size(parsed["history"].values)
        if "ParseExampleV2" not in executed(session, count.name, examples.name):
            raise RuntimeError("the examples are not parsed: TensorFlow has optimized it away")
        return _callable(session, count.name, examples.name)


def measure(
    calls: dict[str, dict[str, Call]], examples: list[bytes], batch_size: int, count: int
) -> dict[str, dict[str, Any]]:
    """Returns each one's figures by the faster of its settings, measured in turns.

    Args:
        calls: What to call, by setting, by name.
        examples: The requests' examples.
        batch_size: Examples of a request.
        count: How many calls are counted of each.

    Returns:
        The setting, p50 and p99 in milliseconds, examples/s and median CPU time in milliseconds, by name.
    """
    batches = [
        np.array(examples[start : start + batch_size], dtype=object)
        for start in range(0, len(examples) - batch_size + 1, batch_size)
    ]
    seconds: Times = {name: {setting: [] for setting in settings} for name, settings in calls.items()}
    cpu_seconds: Times = {name: {setting: [] for setting in settings} for name, settings in calls.items()}
    for turn in range(-(-count // (BLOCK - WARM_UP))):
        for name, settings in calls.items():
            for setting, call in settings.items():
                for number in range(BLOCK):
                    batch = batches[(turn * BLOCK + number) % len(batches)]
                    start, cpu_start = time.perf_counter(), time.process_time()
                    call(batch)
                    cpu_stop, stop = time.process_time(), time.perf_counter()
                    if number >= WARM_UP:
                        seconds[name][setting].append(stop - start)
                        cpu_seconds[name][setting].append(cpu_stop - cpu_start)
    figures = {}
    for name, by_setting in seconds.items():
        medians = {setting: _milliseconds(times, 50) for setting, times in by_setting.items()}
        best = min(medians, key=lambda setting: medians[setting])
        times = by_setting[best]
        figures[name] = {
            "run_by": best,
            "p50_ms": medians[best],
            "p99_ms": _milliseconds(times, 99),
            "examples_per_second": round(batch_size * len(times) / sum(times)),
            "cpu_ms": _milliseconds(cpu_seconds[name][best], 50),  # of all threads
            "p50_ms_run_by": medians,
        }
    return figures


def _milliseconds(seconds: list[float], percentile: float) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 4)


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
        calls: dict[str, dict[str, Call]] = {name: {} for name in (OURS, PLAIN, BOUND)}
        sizes = {}
        for setting, threads in _settings().items():
            loaded = [load(directory, threads) for directory in exports]
            (ours, sizes[OURS]), (same, _), (plain, sizes[PLAIN]) = loaded
            some = np.array(examples[:64], dtype=object)
            np.testing.assert_allclose(same(some), plain(some), rtol=1e-3)
            for name, call in zip(calls, (ours, plain, bound(threads)), strict=True):
                calls[name][setting] = call
        figures: dict[str, dict[str, Any]] = {
            f"batch {size}": measure(calls, examples, size, max(BLOCK, int(count * share)))
            for size, count in CALLS.items()
        }
    table = rich.table.Table("", "", "run by", "p50 ms", "p99 ms", "examples/s", "CPU ms")
    for batch, found in figures.items():
        for name, values in found.items():
            shown = [value for value in values.values() if not isinstance(value, dict)]
            table.add_row(batch, name, *(f"{value:,}" if isinstance(value, float | int) else value for value in shown))
    rich.console.Console().print(table)
    goals = goals_of(figures)
    figures["graph"] = {"operations": sizes}
    figures["load"] = {"average_1_minute": round(os.getloadavg()[0], 2)}
    results.report("serving", figures, goals)


if __name__ == "__main__":
    main()
