from __future__ import annotations

from tfx.types.standard_artifacts import Model, ModelBlessing

from components.earlier.model import BaselineStrategy


def _resolve(*models):
    """Returns the id of the resolved model; a model is (id, blessed, rolled back)."""
    artifacts, blessings = [], []
    for number, is_blessed, is_rolled_back in models:
        model, blessing = Model(), ModelBlessing()
        model.id, blessing.id = number, 100 + number
        if is_rolled_back:
            model.set_string_custom_property("rolled_back", "2026-11-24T09:00:00+00:00")
        blessing.set_int_custom_property("current_model_id", number)
        blessing.set_int_custom_property("blessed", int(is_blessed))
        artifacts.append(model)
        blessings.append(blessing)
    resolved = BaselineStrategy().resolve_artifacts(None, {"model": artifacts, "model_blessing": blessings})
    assert len(resolved["model"]) == len(resolved["model_blessing"])
    return [model.id for model in resolved["model"]]


def test_the_latest_blessed_model_is_the_baseline():
    assert _resolve((1, True, False), (2, True, False), (3, False, False)) == [2]


def test_a_model_that_was_rolled_back_is_not():
    assert _resolve((1, True, False), (2, True, True)) == [1]
    assert _resolve((1, True, True)) == []


def test_without_models_there_is_none():
    assert _resolve() == []
