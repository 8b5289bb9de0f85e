"""Ten days of MovieLens-100K, each day a new model: from scratch, or on from the day before's (`warm_start`).

`make bench-continuous`; writes `benchmarks/results/continuous.json`. The days are the last ten with at least
`MIN_ROWS` rows. A day's model is measured on that day, which it has not seen (progressive validation); the figures are
of all ten days' predictions together, mean of three seeds. Both have the packaged config. `from scratch` learns from
all rows before the day; `warm start` from those since the day before, from the state that `trainer/warm_start.py` keeps
of the model of then; its first day is one from scratch, like the other's. No weights are chosen by what is measured:
the numbers of epochs and the warm start's batch size are those with the best log loss on the ten days before, seed 1.

Seconds are those of the steps of all days but the first; tracing the graph, 3 to 5 seconds a process for both, is not
in them.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.quality_data import Array, Rows, load_setting, read_log
from benchmarks.quality_models import Figures, batches, logits_of, measure
from pipeline.config import load_config
from schemas.features import FeatureSpec
from trainer.config import TrainingConfig
from trainer.model import DeepFM, model_fn
from trainer.train import FillUnseen, compile_model
from trainer.warm_start import save_state, warm_start

SEEDS = (1, 2, 3)
NUM_DAYS = 10
MIN_ROWS = 100
SCRATCH_EPOCHS = (1, 2, 3)
WARM = ((1, 1024), (2, 1024), (4, 1024), (1, 128), (2, 128), (1, 32))  # epochs, batch size
PACKAGED = load_config(None)


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


def load_logs() -> tuple[Log, Log]:
    """Returns the log with the ten days on which settings are chosen, and with the ten that are measured."""
    setting = load_setting("temporal")
    rows = setting.train.followed_by(setting.eval)
    days = np.asarray(read_log()["timestamp"]) // 86_400
    _, starts, counts = np.unique(days, return_index=True, return_counts=True)
    # A day with few rows goes to the one before it.
    starts = [*starts[counts >= MIN_ROWS].tolist(), len(rows)]
    first = len(starts) - 1 - 2 * NUM_DAYS
    chosen_on, measured = (tuple(starts[i : i + NUM_DAYS + 1]) for i in (first, first + NUM_DAYS))
    return Log(setting.spec, rows, chosen_on), Log(setting.spec, rows, measured)


def run_scratch(log: Log, seed: int, num_epochs: int) -> tuple[Figures, float]:
    """Returns the figures and the seconds of a model from scratch each day."""
    logits, seconds = [], 0.0
    for day, (start, end) in enumerate(zip(log.starts, log.starts[1:], strict=False)):
        model = _make_model(log, seed)
        taken = _fit(model, log.rows[:start], PACKAGED.training, seed, num_epochs)
        seconds += taken if day else 0.0
        logits.append(logits_of(model, log.rows[start:end]))
    return _figures(log, logits), seconds


def run_warm(log: Log, seed: int, num_epochs: int, batch_size: int, first_epochs: int) -> tuple[Figures, float]:
    """Returns the figures and the seconds of models of which each goes on from the one before it."""
    logits, seconds = [], 0.0
    config = dataclasses.replace(PACKAGED.training, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        for day, (start, end) in enumerate(zip(log.starts, log.starts[1:], strict=False)):
            model = _make_model(log, seed)
            if day:
                warm_start(model, pathlib.Path(folder) / str(day - 1))
                new = log.rows[log.starts[day - 1] : start]
                seconds += _fit(model, new, config, seed + 100 * day, num_epochs)
            else:
                _fit(model, log.rows[:start], PACKAGED.training, seed, first_epochs)
            save_state(model, pathlib.Path(folder) / str(day))
            logits.append(logits_of(model, log.rows[start:end]))
    return _figures(log, logits), seconds


def _make_model(log: Log, seed: int) -> DeepFM:
    model = model_fn(log.spec, PACKAGED.model, seed)
    compile_model(model, PACKAGED.training)
    return model


def _fit(model: DeepFM, rows: Rows, config: TrainingConfig, seed: int, num_epochs: int) -> float:
    """Trains, and returns the seconds without those of the tracing."""
    callbacks = [FillUnseen()] if model.has_unseen_rows else []
    with tempfile.TemporaryDirectory() as folder:
        before = pathlib.Path(folder) / "before"
        save_state(model, before)
        model.fit(batches(rows[:2], config.batch_size), epochs=1, verbose=0)  # traces
        warm_start(model, before)
    data = batches(rows, config.batch_size, seed=seed)
    begin = time.perf_counter()
    model.fit(data, epochs=num_epochs, verbose=0, callbacks=callbacks)
    return time.perf_counter() - begin


def _figures(log: Log, logits: list[Array]) -> Figures:
    return measure(log.rows.labels[log.starts[0] : log.starts[-1]], np.concatenate(logits))


def main() -> None:
    """Chooses the settings, measures and writes."""
    validation, log = load_logs()
    tried_scratch = {epochs: run_scratch(validation, SEEDS[0], epochs)[0] for epochs in SCRATCH_EPOCHS}
    epochs = min(tried_scratch, key=lambda key: tried_scratch[key].log_loss)
    tried_warm = {pair: run_warm(validation, SEEDS[0], *pair, epochs)[0] for pair in WARM}
    warm = min(tried_warm, key=lambda key: tried_warm[key].log_loss)
    print(f"chosen: {epochs} epochs from scratch; {warm[0]} epochs in batches of {warm[1]} on a new day", flush=True)

    runs: dict[str, list[tuple[Figures, float]]] = {
        "from scratch": [run_scratch(log, seed, epochs) for seed in SEEDS],
        "warm start": [run_warm(log, seed, *warm, epochs) for seed in SEEDS],
        "the first day's model": [run_warm(log, seed, 0, 1024, epochs) for seed in SEEDS],
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
        "chosen": {"epochs_from_scratch": epochs, "epochs_of_a_new_day": warm[0], "batch_size_of_a_new_day": warm[1]},
    }
    results.report("continuous", figures, goals)


if __name__ == "__main__":
    main()
