from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.evaluation.results import read_evaluation
from pipeline.config import EvaluationConfig
from tests.components.evaluation import impressions as drawn

# The pipeline's own gates but for the calibration, which these predictions do not have.
CONFIG = EvaluationConfig(
    slices=(("genre",), ("time_of_day",)), min_gate_examples=400, min_calibration=0.5, max_calibration=2.0
)


def _evaluate(folder, spoil=None, config=CONFIG):
    """Candidate and baseline are the same model, but where the candidate is spoilt."""
    impressions = drawn.draw_impressions(6000, num_genres=12)
    candidate = impressions.baseline.copy()
    if spoil:
        spoil(impressions, candidate)
    made, blessing = drawn.evaluate(dataclasses.replace(impressions, candidate=candidate), config, folder)
    return read_evaluation(made.uri), made, blessing


def _shuffle_one_genre(impressions, candidate):
    """What a model says that has learned one genre with shuffled labels: nothing, but on average the right thing."""
    rows = np.flatnonzero(impressions.genre == 7)
    candidate[rows] = np.random.default_rng(2).permutation(candidate[rows])


def test_a_model_that_is_degraded_in_one_slice_is_caught_by_the_slice_gate_and_by_nothing_else(tmp_path):
    evaluation, made, blessing = _evaluate(tmp_path, _shuffle_one_genre)
    assert not evaluation.blessed
    assert blessing.get_int_custom_property("blessed") == 0
    (failed,) = (gate for gate in evaluation.gates if not gate.passed)
    assert (failed.metric, failed.slice, failed.kind) == ("auc", (("genre", "<b>7</b>"),), "change")
    assert failed.figure.high < failed.bound == -0.02
    assert made.get_string_custom_property("failed_gates") == failed.sentence
    assert failed.sentence.startswith(f"auc in genre=<b>7</b> is {failed.figure.value:+.4f} beside the baseline's (95%")
    # It is the other gates, and not their absence, that let it through.
    assert {gate.metric for gate in evaluation.gates if not gate.slice} == {"auc", "calibration", "normalized_entropy"}
    assert sum(bool(gate.slice) for gate in evaluation.gates) > 12


def test_without_the_slice_gate_it_is_blessed(tmp_path):
    config = dataclasses.replace(CONFIG, max_slice_auc_drop=None)
    evaluation, _, blessing = _evaluate(tmp_path, _shuffle_one_genre, config)
    assert evaluation.blessed
    assert all(gate.passed for gate in evaluation.gates)
    assert blessing.get_int_custom_property("blessed") == 1


def _predict_too_much(impressions, candidate):
    candidate[:] = np.minimum(candidate + 0.3, 0.999)


@pytest.mark.parametrize(
    ("settings", "spoil", "metric", "words"),
    [
        ({"min_auc": 0.95}, None, "auc", "must be at least 0.95"),
        ({"max_log_loss": 0.1}, None, "log_loss", "must be at most 0.1"),
        ({"max_calibration": 1.1, "max_normalized_entropy_rise": 9.0, "max_auc_drop": 0.5}, _predict_too_much,
         "calibration", "must be at most 1.1"),
        ({"max_calibration": 9.0, "max_auc_drop": 0.5}, _predict_too_much, "normalized_entropy", "upper limit must be"),
    ],
    ids=["auc", "log loss", "calibration", "change of the normalized entropy"],
)  # fmt: skip
def test_each_gate_that_fails_is_named_with_its_figure_and_its_bound(tmp_path, settings, spoil, metric, words):
    config = dataclasses.replace(CONFIG, slices=(), **settings)
    evaluation, made, blessing = _evaluate(tmp_path, spoil, config)
    (failed,) = (gate for gate in evaluation.gates if not gate.passed)
    assert failed.metric == metric
    assert words in failed.sentence
    assert f"{failed.figure.value:.4f}" in failed.sentence
    assert made.get_string_custom_property("failed_gates") == failed.sentence
    assert blessing.get_int_custom_property("blessed") == 0
