"""How far a feature may move."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic.dataclasses import dataclass

Distance = Annotated[float, pydantic.Field(ge=0, le=1)]


@dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid", strict=True))
class DriftBounds:
    """Bounds of a feature's distances, each in [0, 1].

    For ids the distance is the L-infinity norm: the greatest difference of any one id's share of all occurrences. For
    numbers and the label it is the Jensen-Shannon divergence of the histograms.

    Attributes:
        drift: Greatest distance from the previous run's training split, or null.
        skew: Greatest distance of the eval split from the training split, or null.
        action: What happens beyond a bound: `warn` says so in the log and the summary, `block` stops the run.
    """

    drift: Distance | None = None
    skew: Distance | None = None
    action: Literal["warn", "block"] = "warn"

    def __post_init__(self) -> None:
        if self.action == "block" and self.drift is None and self.skew is None:
            raise ValueError("action: block means nothing without a bound: set drift or skew")
