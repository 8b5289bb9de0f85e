"""This project's training speed, and what bounds it.

`python -m benchmarks.speed_ours training|bounds|turns SIZE BATCH_SIZE` prints JSON. An operation has as many threads as
TF_NUM_INTRAOP_THREADS says: for the training as many as the pipeline gives it, for the bounds see `benchmarks.speed`.

Training is `trainer.train.train` on the pipeline's transformed examples, read from the disk in every epoch. The steady
state is that of whole epochs after the first one, from an epoch's begin to its last batch's end: reading, parsing and
the filling of the shuffle buffer are in it, the evaluation after it is not.

For `turns`, it waits before each epoch for a line of its standard input, and prints the epoch's speed when it has done
all that comes after it: so processes train in turn, each in the same minutes as the others.

The bounds, each by itself, in seconds and CPU seconds a batch:

- input: reading, parsing and shuffling the records, without a model;
- rows: a gather of a batch's rows, and a scatter of as many values back; of another batch each time, as in a training:
  the rows of one and the same batch are in a cache after the first time, whatever the table's size;
- matmuls: the tower's products, forward and backward, from memory.

On n cores a batch takes at least the sum of their CPU seconds / n, and at least the wall seconds of the longer of input
and step (rows and matmuls, one after the other), which run side by side.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from benchmarks.speed_data import NUM_ROWS, folder_of
from benchmarks.speed_specs import SIZES
from trainer.config import ModelConfig, TrainingConfig
from trainer.input import ordered_batches, read_chunks, shuffled_batches
from trainer.model import model_fn
from trainer.train import train

NUM_EPOCHS = 2
CALLS = 100
THREADS = 2  # the peers' number, see `speed_peers/clock.py`
MODEL = ModelConfig(embedding_dim=8, hidden_units=(64, 32))


class BatchClock(keras.callbacks.Callback):
    """Adds up the seconds of all epochs but the first, from an epoch's begin to its last batch's end."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds, self.epochs = 0.0, 0
        self._begin = self._last = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes the time."""
        self._last = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the epoch; before the evaluation."""
        if epoch:
            self.seconds += self._last - self._begin
            self.epochs += 1


class Turns(BatchClock):
    """Waits before each epoch for a line of the standard input, and prints the speed of the epoch before."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Waits, and starts the clock."""
        if epoch:
            self.tell()
        sys.stdin.readline()
        super().on_epoch_begin(epoch, logs)

    def tell(self) -> None:
        """Prints the rows a second of the epoch that was last."""
        print(json.dumps(NUM_ROWS / (self._last - self._begin)), flush=True)


def measure_training(size: str, batch_size: int) -> dict[str, float]:
    """Returns `rows_per_second` and `peak_rss_mb` of the training."""
    clock = BatchClock()
    _train(size, batch_size, NUM_EPOCHS, clock)
    return {
        "rows_per_second": NUM_ROWS * clock.epochs / clock.seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "epochs": clock.epochs,
    }


def take_turns(size: str, batch_size: int) -> None:
    """Trains as many epochs as the first line of the standard input says, one for each line after it, see `Turns`."""
    clock = Turns()
    _train(size, batch_size, int(sys.stdin.readline()), clock)
    clock.tell()


def _train(size: str, batch_size: int, num_epochs: int, clock: BatchClock) -> None:
    data, eval_data = _data(size, batch_size)
    model = model_fn(SIZES[size], MODEL)
    fit = model.fit
    model.fit = lambda *args, callbacks, **kwargs: fit(*args, callbacks=[clock, *callbacks], **kwargs)
    config = TrainingConfig(batch_size=batch_size, max_epochs=num_epochs, patience=num_epochs)
    with tempfile.TemporaryDirectory() as folder:
        train(model, data, eval_data, config, folder)


def measure_bounds(size: str, batch_size: int) -> dict[str, Any]:
    """Returns the seconds and CPU seconds a batch of each bound, and the `rows_per_second` that they allow together."""
    data, _ = _data(size, batch_size)
    spec = SIZES[size]
    dim = MODEL.embedding_dim

    def read() -> int:
        return sum(1 for _ in data)

    generator = np.random.default_rng(1)
    offsets = np.concatenate([[field.row_offset] * field.max_length for field in spec.id_fields])
    ids = [features["ids"].numpy() for features, _ in data.take(CALLS)]
    rows = [tf.constant(np.where(of > 0, of + offsets, 0).astype(np.int32).reshape(-1)) for of in ids]
    table = tf.Variable(tf.zeros([spec.num_table_rows, 1 + dim]))
    values = tf.constant(generator.normal(size=[ids[0].size, 1 + dim]).astype(np.float32))

    @tf.function
    def gather_and_scatter(rows: tf.Tensor) -> tf.Tensor:
        gathered = tf.gather(table, rows)
        with tf.control_dependencies([gathered]):
            table.scatter_sub(tf.IndexedSlices(values, rows))
        return gathered[0, 0]

    widths = [len(spec.id_fields) * dim + len(spec.numbers), *MODEL.hidden_units, 1]
    shapes = list(itertools.pairwise(widths))
    kernels = [tf.constant(generator.normal(size=shape).astype(np.float32)) for shape in shapes]
    layers = [tf.constant(generator.normal(size=[batch_size, width]).astype(np.float32)) for width in widths]

    @tf.function
    def multiply(_: tf.Tensor) -> list[tf.Tensor]:
        products = []
        for x, kernel, y in zip(layers, kernels, layers[1:], strict=False):
            forward, backward = tf.matmul(x, kernel), tf.matmul(y, kernel, transpose_b=True)
            products += [forward[0, 0], backward[0, 0], tf.matmul(x, y, transpose_a=True)[0, 0]]
        return products

    def times(function: Callable[[tf.Tensor], Any]) -> Callable[[], int]:
        def run() -> int:
            for of_batch in rows:
                function(of_batch)
            return len(rows)

        return run

    parts = {
        "input": _seconds(read),
        "rows": _seconds(times(gather_and_scatter)),
        "matmuls": _seconds(times(multiply)),
    }
    cores = len(os.sched_getaffinity(0))
    allowed = max(
        sum(part["cpu_seconds"] for part in parts.values()) / cores,
        parts["input"]["seconds"],
        parts["rows"]["seconds"] + parts["matmuls"]["seconds"],
    )
    return parts | {"rows_per_second": batch_size / allowed}


def _seconds(run: Callable[[], int]) -> dict[str, float]:
    """Returns the seconds a batch of the best of three runs, each of which returns its number of batches."""
    best = {"seconds": float("inf"), "cpu_seconds": 0.0}
    run()
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        batches = run()
        wall, cpu = (time.perf_counter() - wall) / batches, (time.process_time() - cpu) / batches
        if wall < best["seconds"]:
            best = {"seconds": wall, "cpu_seconds": cpu}
    return best


def _data(size: str, batch_size: int) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    files = json.loads((folder_of(size) / "files.json").read_text(encoding="utf-8"))
    parsing = tft.TFTransformOutput(files["graph"]).transformed_feature_spec()
    config = TrainingConfig()
    return (
        shuffled_batches(
            read_chunks(files["train"], parsing, num_files=4), batch_size, config.shuffle_buffer, config.seed
        ),
        ordered_batches(read_chunks(files["eval"], parsing), batch_size),
    )


if __name__ == "__main__":
    _kind, _size, _batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    if _kind == "turns":
        take_turns(_size, _batch_size)
    else:
        _measure = {"training": measure_training, "bounds": measure_bounds}[_kind]
        print(json.dumps(_measure(_size, _batch_size)))
