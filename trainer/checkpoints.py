"""The state of a training on disk: the newest, to go on from after any end, and the best epoch's."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.rows import without_tables

_LOGGER = logging.getLogger(__name__)
_STATE = "state.json"


@dataclasses.dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: The epoch it is in, from 0.
        batch: How many batches of that epoch are done.
        loss_sum: The sum of those batches' training losses, each times its weight, as of the last checkpoint.
        loss_weight: The sum of the weights.
        best: The step at the end of the best epoch, 0 while none is done.
        history: The logs of the epochs that are done.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    best: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


class Checkpoints:
    """Reads and writes checkpoints of one training. One is there whole or not at all.

    Args:
        directory: Where they are: `<step>/` of the newest step, and of the one at the end of the best epoch.
        model: The model, with its optimizer built.
        is_writer: Whether this process writes; of several workers that train together one does, and all read.
        state: What else is to be kept.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        model: keras.Model,
        is_writer: bool = True,
        state: Sequence[tf.Variable] = (),
    ) -> None:
        self.directory = directory
        self._is_writer = is_writer
        if is_writer:
            # Of an exchange that was cut off before the newer one was in its place.
            for before in directory.glob("*.old"):
                if not before.with_suffix("").exists():
                    before.rename(before.with_suffix(""))
        variables = [*model.variables, *model.optimizer.variables, *model.optimizer.rest.variables]
        values = [*(variable.value for variable in variables), *state]
        self._shapes = [value.shape.as_list() for value in values]
        self._state = tf.train.Checkpoint(variables={str(index): value for index, value in enumerate(values)})

    def write(self, step: int, progress: Progress) -> None:
        """Writes the newest state and removes the ones before, but for the best epoch's."""
        if not self._is_writer:
            return
        older = self._steps()
        self._write(str(step), dataclasses.asdict(progress))
        for name in older:
            if name not in (step, progress.best):
                shutil.rmtree(self.directory / str(name))

    def restore(self) -> Progress:
        """Gives the model and its optimizer the newest state, if there is one, and returns how far it was.

        A state whose variables have other shapes, of another version of this package, is none.
        """
        # Without the one file, a removal of the folder was cut off.
        steps = [step for step in self._steps() if (self.directory / str(step) / _STATE).is_file()]
        if not steps:
            return Progress()
        state = json.loads((self.directory / str(steps[-1]) / _STATE).read_text(encoding="utf-8"))
        if state.pop("shapes", None) != self._shapes:
            _LOGGER.warning(
                "the checkpoint of step %d in %s is of another version of this package: training begins anew",
                steps[-1],
                self.directory,
            )
            return Progress()
        self._read(steps[-1])
        return Progress(**state)

    def restore_best(self, progress: Progress) -> None:
        """Gives the model and its optimizer the state at the end of the best epoch."""
        self._read(progress.best)

    def _steps(self) -> list[int]:
        return sorted(int(entry.name) for entry in self.directory.glob("*") if entry.name.isdecimal())

    def _read(self, step: int) -> None:
        self._state.read(str(self.directory / str(step) / "variables")).assert_existing_objects_matched()

    def _write(self, name: str, state: dict[str, Any]) -> None:
        unfinished, folder, before = (self.directory / part for part in (f"{name}.tmp", name, f"{name}.old"))
        for leftover in (unfinished, before):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self._state.write(str(unfinished / "variables"))
        (unfinished / _STATE).write_text(json.dumps(state | {"shapes": self._shapes}), encoding="utf-8")
        # Or a machine that stops may keep the new name and not the data.
        for path in (*unfinished.iterdir(), unfinished):
            _flush(path)
        if folder.exists():
            folder.rename(before)
        unfinished.rename(folder)
        _flush(self.directory)
        shutil.rmtree(before, ignore_errors=True)


def remove_whole(folder: pathlib.Path) -> None:
    """Removes the folder of checkpoints at once: what is killed meanwhile leaves none, or all of them."""
    done = folder.with_name(f"{folder.name}.done")
    shutil.rmtree(done, ignore_errors=True)  # of a removal that was cut off
    folder.rename(done)
    shutil.rmtree(done)


def _flush(path: pathlib.Path) -> None:
    """Returns when a file's data, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def number(value: Any) -> float:
    """Returns a scalar of Keras's, which may be mirrored on several devices."""
    return float(tf.convert_to_tensor(value.value if isinstance(value, keras.Variable) else value))


def loss_metric(model: keras.Model) -> keras.metrics.Mean:
    """Returns the metric that has the mean of an epoch's training losses."""
    return next(metric for metric in model.metrics if metric.name == "loss")


def steps_taken(model: keras.Model) -> int:
    """Returns the number of steps that led to a model's state."""
    return int(number(model.optimizer.iterations))


class KeepState(keras.callbacks.Callback):
    """Writes a checkpoint every so many steps and minutes. Each epoch's end is `KeepBest`'s to write.

    Args:
        checkpoints: Where.
        progress: How far the training is; kept up to date.
        steps: Steps between two, or a call's more; 0 for never.
        minutes: Minutes between two; 0 for never.
    """

    def __init__(self, checkpoints: Checkpoints, progress: Progress, steps: int, minutes: float) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._progress = progress
        self._steps = steps
        self._seconds = 60 * minutes
        self._written = time.monotonic()
        self._first = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remembers which step the epoch's first one was, and takes the loss of the batches that are done."""
        self._first = steps_taken(self.model) - self._progress.batch
        if self._progress.batch:
            metric = loss_metric(self.model)
            metric.total.assign(self._progress.loss_sum)
            metric.count.assign(self._progress.loss_weight)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Writes one where it is time; it may be called for several batches together."""
        before, step = self._progress.batch, steps_taken(self.model)
        self._progress.batch = step - self._first
        is_step = self._steps and self._progress.batch // self._steps > before // self._steps
        is_time = self._seconds and time.monotonic() - self._written >= self._seconds
        # A step with a finite loss may have made the weights NaN: the next one's loss is, and this state is no good.
        if (is_step or is_time) and self._is_finite():
            metric = loss_metric(self.model)
            self._progress.loss_sum, self._progress.loss_weight = number(metric.total), number(metric.count)
            self._checkpoints.write(step, self._progress)
            self._written = time.monotonic()

    def _is_finite(self) -> bool:
        others = without_tables(self.model.trainable_variables, self.model.tables)  # to go over the tables takes long
        return all(bool(np.isfinite(tf.convert_to_tensor(variable.value)).all()) for variable in others)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the loss, which Keras does not where a checkpoint had all of the epoch's batches.

        Raises:
            ValueError: The epoch had no batch, or the training none with a weight.
        """
        if steps_taken(self.model) == self._first:
            raise ValueError(
                "there is no example to learn from: the training split is empty, or negative_sampling_rate "
                "has left none of its impressions without a click, and there are no others"
            )
        logs.setdefault("loss", number(loss_metric(self.model).result()))
        # A mean by weight is exactly 0 where there is none; epochs before may have had some.
        if self.model.spec.weight and logs["loss"] == 0 and not self._progress.history:
            raise ValueError(
                f"there is nothing to learn from: the weight, {self.model.spec.weight}, is 0 in each impression of the "
                "training split"
            )


class KeepBest(keras.callbacks.Callback):
    """Keeps the best epoch's state, lowers the step size after an epoch that is not better, stops after some such.

    Args:
        checkpoints: Where.
        progress: How far the training is; kept up to date.
        monitor: The log by which epochs are compared; "val_auc" is better when greater, any other when less.
        patience: Epochs without a better one after which training stops.
        reduce_on_plateau: What the step size is multiplied with after each of them, or None.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        progress: Progress,
        monitor: str,
        patience: int,
        reduce_on_plateau: float | None,
    ) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._progress = progress
        self._monitor = monitor
        self._patience = patience
        self._reduce_on_plateau = reduce_on_plateau

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compares the epoch with the ones before."""
        progress = self._progress
        figures = {name: float(value) for name, value in (logs or {}).items()}
        progress.history.append(figures | {"learning_rate": number(self.model.optimizer.learning_rate)})
        progress.epoch, progress.batch = epoch + 1, 0
        step = steps_taken(self.model)
        if self._epochs_without_better() == 0:
            progress.best = step
        elif self._reduce_on_plateau:
            optimizer = self.model.optimizer
            optimizer.learning_rate = number(optimizer.learning_rate) * self._reduce_on_plateau
        self._checkpoints.write(step, progress)
        self.model.stop_training = self.is_over()

    def is_over(self) -> bool:
        """Returns whether the last epochs were without a better one for too long."""
        return bool(self._progress.history) and self._epochs_without_better() >= self._patience

    def _epochs_without_better(self) -> int:
        values = [epoch[self._monitor] for epoch in self._progress.history]
        # NaN, the AUC of one class only, is worse than everything.
        keys = [(value == value, value if self._monitor == "val_auc" else -value) for value in values]
        best = max(range(len(keys)), key=lambda index: (keys[index], -index))
        return len(keys) - 1 - best
