from __future__ import annotations

import pytest
from google.protobuf import text_format
from tensorflow_model_analysis.proto import validation_result_pb2

from pipeline.config import EvaluationConfig
from pipeline.evaluation import failure_sentence, make_eval_config
from schemas.features import FeatureSpec, IdFeature, Label

SPEC = FeatureSpec("s", (IdFeature("item", 10),), label=Label("click"))


def _metrics(config):
    (specs,) = make_eval_config(config, SPEC).metrics_specs
    return {metric.class_name: metric for metric in specs.metrics}


def test_metrics_label_and_slices_are_named():
    config = EvaluationConfig(slices=(("gender",), ("gender", "age")), min_slice_examples=7)
    eval_config = make_eval_config(config, SPEC)
    assert {"ExampleCount", "AUC", "AUCPrecisionRecall", "BinaryCrossentropy", "Calibration"} <= set(_metrics(config))
    (model,) = eval_config.model_specs
    assert (model.signature_name, model.prediction_key, model.label_key) == ("serving_default", "ctr", "click")
    assert [list(slicing.feature_keys) for slicing in eval_config.slicing_specs] == [[], ["gender"], ["gender", "age"]]
    assert eval_config.options.min_slice_size.value == 7


def test_thresholds_bind_the_overall_slice_only():
    config = EvaluationConfig(slices=(("gender",),), min_auc=0.6, max_auc_drop=0.01, max_log_loss=0.7)
    metrics = _metrics(config)
    (auc,) = metrics["AUC"].per_slice_thresholds
    assert [list(slicing.feature_keys) for slicing in auc.slicing_specs] == [[]]
    assert auc.threshold.value_threshold.lower_bound.value == 0.6
    assert auc.threshold.change_threshold.absolute.value == -0.01
    (log_loss,) = metrics["BinaryCrossentropy"].per_slice_thresholds
    assert log_loss.threshold.value_threshold.upper_bound.value == 0.7
    assert not any(metric.HasField("threshold") for metric in metrics.values())
    assert not _metrics(EvaluationConfig())["BinaryCrossentropy"].per_slice_thresholds


FAILURES = {
    "too low": (
        """metric_key { name: "auc" } metric_value { double_value { value: 0.45123 } }
           metric_threshold { value_threshold { lower_bound { value: 0.5 } } }""",
        "auc is 0.4512, and must be at least 0.5",
    ),
    "zero": (
        """metric_key { name: "auc" } metric_value { double_value { } }
           metric_threshold { value_threshold { lower_bound { value: 0.5 } } }""",
        "auc is 0.0000, and must be at least 0.5",
    ),
    "not a number": (
        """metric_key { name: "auc" } metric_value { double_value { value: nan } }
           metric_threshold { value_threshold { lower_bound { value: 0.5 } } }""",
        "auc is nan, and must be at least 0.5",
    ),
    "too high": (
        """metric_key { name: "binary_crossentropy" } metric_value { double_value { value: 0.7 } }
           metric_threshold { value_threshold { upper_bound { value: 0.65 } } }""",
        "log_loss is 0.7000, and must be at most 0.65",
    ),
    "worse than the baseline": (
        """metric_key { name: "auc" is_diff: true } metric_value { double_value { value: -0.02 } }
           metric_threshold { change_threshold { absolute { value: -0.005 } direction: HIGHER_IS_BETTER } }""",
        "auc is 0.0200 below the baseline's, and may be at most 0.005 below",
    ),
}


@pytest.mark.parametrize(("failure", "sentence"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_threshold_is_one_sentence(failure, sentence):
    assert failure_sentence(text_format.Parse(failure, validation_result_pb2.ValidationFailure())) == sentence
