from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from schemas.features import FeatureSpec, IdFeature
from trainer.average import AverageWeights
from trainer.config import ModelConfig, TrainingConfig
from trainer.model import model_fn
from trainer.train import train
from trainer.warm_start import save_state

SPEC = FeatureSpec("s", (IdFeature("item", 5),))
CONFIG = TrainingConfig(learning_rate=0.1, patience=9, monitor="log_loss")
BATCHES = tf.data.Dataset.from_tensors(({"ids": np.int64([[1], [2], [3]])}, np.float32([[1], [0], [0]])))


def _trained(tmp_path, num_epochs, earlier_state=None, spec=SPEC, **settings):
    model = model_fn(spec, ModelConfig(embedding_dim=2, hidden_units=(3,)), seed=1)
    config = dataclasses.replace(CONFIG, max_epochs=num_epochs, **settings)
    history = train(model, BATCHES, BATCHES, config, str(tmp_path), earlier_state=earlier_state).history
    assert len(history["loss"]) == num_epochs
    return model, history


def _weights_after(*arguments, **settings):
    model, history = _trained(*arguments, **settings)
    return _weights(model), history


def _weights(model):
    (table,) = model.tables
    others = [weight.numpy() for weight in model.trainable_variables if weight is not table.table]
    return [table.numpy(), *others]


def test_the_model_ends_with_the_mean_of_the_epochs_since_the_first_one(tmp_path):
    # Without averaging, a training of n epochs ends with the weights of epoch n, which is the best here.
    after = [_weights_after(tmp_path, num_epochs)[0] for num_epochs in (2, 3, 4)]
    averaged, history = _weights_after(tmp_path, 4, average_from=2)
    for weight, *of_epochs in zip(averaged, *after, strict=True):
        np.testing.assert_allclose(weight, np.mean(of_epochs, axis=0), rtol=1e-5, atol=1e-7)
    assert not np.allclose(averaged[0], after[-1][0], rtol=1e-2)
    # What training went on from are its own weights.
    assert history["loss"] == pytest.approx(_weights_after(tmp_path, 4)[1]["loss"], rel=1e-6)


def test_before_the_first_epoch_nothing_is_averaged(tmp_path):
    for ours, theirs in zip(*(_weights_after(tmp_path, 3, **s)[0] for s in ({}, {"average_from": 4})), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def earlier(tmp_path):
    model, _ = _trained(tmp_path, 2)
    save_state(model, tmp_path / "earlier")
    return _weights(model), tmp_path / "earlier"


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_from_0_on_the_mean_has_the_weights_in_it_that_a_warm_start_goes_on_from(tmp_path, earlier, num_epochs):
    weights, state = earlier
    after = [_weights_after(tmp_path, number, state)[0] for number in range(1, num_epochs + 1)]
    averaged, _ = _weights_after(tmp_path, num_epochs, state, average_from=0)
    for weight, *of_epochs in zip(averaged, weights, *after, strict=True):
        np.testing.assert_allclose(weight, np.mean(of_epochs, axis=0), rtol=1e-5, atol=1e-7)
    assert not np.allclose(averaged[0], after[-1][0], rtol=1e-2)


def test_weights_that_start_cold_are_not_in_the_mean(tmp_path, earlier):
    more = FeatureSpec("s", (IdFeature("item", 6),))
    for state, spec in ((None, SPEC), (earlier[1], more)):
        from_0, from_1 = (_weights_after(tmp_path, 1, state, spec, average_from=first)[0] for first in (0, 1))
        for ours, theirs in zip(from_0, from_1, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("first_epoch", "expected"),
    [(1, [(8.0, 3.0), (3.0, 4.5), (6.0, 3.0)]), (0, [(8.0, 5.5), (3.0, 17 / 3), (6.0, 17 / 4)])],
)
def test_the_mean_of_known_weights(first_epoch, expected):
    model, average = _begun(first_epoch)
    found = []
    for epoch, weight in enumerate((3.0, 6.0, 0.0)):
        average.on_epoch_begin(epoch)
        before = float(model.weights[0][0, 0])
        model.weights[0].assign([[weight]])
        average.on_epoch_end(epoch)
        found.append((before, pytest.approx(float(model.weights[0][0, 0]))))
    assert found == expected


def test_the_weights_before_count_once_where_the_first_epoch_was_killed():
    model, average = _begun(0)
    for weight in (5.0, 2.0):
        average.on_epoch_begin(0)
        model.weights[0].assign([[weight]])
    average.on_epoch_end(0)
    assert float(model.weights[0][0, 0]) == (8 + 2) / 2


def _begun(first_epoch):
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    model.build((None, 1))
    model.weights[0].assign([[8.0]])
    return model, AverageWeights(model, first_epoch)
