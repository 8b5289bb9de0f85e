"""Ten days of MovieLens-100K, each day a new model: from scratch, or on from the day before's (`warm_start`).

`make bench-continuous`; writes `benchmarks/results/continuous.json`. The days are the last ten with at least
`MIN_ROWS` rows. A day's model is measured on that day, which it has not seen (progressive validation); the figures are
of all ten days' predictions together, mean of three seeds. Both have the packaged config. `from scratch` learns from
all rows before the day; `warm start` from those since the day before, from the state that `trainer/warm_start.py` keeps
of the model of then; its first day is one from scratch, like the other's. No weights are chosen by what is measured:
the settings of both are those with the best log loss on the days before, seed 1: the epochs from scratch on ten days,
the warm start's settings on sixty, as in ten it has hardly anything to learn. The other figures of those sixty days are
written beside the ten days'.

Seconds are those of the steps of all days but the first; tracing the graph, 3 to 5 seconds a process for both, is not
in them.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import tempfile
import time
from typing import Any

import keras
import numpy as np

from benchmarks import results
from benchmarks.quality_data import Array, Rows, load_setting, read_log
from benchmarks.quality_models import Figures, batches, logits_of, measure
from pipeline.config import load_config
from schemas.features import FeatureSpec
from trainer.average import AverageWeights
from trainer.model import model_fn
from trainer.train import FillUnseen, compile_model
from trainer.warm_start import save_state, warm_start

SEEDS = (1, 2, 3)
NUM_DAYS, NUM_DAYS_BEFORE = 10, 60
MIN_ROWS = 100
SCRATCH_EPOCHS = (1, 2, 3, 4)
PACKAGED = load_config(None)


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """How a model goes on with a day's rows.

    Attributes:
        epochs: Passes over them.
        batch_size: Examples per step.
        learning_rate: Step size of all weights but the embedding table's, which has the packaged config's share of it.
        average_from: As in `TrainingConfig`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    average_from: int | None = None


WARM_STARTS = tuple(
    WarmStart(*values)
    for values in [(1, 512, 1e-3), (1, 128, 3e-4), (1, 64, 1e-4), (2, 64, 1e-4), (3, 128, 1e-4), (3, 32, 3e-5)]
)
STAY = WarmStart(0, 1024, 1e-3)


@dataclasses.dataclass(frozen=True)
class Log:
    """The impressions by time.

    Attributes:
        spec: The features.
        rows: All impressions.
        starts: The first row of each of the days, and the end of the last one.
    """

    spec: FeatureSpec
    rows: Rows
    starts: tuple[int, ...]


def load_log(num_days: int, num_before: int) -> Log:
    """Returns some days of the log.

    Args:
        num_days: How many.
        num_before: How many of the last days are not among them.
    """
    setting = load_setting("temporal")
    rows = setting.train.followed_by(setting.eval)
    days = np.asarray(read_log()["timestamp"]) // 86_400
    _, starts, counts = np.unique(days, return_index=True, return_counts=True)
    # A day with few rows goes to the one before it.
    starts = [*starts[counts >= MIN_ROWS].tolist(), len(rows)]
    last = len(starts) - 1 - num_before
    return Log(setting.spec, rows, tuple(starts[last - num_days : last + 1]))


class Learner:
    """A model that is trained again and again: its graph is traced once.

    Args:
        log: Where its rows come from.
        seed: Of its first weights, and of the order of the rows.
        folder: Where its states are kept.
    """

    def __init__(self, log: Log, seed: int, folder: str) -> None:
        self._log, self._seed, self._folder = log, seed, pathlib.Path(folder)
        self._model = model_fn(log.spec, PACKAGED.model, seed)
        compile_model(self._model, PACKAGED.training)
        self.keep("untrained")
        self._callbacks: list[keras.callbacks.Callback] = [FillUnseen()] if self._model.has_unseen_rows else []
        self._model.fit(batches(log.rows[:2], 2), verbose=0)  # traces

    def keep(self, name: str) -> None:
        """Keeps the state under a name."""
        save_state(self._model, self._folder / name)

    def restore(self, name: str) -> None:
        """Takes a state that was kept."""
        warm_start(self._model, self._folder / name)

    def learn(self, start: int, end: int, how: WarmStart, day: int = 0) -> float:
        """Learns from some of the log's rows, and returns the seconds."""
        self._model.optimizer.learning_rate = how.learning_rate
        data = batches(self._log.rows[start:end], how.batch_size, seed=self._seed + 100 * day)
        begin = time.perf_counter()
        callbacks = list(self._callbacks)
        if how.average_from:
            callbacks.append(AverageWeights(self._model, how.average_from, self._model.tables))
        self._model.fit(data, epochs=how.epochs, verbose=0, callbacks=callbacks)
        return time.perf_counter() - begin

    def logits(self, start: int, end: int) -> Array:
        """Returns the logits of some of the log's rows."""
        return logits_of(self._model, self._log.rows[start:end])


def from_scratch(num_epochs: int) -> WarmStart:
    """Returns the packaged config's settings."""
    training = PACKAGED.training
    return WarmStart(num_epochs, training.batch_size, training.learning_rate, training.average_from)


def run_scratch(log: Log, seed: int, num_epochs: int) -> tuple[Figures, float]:
    """Returns the figures and the seconds of a model from scratch each day."""
    logits, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(log, seed, folder)
        for day, (start, end) in enumerate(itertools.pairwise(log.starts)):
            learner.restore("untrained")
            taken = learner.learn(0, start, from_scratch(num_epochs))
            seconds += taken if day else 0.0
            logits.append(learner.logits(start, end))
    return _figures(log, logits), seconds


def run_warm(log: Log, seed: int, first_epochs: int, *settings: WarmStart) -> list[tuple[Figures, float]]:
    """Returns the figures and the seconds of models of which each goes on from the one before it, for each setting."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(log, seed, folder)
        learner.restore("untrained")
        learner.learn(0, log.starts[0], from_scratch(first_epochs))
        learner.keep("first")
        for how in settings:
            learner.restore("first")
            logits, seconds = [learner.logits(*log.starts[:2])], 0.0
            for day, (before, start, end) in enumerate(zip(log.starts, log.starts[1:], log.starts[2:], strict=False)):
                seconds += learner.learn(before, start, how, day + 1)
                logits.append(learner.logits(start, end))
            found.append((_figures(log, logits), seconds))
    return found


def _figures(log: Log, logits: list[Array]) -> Figures:
    return measure(log.rows.labels[log.starts[0] : log.starts[-1]], np.concatenate(logits))


def main() -> None:
    """Chooses the settings, measures and writes."""
    ten_before, before = load_log(NUM_DAYS, NUM_DAYS), load_log(NUM_DAYS_BEFORE, NUM_DAYS)
    tried_scratch = {epochs: run_scratch(ten_before, SEEDS[0], epochs)[0] for epochs in SCRATCH_EPOCHS}
    epochs = min(tried_scratch, key=lambda key: tried_scratch[key].log_loss)
    tried_warm = [found for found, _ in run_warm(before, SEEDS[0], epochs, *WARM_STARTS)]
    warm = WARM_STARTS[int(np.argmin([found.log_loss for found in tried_warm]))]
    print(f"chosen: {epochs} epochs from scratch; on a new day {warm}", flush=True)

    log = load_log(NUM_DAYS, 0)
    of_warm = [run_warm(log, seed, epochs, warm, STAY) for seed in SEEDS]
    runs: dict[str, list[tuple[Figures, float]]] = {
        "from scratch": [run_scratch(log, seed, epochs) for seed in SEEDS],
        "warm start": [of_seed[0] for of_seed in of_warm],
        "the first day's model": [of_seed[1] for of_seed in of_warm],
    }
    on_days_before = {"from scratch": run_scratch(before, SEEDS[0], epochs)[0]}
    on_days_before |= dict(zip(map(str, WARM_STARTS), tried_warm, strict=True))
    figures: dict[str, Any] = {
        name: {
            "auc": round(float(np.mean([found.auc for found, _ in of_seeds])), 5),
            "auc_runs": [round(found.auc, 5) for found, _ in of_seeds],
            "log_loss": round(float(np.mean([found.log_loss for found, _ in of_seeds])), 5),
            "seconds_per_day": round(float(np.mean([seconds for _, seconds in of_seeds])) / (NUM_DAYS - 1), 4),
        }
        for name, of_seeds in runs.items()
    }
    for name, found in figures.items():
        print(
            f"{name:22} AUC {found['auc']:.4f} log loss {found['log_loss']:.4f} {found['seconds_per_day']:.3f} s a day"
        )
    scratch, continued = figures["from scratch"], figures["warm start"]
    cheaper = scratch["seconds_per_day"] / continued["seconds_per_day"]
    goals = [
        results.at_least("warm start, AUC: at least that from scratch", scratch["auc"], continued["auc"]),
        results.at_most("warm start, log loss: at most that from scratch", scratch["log_loss"], continued["log_loss"]),
        results.at_least("warm start: times cheaper in training time", 3.0, round(cheaper, 2)),
    ]
    figures |= {
        "rows_of_days": np.diff(log.starts).tolist(),
        "chosen": {"epochs_from_scratch": epochs, "new_day": dataclasses.asdict(warm)},
        "on_the_days_before": {name: dataclasses.asdict(found) for name, found in on_days_before.items()},
    }
    results.report("continuous", figures, goals)


if __name__ == "__main__":
    main()
