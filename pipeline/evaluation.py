"""What the Evaluator measures and when it blesses a model, and the words for what it decided."""

from __future__ import annotations

import dataclasses

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2

from pipeline.config import EvaluationConfig
from schemas.features import FeatureSpec

# The name in `summary.json` of each of TFMA's metrics.
METRICS = {
    "auc": "auc",
    "auc_pr": "auc_precision_recall",
    "log_loss": "binary_crossentropy",
    "calibration": "calibration",
}


def make_eval_config(config: EvaluationConfig, spec: FeatureSpec) -> config_pb2.EvalConfig:
    """Returns TFMA's configuration.

    The metrics are named here one by one, for a SavedModel brings none of its own. The bound on the AUC's change binds
    only where the Resolver found a blessed model to compare with.

    Args:
        config: Slices and thresholds.
        spec: The data set; its label is read from the raw examples.
    """
    auc = config_pb2.MetricThreshold(
        value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": config.min_auc}),
        change_threshold=config_pb2.GenericChangeThreshold(
            direction=config_pb2.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -config.max_auc_drop}
        ),
    )
    bounds = (
        []
        if config.max_log_loss is None
        else [
            config_pb2.MetricThreshold(
                value_threshold=config_pb2.GenericValueThreshold(upper_bound={"value": config.max_log_loss})
            )
        ]
    )
    metrics = [
        config_pb2.MetricConfig(class_name="ExampleCount"),
        config_pb2.MetricConfig(class_name="AUC", per_slice_thresholds=_overall(auc)),
        config_pb2.MetricConfig(class_name="AUCPrecisionRecall"),
        config_pb2.MetricConfig(class_name="BinaryCrossentropy", per_slice_thresholds=_overall(*bounds)),
        config_pb2.MetricConfig(class_name="Calibration"),
    ]
    eval_config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default",
                prediction_key="ctr",
                label_key=spec.label.name,
                example_weight_key=spec.weight or "",
            )
        ],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
        slicing_specs=[config_pb2.SlicingSpec()]
        + [config_pb2.SlicingSpec(feature_keys=columns) for columns in config.slices],
    )
    eval_config.options.min_slice_size.value = config.min_slice_examples
    return eval_config


def _overall(*thresholds: config_pb2.MetricThreshold) -> list[config_pb2.PerSliceMetricThreshold]:
    """Binds thresholds to all impressions together: a plain `threshold` would hold for every slice, however small."""
    return [
        config_pb2.PerSliceMetricThreshold(threshold=threshold, slicing_specs=[config_pb2.SlicingSpec()])
        for threshold in thresholds
    ]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What an evaluation came to.

    Attributes:
        metrics: Overall metrics of the candidate by their names in `METRICS`.
        blessed: Whether every threshold holds.
        failures: One sentence for each threshold that does not.
    """

    metrics: dict[str, float]
    blessed: bool
    failures: tuple[str, ...]


def read_verdict(evaluation_uri: str, has_baseline: bool) -> Verdict:
    """Reads the Evaluator's output.

    Args:
        evaluation_uri: Folder of the ModelEvaluation artifact.
        has_baseline: Whether there was a model to compare with.
    """
    validation = tfma.load_validation_result(evaluation_uri)
    result = tfma.load_eval_result(evaluation_uri, model_name="candidate" if has_baseline else None)
    overall = result.get_metrics_for_slice(())
    metrics = {name: float(overall[tfma_name]["doubleValue"]) for name, tfma_name in METRICS.items()}
    failures = [
        failure_sentence(failure)
        for per_slice in validation.metric_validations_per_slice
        for failure in per_slice.failures
    ]
    if validation.missing_thresholds:
        failures.append("no threshold was checked")
    return Verdict(metrics, validation.validation_ok, tuple(failures))


def failure_sentence(failure: validation_result_pb2.ValidationFailure) -> str:
    """Returns one sentence with the metric, its value and the bound that it broke.

    Args:
        failure: A threshold that does not hold; the value of a change threshold is candidate minus baseline.
    """
    names = {tfma_name: name for name, tfma_name in METRICS.items()}
    metric = names.get(failure.metric_key.name, failure.metric_key.name)
    value = failure.metric_value.double_value.value
    threshold = failure.metric_threshold
    if threshold.HasField("change_threshold"):
        allowed = -threshold.change_threshold.absolute.value
        return f"{metric} is {-value:.4f} below the baseline's, and may be at most {allowed:g} below"
    bounds = threshold.value_threshold
    if bounds.HasField("lower_bound") and not value >= bounds.lower_bound.value:
        return f"{metric} is {value:.4f}, and must be at least {bounds.lower_bound.value:g}"
    return f"{metric} is {value:.4f}, and must be at most {bounds.upper_bound.value:g}"
