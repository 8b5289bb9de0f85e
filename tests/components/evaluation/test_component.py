from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import tensorflow_model_analysis as tfma

from components.evaluation.results import read_evaluation
from pipeline.config import EvaluationConfig
from tests.components.evaluation import impressions as drawn

SLICES = (("genre",), ("user_new",), ("user_colliding",), ("genre", "time_of_day"), ("history_length",))


@pytest.fixture(scope="module")
def impressions():
    return drawn.draw_impressions(1500)


@pytest.fixture(scope="module")
def train():
    return drawn.draw_impressions(60, seed=1)  # six users, of 150


@pytest.fixture(scope="module")
def evaluation(impressions, train, tmp_path_factory):
    config = EvaluationConfig(slices=SLICES, min_calibration=0, max_calibration=9)
    folder = tmp_path_factory.mktemp("evaluation")
    made, _ = drawn.evaluate(impressions, config, folder, spec=drawn.WEIGHTED, train=train)
    return made


@pytest.fixture(scope="module")
def slices(evaluation):
    return {part.slice: part for part in read_evaluation(evaluation.uri).slices}


def _rows(impressions, train, key):
    """Which impressions a slice has, told in another way."""
    hours = impressions.timestamp % 86_400 // 3600
    columns = {
        "genre": [drawn.genre_name(genre) for genre in impressions.genre],
        "user_new": ["known" if user in set(train.user) else "new" for user in impressions.user],
        "time_of_day": [f"{hour - hour % 6:02}-{hour - hour % 6 + 6:02}" for hour in hours],
        "history_length": ["0" if not ids else "1-4" if len(ids) < 5 else "5-19" for ids in impressions.history],
    }
    return np.all([np.array(columns[column]) == value for column, value in key], axis=0)


def test_each_slice_has_the_metrics_of_its_impressions(slices, impressions, train):
    keys = [key for key in slices if key and key[0][0] != "user_colliding"]
    assert len(keys) == 2 + 2 + 2 * 4 + 3
    for key in keys:
        rows = _rows(impressions, train, key)
        label, weight = impressions.label[rows], impressions.weight[rows]
        assert slices[key].num_examples == rows.sum()
        assert slices[key].num_users == len(np.unique(impressions.user[rows]))
        for model, predictions in (
            ("candidate", impressions.candidate[rows]),
            ("baseline", impressions.baseline[rows]),
        ):
            found = getattr(slices[key], model)
            auc = sklearn.metrics.roc_auc_score(label, predictions, sample_weight=weight)
            log_loss = sklearn.metrics.log_loss(label, predictions, sample_weight=weight)
            assert (found["auc"].value, found["log_loss"].value) == pytest.approx((auc, log_loss), rel=1e-6)
        difference = slices[key].candidate["auc"].value - slices[key].baseline["auc"].value
        assert slices[key].difference["auc"].value == pytest.approx(difference, abs=1e-9)


def test_of_six_users_in_ten_buckets_some_collide_with_those_of_the_eval_split(slices):
    values = {key[0][1]: part.num_examples for key, part in slices.items() if key and key[0][0] == "user_colliding"}
    assert set(values) == {"colliding", "alone"}
    assert sum(values.values()) == 1500


def test_tfmas_api_has_the_figures_under_tfmas_names(evaluation, slices):
    for model in ("candidate", "baseline"):
        result = tfma.load_eval_result(evaluation.uri, model_name=model)
        assert len(result.get_slice_names()) == len(slices)
        own = {name: figure.get("doubleValue") for name, figure in result.get_metrics_for_slice(()).items()}
        figures = getattr(slices[()], model)
        for name, figure in (
            ("auc", "auc"), ("auc_precision_recall", "auc_pr"), ("binary_crossentropy", "log_loss"),
            ("calibration", "calibration"),
        ):  # fmt: skip
            assert own[name] == pytest.approx(figures[figure].value)
    assert tfma.load_eval_result(evaluation.uri, model_name="candidate").get_metrics_for_slice(())["example_count"] == {
        "doubleValue": 1500
    }


def test_no_interval_goes_beyond_what_a_figure_can_be(tmp_path):
    made, _ = drawn.evaluate(drawn.draw_impressions(60), EvaluationConfig(max_calibration=9), tmp_path)
    (few,) = read_evaluation(made.uri).slices
    found = few.candidate["auc_pr"]
    assert found.low < found.value < found.high == 1  # 1.002 as it comes out of the folds
    assert few.candidate["calibration"].high > 1
    assert few.difference["auc"].low < 0


def test_tfma_measures_about_the_same_itself(impressions, tmp_path, evaluation):
    """Its own classes, on its own way of slicing."""
    metrics = tfma.metrics.specs_from_metrics([tfma.metrics.AUC(), tfma.metrics.Calibration()])
    config = tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(prediction_key="prediction", label_key="label", example_weight_key="weight")],
        metrics_specs=metrics,
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=["genre"])],
    )
    frame = pd.DataFrame({"prediction": impressions.candidate, "label": impressions.label,
                          "weight": impressions.weight, "genre": impressions.genre})  # fmt: skip
    result = tfma.analyze_raw_data(frame, config, output_path=str(tmp_path))
    ours = tfma.load_eval_result(evaluation.uri, model_name="candidate")
    for theirs, key in (((), ()), ((("genre", 1),), (("genre", "<b>1</b>"),))):
        expected, found = result.get_metrics_for_slice(theirs), ours.get_metrics_for_slice(key)
        assert found["auc"]["doubleValue"] == pytest.approx(expected["auc"]["doubleValue"], abs=1e-3)
        assert found["calibration"]["doubleValue"] == pytest.approx(expected["calibration"]["doubleValue"], rel=1e-5)


def test_an_evaluation_without_such_slices_reads_no_training_split(impressions, tmp_path):
    made, blessing = drawn.evaluate(impressions, EvaluationConfig(slices=(("genre",),)), tmp_path, has_baseline=False)
    assert not (tmp_path / "evaluation" / "training_ids").exists()
    (overall, *parts) = read_evaluation(made.uri).slices
    assert overall.baseline is overall.difference is None
    assert [part.slice for part in parts] == [(("genre", "<b>0</b>"),), (("genre", "<b>1</b>"),)]
    assert blessing.get_int_custom_property("blessed") == 1
    assert made.get_string_custom_property("failed_gates") == ""


@pytest.mark.parametrize(
    ("feature", "told"),
    [
        ({"name": "genre", "dtype": "int64", "kind": "IdFeature"}, "genre, which is string now"),
        ({"name": "genre", "dtype": "string", "kind": "IdSequence"}, "genre, which is string now"),
        ({"name": "sku", "dtype": "string", "kind": "IdFeature"}, "sku, which is not there now"),
    ],
)
def test_a_baseline_that_reads_other_features_is_not_measured_without_them(feature, told, tmp_path):
    user = {"name": "user", "dtype": "string", "kind": "IdFeature"}
    asset = tmp_path / "baseline" / "Format-Serving" / "assets.extra" / "feature_spec.json"
    asset.parent.mkdir(parents=True)
    asset.write_text(json.dumps({"features": [user, feature]}))
    told = f"the model in service, {tmp_path}/baseline, reads {told}: .* --set evaluation.baseline=false"
    with pytest.raises(ValueError, match=told):
        drawn.evaluate(drawn.draw_impressions(60), EvaluationConfig(), tmp_path)
