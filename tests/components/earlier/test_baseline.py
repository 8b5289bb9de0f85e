from __future__ import annotations

import pytest
from tfx.types.standard_artifacts import Model, ModelBlessing

from components.earlier.model import BaselineStrategy


@pytest.fixture
def resolve(tmp_path):
    """Returns the id of the resolved model; a model is (id, blessed, rolled back)."""

    def call(*models, gone=()):
        artifacts, blessings = [], []
        for number, is_blessed, is_rolled_back in models:
            model, blessing = Model(), ModelBlessing()
            model.id, blessing.id = number, 100 + number
            model.uri = str(tmp_path / str(number))
            if number not in gone:
                (tmp_path / str(number)).mkdir(exist_ok=True)
            if is_rolled_back:
                model.set_string_custom_property("rolled_back", "2026-11-24T09:00:00+00:00")
            blessing.set_int_custom_property("current_model_id", number)
            blessing.set_int_custom_property("blessed", int(is_blessed))
            artifacts.append(model)
            blessings.append(blessing)
        resolved = BaselineStrategy().resolve_artifacts(None, {"model": artifacts, "model_blessing": blessings})
        assert [blessing.id - 100 for blessing in resolved["model_blessing"]] == [m.id for m in resolved["model"]]
        return [model.id for model in resolved["model"]]

    return call


def test_the_latest_blessed_model_is_the_baseline(resolve):
    assert resolve((1, True, False), (2, True, False), (3, False, False)) == [2]


def test_a_model_that_was_rolled_back_is_not(resolve):
    assert resolve((1, True, False), (2, True, True)) == [1]
    assert resolve((1, True, True)) == []


def test_a_model_whose_folder_is_gone_is_not_and_is_named(resolve, caplog, tmp_path):
    assert resolve((1, True, False), (2, True, False), (3, False, False), gone=(2, 3)) == [1]
    assert caplog.messages == [f"{tmp_path}/2 is gone: an older Model is used, or none"]


def test_without_models_there_is_none(resolve):
    assert resolve() == []
