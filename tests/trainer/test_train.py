from __future__ import annotations

import logging

import numpy as np
import pytest
import tensorflow as tf

from schemas.features import FeatureSpec, NumericFeature
from trainer.config import ModelConfig, TrainingConfig
from trainer.input import eval_batches, train_batches
from trainer.model import model_fn
from trainer.train import train

NUMBERS = FeatureSpec("numbers", (NumericFeature("x"),))
PARSING = {"numbers": tf.io.FixedLenFeature([1], tf.float32), "label": tf.io.FixedLenFeature([], tf.float32)}


def _write_examples(file, xs, labels):
    with tf.io.TFRecordWriter(str(file), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for x, label in zip(xs, labels, strict=True):
            features = {"numbers": x, "label": label}
            feature = {
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@pytest.fixture
def examples(tmp_path):
    """A hundred transformed examples in two files: x = 0 ... 99, label = x >= 50."""
    for part in range(2):
        xs = np.arange(50 * part, 50 * part + 50, dtype=np.float32)
        _write_examples(tmp_path / f"data-{part}.gz", xs, np.float32(xs >= 50))
    return [str(tmp_path / "data-*.gz")]


def _xs(batches):
    return [float(x) for features, _ in batches for x in features["numbers"][:, 0]]


def test_eval_batches_hold_every_example_once_in_the_same_order(examples):
    batches = list(eval_batches(examples, PARSING, batch_size=32))
    assert [len(label) for _, label in batches] == [32, 32, 32, 4]
    assert batches[0][1].shape == (32, 1)
    xs = _xs(batches)
    assert sorted(xs) == list(range(100))
    assert xs == _xs(eval_batches(examples, PARSING, batch_size=7))
    for features, label in batches:
        np.testing.assert_array_equal(label, np.float32(features["numbers"] >= 50))


def test_train_batches_are_shuffled_anew_each_epoch_and_alike_for_the_same_seed(examples):
    batches = train_batches(examples, PARSING, batch_size=32, shuffle_buffer=100, seed=3)
    first, second = _xs(batches), _xs(batches)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert first != sorted(first)
    assert first == _xs(train_batches(examples, PARSING, batch_size=32, shuffle_buffer=100, seed=3))
    assert first != _xs(train_batches(examples, PARSING, batch_size=32, shuffle_buffer=100, seed=4))


def _batches(xs, labels):
    return tf.data.Dataset.from_tensors(({"numbers": np.float32(xs)[:, None]}, np.float32(labels)[:, None]))


def test_training_stops_after_the_best_epoch_and_keeps_its_weights(tmp_path, caplog):
    # What is learned from the training split is wrong on the eval split, so that the first epoch is the best.
    train_data = _batches([-1, 1, -2, 2] * 50, [0, 1, 0, 1] * 50)
    eval_data = _batches([-1, 1, -2, 2], [1, 0, 1, 0])
    config = TrainingConfig(max_epochs=20, patience=3, learning_rate=0.05, monitor="log_loss")
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    with caplog.at_level(logging.INFO, logger="trainer"):
        history = train(model, train_data, eval_data, config, str(tmp_path)).history
    losses = history["val_log_loss"]
    assert len(losses) == 1 + 3
    assert np.argmin(losses) == 0
    logits = model(next(iter(eval_data))[0]).numpy()[:, 0]
    loss = np.mean(np.logaddexp(0, -logits * [1, -1, 1, -1]))
    assert loss == pytest.approx(losses[0], rel=1e-4)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert lines[0].startswith("epoch 1/20: train log loss ")


def test_the_best_epochs_weights_are_kept_where_training_is_not_stopped(tmp_path):
    train_data = _batches([-1, 1, -2, 2] * 50, [0, 1, 0, 1] * 50)
    eval_data = _batches([-1, 1, -2, 2], [1, 0, 1, 0])
    config = TrainingConfig(max_epochs=3, patience=10, learning_rate=0.05, monitor="log_loss")
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    losses = train(model, train_data, eval_data, config, str(tmp_path)).history["val_log_loss"]
    logits = model(next(iter(eval_data))[0]).numpy()[:, 0]
    assert np.mean(np.logaddexp(0, -logits * [1, -1, 1, -1])) == pytest.approx(min(losses), rel=1e-4)
    assert losses[-1] > min(losses)


def test_a_separable_log_is_learned_and_its_curves_are_in_tensorboards_log(tmp_path):
    batches = _batches([-1, 1, -2, 2] * 50, [0, 1, 0, 1] * 50)
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    history = train(
        model, batches, batches, TrainingConfig(max_epochs=30, learning_rate=0.05, monitor="log_loss"), str(tmp_path)
    ).history
    assert max(history["val_auc"]) == pytest.approx(1.0)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert list(tmp_path.glob("validation/events.out.tfevents.*"))


def test_two_trainings_with_the_same_seed_give_the_same_weights(tmp_path, examples):
    weights = []
    for run in range(2):
        data = train_batches(examples, PARSING, batch_size=16, shuffle_buffer=100, seed=5)
        model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,), dropout=0.2), seed=5)
        train(
            model,
            data,
            eval_batches(examples, PARSING, 50),
            TrainingConfig(max_epochs=2, seed=5),
            str(tmp_path / str(run)),
        )
        weights.append(model.get_weights())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)
