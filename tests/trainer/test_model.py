from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.notebook import NOTEBOOK
from trainer.config import ModelConfig, TrainingConfig
from trainer.model import model_fn
from trainer.train import compile_model

MIXED = FeatureSpec(
    "mixed",
    (
        IdFeature("item", 10, table="item"),
        NumericFeature("age"),
        IdSequence("history", 10, max_length=3, table="item", pooling="mean"),
        NumericFeature("price"),
    ),
)
MIXED_BATCH = {
    "ids": np.array([[1, 2, 3, 0], [4, 0, 0, 0], [0, 0, 0, 0]], np.int64),
    "numbers": np.array([[0.5, -1.0], [2.0, 0.0], [0.0, 0.0]], np.float32),
}


def _trained_looking(model):
    """Gives every weight a value that could come from training, so that no term is zero."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(generator.normal(scale=0.3, size=weight.shape).astype(np.float32))
    return _with_zero_row(model) if model.tables else model


def _with_zero_row(model):
    table = model.embedding_table.table
    table.assign(np.concatenate([np.zeros([1, table.shape[1]], np.float32), table.numpy()[1:]]))
    return model


def _hashed(raw):
    return 1 + tf.strings.to_hash_bucket_fast([str(value) for value in raw], 10).numpy()


def _notebook_batch():
    """The notebook's three impressions, as Transform packs them."""
    seq = [[1100, 1101, 1103], [1102, 1101], [1100, 1103]]
    target = [1102, 1103, 1100]
    ids = np.zeros([3, 4], np.int64)
    for row in range(3):
        ids[row, : len(seq[row])] = _hashed(seq[row])
        ids[row, 3] = _hashed([target[row]])[0]
    return {"ids": ids}


def _relu_tower(model, inputs):
    *hidden, output = (layer for layer in model.deep_tower.layers if layer.weights)
    for layer in hidden:
        kernel, bias = (weight.numpy() for weight in layer.weights)
        inputs = np.maximum(inputs @ kernel + bias, 0)
    return inputs @ output.kernel.numpy()


def test_keras_is_keras_3():
    assert keras.__version__.startswith("3.")
    assert isinstance(model_fn(NOTEBOOK, ModelConfig()), keras.Model)


def test_terms_of_the_notebooks_impressions_are_those_of_plain_numpy():
    model = _trained_looking(
        model_fn(NOTEBOOK, ModelConfig(embedding_dim=8, hidden_units=(32, 16), fm_over="positions"))
    )
    batch = _notebook_batch()
    table = model.embedding_table.numpy()
    linear, fm, pooled = [], [], []
    for ids in batch["ids"]:
        seq = [table[bucket] for bucket in ids[:3] if bucket]
        target = [table[11 + bucket] for bucket in ids[3:] if bucket]
        linear.append([model.bias.numpy()[0] + sum(row[0] for row in seq + target)])
        fm.append([sum(a[1:] @ b[1:] for a, b in itertools.combinations(seq + target, 2))])
        pooled.append(np.concatenate([np.sum(seq, axis=0)[1:], np.sum(target, axis=0)[1:]]))
    deep = _relu_tower(model, np.array(pooled))
    for term, expected in zip(model.terms(batch), (linear, fm, deep), strict=True):
        assert np.abs(expected).min() > 1e-3
        np.testing.assert_allclose(term, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(batch), np.array(linear) + fm + deep, rtol=1e-4, atol=1e-5)


def test_numbers_enter_the_linear_term_and_the_tower():
    model = _trained_looking(model_fn(MIXED, ModelConfig(embedding_dim=2, hidden_units=(4,), fm_over="positions")))
    linear, fm, deep = model.terms({"ids": np.zeros([2, 4], np.int64), "numbers": np.float32([[1, 2], [3, 4]])})
    kernel = model.number_weights.kernel.numpy()
    np.testing.assert_allclose(linear, np.float32([[1, 2], [3, 4]]) @ kernel + model.bias.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(fm, [[0], [0]])
    tower_input = np.float32([[0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 3, 4]])  # two fields of two factors, two numbers
    np.testing.assert_allclose(deep, _relu_tower(model, tower_input), rtol=1e-5)


def test_fm_over_fields_pairs_the_pooled_fields():
    model = _trained_looking(model_fn(MIXED, ModelConfig(embedding_dim=2, fm_over="fields")))
    table = model.embedding_table.numpy()[:, 1:]
    fm = model.terms(MIXED_BATCH)[1]
    item, history = table[1], (table[2] + table[3]) / 2
    np.testing.assert_allclose(fm, [[item @ history], [0], [0]], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fm_over", ["positions", "fields"])
def test_padding_changes_nothing(fm_over):
    longer = FeatureSpec(
        "longer", (*MIXED.features[:2], IdSequence("history", 10, 7, "mean", table="item"), MIXED.features[3])
    )
    short = _trained_looking(model_fn(MIXED, ModelConfig(fm_over=fm_over)))
    long = model_fn(longer, ModelConfig(fm_over=fm_over))
    long.set_weights(short.get_weights())
    padded = {**MIXED_BATCH, "ids": np.pad(MIXED_BATCH["ids"], [(0, 0), (0, 4)])}
    np.testing.assert_allclose(long(padded), short(MIXED_BATCH), rtol=1e-6)


def test_a_batch_of_one_and_an_empty_batch_keep_their_shape():
    model = _trained_looking(model_fn(MIXED, ModelConfig()))
    whole = model(MIXED_BATCH)
    one = model({name: values[:1] for name, values in MIXED_BATCH.items()})
    assert one.shape == (1, 1)
    np.testing.assert_allclose(one, whole[:1], rtol=1e-5, atol=1e-6)
    assert model({name: values[:0] for name, values in MIXED_BATCH.items()}).shape == (0, 1)


def test_only_numbers_and_only_ids_make_a_model_too():
    numbers = FeatureSpec("numbers", (NumericFeature("a"),))
    assert model_fn(numbers, ModelConfig())({"numbers": np.ones([2, 1], np.float32)}).shape == (2, 1)
    ids = FeatureSpec("ids", (IdFeature("a", 5),))
    assert model_fn(ids, ModelConfig())({"ids": np.ones([2, 1], np.int64)}).shape == (2, 1)


def test_the_seed_fixes_the_weights():
    first, again, other = (model_fn(MIXED, ModelConfig(), seed) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.embedding_table.numpy(), other.embedding_table.numpy())
    first_kernel, second_kernel = (layer.kernel.numpy() for layer in first.deep_tower.layers[::2][:2])
    assert not np.array_equal(first_kernel[:2, :2], second_kernel[:2, :2])


def test_embedding_l2_is_the_squared_norm_of_the_looked_up_rows_per_example():
    model = _trained_looking(model_fn(MIXED, ModelConfig(embedding_l2=0.1)))
    model(MIXED_BATCH, training=True)
    table = model.embedding_table.numpy()
    (loss,) = model.losses
    assert float(loss) == pytest.approx(0.1 * np.sum(table[[1, 2, 3, 4]] ** 2) / 3, rel=1e-5)
    model(MIXED_BATCH)
    assert model.losses == []


TERMS = ("linear", "fm", "deep")


@pytest.mark.parametrize("off", TERMS)
def test_a_term_that_is_switched_off_is_zero_and_has_no_part_in_the_others(off):
    whole = _trained_looking(model_fn(MIXED, ModelConfig(embedding_dim=2, hidden_units=(4,))))
    part = model_fn(MIXED, ModelConfig(embedding_dim=2, hidden_units=(4,), **{f"use_{off}": False}))
    weights = {weight.path: weight for weight in whole.weights}
    for weight in part.weights:
        if weight.path in weights and weight.shape == weights[weight.path].shape:
            weight.assign(weights[weight.path])
    expected, terms = (dict(zip(TERMS, model.terms(MIXED_BATCH), strict=True)) for model in (whole, part))
    for name in TERMS:
        np.testing.assert_allclose(terms[name], np.zeros([3, 1]) if name == off else expected[name], rtol=1e-6)


def test_a_model_without_any_term_is_refused():
    with pytest.raises(ValueError, match="use_linear, use_fm and use_deep are all false"):
        ModelConfig(use_linear=False, use_fm=False, use_deep=False)


def test_logistic_regression_has_no_tower():
    model = model_fn(MIXED, ModelConfig(use_fm=False, use_deep=False))
    assert [weight.name for weight in model.trainable_weights] == ["bias", "rows", "kernel"]


def test_batch_norm_normalizes_over_the_batch_in_training_and_by_running_means_in_serving():
    model = _trained_looking(model_fn(MIXED, ModelConfig(hidden_units=(4,), batch_norm=True)))
    dense, normalization = model.deep_tower.layers[:2]
    inputs = np.random.default_rng(0).normal(size=(64, dense.kernel.shape[0])).astype(np.float32)
    normalization.gamma.assign(np.ones(4))
    normalization.beta.assign(np.zeros(4))
    outputs = normalization(dense(inputs), training=True).numpy()
    np.testing.assert_allclose(outputs.mean(axis=0), np.zeros(4), atol=1e-4)
    np.testing.assert_allclose(outputs.std(axis=0), np.ones(4), atol=1e-2)
    served = model(MIXED_BATCH, training=False)
    np.testing.assert_allclose(served[:1], model({n: v[:1] for n, v in MIXED_BATCH.items()}), rtol=1e-5)


def test_dropout_is_on_in_training_only():
    model = _trained_looking(model_fn(MIXED, ModelConfig(hidden_units=(64,), dropout=0.5)))
    np.testing.assert_array_equal(model(MIXED_BATCH), model(MIXED_BATCH))
    assert not np.array_equal(model(MIXED_BATCH, training=True), model(MIXED_BATCH))


def test_numbers_are_vectors_of_the_fm_term_where_asked():
    model = _trained_looking(model_fn(MIXED, ModelConfig(embedding_dim=2, fm_over="fields", fm_numbers=True)))
    table, factors = model.embedding_table.numpy()[:, 1:], model.number_factors.numpy()
    numbers = MIXED_BATCH["numbers"][0]
    vectors = [table[1], (table[2] + table[3]) / 2, numbers[0] * factors[0], numbers[1] * factors[1]]
    expected = sum(a @ b for a, b in itertools.combinations(vectors, 2))
    np.testing.assert_allclose(model.terms(MIXED_BATCH)[1][0], [expected], rtol=1e-4)


def test_target_attention_takes_the_place_of_the_mean_in_the_tower_only():
    sequence = IdSequence("history", 10, max_length=3, table="item", pooling="target_attention")
    spec = FeatureSpec("attended", (MIXED.features[0], sequence))
    model = _trained_looking(model_fn(spec, ModelConfig(embedding_dim=2, hidden_units=(4,), fm_over="fields")))
    table = model.embedding_table.numpy()[:, 1:]
    _, fm, deep = model.terms({"ids": MIXED_BATCH["ids"]})
    np.testing.assert_allclose(fm[0], [table[1] @ (table[2] + table[3]) / 2], rtol=1e-4)
    history = np.array([[table[2], table[3], table[0]]], np.float32)
    attended = model.attention["history"](history, table[None, 1:2], np.array([[True, True, False]]))
    tower_input = np.concatenate([table[1:2], attended], axis=1)
    np.testing.assert_allclose(deep[:1], _relu_tower(model, tower_input), rtol=1e-4)
    assert not np.allclose(attended[0], (table[2] + table[3]) / 2, rtol=1e-3)


def test_tower_l2_is_half_lambda_times_the_squared_matrices():
    model = _trained_looking(model_fn(MIXED, ModelConfig(hidden_units=(4, 2), tower_l2=0.1)))
    kernels = [layer.kernel.numpy() for layer in model.deep_tower.layers if layer.weights]
    assert len(kernels) == 3
    penalty = sum(float(loss) for loss in model.losses)
    assert penalty == pytest.approx(0.05 * sum(np.sum(kernel**2) for kernel in kernels), rel=1e-5)


@pytest.mark.parametrize("option", ["xla", "mixed_precision"])
def test_a_tower_that_is_computed_in_another_way_gives_the_same_logits(option):
    plain, other = (_trained_looking(model_fn(MIXED, ModelConfig(**options))) for options in ({}, {option: True}))
    tolerance = 0.02 if option == "mixed_precision" else 1e-5  # bfloat16 has 8 bits
    for training in (False, True):
        logits = other(MIXED_BATCH, training=training)
        assert logits.dtype == tf.float32
        np.testing.assert_allclose(logits, plain(MIXED_BATCH, training=training), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("id_dropout", [0.0, 0.5])
def test_a_batch_whose_rows_are_planned_beforehand_trains_to_the_same_weights(id_dropout):
    data = tf.data.Dataset.from_tensors((MIXED_BATCH, np.float32([[1], [0], [1]]))).repeat(3)
    weights = []
    for is_planned in (False, True):
        model = model_fn(MIXED, ModelConfig(id_dropout=id_dropout))
        compile_model(model, TrainingConfig(learning_rate=0.1))
        before = model.embedding_table.numpy()
        model.fit(data.map(model.plan_batch) if is_planned else data, verbose=0)
        assert np.any(model.embedding_table.numpy()[1:5] != before[1:5])
        weights.append([weight.numpy() for weight in model.weights])
    for planned, plain in zip(*weights, strict=True):
        np.testing.assert_array_equal(planned, plain)


class Calls(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((int(self.model.optimizer.iterations), float(logs["loss"])))


@pytest.mark.parametrize(("steps_per_call", "ends"), [(2, [2, 4, 5, 7, 9, 10]), (5, [5, 10]), (32, [5, 10])])
def test_steps_of_one_call_are_those_of_a_call_each(steps_per_call, ends):
    generator = np.random.default_rng(0)
    features = {name: np.concatenate([values] * 3)[generator.permutation(9)] for name, values in MIXED_BATCH.items()}
    data = tf.data.Dataset.from_tensor_slices((features, np.float32(generator.integers(0, 2, [9, 1])))).batch(2)
    found = []
    for number in (1, steps_per_call):
        model = model_fn(MIXED, ModelConfig(dropout=0.1, id_dropout=0.1))
        compile_model(model, TrainingConfig(learning_rate=0.1))
        model.steps_per_call = number
        calls = Calls()
        history = model.fit(data, epochs=2, verbose=0, callbacks=[calls]).history
        found.append((dict(calls.steps), history["loss"], [weight.numpy() for weight in model.weights]))
    (each, losses, weights), (some, same_losses, same_weights) = found
    assert list(each) == list(range(1, 11))
    assert list(some) == ends
    assert some == {step: each[step] for step in ends}
    assert same_losses == losses
    for one, other in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(other, one)
