from __future__ import annotations

import dataclasses
import json

import keras_tuner
import pytest

from trainer.config import ModelConfig, TrainingConfig
from trainer.hyperparameters import TunerConfig, find_choices, with_hyperparameters

MODEL = ModelConfig(embedding_dim=8, hidden_units=(64, 32), dropout=0.0)
TRAINING = TrainingConfig(learning_rate=0.001)


def test_choices_begin_with_the_settings_own_value_and_have_none_twice():
    tuner = TunerConfig(learning_rate=(0.01, 0.001, 0.01), hidden_units=((4,), (64, 32)), embedding_dim=())
    choices = find_choices(tuner, MODEL, TRAINING)
    assert choices["learning_rate"] == [0.001, 0.01]
    assert choices["hidden_units"] == ["[64, 32]", "[4]"]
    assert "embedding_dim" not in choices


@pytest.mark.parametrize(("own", "first"), [(None, 0.001), (0.0002, 0.0002)])
def test_a_tables_step_is_tuned_from_the_one_that_it_has(own, first):
    training = dataclasses.replace(TRAINING, table_learning_rate=own)
    choices = find_choices(TunerConfig(table_learning_rate=(0.005,)), MODEL, training)
    assert choices["table_learning_rate"] == [first, 0.005]
    _, tuned = with_hyperparameters(MODEL, training, {"table_learning_rate": 0.005})
    assert tuned == dataclasses.replace(training, table_learning_rate=0.005)


def test_every_list_is_for_a_setting_and_has_its_type():
    settings = dataclasses.asdict(MODEL) | dataclasses.asdict(TRAINING)
    settings["table_learning_rate"] = TRAINING.learning_rate  # null is the same
    lists = {name: values for name, values in vars(TunerConfig()).items() if isinstance(values, tuple)}
    assert set(find_choices(TunerConfig(**{name: (settings[name],) for name in lists}), MODEL, TRAINING)) == set(lists)
    for name, values in lists.items():
        assert {type(value) for value in values} <= {type(settings[name])}, name


def test_the_chosen_values_are_the_settings_after_keras_tuners_own_json():
    tuner = TunerConfig(dropout=(0.5,), hidden_units=((4, 2),), learning_rate=(0.25,), embedding_dim=(3,))
    space = keras_tuner.HyperParameters()
    for name, choices in find_choices(tuner, MODEL, TRAINING).items():
        space.Choice(name, choices)
        space.values[name] = choices[-1]
    space.values["dropout"] = 0.0
    values = json.loads(json.dumps(space.get_config()))["values"]
    model, training = with_hyperparameters(MODEL, TRAINING, values)
    expected = dataclasses.replace(
        MODEL, hidden_units=(4, 2), embedding_dim=3, id_dropout=0.05, embedding_l2=0.2, dropout=0.0
    )
    assert model == expected
    assert type(model.dropout) is float
    assert training == dataclasses.replace(TRAINING, learning_rate=0.25)


def test_a_value_that_is_none_of_a_settings_is_refused():
    with pytest.raises(ValueError, match="neither the model nor its training has a setting depth"):
        with_hyperparameters(MODEL, TRAINING, {"depth": 3, "dropout": 0.1})
    with pytest.raises(ValueError, match="less than 1"):
        with_hyperparameters(MODEL, TRAINING, {"dropout": 1.5})


def test_nothing_to_choose_from_is_refused_only_where_there_is_tuning():
    lists = {name: () for name, values in vars(TunerConfig()).items() if isinstance(values, tuple)}
    TunerConfig(trials=0, **lists)
    TunerConfig(trials=2, **lists | {"dropout": (0.5,)})
    with pytest.raises(ValueError, match="trials is 2, but there is nothing to choose from"):
        TunerConfig(trials=2, **lists)
