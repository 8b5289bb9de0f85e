from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from components.evaluation.results import read_evaluation
from pipeline.config import EvaluationConfig
from tests.components.evaluation import impressions as drawn


def _evaluate(folder, config, spoil):
    """Candidate and baseline are the same model, but where the candidate is spoilt."""
    impressions = drawn.draw_impressions(6000, num_genres=12)
    candidate = impressions.baseline.copy()
    spoil(impressions, candidate)
    made, blessing = drawn.evaluate(dataclasses.replace(impressions, candidate=candidate), config, folder)
    return read_evaluation(made.uri), made, blessing


def test_a_model_that_is_degraded_in_one_slice_is_caught_by_the_slice_gate_and_by_nothing_else(tmp_path):
    def shuffle_one_genre(impressions, candidate):
        """What one says that has learned a genre with shuffled labels: nothing, and on average the right thing."""
        rows = np.flatnonzero(impressions.genre == 7)
        candidate[rows] = np.random.default_rng(2).permutation(candidate[rows])

    config = EvaluationConfig(
        slices=(("genre",), ("time_of_day",)),
        min_gate_examples=400,
        min_slice_examples=460,  # the smallest genre has fewer
        max_auc_drop=0.03,  # of which the genre's twelfth of the impressions takes 0.02
        max_normalized_entropy_rise=0.1,
        min_auc=0.6,
        max_log_loss=2.0,
        min_calibration=0.9,
    )
    evaluation, made, blessing = _evaluate(tmp_path, config, shuffle_one_genre)
    (failed,) = (gate for gate in evaluation.gates if not gate.passed)
    assert (failed.metric, failed.slice, failed.kind) == ("auc", (("genre", "<b>7</b>"),), "change")
    assert failed.figure.high < failed.bound == -0.02
    assert made.get_string_custom_property("failed_gates") == failed.sentence
    assert failed.sentence.startswith(f"auc in genre=<b>7</b> is {failed.figure.value:+.4f} beside the baseline's (95%")
    assert not evaluation.blessed
    assert blessing.get_int_custom_property("blessed") == 0
    # The others were asked, and let it through.
    overall = [gate.metric for gate in evaluation.gates if not gate.slice]
    assert sorted(overall) == ["auc", "auc", "calibration", "calibration", "log_loss", "normalized_entropy"]
    genres = np.bincount(drawn.draw_impressions(6000, num_genres=12).genre)
    assert len(evaluation.gates) == len(overall) + (genres >= 460).sum() + 4
    assert (genres < 460).any()


def test_every_gate_that_fails_is_named_with_its_figure_and_its_bound(tmp_path):
    def predict_too_much(impressions, candidate):
        candidate[:] = np.minimum(candidate + 0.5, 0.999)

    config = EvaluationConfig(min_auc=0.95, max_log_loss=0.1, max_calibration=1.1, max_auc_drop=0.01)
    evaluation, made, blessing = _evaluate(tmp_path, config, predict_too_much)
    failed = {(gate.metric, gate.kind): gate for gate in evaluation.gates if not gate.passed}
    words = {
        ("auc", "value"): "and must be at least 0.95",
        ("auc", "change"): "its lower limit must be at least -0.01",
        ("log_loss", "value"): "and must be at most 0.1",
        ("calibration", "value"): "and must be at most 1.1",
        ("normalized_entropy", "change"): "its upper limit must be at most +0.01",
    }
    assert failed.keys() == words.keys()
    for key, gate in failed.items():
        assert gate.sentence.startswith(f"{key[0]} is ")
        assert f"{gate.figure.value:.4f}"[1:] in gate.sentence
        assert words[key] in gate.sentence
    assert made.get_string_custom_property("failed_gates").splitlines() == [gate.sentence for gate in failed.values()]
    assert blessing.get_int_custom_property("blessed") == 0


def test_impressions_without_a_click_bless_no_model_and_say_why(tmp_path):
    impressions = drawn.draw_impressions(600)
    impressions = dataclasses.replace(impressions, label=np.zeros_like(impressions.label))
    made, blessing = drawn.evaluate(impressions, EvaluationConfig(min_auc=0.6, min_calibration=0.9), tmp_path)
    sentences = [gate.sentence for gate in read_evaluation(made.uri).gates if not gate.passed]
    assert {"auc is not defined, and must be at least 0.6", "calibration is not defined, and must be at least 0.9"} <= {
        *sentences
    }
    assert blessing.get_int_custom_property("blessed") == 0


def test_a_slice_in_which_nothing_can_be_shown_is_not_held_against_a_model(tmp_path):
    impressions = drawn.draw_impressions(6000, num_genres=4)
    label, user = impressions.label.copy(), impressions.user.copy()
    no_click, one_user = (np.flatnonzero(impressions.genre == genre) for genre in (2, 3))
    label[no_click] = label[one_user] = 0
    label[one_user[:3]], user[one_user[:3]] = 1, user[one_user[0]]
    impressions = dataclasses.replace(impressions, label=label, user=user, candidate=impressions.baseline.copy())
    config = EvaluationConfig(slices=(("genre",),), min_calibration=0.1, max_calibration=5.0)
    made, _ = drawn.evaluate(impressions, config, tmp_path)
    evaluation = read_evaluation(made.uri)
    assert evaluation.blessed
    genres = [gate.slice[0][1] for gate in evaluation.gates if gate.slice]
    assert len(genres) == 2
    assert all(gate.passed for gate in evaluation.gates)


def test_a_kind_of_slice_of_which_there_is_none_is_not_held_against_a_model(tmp_path, caplog):
    config = EvaluationConfig(
        slices=(("genre",), ("user", "genre")),
        min_slice_examples=700,
        max_auc_drop=0.0,
        max_normalized_entropy_rise=0.0,
    )
    evaluation, made, blessing = _evaluate(tmp_path, config, lambda *_: None)
    assert evaluation.blessed
    assert [part.slice for part in evaluation.slices] == [()]
    assert all(gate.passed for gate in evaluation.gates)
    assert blessing.get_int_custom_property("blessed") == 1
    assert [path.name for path in pathlib.Path(blessing.uri).iterdir()] == ["BLESSED"]
    told = [message for message in caplog.messages if message.startswith("no slice by ")]
    assert told == [f"no slice by {kind} is in the eval split, or large enough" for kind in ("genre", "user and genre")]
    assert made.get_string_custom_property("failed_gates") == ""


def test_what_a_slice_is_called_is_printable_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "genre_name", ["\x1b[31mred\n\x07", "caf\u00e9 \u202e"].__getitem__)
    made, _ = drawn.evaluate(drawn.draw_impressions(6000), EvaluationConfig(slices=(("genre",),)), tmp_path)
    sentences = [gate.sentence for gate in read_evaluation(made.uri).gates if gate.slice]
    named = {sentence.split(" is ")[0] for sentence in sentences}
    assert named == {r"auc in genre=\x1b[31mred\n\x07", "auc in genre=caf\u00e9 \\u202e"}
