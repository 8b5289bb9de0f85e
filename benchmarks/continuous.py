"""Ten days of MovieLens-100K, each day a new model: from scratch, or on from an earlier one (`warm_start`).

`make bench-continuous`; writes `benchmarks/results/continuous.json`. The days are the last ten with at least
`MIN_ROWS` rows. A day's model is measured on that day, which it has not seen (progressive validation); the figures are
of all ten days' predictions together, mean of three seeds. Both have the packaged config. `from scratch` learns from
all rows before the day; `warm start` goes on from the state that `trainer/warm_start.py` keeps: of the model of the day
before, with the rows since then, or of the last one that started cold, with the newest rows. Its first day is one from
scratch, as the other's is, and so may be each fourth or fifth one: their seconds count. No weights are chosen by what
is measured: the settings of both, the epochs from scratch among them, are those with the best log loss on the sixty
days before, as six times ten days that begin with a cold start; of seed 1 from scratch, the mean of all seeds for a
warm start. What was found there is written beside the ten days' figures.

Seconds are those of the steps of all days but the first; tracing the graph, 3 to 5 seconds a process for both, is not
in them. What is measured runs alone; the days before are tried in a process a core.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import tempfile
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
NUM_DAYS, NUM_TIMES_BEFORE = 10, 6
MIN_ROWS = 100
SCRATCH_EPOCHS = (1, 2, 3, 4)
PACKAGED = load_config(None)


@dataclasses.dataclass(frozen=True)
class Steps:
    """How a model learns.

    Attributes:
        epochs: Passes over the rows.
        batch_size: Examples per step.
        learning_rate: Step size of all weights but the embedding table's.
        table_learning_rate: That of the embedding table.
        average_from: As in `TrainingConfig`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    table_learning_rate: float
    average_from: int | None = None


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """How a model goes on on a new day.

    Attributes:
        cold_epochs: Passes over the rows where it starts cold.
        steps: How it learns.
        newest_rows: How many of the newest rows it learns from, on from the last state that started cold; None for the
            rows since the day before, on from that day's state.
        days_between: Days from one cold start to the next; None where only the first day starts cold.
    """

    cold_epochs: int
    steps: Steps
    newest_rows: int | None = None
    days_between: int | None = None

    def is_cold(self, day: int) -> bool:
        """Returns whether a day, counted from 0, starts cold."""
        return day % self.days_between == 0 if self.days_between else day == 0


# More were tried once (docs/benchmarks.md): these are the best of their kinds. A cold start each third day would cost
# more than the goal allows.
SMALL = Steps(1, 128, 2e-4, 1e-4)
LARGER = Steps(1, 128, 2e-4, 3e-4)
WARM_STARTS = [
    WarmStart(3, Steps(1, 64, 1e-4, 2e-5)),
    WarmStart(3, SMALL, 5_000),
    WarmStart(3, SMALL, 10_000),
    *(
        WarmStart(3, steps, newest_rows, days_between)
        for days_between in (5, 4)
        for steps, newest_rows in [(SMALL, 5_000), (SMALL, 10_000), (LARGER, 5_000)]
    ),
]
NO_STEPS = Steps(0, 1024, 1e-3, 1e-3)


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
        self._model.optimizer.table_rate = self._table_rate = tf.Variable(1.0)  # the traced step has it as it is then
        self.keep("untrained")
        self._callbacks: list[keras.callbacks.Callback] = [FillUnseen()] if self._model.has_unseen_rows else []
        self._model.fit(batches(log.rows[:2], 2), verbose=0)  # traces

    def keep(self, name: str) -> None:
        """Keeps the state under a name."""
        save_state(self._model, self._folder / name)

    def restore(self, name: str) -> None:
        """Takes a state that was kept."""
        warm_start(self._model, self._folder / name)

    def learn(self, start: int, end: int, steps: Steps, day: int = 0) -> float:
        """Learns from some of the log's rows, and returns the seconds."""
        self._model.optimizer.learning_rate = steps.learning_rate
        self._table_rate.assign(steps.table_learning_rate / steps.learning_rate)
        data = batches(self._log.rows[start:end], steps.batch_size, seed=self._seed + 100 * day)
        begin = time.perf_counter()
        callbacks = list(self._callbacks)
        if steps.average_from is not None:
            callbacks.append(AverageWeights(self._model, steps.average_from, self._model.tables))
        self._model.fit(data, epochs=steps.epochs, verbose=0, callbacks=callbacks)
        return time.perf_counter() - begin

    def logits(self, start: int, end: int) -> Array:
        """Returns the logits of some of the log's rows."""
        return logits_of(self._model, self._log.rows[start:end])


def from_scratch(num_epochs: int) -> Steps:
    """Returns the packaged config's settings."""
    training = PACKAGED.training
    of_table = training.table_learning_rate or training.learning_rate
    return Steps(num_epochs, training.batch_size, training.learning_rate, of_table, training.average_from)


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


def run_warm(log: Log, seed: int, *settings: WarmStart) -> list[tuple[Figures, float]]:
    """Returns the figures and the seconds of models that go on from an earlier one, for each setting."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(log, seed, folder)
        seconds_of: dict[str, float] = {}  # by the name of a state

        def start_cold(epochs: int, day: int) -> str:
            name = f"cold-{epochs}-{day}"
            if name not in seconds_of:
                learner.restore("untrained")
                seconds_of[name] = learner.learn(0, log.starts[day], from_scratch(epochs))
                learner.keep(name)
            learner.restore(name)
            return name

        for how in settings:
            logits, seconds, cold = [], 0.0, ""
            for day, (start, end) in enumerate(itertools.pairwise(log.starts)):
                if how.is_cold(day):
                    cold = start_cold(how.cold_epochs, day)
                    taken = seconds_of[cold]
                elif how.newest_rows:
                    learner.restore(cold)
                    taken = learner.learn(max(0, start - how.newest_rows), start, how.steps, day)
                else:
                    taken = learner.learn(log.starts[day - 1], start, how.steps, day)
                seconds += taken if day else 0.0
                logits.append(learner.logits(start, end))
            found.append((_figures(log, logits), seconds))
    return found


def _figures(log: Log, logits: list[Array]) -> Figures:
    return measure(log.rows.labels[log.starts[0] : log.starts[-1]], np.concatenate(logits))


def try_settings() -> dict[str, list[Figures]]:
    """Returns the figures of each setting on the days before the measured ones."""
    before = [NUM_DAYS * times for times in range(1, NUM_TIMES_BEFORE + 1)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), context, tf.config.threading.set_intra_op_parallelism_threads, (1,)
    ) as pool:
        warm = [pool.submit(_try_warm, number, seed) for number in before for seed in SEEDS]
        scratch = [pool.submit(_try_scratch, number) for number in before]
        for count, _ in enumerate(concurrent.futures.as_completed([*warm, *scratch]), start=1):
            print(f"days before: {count} of {len(warm) + len(scratch)} trials", flush=True)
        names = [*(f"from scratch, {epochs} epochs" for epochs in SCRATCH_EPOCHS), *map(str, WARM_STARTS)]
        of_names = [
            *zip(*(trial.result() for trial in scratch), strict=True),
            *zip(*(trial.result() for trial in warm), strict=True),
        ]
    return {name: list(figures) for name, figures in zip(names, of_names, strict=True)}


def _try_scratch(num_before: int) -> list[Figures]:
    log = load_log(NUM_DAYS, num_before)
    return [run_scratch(log, SEEDS[0], epochs)[0] for epochs in SCRATCH_EPOCHS]


def _try_warm(num_before: int, seed: int) -> list[Figures]:
    return [figures for figures, _ in run_warm(load_log(NUM_DAYS, num_before), seed, *WARM_STARTS)]


def main() -> None:
    """Chooses the settings, measures and writes."""
    tried = try_settings()
    on_days_before = {
        name: {
            "auc": round(float(np.mean([figures.auc for figures in found])), 5),
            "log_loss": round(float(np.mean([figures.log_loss for figures in found])), 5),
        }
        for name, found in tried.items()
    }
    for name, means in on_days_before.items():
        print(f"before: AUC {means['auc']:.5f} log loss {means['log_loss']:.5f} {name}")
    epochs = min(SCRATCH_EPOCHS, key=lambda number: on_days_before[f"from scratch, {number} epochs"]["log_loss"])
    warm = min(WARM_STARTS, key=lambda how: on_days_before[str(how)]["log_loss"])
    stay = dataclasses.replace(warm, steps=NO_STEPS, days_between=None)
    print(f"chosen: {epochs} epochs from scratch; on a new day {warm}", flush=True)

    log = load_log(NUM_DAYS, 0)
    of_warm = [run_warm(log, seed, warm, stay) for seed in SEEDS]
    runs: dict[str, list[tuple[Figures, float]]] = {
        "from scratch": [run_scratch(log, seed, epochs) for seed in SEEDS],
        "warm start": [of_seed[0] for of_seed in of_warm],
        "the first day's model": [of_seed[1] for of_seed in of_warm],
    }
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
        "on_the_days_before": on_days_before,
    }
    results.report("continuous", figures, goals)


if __name__ == "__main__":
    main()
