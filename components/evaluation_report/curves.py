"""What a histogram of the scores tells about a model: ROC, precision-recall, calibration, scores by class, gain.

Two impressions in one bin of the histogram have the same score here, the bin's mean. Where the impressions have
weights, the counts are sums of these.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import numpy as np

from components.evaluation.results import ScoreHistogram

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

NUM_POINTS = 200  # of a curve; more cannot be told apart on a screen
NUM_CALIBRATION_BINS = 20
NUM_SCORE_BINS = 50
_Z = 1.959964  # of a normal distribution's central 95%


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """What calling every impression with at least this score a click comes to.

    Attributes:
        threshold: The score.
        false_positive_rate: Share of the impressions without a click that are called clicks.
        recall: Share of the clicks that are called clicks.
        precision: Share of what is called clicks that are.
        impressions: Share of the impressions that are called clicks.
        lift: How many times as many clicks these have as as many impressions taken at random.
    """

    threshold: float
    false_positive_rate: float
    recall: float
    precision: float
    impressions: float
    lift: float


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """Impressions with similar scores.

    Attributes:
        predicted: Their mean score.
        observed: Their click-through rate.
        low: Lower end of its 95% Wilson interval.
        high: Upper end of it.
        impressions: How many they are.
    """

    predicted: float
    observed: float
    low: float
    high: float
    impressions: float


@dataclasses.dataclass(frozen=True)
class ScoreBin:
    """Impressions whose score is in [low, high): how many with a click, and how many without."""

    low: float
    high: float
    clicks: float
    others: float


@dataclasses.dataclass(frozen=True)
class Curves:
    """The curves of one model on one eval split.

    Attributes:
        operating_points: ROC, precision-recall and gain, from the highest threshold to the lowest.
        calibration: Bins with about the same number of impressions, by score.
        scores: Bins of the same width between the least and the greatest score.
        click_rate: Share of the impressions with a click.
    """

    operating_points: tuple[OperatingPoint, ...]
    calibration: tuple[CalibrationBin, ...]
    scores: tuple[ScoreBin, ...]
    click_rate: float


def make_curves(histogram: ScoreHistogram) -> Curves:
    """Returns the curves.

    Args:
        histogram: Scores by class. Without any click, or without any other impression, there are no operating points.
    """
    edges = np.asarray(histogram.edges, np.float64)  # [num_bins + 1]
    predictions = np.asarray(histogram.predictions, np.float64)  # [num_bins]
    clicks = np.asarray(histogram.positives, np.float64)  # [num_bins]
    others = np.asarray(histogram.negatives, np.float64)  # [num_bins]
    total = clicks.sum() + others.sum()
    return Curves(
        operating_points=_operating_points(edges, clicks, others),
        calibration=_calibration(predictions, clicks, others),
        scores=_scores(edges, predictions, clicks, others),
        click_rate=float(clicks.sum() / total) if total else 0.0,
    )


def _operating_points(edges: Floats, clicks: Floats, others: Floats) -> tuple[OperatingPoint, ...]:
    if not (clicks.sum() and others.sum()):
        return ()
    found = np.concatenate([[0], np.cumsum(clicks[::-1])]) / clicks.sum()  # [num_bins + 1], from the highest score
    called = np.concatenate([[0], np.cumsum(others[::-1])]) / others.sum()
    thresholds = edges[::-1]
    rate = clicks.sum() / (clicks.sum() + others.sum())
    points = []
    for index in _thinned(found, called):
        impressions = rate * found[index] + (1 - rate) * called[index]
        precision = rate * found[index] / impressions if impressions else 1.0
        lift = precision / rate
        points.append([thresholds[index], called[index], found[index], precision, impressions, lift])
    if len(points) > 1:  # of no impressions at all, what the first ones have
        points[0][3], points[0][5] = points[1][3], points[1][5]
    return tuple(OperatingPoint(*map(float, point)) for point in points)


def _thinned(*shares: Floats) -> list[int]:
    """Returns which points to keep: at most `NUM_POINTS`, evenly along each of the shares, and the ends."""
    steps = np.linspace(0, 1, NUM_POINTS // len(shares))
    found = np.concatenate([np.searchsorted(share, steps - 1e-12) for share in shares])
    kept: list[int] = np.unique(np.clip(found, 0, len(shares[0]) - 1)).tolist()
    return kept


def _calibration(predictions: Floats, clicks: Floats, others: Floats) -> tuple[CalibrationBin, ...]:
    counts = clicks + others
    if not counts.sum():
        return ()
    # A bin belongs where the middle of its impressions does.
    position = (np.cumsum(counts) - counts / 2) / counts.sum()
    groups = np.minimum((position * NUM_CALIBRATION_BINS).astype(np.int64), NUM_CALIBRATION_BINS - 1)
    bins = []
    for group in range(NUM_CALIBRATION_BINS):
        members = groups == group
        number = counts[members].sum()
        if not number:
            continue
        observed = clicks[members].sum() / number
        predicted = predictions[members].sum() / number
        bins.append(CalibrationBin(*map(float, (predicted, observed, *_wilson(observed, number), number))))
    return tuple(bins)


def _wilson(share: float, number: float) -> tuple[float, float]:
    """Returns the 95% score interval of a share: Wilson, JASA 22, 1927."""
    scale = 1 + _Z**2 / number
    middle = (share + _Z**2 / (2 * number)) / scale
    half = _Z * np.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def _scores(edges: Floats, predictions: Floats, clicks: Floats, others: Floats) -> tuple[ScoreBin, ...]:
    counts = clicks + others
    used = np.flatnonzero(counts)
    if not len(used):
        return ()
    # A bin's impressions are taken to be spread evenly in it. The outermost ones reach to 0 and 1, where few are.
    first, last = used[0], used[-1]
    ends = edges[first : last + 2].copy()
    ends[0] = max(ends[0], 2 * predictions[first] / counts[first] - ends[1])
    ends[-1] = min(ends[-1], 2 * predictions[last] / counts[last] - ends[-2])
    limits = np.linspace(ends[0], max(ends[-1], ends[0] + 1e-6), NUM_SCORE_BINS + 1)
    by_class = [
        np.diff(np.interp(limits, ends, np.concatenate([[0], np.cumsum(of_class[first : last + 1])])))
        for of_class in (clicks, others)
    ]
    return tuple(ScoreBin(*map(float, row)) for row in zip(limits[:-1], limits[1:], *by_class, strict=True))
