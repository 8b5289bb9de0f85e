"""What the Evaluator measures, and when it blesses a model."""

from __future__ import annotations

import json
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.metrics import COUNTS, FIGURES, MODULE, SCORES, TFMA_NAMES, USER_FIGURES
from pipeline.config import EvaluationConfig
from schemas.features import FeatureSpec


def make_eval_config(config: EvaluationConfig, spec: FeatureSpec, features: str = "", fingerprint: str = "") -> Any:
    """Returns TFMA's configuration, an `EvalConfig`.

    The metrics are named here one by one, for a SavedModel brings none of its own. The bounds on changes bind only
    where the Resolver found a model in service to compare with.

    Args:
        config: Slices and thresholds.
        spec: The data set; its label is read from the raw examples.
        features: The spec's name, `package.module:NAME`, by which the Evaluator imports it.
        fingerprint: Of the sources of `components/evaluation`, so that a change of them is no cache hit.
    """
    figures = FIGURES | (USER_FIGURES if spec.group_key else {})
    thresholds = _thresholds(config)
    metrics = [_metric(written, name, *thresholds.get(name, ())) for name, written in figures.items()]
    metrics += [_metric(written, name) for name, written in COUNTS.items()]
    metrics += [_metric(written, name, plain=True) for written, name in TFMA_NAMES.items()]
    told = {"features": features, "fingerprint": fingerprint, "min_slice_examples": config.min_slice_examples}
    metrics.append(_metric(SCORES, SCORES, **told))
    metrics += _change_metrics(config)
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default",
                prediction_key="ctr",
                label_key=spec.label.name,
                example_weight_key=spec.weight or "",
            )
        ],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
        slicing_specs=_slicing_specs(((), *config.slices)),
    )


def _thresholds(config: EvaluationConfig) -> dict[str, list[Any]]:
    """Returns the bounds on all impressions together by the metric's name."""
    bounds = {
        "auc": {"lower_bound": config.min_auc},
        "calibration": {"lower_bound": config.min_calibration, "upper_bound": config.max_calibration},
    }
    if config.max_log_loss is not None:
        bounds["log_loss"] = {"upper_bound": config.max_log_loss}
    return {
        name: [
            config_pb2.PerSliceMetricThreshold(
                threshold=config_pb2.MetricThreshold(
                    value_threshold=config_pb2.GenericValueThreshold(
                        **{side: {"value": value} for side, value in sides.items()}
                    )
                ),
                # A plain `threshold` would hold for every slice, however small.
                slicing_specs=[config_pb2.SlicingSpec()],
            )
        ]
        for name, sides in bounds.items()
    }


def _change_metrics(config: EvaluationConfig) -> list[Any]:
    """Returns the metrics whose value is a limit of the difference to the baseline, with their bounds."""
    better, worse = config_pb2.MetricDirection.HIGHER_IS_BETTER, config_pb2.MetricDirection.LOWER_IS_BETTER
    metrics = [_change("auc", "low", -config.max_auc_drop, better, ((),))]
    if config.max_normalized_entropy_rise is not None:
        metrics.append(_change("normalized_entropy", "high", config.max_normalized_entropy_rise, worse, ((),)))
    if config.max_slice_auc_drop is not None and config.slices:
        bound, examples = -config.max_slice_auc_drop, config.min_gate_examples
        metrics.append(_change("auc", "high", bound, better, config.slices, min_examples=examples))
    return metrics


def _change(
    figure: str, side: str, bound: float, direction: int, slices: tuple[tuple[str, ...], ...], **settings: Any
) -> Any:
    threshold = config_pb2.PerSliceMetricThreshold(
        threshold=config_pb2.MetricThreshold(
            change_threshold=config_pb2.GenericChangeThreshold(direction=direction, absolute={"value": bound})
        ),
        slicing_specs=_slicing_specs(slices),
    )
    return _metric(f"{figure}_change_{side}", figure, threshold, side=side, **settings)


def _metric(name: str, figure: str, *thresholds: Any, **settings: Any) -> Any:
    return config_pb2.MetricConfig(
        class_name="ImpressionMetric",
        module=MODULE,
        config=json.dumps({"name": name, "figure": figure} | settings, sort_keys=True),
        per_slice_thresholds=thresholds,
    )


def _slicing_specs(slices: tuple[tuple[str, ...], ...]) -> list[Any]:
    return [config_pb2.SlicingSpec(feature_keys=columns) for columns in slices]
