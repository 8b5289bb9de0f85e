from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from trainer.config import ModelConfig, TrainingConfig
from trainer.model import model_fn
from trainer.run import _earlier_state
from trainer.train import compile_model, logit_shift, train
from trainer.warm_start import FOLDER, hand_on, read_steps, save_state, warm_start

ITEM = IdFeature("item", 20, table="item")
HISTORY = IdSequence("history", 20, max_length=2, table="item")
USER = IdFeature("user", 30)
AGE, PRICE = NumericFeature("age"), NumericFeature("price")
SPEC = FeatureSpec("spec", (ITEM, HISTORY, USER, AGE, PRICE))
MODEL = ModelConfig(embedding_dim=2, hidden_units=(4, 3), fm_numbers=True, embedding_stddev=0.1)


def _batches(spec, seed=1):
    generator = np.random.default_rng(seed)
    columns = [generator.integers(0, field.num_buckets + 1, [64, field.max_length]) for field in spec.id_fields]
    features = {"ids": np.concatenate(columns, axis=1), "numbers": generator.normal(size=[64, len(spec.numbers)])}
    features["numbers"] = np.float32(features["numbers"])
    label = np.float32(features["ids"][:, :1] % 2)
    return tf.data.Dataset.from_tensor_slices((features, label)).batch(16)


def _train(spec, folder, config=None, earlier=None, model_config=MODEL, seed=1):
    model = model_fn(spec, model_config, seed)
    config = config or TrainingConfig(max_epochs=3, learning_rate=0.01)
    return model, train(model, _batches(spec), _batches(spec, 2), config, str(folder), earlier_state=earlier)


@pytest.fixture
def state(tmp_path):
    model, _ = _train(SPEC, tmp_path / "logs")
    save_state(model, tmp_path / "state")
    return model, tmp_path / "state"


def _untrained(spec, model_config=MODEL, config=None):
    model = model_fn(spec, model_config, seed=9)
    compile_model(model, config or TrainingConfig())
    return model


def _of(model):
    optimizer = model.optimizer
    (table,) = model.tables
    values = {
        variable.path: variable.numpy()
        for variable in (*model.variables, *optimizer.rest.variables)
        if variable.path.rpartition("/")[2] not in ("learning_rate", "iteration")
    }
    return values | {table.table.path: table.numpy(), "slots": table.slots().numpy()}


def _rows(model, name):
    (field,) = (field for field in model.spec.id_fields if field.name == name)
    rows = slice(field.row_offset + 1, field.row_offset + 1 + field.unseen)
    (table,) = model.tables
    return np.concatenate([table.numpy()[rows], table.slots().numpy()[rows]], axis=1)


def test_the_same_model_gets_every_weight_and_slot(state):
    earlier, folder = state
    model = _untrained(SPEC)
    assert warm_start(model, folder) == ()
    expected = _of(earlier)
    assert len(expected) > 25
    for path, values in _of(model).items():
        np.testing.assert_array_equal(values, expected[path], err_msg=path)
    assert read_steps(folder) == int(model.optimizer.iterations) in (4, 8, 12)


@pytest.mark.parametrize("decay_steps", [0, 50])
def test_a_slot_that_keras_gives_no_name_goes_on(decay_steps, tmp_path):
    config = TrainingConfig(max_epochs=3, optimizer="nadam")
    earlier, _ = _train(SPEC, tmp_path / "logs", config)
    save_state(earlier, tmp_path / "state")
    model = _untrained(SPEC, config=dataclasses.replace(config, decay_steps=decay_steps))  # which has no learning rate
    assert warm_start(model, tmp_path / "state") == ()
    product, expected = (float(of.optimizer.rest.variables[-1]) for of in (model, earlier))
    assert product == expected < 1


def test_only_the_fields_that_have_changed_are_cold(state):
    earlier, folder = state
    city = IdFeature("city", 10)
    model = _untrained(FeatureSpec("spec", (city, IdFeature("user", 31), HISTORY, ITEM, PRICE)))
    before = {path: values.copy() for path, values in _of(model).items()}
    cold = warm_start(model, folder)
    assert cold == (
        "id field city",
        "id field user",
        "the deep tower's input city",
    )
    for name in ("item", "history"):
        np.testing.assert_array_equal(_rows(model, name), _rows(earlier, name))
    rows = "deepfm/embedding_table/rows"
    for name in ("city", "user"):
        (field,) = (field for field in model.spec.id_fields if field.name == name)
        block = slice(field.row_offset + 1, field.row_offset + 1 + field.unseen)
        np.testing.assert_array_equal(_of(model)[rows][block], before[rows][block])
    # The tower's inputs are in the features' order, two rows a field: city, user, history, item, price; before: item,
    # history, user, age, price.
    for path in ("deepfm/deep_tower/hidden_0/kernel", "adam/deepfm_deep_tower_hidden_0_kernel_velocity"):
        now, then = _of(model)[path], _of(earlier)[path]
        np.testing.assert_array_equal(now[:2], before[path][:2])
        np.testing.assert_array_equal(now[2:], then[[4, 5, 2, 3, 0, 1, 7]])
    for path in ("deepfm/numbers/kernel", "deepfm/number_factors", "adam/deepfm_numbers_kernel_momentum"):
        np.testing.assert_array_equal(_of(model)[path], _of(earlier)[path][1:])


def test_ids_that_are_hashed_in_another_way_are_cold(state):
    earlier, folder = state
    model = _untrained(FeatureSpec("spec", (ITEM, HISTORY, dataclasses.replace(USER, hashing="digits"), AGE, PRICE)))
    assert warm_start(model, folder) == ("id field user",)
    np.testing.assert_array_equal(_rows(model, "item"), _rows(earlier, "item"))


def test_a_state_of_before_ids_were_hashed_by_their_bytes_is_cold(state, tmp_path):
    _, folder = state
    shutil.copytree(folder, tmp_path / "old")
    layout = tmp_path / "old" / "layout.json"
    layout.write_text(layout.read_text().replace("1 hashes of int64 bytes", "1 hashes"))
    assert {"id field item", "id field history", "id field user"} == set(warm_start(_untrained(SPEC), tmp_path / "old"))


@pytest.mark.parametrize(
    ("change", "cold"),
    [
        ({"embedding_dim": 3}, "id field user"),
        ({"hidden_units": (5, 3)}, "deepfm/deep_tower/hidden_1/kernel"),
    ],
)
def test_what_another_shape_makes_cold_is_named(change, cold, state):
    _, folder = state
    options = {"embedding_dim": 2, "hidden_units": (4, 3), "fm_numbers": True} | change
    model = _untrained(SPEC, ModelConfig(**options))
    assert cold in warm_start(model, folder)
    np.testing.assert_array_equal(model.bias.numpy(), np.load(folder / "variables.npz")["deepfm/bias"])


def test_slots_of_another_rule_are_cold_and_the_weights_are_not(state):
    earlier, folder = state
    model = _untrained(SPEC, config=TrainingConfig(table_optimizer="adagrad"))
    cold = warm_start(model, folder)
    assert "the optimizer's slots of id field item" in cold
    assert "id field item" not in cold
    # What was read stays so: the row for unseen ids does not take its place.
    was_read = np.asarray(earlier.optimizer.is_untouched(earlier.tables[0])) == 0
    assert 0 < was_read[1:].sum() < len(was_read) - 1
    np.testing.assert_array_equal(np.asarray(model.optimizer.is_untouched(model.tables[0])) == 0, was_read)
    np.testing.assert_array_equal(model.tables[0].numpy()[1:], earlier.tables[0].numpy()[1:])


def test_a_warm_training_begins_where_the_earlier_one_ended(state, tmp_path, caplog):
    _, folder = state
    once = TrainingConfig(max_epochs=1, learning_rate=0.01)
    with caplog.at_level(logging.INFO, logger="trainer"):
        _, warm = _train(SPEC, tmp_path / "warm", once, folder, seed=5)
    _, cold = _train(SPEC, tmp_path / "cold", once, seed=5)
    assert warm.history["loss"][0] < cold.history["loss"][0] - 0.01
    assert f"warm start from {folder}; nothing is cold" in caplog.text


@pytest.mark.parametrize("use_linear", [True, False])
def test_another_share_of_the_negatives_moves_the_logit_to_where_it_belongs(use_linear, tmp_path):
    config = dataclasses.replace(MODEL, use_linear=use_linear)
    model, _ = _train(SPEC, tmp_path / "logs", model_config=config)
    save_state(model, tmp_path / "state", 0.1)
    (features, _), *_ = _batches(SPEC)
    expected = model(features).numpy()
    for rate in (0.1, 0.5, 1.0):
        warm = _untrained(SPEC, config)
        assert warm_start(warm, tmp_path / "state", rate) == ()
        # What an export serves is the same, whatever the rate.
        served = warm(features).numpy() + logit_shift(rate)
        np.testing.assert_allclose(served, expected + logit_shift(0.1), atol=1e-5)


def test_a_schedule_counts_from_the_warm_trainings_own_first_step(state, tmp_path):
    _, folder = state
    config = TrainingConfig(max_epochs=1, learning_rate=0.01, warmup_steps=2, decay_steps=10)
    rates = [
        _train(SPEC, tmp_path / "logs", config, earlier)[1].history["learning_rate"][0] for earlier in (None, folder)
    ]
    assert rates[0] == pytest.approx(rates[1])
    assert 0 < rates[0] < 0.01


def test_a_number_that_is_normalized_otherwise_is_cold(state):
    _, folder = state
    features = tuple(
        dataclasses.replace(feature, normalization="log1p_z_score") if feature is AGE else feature
        for feature in SPEC.features
    )
    cold = warm_start(_untrained(dataclasses.replace(SPEC, features=features)), folder)
    assert cold == (
        "number age",
        "the deep tower's input age",
    )


@pytest.mark.parametrize(
    ("before", "now", "cold"),
    [
        (
            IdFeature("age", 20),
            NumericFeature("age", "quantile_buckets", "int64", 20),
            ("id field age",),
        ),
        (
            IdSequence("age", 20, max_length=5, pooling="mean"),
            IdSequence("age", 20, max_length=5, pooling="sum"),
            ("the deep tower's input age",),
        ),
        (IdSequence("age", 20, max_length=5), IdSequence("age", 20, max_length=4), ()),
        (
            NumericFeature("age", "quantile_buckets", "int64", 20),
            NumericFeature("age", "quantile_buckets", "float32", 20),
            (),
        ),
    ],
)
def test_what_stands_for_something_else_is_cold(before, now, cold, tmp_path):
    model, _ = _train(FeatureSpec("spec", (USER, before)), tmp_path / "logs")
    save_state(model, tmp_path / "state")
    assert set(warm_start(_untrained(FeatureSpec("spec", (USER, now))), tmp_path / "state")) == set(cold)


def test_rows_that_two_features_come_to_share_are_those_of_one(tmp_path):
    alone = dataclasses.replace(HISTORY, table="history")
    before, _ = _train(dataclasses.replace(SPEC, features=(ITEM, alone, USER, AGE, PRICE)), tmp_path / "logs")
    save_state(before, tmp_path / "state")
    model = _untrained(SPEC)
    cold = warm_start(model, tmp_path / "state")
    assert cold == ("id field history",)
    np.testing.assert_array_equal(_rows(model, "item"), _rows(before, "item"))
    assert not np.array_equal(_rows(before, "history"), _rows(before, "item"))


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_state_that_fits_is_handed_on_as_it_is(state, tmp_path):
    _, folder = state
    model, training = _train(SPEC, tmp_path / "warm", earlier=folder, seed=5)
    hand_on(model, folder, training.cold, tmp_path / "handed_on")
    hand_on(model, tmp_path / "handed_on", training.cold, tmp_path / "once_more")
    before, *after = (_files(path) for path in (folder, tmp_path / "handed_on", tmp_path / "once_more"))
    layout = json.loads(before.pop("layout.json"))
    assert layout["of"] == "a cold start"
    for files in after:
        assert json.loads(files.pop("layout.json")) == layout | {"of": "an earlier cold start"}
        assert files == before


@pytest.mark.parametrize(
    ("spec", "model_config"),
    [
        (dataclasses.replace(SPEC, features=(ITEM, HISTORY, IdFeature("user", 31), AGE, PRICE)), MODEL),
        (SPEC, dataclasses.replace(MODEL, hidden_units=(5, 3))),
    ],
    ids=["buckets", "units"],
)
def test_a_state_in_which_something_was_missing_is_not_handed_on(spec, model_config, state, tmp_path, caplog):
    _, folder = state
    model, training = _train(spec, tmp_path / "warm", earlier=folder, model_config=model_config)
    with caplog.at_level(logging.INFO, logger="trainer"):
        hand_on(model, folder, training.cold, tmp_path / "own")
    assert f"{folder} is not handed on: the features or the model's settings are other ones now" in caplog.text
    assert warm_start(_untrained(spec, model_config), tmp_path / "own") == ()
    assert read_steps(tmp_path / "own") > read_steps(folder)


def test_a_warm_training_has_settings_of_its_own():
    when_warm = {"max_epochs": 1, "learning_rate": 1}
    config = TrainingConfig(max_epochs=7, patience=3, warm_start=True, when_warm=when_warm)
    assert config.of_warm() == TrainingConfig(max_epochs=1, patience=3, learning_rate=1.0, warm_start=True)
    assert TrainingConfig(warm_start=True).of_warm() == TrainingConfig(warm_start=True)


def test_where_a_warm_start_goes_on_from_needs_a_warm_start():
    with pytest.raises(ValueError, match="warm_start_from: cold means nothing without warm_start: true"):
        TrainingConfig(warm_start_from="cold")


def test_rows_or_layers_of_another_size_are_no_warm_start(tmp_path):
    model, _ = _train(SPEC, tmp_path / "logs")
    save_state(model, tmp_path / "model" / FOLDER)
    arguments = types.SimpleNamespace(base_model=str(tmp_path / "model" / "Format-Serving"))
    config = TrainingConfig(warm_start=True)
    assert _earlier_state(arguments, MODEL, config) == (
        tmp_path / "model" / FOLDER,
        f"warm start from {tmp_path / 'model'}",
    )
    for change, told in (
        ({"embedding_dim": 7}, "embedding_dim is 7, and was 2"),
        ({"hidden_units": (9,)}, "hidden_units is [9], and was [4, 3]"),
        ({"activation": "sigmoid"}, "activation is sigmoid, and was relu"),
    ):
        found = _earlier_state(arguments, dataclasses.replace(MODEL, **change), config)
        assert found == (None, f"cold start: {told} for {tmp_path / 'model'}")


def test_another_optimizer_makes_its_slots_cold_alone(state):
    _, folder = state
    cold = warm_start(_untrained(SPEC, config=TrainingConfig(optimizer="adagrad")), folder)
    assert cold[0] == "the optimizer's slots"
    assert {"the optimizer's slots of number age", "the optimizer's slots of the deep tower's input item"} <= {*cold}
    assert all(owner.startswith("the optimizer's slots") for owner in cold)


@pytest.mark.parametrize(
    ("start_from", "was", "told"),
    [
        ("cold", "cold", ""),
        ("cold", "warm", ", which has the state of a warm start"),
        ("cold", "handed on", ""),
        ("latest", "cold", ""),
        ("latest", "warm", ""),
        ("latest", "handed on", ", which has the state of an earlier cold start"),
    ],
)
def test_a_start_says_where_its_state_is_not_the_one_that_is_meant(start_from, was, told, tmp_path):
    model = _untrained(SPEC, MODEL)
    save_state(model, tmp_path / "model" / FOLDER, is_warm=was == "warm")
    if was == "handed on":
        hand_on(model, tmp_path / "model" / FOLDER, (), tmp_path / "next" / FOLDER)
    folder = tmp_path / ("next" if was == "handed on" else "model")
    arguments = types.SimpleNamespace(base_model=str(folder / "Format-Serving"))
    config = TrainingConfig(warm_start=True, warm_start_from=start_from)
    assert _earlier_state(arguments, MODEL, config) == (folder / FOLDER, f"warm start from {folder}{told}")
