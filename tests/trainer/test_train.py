from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from schemas.features import FeatureSpec, IdFeature, NumericFeature
from trainer.checkpoints import remove_whole
from trainer.config import ModelConfig, TrainingConfig
from trainer.finite import NonFiniteLossError, find_offender
from trainer.input import ordered_batches, read_chunks, shuffled_batches
from trainer.model import model_fn
from trainer.train import _learning_rate, auc, log_loss, logit_shift, train

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
    batches = list(ordered_batches(read_chunks(examples, PARSING), batch_size=32))
    assert [len(label) for _, label in batches] == [32, 32, 32, 4]
    assert batches[0][1].shape == (32, 1)
    xs = _xs(batches)
    assert sorted(xs) == list(range(100))
    assert xs == _xs(ordered_batches(read_chunks(examples, PARSING), batch_size=7))
    for features, label in batches:
        np.testing.assert_array_equal(label, np.float32(features["numbers"] >= 50))


def test_train_batches_are_shuffled_anew_each_epoch_and_alike_for_the_same_seed(examples):
    batches = shuffled_batches(read_chunks(examples, PARSING, num_files=4), batch_size=32, shuffle_buffer=100, seed=3)
    first, second = _xs(batches), _xs(batches)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert first != sorted(first)
    assert first == _xs(
        shuffled_batches(read_chunks(examples, PARSING, num_files=4), batch_size=32, shuffle_buffer=100, seed=3)
    )
    assert first != _xs(
        shuffled_batches(read_chunks(examples, PARSING, num_files=4), batch_size=32, shuffle_buffer=100, seed=4)
    )


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
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("trainer")]
    assert len(lines) == 4
    assert lines[0].startswith("epoch 1/20: train loss ")


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


def test_max_steps_end_the_training_and_its_last_epoch_is_evaluated(tmp_path, examples, caplog):
    def run(**settings):
        data = shuffled_batches(read_chunks(examples, PARSING, num_files=4), batch_size=16, shuffle_buffer=100, seed=5)
        model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=5)
        config = TrainingConfig(monitor="log_loss", patience=9, **settings)  # the last epoch is the best
        history = train(model, data, ordered_batches(read_chunks(examples, PARSING), 50), config, str(tmp_path / "tb"))
        return int(model.optimizer.iterations), len(history.history["val_auc"])

    assert run(max_epochs=3) == (21, 3)  # seven batches an epoch
    assert run(max_epochs=3, max_steps=99) == (21, 3)
    for max_steps, num_epochs in ((3, 1), (7, 1), (10, 2)):
        with caplog.at_level(logging.INFO, logger="trainer"):
            assert run(max_epochs=9, max_steps=max_steps) == (max_steps, num_epochs)
        assert f"ended after {max_steps} steps" in caplog.text


def test_two_trainings_with_the_same_seed_give_the_same_weights(tmp_path, examples):
    weights = []
    for run in range(2):
        data = shuffled_batches(read_chunks(examples, PARSING, num_files=4), batch_size=16, shuffle_buffer=100, seed=5)
        model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,), dropout=0.2), seed=5)
        train(
            model,
            data,
            ordered_batches(read_chunks(examples, PARSING), 50),
            TrainingConfig(max_epochs=2, seed=5),
            str(tmp_path / str(run)),
        )
        weights.append(model.get_weights())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


AUCS = {
    "all in order": ([0, 0, 1, 1], [1, 2, 3, 4], 1.0),
    "all in the wrong order": ([1, 0], [1, 2], 0.0),
    "three of four pairs": ([0, 1, 0, 1], [1, 2, 3, 4], 0.75),
    "ties count half": ([0, 1, 0, 1], [1, 1, 1, 2], 0.75),
    "nothing but ties": ([0, 1, 1], [5, 5, 5], 0.5),
}


@pytest.mark.parametrize(("labels", "scores", "expected"), AUCS.values(), ids=AUCS.keys())
def test_auc_of_known_rankings(labels, scores, expected):
    assert auc(np.float32(labels), np.float32(scores)) == pytest.approx(expected)


def test_auc_is_the_share_of_ordered_pairs_and_is_none_for_one_class():
    generator = np.random.default_rng(3)
    labels, scores = generator.integers(0, 2, 200).astype(np.float32), np.float32(generator.integers(0, 30, 200))
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels > 0] for b in scores[labels == 0]]
    assert auc(labels, scores) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc(np.ones(3), np.arange(3)))
    assert np.isnan(auc(np.float32([1, 0, 1]), np.float32([np.nan, -1, -2])))


def test_log_loss_of_known_logits():
    logits = np.float32([0.0, np.log(3), -1000.0, 1000.0])
    assert log_loss(np.float32([1, 0, 0, 1]), logits) == pytest.approx((np.log(2) + np.log(4)) / 4)
    assert log_loss(np.float32([1]), np.float32([-1000.0])) == pytest.approx(1000)


def test_step_size_warms_up_and_decays():
    def rates(steps, **settings):
        rate = _learning_rate(TrainingConfig(learning_rate=0.4, **settings), first_step=0)
        return [float(rate(step)) if callable(rate) else rate for step in steps]

    assert rates([0, 9]) == [0.4, 0.4]
    np.testing.assert_allclose(rates([0, 5, 10, 99], warmup_steps=10), [0, 0.2, 0.4, 0.4], rtol=1e-6)
    np.testing.assert_allclose(rates([0, 50, 100], decay_steps=100), [0.4, 0.2, 0], atol=1e-6)
    both = rates([0, 5, 10, 60, 110], warmup_steps=10, decay_steps=100)
    np.testing.assert_allclose(both, [0, 0.2, 0.4, 0.2, 0], atol=1e-6)


def test_step_size_is_reduced_on_a_plateau(tmp_path):
    train_data = _batches([-1, 1, -2, 2] * 50, [0, 1, 0, 1] * 50)
    eval_data = _batches([-1, 1, -2, 2], [1, 0, 1, 0])
    config = TrainingConfig(max_epochs=4, patience=9, learning_rate=0.05, monitor="log_loss", reduce_on_plateau=0.1)
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    rates = train(model, train_data, eval_data, config, str(tmp_path)).history["learning_rate"]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.005, 0.0005], rtol=1e-5)


def test_two_ways_to_change_the_step_size_are_refused():
    with pytest.raises(ValueError, match="reduce_on_plateau does not go with warmup_steps or decay_steps"):
        TrainingConfig(reduce_on_plateau=0.5, warmup_steps=10)


def test_terms_magnitudes_are_measured(tmp_path):
    batches = _batches([-1, 1, -2, 2] * 50, [0, 1, 0, 1] * 50)
    model = model_fn(NUMBERS, ModelConfig(use_deep=False), seed=1)
    history = train(model, batches, batches, TrainingConfig(max_epochs=1, learning_rate=0.05), str(tmp_path)).history
    assert history["val_linear"][0] > 0
    assert history["val_fm"] == history["val_deep"] == [0.0]


def test_unseen_ids_get_the_row_that_id_dropout_has_trained(tmp_path):
    spec = FeatureSpec("s", (IdFeature("item", 50),))
    model = model_fn(spec, ModelConfig(embedding_dim=2, id_dropout=0.3), seed=1)
    ids = np.int64([[3], [7], [9], [11]] * 50)
    batches = tf.data.Dataset.from_tensor_slices(({"ids": ids}, np.float32([[1], [1], [1], [0]] * 50))).batch(40)
    train(model, batches, batches, TrainingConfig(max_epochs=5, learning_rate=0.05), str(tmp_path))
    table = model.embedding_table.numpy()
    unseen = [row for row in range(1, 51) if row not in (3, 7, 9, 11)]
    np.testing.assert_array_equal(table[unseen], np.tile(table[51], [len(unseen), 1]))
    assert np.all(table[51] != 0)
    assert len(np.unique(table[[3, 7, 9, 11, 51], 0])) == 5


def test_weights_count_as_copies_do():
    labels, logits = np.float32([0, 1, 1, 0]), np.float32([0.5, 0.5, 2.0, -1.0])
    copies = np.repeat(np.arange(4), [1, 2, 3, 1])
    weights = np.float32([1, 2, 3, 1])
    assert auc(labels, logits, weights) == pytest.approx(auc(labels[copies], logits[copies]))
    assert log_loss(labels, logits, weights) == pytest.approx(log_loss(labels[copies], logits[copies]))
    assert auc(labels, logits, weights) != pytest.approx(auc(labels, logits))


def test_the_training_loss_is_a_mean_by_weight_as_the_eval_splits_is(tmp_path):
    spec = FeatureSpec("s", (NumericFeature("x"),))
    generator = np.random.default_rng(0)
    xs, weight = generator.normal(size=[100, 1]).astype(np.float32), generator.exponential(5, 100).astype(np.float32)
    label = np.float32(xs > generator.normal(size=[100, 1]))
    batches = tf.data.Dataset.from_tensor_slices(({"numbers": xs}, label, weight)).batch(32)
    model = model_fn(spec, ModelConfig(hidden_units=(4,)), seed=1)
    config = TrainingConfig(max_epochs=1, learning_rate=1e-9)  # so that the loss before and after the steps is one
    history = train(model, batches, batches, config, str(tmp_path)).history
    assert history["val_log_loss"][0] != pytest.approx(np.log(2), rel=1e-3)
    assert history["loss"] == pytest.approx(history["val_log_loss"], rel=1e-5)


def test_a_penalty_is_that_of_the_model_whatever_the_examples_weigh(tmp_path):
    losses = []
    for weight in (1, 0.01):
        features, label = {"numbers": np.float32([-1, 1, -2, 2])[:, None]}, np.float32([0, 1, 1, 0])[:, None]
        batches = tf.data.Dataset.from_tensors((features, label, np.float32([weight] * 4)))
        model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,), tower_l2=1.0), seed=1)
        config = TrainingConfig(max_epochs=1, learning_rate=1e-9)
        losses.append(train(model, batches, batches, config, str(tmp_path)).history["loss"][0])
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] > 1


def test_an_example_of_weight_zero_is_not_learned_from(tmp_path):
    features = {"numbers": np.float32([-1, 1, -2, 2] * 50)[:, None]}
    label, weight = np.float32([0, 1, 1, 0] * 50)[:, None], np.float32([1, 1, 0, 0] * 50)
    batches = tf.data.Dataset.from_tensors((features, label, weight))
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    history = train(model, batches, batches, TrainingConfig(max_epochs=30, learning_rate=0.05), str(tmp_path)).history
    assert max(history["val_auc"]) == pytest.approx(1.0)
    assert min(history["val_log_loss"]) < 0.5


def test_a_sample_of_the_negatives_is_another_in_each_epoch_and_has_all_the_clicks(examples):
    data = shuffled_batches(read_chunks(examples, PARSING, num_files=4), 32, 100, seed=3, negative_sampling_rate=0.5)
    first, second = _xs(data), _xs(data)
    for xs in (first, second):
        assert set(range(50, 100)) <= set(xs)
        assert 15 <= len(xs) - 50 <= 35
    assert set(first) != set(second)


def test_sampling_the_negatives_keeps_the_calibration(tmp_path):
    generator = np.random.default_rng(0)
    xs = generator.normal(size=20_000).astype(np.float32)
    clicks = np.float32(generator.random(20_000) < 1 / (1 + np.exp(3 - xs)))
    _write_examples(tmp_path / "log.gz", xs, clicks)
    files = [str(tmp_path / "log.gz")]
    data = shuffled_batches(read_chunks(files, PARSING, num_files=4), 256, 20_000, seed=1, negative_sampling_rate=0.1)
    model = model_fn(NUMBERS, ModelConfig(use_deep=False, use_fm=False))
    config = TrainingConfig(max_epochs=20, learning_rate=0.02, negative_sampling_rate=0.1, monitor="log_loss")
    losses = train(
        model, data, ordered_batches(read_chunks(files, PARSING), 1024), config, str(tmp_path / "logs")
    ).history
    logits = model({"numbers": xs[:, None]}).numpy()[:, 0]
    predicted = 1 / (1 + np.exp(-logits))
    assert predicted.mean() / clicks.mean() > 3  # what the model saw
    corrected = predicted / (predicted + (1 - predicted) / 0.1)
    assert corrected.mean() / clicks.mean() == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(corrected, 1 / (1 + np.exp(-(logits + logit_shift(0.1)))), rtol=1e-4)
    assert min(losses["val_log_loss"]) == pytest.approx(log_loss(clicks, logits + logit_shift(0.1)), rel=1e-4)


BAD_BATCHES = {
    "a number": ({"numbers": [[1.0, np.inf]]}, "weight_kg is inf in 1 of 1 examples"),
    "a label": ({"label": [[np.nan]]}, "label is nan in 1 of 1 examples"),
    "a diverged training": ({"numbers": [[3e38, 0.0]]}, "the farthest from its mean is height, by 3e.38 standard"),
}


@pytest.mark.parametrize("every", [1, 0])  # a call of TensorFlow for each step, or one for all
@pytest.mark.parametrize(("bad", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_a_loss_that_is_not_finite_names_the_feature_and_keeps_the_checkpoint_before(bad, message, every, tmp_path):
    spec = FeatureSpec("body", (NumericFeature("height"), NumericFeature("weight_kg"), IdFeature("user", 5)))
    good = {"numbers": [[0.5, -1.0]], "ids": [[2]], "label": [[1.0]]}

    def batches():
        for values in (good, good, good | bad, good):
            features = {"numbers": np.float32(values["numbers"]), "ids": np.int64(values["ids"])}
            yield features, np.float32(values["label"])

    signature = (
        {"numbers": tf.TensorSpec([None, 2]), "ids": tf.TensorSpec([None, 1], tf.int64)},
        tf.TensorSpec([None, 1]),
    )
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    model = model_fn(spec, ModelConfig(hidden_units=(4,)), seed=1)
    model.number_weights.kernel.assign([[10.0], [0.0]])
    config = TrainingConfig(checkpoint_steps=every, max_epochs=1, learning_rate=0.1)
    with pytest.raises(NonFiniteLossError, match=f"in epoch 1, batch 3: .*{message}") as error:
        train(model, data, data.take(2), config, str(tmp_path / "logs"), str(tmp_path / "kept"))
    assert (str(tmp_path / "kept") in str(error.value)) == bool(every)
    assert [entry.name for entry in (tmp_path / "kept").glob("*")] == ["2"] * every
    assert model.optimizer.iterations == 2
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def _with_number(value, weight=1.0, labels=(1, 0, 1, 0)):
    numbers, weights = (np.full([4, 1], number, np.float32) for number in (value, weight))
    columns = ({"numbers": numbers}, np.float32(labels)[:, None], weights[:, 0])
    return tf.data.Dataset.from_tensor_slices(columns).batch(2)


def test_a_logit_of_the_eval_split_that_is_not_finite_ends_the_training(tmp_path):
    model = model_fn(NUMBERS, ModelConfig(hidden_units=()))
    config = TrainingConfig(max_epochs=1)
    message = "not finite on the eval split after epoch 1: .* farthest from its mean is .*, by 3e.38 standard"
    model.number_weights.kernel.assign([[10.0]])
    with pytest.raises(NonFiniteLossError, match=message):
        train(model, _with_number(1.0), _with_number(3e38), config, str(tmp_path / "logs"), str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_a_step_that_makes_the_weights_infinite_leaves_no_checkpoint(tmp_path):
    model = model_fn(NUMBERS, ModelConfig(hidden_units=()))
    config = TrainingConfig(max_epochs=1, optimizer="sgd", learning_rate=1e38, checkpoint_steps=1)
    data = _with_number(30.0, labels=[0, 0, 1, 1])
    with pytest.raises(NonFiniteLossError, match="in epoch 1, batch 2: ") as error:
        train(model, data, data, config, str(tmp_path / "logs"), str(tmp_path / "kept"))
    assert "checkpoint" not in str(error.value)


def test_without_an_example_there_is_no_training(tmp_path):
    model = model_fn(NUMBERS, ModelConfig(hidden_units=()))
    with pytest.raises(ValueError, match="there is no example to learn from: the training split is empty, or"):
        train(model, _with_number(1.0).take(0), _with_number(1.0), TrainingConfig(), str(tmp_path / "logs"))


def test_without_an_example_that_has_a_weight_there_is_no_training(tmp_path):
    model = model_fn(dataclasses.replace(NUMBERS, weight="w"), ModelConfig(hidden_units=()))
    with pytest.raises(ValueError, match="the weight, w, is 0 in each impression of the training split"):
        train(model, _with_number(1.0, weight=0.0), _with_number(1.0), TrainingConfig(), str(tmp_path / "logs"))


@pytest.mark.parametrize(
    ("data", "message"),
    [(_with_number(1.0, weight=0.0), "the weight, w, is 0 in each"), (_with_number(1.0).take(0), "it is empty")],
)
def test_an_eval_split_on_which_nothing_can_be_measured_is_named(data, message, tmp_path):
    model = model_fn(dataclasses.replace(NUMBERS, weight="w"), ModelConfig(hidden_units=()))
    with pytest.raises(ValueError, match=f"nothing can be measured on the eval split: {message}"):
        train(model, _with_number(1.0), data, TrainingConfig(), str(tmp_path / "logs"))


def test_embeddings_that_are_not_finite_are_named():
    spec = FeatureSpec("s", (IdFeature("user", 3), IdFeature("item", 3)))
    rows = np.ones([2, 2, 2], np.float32)
    rows[0, 1] = np.nan  # item's bucket 1
    assert find_offender(spec, {"ids": np.array([[1, 2], [2, 1]])}, rows) == (
        "the embeddings of 1 of 2 ids of item are not finite"
    )


KILLED = """
import os, signal, sys
import tests_train_helper as helper
from trainer import checkpoints

original = checkpoints.KeepState.on_train_batch_end

def on_train_batch_end(self, batch, logs=None):
    original(self, batch, logs)
    if int(self.model.optimizer.iterations) >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.KeepState.on_train_batch_end = on_train_batch_end
helper.run(sys.argv[1], sys.argv[3], int(sys.argv[4]))
"""

HELPER = """
import tensorflow as tf
from schemas.features import FeatureSpec, NumericFeature
from trainer.checkpoints import remove_whole
from trainer.config import ModelConfig, TrainingConfig
from trainer.input import ordered_batches, read_chunks, shuffled_batches
from trainer.model import model_fn
from trainer.train import train

PARSING = {"numbers": tf.io.FixedLenFeature([1], tf.float32), "label": tf.io.FixedLenFeature([], tf.float32)}

def run(pattern, directory, every):
    position = tf.Variable([0, 0], dtype=tf.int64)
    data = shuffled_batches(read_chunks([pattern], PARSING, num_files=4), 16, 100, 5, 1.0, position)
    model = model_fn(FeatureSpec("numbers", (NumericFeature("x"),)), ModelConfig(hidden_units=(4,), dropout=0.2), 5)
    config = TrainingConfig(
        max_epochs=4, checkpoint_steps=every, patience=4, seed=5, learning_rate=0.01, average_from=2
    )
    eval_data = ordered_batches(read_chunks([pattern], PARSING), 50)
    history = train(model, data, eval_data, config, directory + "/tb", directory + "/state", position)
    return model.get_weights(), history.history
"""


# Seven batches an epoch; in a call of TensorFlow as many as lie between two checkpoints, or up to the epoch's end.
@pytest.mark.parametrize(
    ("steps", "every", "resumed"),
    [(4, 2, "0 epochs and 4"), (7, 3, "0 epochs and 6"), (21, 5, "2 epochs and 5"), (14, 7, "1 epochs and 7")],
    ids=["at a checkpoint", "epoch 1", "epoch 3", "end of epoch 2"],
)
def test_a_killed_training_is_gone_on_with_and_ends_as_one_that_was_not(
    steps, every, resumed, examples, tmp_path, monkeypatch, caplog
):
    (tmp_path / "tests_train_helper.py").write_text(HELPER, encoding="utf-8")
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    helper = importlib.import_module("tests_train_helper")
    undisturbed = helper.run(examples[0], str(tmp_path / "undisturbed"), every)
    directory = str(tmp_path / "disturbed")
    command = [sys.executable, str(tmp_path / "killed.py"), examples[0], str(steps), directory, str(every)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with caplog.at_level(logging.INFO, logger="trainer"):
        weights, history = helper.run(examples[0], directory, every)
    assert f"resumed after {resumed} batches" in caplog.text
    assert sum("epoch " in record.getMessage() for record in caplog.records if record.name == "trainer.train") >= 2
    assert history["val_auc"] == undisturbed[1]["val_auc"]
    assert history["loss"] == pytest.approx(undisturbed[1]["loss"])
    for ours, theirs in zip(weights, undisturbed[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["1", "2"])
def test_a_checkpoint_whose_exchange_was_cut_off_is_still_there(name, tmp_path):
    batches = _batches([-1, 1, -2, 2], [0, 1, 0, 1])
    wrong = _batches([-1, 1, -2, 2], [1, 0, 1, 0])  # so that the first epoch is the best
    config = TrainingConfig(max_epochs=2, learning_rate=0.05, monitor="log_loss")
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    train(model, batches, wrong, config, str(tmp_path / "logs"), str(tmp_path / "state"))
    (tmp_path / "state" / name).rename(tmp_path / "state" / f"{name}.old")
    again = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=2)
    history = train(again, batches, wrong, config, str(tmp_path / "logs"), str(tmp_path / "state")).history
    assert len(history["loss"]) == 2
    assert sorted(entry.name for entry in (tmp_path / "state").iterdir()) == ["1", "2"]
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(monkeypatch, tmp_path):
    flushed, sync = [], os.fsync

    def record(descriptor):
        flushed.append(pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    batches = _batches([-1, 1, -2, 2], [0, 1, 0, 1])
    config = TrainingConfig(max_epochs=1)
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    train(model, batches, batches, config, str(tmp_path / "logs"), str(tmp_path / "state"))
    (checkpoint,) = (tmp_path / "state").iterdir()
    unfinished = checkpoint.with_suffix(".tmp")
    files = {unfinished / entry.name for entry in checkpoint.iterdir()}
    assert len(files) > 2
    assert {*files, unfinished} == set(flushed[:-1])
    assert flushed[-1] == tmp_path / "state"


def test_a_checkpoint_of_other_shapes_is_said_and_not_gone_on_from(tmp_path, caplog):
    batches = _batches([-1, 1, -2, 2], [0, 1, 0, 1])
    config = TrainingConfig(max_epochs=3, learning_rate=0.05)
    folders = str(tmp_path / "logs"), str(tmp_path / "state")
    train(model_fn(NUMBERS, ModelConfig(hidden_units=(4,))), batches, batches, config, *folders)
    other = model_fn(NUMBERS, ModelConfig(hidden_units=(5,)))
    history = train(other, batches, batches, dataclasses.replace(config, max_epochs=1), *folders).history
    assert len(history["loss"]) == 1
    assert f"step 3 in {folders[1]} is of another version of this package: training begins anew" in caplog.text
    assert [entry.name for entry in (tmp_path / "state").iterdir()] == ["1"]


def test_what_a_removal_of_checkpoints_leaves_is_not_gone_on_from(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    (folder / "hash" / "3").mkdir(parents=True)
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)
        remove_whole(folder)
    assert not folder.exists()
    (folder / "hash" / "3").mkdir(parents=True)
    remove_whole(folder)
    assert list(tmp_path.iterdir()) == []
    # Or one of before checkpoints were removed at once: without the file that says how far the training was.
    (folder / "3").mkdir(parents=True)
    batches = _batches([-1, 1, -2, 2], [0, 1, 0, 1])
    model = model_fn(NUMBERS, ModelConfig(hidden_units=(4,)), seed=1)
    train(model, batches, batches, TrainingConfig(max_epochs=1), str(tmp_path / "logs"), str(folder))
    assert (folder / "1").is_dir()
