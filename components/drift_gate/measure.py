"""Distances between the statistics of splits: ids' by TFDV's comparator, numbers' from all that is known of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.drift_gate.bounds import DriftBounds

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
Array: TypeAlias = npt.NDArray[np.float64]

_WORDS = {"drift": "since the previous run", "skew": "from training to eval"}
_L_INFINITY, _JENSEN_SHANNON = "L-infinity", "Jensen-Shannon"
_INT = statistics_pb2.FeatureNameStatistics.INT
_EQUAL_WIDTH, _DECILES = statistics_pb2.Histogram.STANDARD, statistics_pb2.Histogram.QUANTILES
_UNREACHABLE = 1.0  # no distance is greater: TFDV measures where there is a threshold


@dataclasses.dataclass(frozen=True)
class Movement:
    """One feature's distance.

    Attributes:
        feature: The raw column.
        kind: "drift" from the previous run's training split, "skew" of the eval split from the training split.
        measure: "L-infinity" or "Jensen-Shannon".
        value: The distance, in [0, 1].
        bound: Its bound, or None.
        action: "warn" or "block": what happens where the value is above the bound.
        most_moved: The id whose share has changed the most, where the value is above the bound and TFDV names one.
    """

    feature: str
    kind: str
    measure: str
    value: float
    bound: float | None
    action: str
    most_moved: str | None = None

    @property
    def is_beyond(self) -> bool:
        """Whether the distance is above its bound."""
        return self.bound is not None and self.value > self.bound

    def sentence(self) -> str:
        """Returns what has moved how far."""
        bound = f" ({self.measure}, bound {self.bound:g})" if self.bound is not None else f" ({self.measure})"
        most = f", most at {self.most_moved}" if self.most_moved else ""
        return f"{self.feature} has moved by {self.value:.4g} {_WORDS[self.kind]}{bound}{most}"


def measure(
    training: Statistics, evaluation: Statistics, earlier: Statistics | None, bounds: Mapping[str, DriftBounds]
) -> list[Movement]:
    """Measures every feature's drift and skew.

    A feature whose statistics are by value, a string or a categorical int64, is measured by the L-infinity norm of the
    values' shares, TFDV's of the 1,000 most frequent values; any other by the Jensen-Shannon divergence, see
    `divergence`.

    Args:
        training: Statistics of the training split.
        evaluation: Those of the eval split.
        earlier: Those of the previous run's training split; None where there is no previous run.
        bounds: The bounds of each feature to measure.

    Returns:
        The distances in the order of `bounds`, drift before skew. One that cannot be measured, of a feature that one
        side has no value of, is left out.
    """
    features = _features(training)
    by_value = {name: bounds[name] for name in bounds if name in features and features[name].HasField("string_stats")}
    movements = _measure_shares(training, evaluation, earlier, by_value)
    others = {"drift": earlier, "skew": evaluation}
    found = {kind: _features(statistics) for kind, statistics in others.items() if statistics is not None}
    for name, bound in bounds.items():
        if name in features and name not in by_value:
            for kind, there in found.items():
                distance = divergence(features[name], there[name]) if name in there else None
                if distance is not None:
                    limit = getattr(bound, kind)
                    movements.append(Movement(name, kind, _JENSEN_SHANNON, distance, limit, bound.action))
    order = list(bounds)
    return sorted(movements, key=lambda movement: order.index(movement.feature))  # stable: drift stays before skew


def divergence(one: statistics_pb2.FeatureNameStatistics, other: statistics_pb2.FeatureNameStatistics) -> float | None:
    """Returns the Jensen-Shannon divergence of a number's two distributions, in bits, in [0, 1].

    TFDV's own goes by ten bins of the same width alone, so that a single great value, which puts all others into the
    first bin, makes two days of the same distribution differ. Here the bins are between both sides' deciles, 0, and
    where both sides have the same range, the edges of the bins of one width, too: these tell shares below a tenth.

    Args:
        one: Statistics of the number, with its histograms.
        other: The same of another split.

    Returns:
        The divergence; None where one side has no value.
    """
    sides = [_Distribution.of(one), _Distribution.of(other)]
    if not all(len(side.edges) for side in sides):
        return None
    bins = [side.deciles for side in sides]
    if np.array_equal(sides[0].equal_width, sides[1].equal_width):
        bins.append(sides[0].equal_width)
    ends = np.unique(np.concatenate([*bins, [0.0]]))
    p, q = (np.diff(side.share_up_to(ends), prepend=0.0, append=1.0) for side in sides)
    middle = np.where(p + q > 0, (p + q) / 2, 1.0)
    terms = [np.where(part > 0, part * np.log2(np.where(part > 0, part, 1.0) / middle), 0.0) for part in (p, q)]
    return max(0.0, float(np.sum(terms)) / 2)


@dataclasses.dataclass(frozen=True)
class _Distribution:
    """What the histograms say of a number's values.

    Attributes:
        edges: Ascending.
        shares: The share of the values up to each of the edges.
        deciles: Those of the edges that are the inner ends of tenths of the values.
        equal_width: Those that are the ends of the bins of one width.
    """

    edges: Array
    shares: Array
    deciles: Array
    equal_width: Array

    @classmethod
    def of(cls, feature: statistics_pb2.FeatureNameStatistics) -> _Distribution:
        """Returns the distribution of a number."""
        at: list[float] = []
        shares: list[float] = []
        ends: dict[int, list[float]] = {_EQUAL_WIDTH: [], _DECILES: []}
        for histogram in feature.num_stats.histograms:
            counts = np.cumsum([0.0, *(bucket.sample_count for bucket in histogram.buckets)])
            if counts[-1] > 0:
                ends[histogram.type] = [
                    histogram.buckets[0].low_value, *(bucket.high_value for bucket in histogram.buckets)
                ]  # fmt: skip
                at += ends[histogram.type]
                shares += (counts / counts[-1]).tolist()
        total = sum(
            bucket.sample_count for histogram in feature.num_stats.histograms[:1] for bucket in histogram.buckets
        )
        if total and feature.num_stats.min >= 0:
            at.append(0.0)
            shares.append(min(1.0, feature.num_stats.num_zeros / total))
        edges, share = np.array(at), np.array(shares)
        order = np.lexsort((share, edges))
        edges, share = edges[order], np.maximum.accumulate(share[order])
        is_last = edges != np.append(edges[1:], np.nan)[: len(edges)]  # the greatest share up to an edge
        deciles, width = np.array(ends[_DECILES][1:-1]), np.array(ends[_EQUAL_WIDTH])
        return cls(edges[is_last], share[is_last], deciles, width)

    def share_up_to(self, values: Array) -> Array:
        """Returns the share of the values up to each of some; between two edges all values are as likely."""
        return np.interp(values, self.edges, self.shares, left=0.0, right=1.0)


def _features(statistics: Statistics) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    return {".".join(feature.path.step) or feature.name: feature for feature in statistics.datasets[0].features}


def _measure_shares(
    training: Statistics, evaluation: Statistics, earlier: Statistics | None, bounds: Mapping[str, DriftBounds]
) -> list[Movement]:
    schema = schema_pb2.Schema()
    features = _features(training)
    for name, bound in bounds.items():
        is_int = features[name].type == _INT
        entry = schema.feature.add(name=name, type=schema_pb2.INT if is_int else schema_pb2.BYTES)
        if is_int:
            entry.int_domain.is_categorical = True
        for comparator, limit in ((entry.drift_comparator, bound.drift), (entry.skew_comparator, bound.skew)):
            comparator.infinity_norm.threshold = _UNREACHABLE if limit is None else limit
    anomalies = tfdv.validate_statistics(training, schema, previous_statistics=earlier, serving_statistics=evaluation)
    measured = {".".join(entry.path.step): entry for entry in anomalies.drift_skew_info}
    return [
        movement
        for name, bound in bounds.items()
        if name in measured
        for movement in _read(measured[name], bound, anomalies)
    ]


def _read(
    entry: anomalies_pb2.DriftSkewInfo, bounds: DriftBounds, anomalies: anomalies_pb2.Anomalies
) -> Iterator[Movement]:
    feature = ".".join(entry.path.step)
    reasons = (
        [reason.description for reason in anomalies.anomaly_info[feature].reason]
        if feature in anomalies.anomaly_info
        else []
    )
    for kind, found, bound, words in (
        ("drift", entry.drift_measurements, bounds.drift, "current and previous"),
        ("skew", entry.skew_measurements, bounds.skew, "training and serving"),
    ):
        # Only TFDV's sentence has the value; it may be anything, so all that follows the colon is it.
        pattern = re.compile(rf"between {words} .*The feature value with maximum difference is: (.*)", re.DOTALL)
        most = [match[1] for match in map(pattern.search, reasons) if match]
        for measurement in found:
            yield Movement(
                feature,
                kind,
                _L_INFINITY,
                measurement.value,
                bound,
                bounds.action,
                most[0] if most else None,
            )
