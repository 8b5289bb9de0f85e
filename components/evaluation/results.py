"""What an evaluation found, as the Evaluator wrote it: figures, slices, gates.

The names of the metrics, the same in `summary.json`:

| name | what it is |
|---|---|
| auc, auc_pr | area under the ROC curve; average precision (as scikit-learn defines them) |
| log_loss | mean binary cross entropy, in nats |
| normalized_entropy | log loss over that of always predicting the mean label |
| calibration | sum of predictions over sum of labels |
| expected_calibration_error | mean distance of prediction and label over 20 groups of equally many impressions |
| mean_label, mean_prediction | means |
| gauc | mean AUC within a user, weighted by impressions; only where the spec has a `group_key` |
| ndcg, mrr | means over users with a click; only where the spec has a `group_key` |
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.writers.eval_config_writer import load_eval_run
from tfx.dsl.io import fileio

from components.evaluation.metrics import COUNTS, FIGURES, MODULE, SCORES, USER_FIGURES

_CONFIG_FILE = "eval_config.json"
# No other figure can be greater than 1, and none less than 0.
_ABOVE_ONE = ("log_loss", "normalized_entropy", "calibration")

Slice: TypeAlias = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number and what is known about it.

    Attributes:
        value: The number itself; NaN where it is not defined, such as the AUC of one class.
        low: Lower limit of its 95% interval; None where none can be told.
        high: Upper limit; None together with `low`.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class SliceEvaluation:
    """The impressions of one slice.

    Attributes:
        slice: Pairs of a column, or of a derived one, and its value as it is in the log: hostile text, to be escaped
            wherever it is shown. () is all impressions.
        num_examples: How many impressions it has, whatever their weights.
        candidate: The candidate's metrics, by name.
        baseline: The baseline's, None in a run without one.
        difference: Candidate minus baseline on the same impressions, None in a run without a baseline. Its interval is
            that of the paired difference, which is narrower than the two intervals suggest.
        num_users: Users by whom gauc, ndcg and mrr are grouped, 0 without a `group_key`.
        num_gauc_users: Those of them with both a click and none, the only ones that gauc counts.
    """

    slice: Slice
    num_examples: int
    candidate: Mapping[str, Figure]
    baseline: Mapping[str, Figure] | None = None
    difference: Mapping[str, Figure] | None = None
    num_users: int = 0
    num_gauc_users: int = 0


@dataclasses.dataclass(frozen=True)
class Gate:
    """One condition of the blessing, checked on one slice.

    Attributes:
        metric: Name of the metric.
        slice: The slice, () for all impressions.
        kind: "value": the candidate's own figure is bounded. "change": its difference to the baseline is.
        figure: What is bounded: the candidate's metric, or candidate minus baseline.
        bound: The bound.
        passed: Whether it holds.
        sentence: What was required and found, with figure, bound and slice, for people. It has slice values: escape it.
    """

    metric: str
    slice: Slice
    kind: Literal["value", "change"]
    figure: Figure
    bound: float
    passed: bool
    sentence: str


@dataclasses.dataclass(frozen=True)
class ScoreHistogram:
    """Weighted counts of impressions by predicted ctr; ROC, precision-recall, calibration and gain follow from it.

    The bins hold about equally many impressions each, so their widths differ: a density is count / width.

    Attributes:
        edges: Limits of the bins, ascending, [num_bins + 1]; the first is 0, the last 1.
        positives: Weight of the clicks in each bin, [num_bins].
        negatives: Weight of the other impressions in each bin, [num_bins].
        predictions: Sum of weight * predicted ctr in each bin, [num_bins]; over the bin's weight it is the mean.
    """

    edges: tuple[float, ...]
    positives: tuple[float, ...]
    negatives: tuple[float, ...]
    predictions: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        slices: All impressions first, then the slices in the order of their names.
        gates: All gates that were checked, failed ones first.
        blessed: Whether all of them hold. TFMA's `validation_ok` wants a slice of each kind that a gate bounds, too.
        candidate_scores: The candidate's histogram over all impressions.
        baseline_scores: The baseline's, None in a run without one.
    """

    slices: tuple[SliceEvaluation, ...]
    gates: tuple[Gate, ...]
    blessed: bool
    candidate_scores: ScoreHistogram
    baseline_scores: ScoreHistogram | None = None

    @property
    def overall(self) -> SliceEvaluation:
        """All impressions."""
        return self.slices[0]


def read_evaluation(evaluation_uri: str) -> Evaluation:
    """Reads what the Evaluator wrote.

    Args:
        evaluation_uri: Folder of the ModelEvaluation artifact.

    Raises:
        FileNotFoundError: There is no evaluation in the folder.
        ValueError: The evaluation has none of the metrics of this package: another version wrote it.
    """
    if not fileio.exists(os.path.join(evaluation_uri, _CONFIG_FILE)):
        raise FileNotFoundError(
            f"{evaluation_uri} has no {_CONFIG_FILE}: the Evaluator did not write to it, or not to its end"
        )
    config, *_ = load_eval_run(evaluation_uri)
    records = [_Record.read(record) for record in tfma.load_metrics(evaluation_uri)]
    records.sort(key=lambda record: record.slice)
    if not records or records[0].slice or SCORES not in records[0].values[False, _candidate(config)]:
        raise ValueError(f"{evaluation_uri} was written without the metrics of {MODULE}: run the pipeline again")
    candidate, baseline = _candidate(config), _baseline(config)
    validation = tfma.load_validation_result(evaluation_uri)
    failed = {
        (record.slice_key.SerializeToString(), failure.metric_key.name)
        for record in validation.metric_validations_per_slice
        for failure in record.failures
    }
    slices = tuple(_slice_evaluation(record, candidate, baseline) for record in records)
    gates = [
        gate for record, found in zip(records, slices, strict=True) for gate in _gates(config, record, found, failed)
    ]
    scores = _score_histograms(records[0].values[False, candidate][SCORES].value.array_value.float64_values)
    return Evaluation(
        slices=slices,
        gates=tuple(sorted(gates, key=lambda gate: gate.passed)),
        blessed=not failed and all(gate.passed for gate in gates),
        candidate_scores=scores[0],
        baseline_scores=scores[1] if baseline else None,
    )


@dataclasses.dataclass(frozen=True)
class _Record:
    """One slice in TFMA's output: its `MetricKeyAndValue`s by (whether a difference, model name) and then by name."""

    slice: Slice
    serialized_slice: bytes
    values: Mapping[tuple[bool, str], Mapping[str, Any]]

    @staticmethod
    def read(record: Any) -> _Record:
        values: dict[tuple[bool, str], dict[str, Any]] = {}
        for found in record.metric_keys_and_values:
            values.setdefault((found.key.is_diff, found.key.model_name), {})[found.key.name] = found
        return _Record(read_slice(record.slice_key), record.slice_key.SerializeToString(), values)


def read_slice(key: Any) -> Slice:
    """Returns TFMA's `SliceKey` as pairs of text."""
    pairs = []
    for single in key.single_slice_keys:
        value = getattr(single, single.WhichOneof("kind") or "bytes_value")
        pairs.append((single.column, value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)))
    return tuple(pairs)


def _candidate(config: Any) -> str:
    """Returns the candidate's name in TFMA's output, which is empty where it is alone."""
    return "" if len(config.model_specs) == 1 else next(m.name for m in config.model_specs if not m.is_baseline)


def _baseline(config: Any) -> str | None:
    return next((model.name for model in config.model_specs if model.is_baseline), None)


def _figure(found: Any) -> Figure:
    value = found.value.double_value.value
    if not found.HasField("confidence_interval"):
        return Figure(value)
    limits = found.confidence_interval
    return Figure(value, limits.lower_bound.double_value.value, limits.upper_bound.double_value.value)


def _figures(values: Mapping[str, Any]) -> dict[str, Figure]:
    names = FIGURES | USER_FIGURES
    return {name: _figure(values[written]) for name, written in names.items() if written in values}


def _figures_of_model(values: Mapping[str, Any]) -> dict[str, Figure]:
    """Returns a model's figures. No interval goes beyond what the figure can be, as those of few impressions do."""
    return {name: _within(found, math.inf if name in _ABOVE_ONE else 1.0) for name, found in _figures(values).items()}


def _within(figure: Figure, greatest: float) -> Figure:
    if figure.low is None or figure.high is None:
        return figure
    return Figure(figure.value, max(figure.low, 0.0), min(figure.high, greatest))


def _slice_evaluation(record: _Record, candidate: str, baseline: str | None) -> SliceEvaluation:
    own = record.values[False, candidate]
    counts = {name: int(own[written].value.double_value.value) for name, written in COUNTS.items()}
    return SliceEvaluation(
        slice=record.slice,
        candidate=_figures_of_model(own),
        baseline=None if baseline is None else _figures_of_model(record.values[False, baseline]),
        difference=None if baseline is None else _figures(record.values[True, candidate]),
        **counts,
    )


def _score_histograms(values: Sequence[float]) -> list[ScoreHistogram]:
    """Returns the histogram of each model from the array that `metrics` writes."""
    histograms, start = [], 0
    while start < len(values):
        size = int(values[start])
        edges, *sums = (tuple(values[start + 1 + row * size : start + 1 + (row + 1) * size]) for row in range(4))
        histograms.append(ScoreHistogram(edges, *(column[:-1] for column in sums)))
        start += 1 + 4 * size
    return histograms


def _gates(config: Any, record: _Record, found: SliceEvaluation, failed: set[tuple[bytes, str]]) -> Iterator[Gate]:
    """Yields the gates that bound the slice: every threshold in TFMA's config that applies to it."""
    columns = tuple(sorted(column for column, _ in record.slice))
    for metric in (metric for specs in config.metrics_specs for metric in specs.metrics):
        if metric.module != MODULE:
            continue
        settings = json.loads(metric.config)
        for per_slice in metric.per_slice_thresholds:
            if not any(tuple(sorted(slicing.feature_keys)) == columns for slicing in per_slice.slicing_specs):
                continue
            if found.num_examples < settings.get("min_examples", 0):
                continue
            passed = (record.serialized_slice, settings["name"]) not in failed
            yield from _threshold_gates(settings, per_slice.threshold, found, passed)


def _printable(value: str) -> str:
    """Returns a value of the log for a line of text, which is for terminals, too: those obey control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def _threshold_gates(settings: Any, threshold: Any, found: SliceEvaluation, passed: bool) -> Iterator[Gate]:
    name = settings["figure"]
    where = "".join(f" in {column}={_printable(value)}" for column, value in found.slice)
    if threshold.HasField("change_threshold") and found.difference is not None:
        figure = found.difference[name]
        if figure.low is None and settings.get("min_examples"):  # see `ImpressionMetric`
            return
        bound = threshold.change_threshold.absolute.value + 0.0  # not -0
        limit = {"low": "lower", "high": "upper"}[settings["side"]]
        least = (
            "least" if threshold.change_threshold.direction == config_pb2.MetricDirection.HIGHER_IS_BETTER else "most"
        )
        told = "no interval" if figure.low is None else f"95% interval {figure.low:+.4f} to {figure.high:+.4f}"
        value = "not defined" if math.isnan(figure.value) else f"{figure.value:+.4f}"
        sentence = (
            f"{name}{where} is {value} beside the baseline's ({told}), and its {limit} limit must be at {least} "
            f"{bound:+g}"
        )
        yield Gate(name, found.slice, "change", figure, bound, passed, sentence)
    if threshold.HasField("value_threshold"):
        figure = found.candidate[name]
        bounds = threshold.value_threshold
        for side, least in (("lower_bound", "least"), ("upper_bound", "most")):
            if not bounds.HasField(side):
                continue
            bound = getattr(bounds, side).value
            holds = figure.value >= bound if least == "least" else figure.value <= bound
            # As an AUC where all impressions or none are clicks.
            told = "not defined" if math.isnan(figure.value) else f"{figure.value:.4f}"
            sentence = f"{name}{where} is {told}, and must be at {least} {bound:g}"
            yield Gate(name, found.slice, "value", figure, bound, holds, sentence)
