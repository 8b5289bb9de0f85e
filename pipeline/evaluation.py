"""What the Evaluator measures and when it blesses a model, and the words for what it decided."""

from __future__ import annotations

import dataclasses

import tensorflow_model_analysis as tfma

from pipeline.config import EvaluationConfig
from schemas.features import FeatureSpec

# The name in `summary.json` of each of TFMA's metrics.
METRICS = {
    "auc": "auc",
    "auc_pr": "auc_precision_recall",
    "log_loss": "binary_crossentropy",
    "calibration": "calibration",
}


def make_eval_config(config: EvaluationConfig, spec: FeatureSpec) -> tfma.EvalConfig:
    """Returns TFMA's configuration.

    The metrics are named here one by one, for a SavedModel brings none of its own. The bound on the AUC's change binds
    only where the Resolver found a blessed model to compare with.

    Args:
        config: Slices and thresholds.
        spec: The data set; its label is read from the raw examples.
    """
    auc = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": config.min_auc}),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -config.max_auc_loss}
        ),
    )
    metrics = [
        tfma.MetricConfig(class_name="ExampleCount"),
        tfma.MetricConfig(class_name="AUC", threshold=auc),
        tfma.MetricConfig(class_name="AUCPrecisionRecall"),
        tfma.MetricConfig(class_name="BinaryCrossentropy", threshold=_log_loss_threshold(config)),
        tfma.MetricConfig(class_name="Calibration"),
        tfma.MetricConfig(class_name="MeanLabel"),
        tfma.MetricConfig(class_name="MeanPrediction"),
        tfma.MetricConfig(class_name="CalibrationPlot"),
    ]
    eval_config = tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(signature_name="serving_default", prediction_key="ctr", label_key=spec.label.name)
        ],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
        slicing_specs=[tfma.SlicingSpec()]
        + [tfma.SlicingSpec(feature_keys=columns) for columns in config.slices],
    )
    eval_config.options.min_slice_size.value = config.min_slice_examples
    return eval_config


def _log_loss_threshold(config: EvaluationConfig) -> tfma.MetricThreshold | None:
    if config.max_log_loss is None:
        return None
    return tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(upper_bound={"value": config.max_log_loss})
    )


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


def read_verdict(evaluation_uri: str) -> Verdict:
    """Reads the Evaluator's output.

    Args:
        evaluation_uri: Folder of the ModelEvaluation artifact.
    """
    validation = tfma.load_validation_result(evaluation_uri)
    with_baseline = bool(validation.validation_details.slicing_details) and _has_baseline(evaluation_uri)
    result = tfma.load_eval_result(evaluation_uri, model_name="candidate" if with_baseline else None)
    overall = result.get_metrics_for_slice(())
    metrics = {name: float(overall[tfma_name]["doubleValue"]) for name, tfma_name in METRICS.items()}
    failures = tuple(
        _failure_sentence(failure, per_slice.slice_key)
        for per_slice in validation.metric_validations_per_slice
        for failure in per_slice.failures
    )
    return Verdict(metrics, validation.validation_ok, failures)


def _has_baseline(evaluation_uri: str) -> bool:
    config = tfma.load_eval_result(evaluation_uri).config
    return any(model.is_baseline for model in config.model_specs)


def _failure_sentence(failure: object, slice_key: object) -> str:
    return f"{failure} {slice_key}"
