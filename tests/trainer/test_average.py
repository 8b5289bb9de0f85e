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

SPEC = FeatureSpec("s", (IdFeature("item", 5),))
CONFIG = TrainingConfig(learning_rate=0.1, patience=9, monitor="log_loss")
BATCHES = tf.data.Dataset.from_tensors(({"ids": np.int64([[1], [2], [3]])}, np.float32([[1], [0], [0]])))


def _weights_after(tmp_path, num_epochs, **settings):
    model = model_fn(SPEC, ModelConfig(embedding_dim=2, hidden_units=(3,)), seed=1)
    config = dataclasses.replace(CONFIG, max_epochs=num_epochs, **settings)
    history = train(model, BATCHES, BATCHES, config, str(tmp_path)).history
    assert len(history["loss"]) == num_epochs
    (table,) = model.tables
    others = [weight.numpy() for weight in model.trainable_variables if weight is not table.table]
    return [table.numpy(), *others], history


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


def test_the_mean_of_known_weights():
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.build((None, 1))
    average = AverageWeights(model, first_epoch=1)
    found = []
    for epoch, weight in enumerate((3.0, 6.0, 0.0)):
        average.on_epoch_begin(epoch)
        before = float(model.weights[0][0, 0])
        model.weights[0].assign([[weight]])
        average.on_epoch_end(epoch)
        found.append((before, float(model.weights[0][0, 0])))
    assert found == [(0.0, 3.0), (3.0, 4.5), (6.0, 3.0)]
