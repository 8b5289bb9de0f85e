"""What a worker process of `test_workers.py` runs: the project's own entries, watched and, if asked, killed."""

from __future__ import annotations

import hashlib
import logging
import os
import pathlib
import signal
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer import checkpoints, connection, run, worker


def train(
    log: pathlib.Path,
    tf_config: str | None,
    arguments: dict[str, Any] | None,
    kill_after: int = 0,
    kill_signal: int = signal.SIGKILL,
    is_blind: bool = False,
    exports: bool = False,
    patience: float = 0.0,
) -> None:
    """Trains as the chief, or alone, and as a helping worker where there are no arguments.

    Args:
        log: File for the output. Digests of all weights and slots, one for each epoch, go to `<log>.digests`.
        tf_config: The value of `TF_CONFIG`, or None.
        arguments: Of `FnArgs`.
        kill_after: Batches after which the process gets `kill_signal`; 0 for never.
        kill_signal: What that is.
        is_blind: Whether it sees no checkpoints, and no state of an earlier training.
        exports: Whether the model is exported at the end, which takes its time.
        patience: Seconds between two questions to the others and for each answer; 0 for the project's own.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, force=True)  # TFX has set up another
    if tf_config is not None:
        os.environ["TF_CONFIG"] = tf_config
    if is_blind:
        checkpoints.Checkpoints._steps = lambda self: []
        run.FOLDER = "not_mounted"
    if not exports:
        run.export = lambda *arguments: None
    if arguments is not None:  # the nodes before the Trainer have used TensorFlow in the chief's process
        keras.layers.Dense(1)(tf.ones([1, 2]))
    if patience:
        connection._WATCH_SECONDS = connection._ANSWER_SECONDS = patience
    _watch(log.with_suffix(".digests"), kill_after, kill_signal)
    if arguments is None:
        sys.exit(worker.main(["--wait-minutes", "8"]))
    run.run_fn(FnArgs(**arguments))


def _watch(digests: pathlib.Path, kill_after: int, kill_signal: int) -> None:
    end_batch, end_epoch = checkpoints.KeepState.on_train_batch_end, checkpoints.KeepBest.on_epoch_end
    num_batches = 0

    def on_train_batch_end(self: Any, batch: int, logs: Any = None) -> None:
        nonlocal num_batches
        end_batch(self, batch, logs)
        num_batches += 1
        if num_batches == kill_after:
            os.kill(os.getpid(), kill_signal)

    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> None:
        variables = [*self.model.variables, *self.model.optimizer.variables, *self.model.optimizer.rest.variables]
        digest = hashlib.sha256()
        for variable in variables:
            if not variable.path.endswith("seed_generator_state"):
                digest.update(np.asarray(variable.value).tobytes())
        with digests.open("a", encoding="utf-8") as lines:
            lines.write(f"{epoch} {digest.hexdigest()}\n")
        end_epoch(self, epoch, logs)

    checkpoints.KeepState.on_train_batch_end = on_train_batch_end
    checkpoints.KeepBest.on_epoch_end = on_epoch_end
