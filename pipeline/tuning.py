"""What the Tuner has come to, told from its artifact."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from tfx.dsl.io import fileio

from trainer.hyperparameters import from_scalars


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The chosen values and what they were chosen by.

    Attributes:
        trials: Number of trials that came to their end.
        monitor: `auc` or `log_loss`, of the newest rows of the training split.
        config: The figure of the config's own values.
        best: That of the chosen ones.
        values: The chosen ones, by their names in `model` and `training`.
    """

    trials: int
    monitor: str
    config: float
    best: float
    values: dict[str, Any]


def read_tuned(directory: str, monitor: str) -> Tuned:
    """Reads what TFX's Tuner has written.

    Args:
        directory: Its `tuner_results`.
        monitor: What was compared.
    """
    with fileio.open(os.path.join(directory, "tuner_results.json")) as file:
        trials = json.load(file)  # without those that failed, the best one first
    (config,) = (trial["score"] for trial in trials if int(trial["trial_id"]) == 0)
    values = {name: value for name, value in trials[0].items() if name not in ("trial_id", "score")}
    return Tuned(len(trials), monitor, config, trials[0]["score"], from_scalars(values))
