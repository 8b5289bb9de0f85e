from __future__ import annotations

import json

from google.protobuf import json_format

from components.evaluation.extractors import read_settings
from components.evaluation.metrics import FIGURES, USER_FIGURES
from pipeline.config import EvaluationConfig
from pipeline.evaluation import make_eval_config
from schemas.features import FeatureSpec, IdFeature, Label

SPEC = FeatureSpec("s", (IdFeature("item", 10), IdFeature("user", 10)), label=Label("click"), group_key="user")
NO_USER = FeatureSpec("s", (IdFeature("item", 10),), weight="weight")


def _metrics(config, spec=SPEC):
    (specs,) = make_eval_config(config, spec).metrics_specs
    return {json.loads(metric.config or "{}").get("name", metric.class_name): metric for metric in specs.metrics}


def _thresholds(metric):
    """The bound of a metric, and the columns of the slices that it binds."""
    if not metric.per_slice_thresholds:
        return None
    (bound,) = metric.per_slice_thresholds
    return json_format.MessageToDict(bound.threshold), [list(slicing.feature_keys) for slicing in bound.slicing_specs]


def test_metrics_label_and_slices_are_named():
    config = EvaluationConfig(slices=(("gender",), ("gender", "age")), min_slice_examples=7)
    eval_config = make_eval_config(config, SPEC, "package.module:SPEC")
    names = set(_metrics(config))
    assert {"auc", "auc_precision_recall", "binary_crossentropy", "calibration", "example_count"} <= names
    assert {*FIGURES.values(), *USER_FIGURES.values(), "num_examples", "score_bins"} <= names
    (model,) = eval_config.model_specs
    assert (model.signature_name, model.prediction_key, model.label_key) == ("serving_default", "ctr", "click")
    assert [list(slicing.feature_keys) for slicing in eval_config.slicing_specs] == [[], ["gender"], ["gender", "age"]]
    assert read_settings(eval_config)["min_slice_examples"] == 7


def test_without_a_group_key_there_are_no_metrics_by_user():
    assert not set(USER_FIGURES.values()) & set(_metrics(EvaluationConfig(), NO_USER))
    assert make_eval_config(EvaluationConfig(), NO_USER).model_specs[0].example_weight_key == "weight"


def test_values_are_bound_overall_only():
    metrics = _metrics(EvaluationConfig(slices=(("gender",),), min_auc=0.6, max_log_loss=0.7))
    assert _thresholds(metrics["roc_auc"]) == ({"valueThreshold": {"lowerBound": 0.6}}, [[]])
    assert _thresholds(metrics["log_loss"]) == ({"valueThreshold": {"upperBound": 0.7}}, [[]])
    assert _thresholds(metrics["calibration_ratio"]) == (
        {"valueThreshold": {"lowerBound": 0.9, "upperBound": 1.1}},
        [[]],
    )
    assert not any(metric.HasField("threshold") for metric in metrics.values())
    assert _thresholds(_metrics(EvaluationConfig())["log_loss"]) is None


def test_changes_are_bound_by_a_limit_of_their_interval():
    slices = (("gender",), ("gender", "age"))
    config = EvaluationConfig(
        slices=slices, max_auc_drop=0.01, max_normalized_entropy_rise=0.02, max_slice_auc_drop=0.03, min_gate_examples=9
    )
    metrics = _metrics(config)
    better, worse = "HIGHER_IS_BETTER", "LOWER_IS_BETTER"
    assert _thresholds(metrics["auc_change_low"]) == (
        {"changeThreshold": {"absolute": -0.01, "direction": better}},
        [[]],
    )
    assert _thresholds(metrics["normalized_entropy_change_high"]) == (
        {"changeThreshold": {"absolute": 0.02, "direction": worse}},
        [[]],
    )
    assert _thresholds(metrics["auc_change_high"]) == (
        {"changeThreshold": {"absolute": -0.03, "direction": better}},
        [list(columns) for columns in slices],
    )
    assert json.loads(metrics["auc_change_high"].config)["min_examples"] == 9
    off = EvaluationConfig(slices=slices, max_normalized_entropy_rise=None, max_slice_auc_drop=None)
    assert set(metrics) - set(_metrics(off)) == {"normalized_entropy_change_high", "auc_change_high"}
