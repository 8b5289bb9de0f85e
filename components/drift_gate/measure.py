"""Distances between the statistics of splits, by TFDV's comparators."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.drift_gate.bounds import DriftBounds

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList

_WORDS = {"drift": "since the previous run", "skew": "from training to eval"}
_MEASURES = {
    anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY: "L-infinity",
    anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE: "Jensen-Shannon",
}
_INT = statistics_pb2.FeatureNameStatistics.INT
_TYPES = {
    _INT: schema_pb2.INT,
    statistics_pb2.FeatureNameStatistics.FLOAT: schema_pb2.FLOAT,
    statistics_pb2.FeatureNameStatistics.STRING: schema_pb2.BYTES,
}
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
    values' shares, TFDV's of the 1,000 most frequent values; any other by the Jensen-Shannon divergence.

    Args:
        training: Statistics of the training split.
        evaluation: Those of the eval split.
        earlier: Those of the previous run's training split; None where there is no previous run.
        bounds: The bounds of each feature to measure.

    Returns:
        The distances in the order of `bounds`, drift before skew. One that cannot be measured, of a feature that one
        side has no value of, is left out.
    """
    schema = schema_pb2.Schema()
    for feature in training.datasets[0].features:
        name = ".".join(feature.path.step) or feature.name
        if name in bounds:
            entry = schema.feature.add(name=name, type=_TYPES[feature.type])
            if feature.type == _INT and feature.HasField("string_stats"):
                entry.int_domain.is_categorical = True
            _set_threshold(entry.drift_comparator, feature, bounds[name].drift)
            _set_threshold(entry.skew_comparator, feature, bounds[name].skew)
    anomalies = tfdv.validate_statistics(training, schema, previous_statistics=earlier, serving_statistics=evaluation)
    measured = {".".join(entry.path.step): entry for entry in anomalies.drift_skew_info}
    return [
        movement
        for name, bound in bounds.items()
        if name in measured
        for movement in _read(measured[name], bound, anomalies)
    ]


def _set_threshold(
    comparator: schema_pb2.FeatureComparator, feature: statistics_pb2.FeatureNameStatistics, bound: float | None
) -> None:
    kind = comparator.infinity_norm if feature.HasField("string_stats") else comparator.jensen_shannon_divergence
    kind.threshold = _UNREACHABLE if bound is None else bound


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
                _MEASURES[measurement.type],
                measurement.value,
                bound,
                bounds.action,
                most[0] if most else None,
            )
