"""The figures of a training's epochs, which the Trainer leaves beside its model for whoever judges it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

FILE = "training.json"  # in the folder of the Model artifact


@dataclasses.dataclass(frozen=True)
class TrainingLog:
    """One training.

    Attributes:
        monitor: The figure that the best epoch was chosen by, such as `val_auc`.
        best_epoch: The number of that epoch, the first being 1.
        epochs: The figures of each epoch by their names; None for one that is not finite.
        start: Whether it was warm or cold, and why, in words; empty where no warm start is wanted.
    """

    monitor: str
    best_epoch: int
    epochs: tuple[Mapping[str, float | None], ...]
    start: str = ""

    @classmethod
    def from_history(cls, history: Mapping[str, list[float]], monitor: str, start: str = "") -> TrainingLog:
        """Returns the log of a training.

        Args:
            history: The values of each figure by epoch, as Keras has them.
            monitor: See above. An AUC is better when greater, anything else when less.
            start: See above.
        """
        sign = 1 if monitor == "val_auc" else -1
        keys = [(value == value, sign * value) for value in history[monitor]]  # NaN is worse than everything
        epochs = [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]
        finite = [{name: v if math.isfinite(v) else None for name, v in epoch.items()} for epoch in epochs]
        return cls(monitor, 1 + keys.index(max(keys)), tuple(finite), start)

    def to_json(self) -> str:
        """Returns it as JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> TrainingLog:
        """Returns the log that `to_json` has written."""
        tree = json.loads(text)
        return cls(tree["monitor"], tree["best_epoch"], tuple(tree["epochs"]), tree["start"])
