"""How a person reads each metric: its name, which way is better, what it says."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name in `report.json`.
        label: Its name for people.
        better: Which way is better: `higher`, `lower`, or nearer to `one`; None where that is not known.
        meaning: What it says, one sentence.
    """

    name: str
    label: str
    better: Literal["higher", "lower", "one"] | None
    meaning: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("auc", "AUC", "higher", "How often a click is ranked above an impression without one; 0.5 is chance."),
        Metric("gauc", "GAUC", "higher", "AUC within each user, averaged by impressions; ranking as a user sees it."),
        Metric("auc_pr", "AUC-PR", "higher", "Area under precision over recall; at chance it is the click rate."),
        Metric("log_loss", "Log loss", "lower", "Mean of -ln of the probability given to what happened."),
        Metric(
            "normalized_entropy",
            "Normalized entropy",
            "lower",
            "Log loss divided by that of always saying the average click rate; 1 is no better than that.",
        ),
        Metric("calibration", "Calibration", "one", "Predicted clicks divided by observed ones; 1 is right."),
        Metric(
            "expected_calibration_error",
            "Calibration error",
            "lower",
            "Mean distance of the predicted from the observed click rate, over 20 groups of impressions by score.",
        ),
        Metric("ndcg", "NDCG", "higher", "How near the top of each user's list the clicks are; 1 is all at the top."),
        Metric("mean_label", "Click rate", None, "Observed clicks per impression."),
        Metric("mean_prediction", "Predicted click rate", None, "Predicted clicks per impression."),
        Metric("mrr", "MRR", "higher", "Mean of 1 / (the rank of a user's first click)."),
    )
}


def find_metric(name: str) -> Metric:
    """Returns how a metric is read; one of an unknown name has that name and no direction."""
    return METRICS.get(name) or Metric(name, name.replace("_", " "), None, "")
