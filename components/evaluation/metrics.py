"""TFMA metrics of click-through rates: one combiner for all of them, with intervals and the paired difference.

A `MetricConfig` names `ImpressionMetric` and, in its `config`, which figure it is. All share one computation, so that
a batch's impressions are looked at once in a slice. A figure is a `ValueWithTDistribution`, TFMA's own type for
intervals; its difference to the baseline's is paired: both models are measured without the same folds of users.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.api.types import ValueWithTDistribution
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.utils import model_util
from tensorflow_model_analysis.utils.math_util import calculate_confidence_interval

from components.evaluation.sketch import Measured, Sketch
from components.evaluation.statistics import Array, Estimate, estimate

UNIT = "ctr/unit"  # the feature by which impressions are told apart, see `extractors`
MODULE = __name__

# Names of the metrics in TFMA's output, with their intervals.
FIGURES = {
    "auc": "roc_auc",
    "auc_pr": "average_precision",
    "log_loss": "log_loss",
    "normalized_entropy": "normalized_entropy",
    "calibration": "calibration_ratio",
    "expected_calibration_error": "expected_calibration_error",
    "mean_label": "label_mean",
    "mean_prediction": "prediction_mean",
}
USER_FIGURES = {"gauc": "gauc", "ndcg": "ndcg_at_10", "mrr": "mrr"}
COUNTS = {"num_examples": "num_examples", "num_users": "num_users", "num_gauc_users": "num_gauc_users"}
SCORES = "score_bins"
# TFMA's names for the same figures, under which they are there once more, as plain numbers: TFMA's own classes take an
# impression at a time, and their AUC has 10,000 steps of equal width for all predictions, of which a low ctr uses few.
TFMA_NAMES = {
    "auc": "auc",
    "auc_precision_recall": "auc_pr",
    "binary_crossentropy": "log_loss",
    "calibration": "calibration",
    "example_count": "num_examples",
}
_SIDES = ("low", "high")


class ImpressionMetric(metric_types.Metric):
    """One figure of the impressions, or one side of its interval.

    Its config has `name`, what it is called in TFMA's output, and `figure`: a name in `FIGURES`, `USER_FIGURES` or
    `COUNTS`, or `SCORES`. With `side`, "low" or "high", it is that limit of the 95% interval of the difference to the
    baseline, for change thresholds: only there with a baseline. With `min_examples`, for slices, it is infinite where
    there are fewer impressions, and where the difference has no interval, as without a click, or with all clicks in one
    fold: nothing is known there that a gate could hold against a model. With `plain` it has no interval.
    """

    def __init__(
        self, name: str, figure: str, side: str = "", min_examples: int = 0, plain: bool = False, **others: Any
    ) -> None:
        del others  # `fingerprint` is for TFX's cache, the rest for `extractors`
        super().__init__(_computations, name=name, figure=figure, side=side, min_examples=min_examples, plain=plain)


def _computations(
    name: str,
    figure: str,
    side: str,
    min_examples: int,
    plain: bool,
    eval_config: config_pb2.EvalConfig,
    model_names: list[str],
    output_names: list[str],
    example_weighted: bool,
) -> metric_types.MetricComputations:
    baseline_spec = model_util.get_baseline_model_spec(eval_config)
    baseline = baseline_spec.name if baseline_spec else None
    # The candidate first; a lone model may have no name.
    models = sorted(model_names, key=lambda model: model == baseline)
    make_key = functools.partial(metric_types.MetricKey, output_name=output_names[0], example_weighted=example_weighted)
    shared = make_key(name="_impressions", model_name=models[0])
    measure = metric_types.MetricComputation(
        keys=[shared],
        preprocessors=[_Preprocessor(tuple(models), example_weighted)],
        combiner=_Combiner(shared, len(models)),
    )
    keys = [make_key(name=name, model_name=model) for model in models]
    difference = make_key(name=name, model_name=models[0], is_diff=True)
    result: Callable[..., dict[Any, Any]]
    if side:
        keys = [difference] if len(models) == 2 else []
        result = functools.partial(_limit, shared, difference, figure, side, min_examples)
    elif figure == SCORES:
        keys = keys[:1]  # both models' stand in one array
        result = functools.partial(_score_bins, shared, keys[0])
    elif figure in COUNTS:
        keys = keys[:1]
        result = functools.partial(_count, shared, keys[0], figure)
    else:
        result = functools.partial(_figure, shared, keys, difference, figure, plain)
        keys = [*keys, *([difference] if len(models) == 2 else [])]
    if not keys:
        return []
    return [measure, metric_types.DerivedMetricComputation(keys=keys, result=result)]


def _figure(
    shared: Any, keys: list[Any], difference: Any, figure: str, plain: bool, metrics: Mapping[Any, Measured]
) -> dict[Any, Any]:
    measured = metrics[shared]
    values = [model.get(figure) for model in measured.models]
    if values[0] is None:  # no user
        return dict.fromkeys(keys, math.nan)
    estimates = {key: estimate(v, measured.occupied) for key, v in zip(keys, values, strict=True)}
    if len(values) == 2:
        estimates[difference] = estimate(values[0] - values[1], measured.occupied)
    return {key: found.value if plain else _bounded(found) for key, found in estimates.items()}


def _limit(
    shared: Any, difference: Any, figure: str, side: str, min_examples: int, metrics: Mapping[Any, Measured]
) -> dict[Any, float]:
    measured = metrics[shared]
    low, high = -math.inf, math.inf
    if measured.num_examples >= min_examples:
        candidate, baseline = (model[figure] for model in measured.models)
        limits = interval(estimate(candidate - baseline, measured.occupied))
        if not (min_examples and math.isnan(limits[0])):
            low, high = limits
    return {difference: low if side == "low" else high}


def _count(shared: Any, key: Any, figure: str, metrics: Mapping[Any, Measured]) -> dict[Any, Any]:
    return {key: getattr(metrics[shared], figure)}


def _score_bins(shared: Any, key: Any, metrics: Mapping[Any, Measured]) -> dict[Any, Any]:
    """Returns for each model the number of its limits and then its four rows, one after the other."""
    bins = metrics[shared].score_bins
    return {key: np.concatenate([np.append(float(model.shape[1]), model.ravel()) for model in bins])}


def interval(found: Estimate) -> tuple[float, float]:
    """Returns the limits of the 95% interval, NaN where it has none."""
    if math.isnan(found.standard_error):
        return math.nan, math.nan
    _, low, high = calculate_confidence_interval(_bounded(found))
    return float(low), float(high)


def _bounded(found: Estimate) -> Any:
    if math.isnan(found.standard_error):
        return found.value
    return ValueWithTDistribution(found.value, found.standard_error, found.degrees_of_freedom, found.value)


class _Preprocessor(metric_types.Preprocessor):
    """Turns a slice's part of a batch, see `extractors`, into rows of `Sketch`."""

    def __init__(self, models: tuple[str, ...], weighted: bool) -> None:
        super().__init__()
        self._models = models
        self._weighted = weighted

    def process(self, extracts: tfma.Extracts) -> Iterator[Array]:
        """Yields the rows."""
        predictions = extracts[tfma.PREDICTIONS_KEY]
        each = [predictions[model] for model in self._models] if isinstance(predictions, dict) else [predictions]
        label = _first(extracts[tfma.LABELS_KEY], self._models)
        weight = _first(extracts[tfma.EXAMPLE_WEIGHTS_KEY], self._models) if self._weighted else np.ones(len(label))
        yield np.stack([extracts[tfma.FEATURES_KEY][UNIT], label, weight, *each], axis=1).astype(np.float64)


def _first(values: Any, models: tuple[str, ...]) -> Any:
    """Returns the values, the candidate's where TFMA keeps them for each model."""
    return values[models[0]] if isinstance(values, dict) else values


class _Combiner(beam.CombineFn):
    def __init__(self, key: Any, num_models: int) -> None:
        self._key = key
        self._num_models = num_models

    def create_accumulator(self) -> Sketch:
        return Sketch(self._num_models)

    def add_input(self, accumulator: Sketch, element: Array) -> Sketch:
        accumulator.add(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Sketch]) -> Sketch:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def compact(self, accumulator: Sketch) -> Sketch:
        accumulator.compact()
        return accumulator

    def extract_output(self, accumulator: Sketch) -> dict[Any, Measured]:
        return {self._key: accumulator.measure()}
