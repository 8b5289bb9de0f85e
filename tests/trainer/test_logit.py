from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from trainer.config import ModelConfig
from trainer.logit import as_constant, has_short_form, short_logit
from trainer.model import model_fn

SPEC = FeatureSpec(
    "s",
    (
        IdFeature("user", 9, num_hashes=2),
        IdFeature("item", 10, table="item"),
        NumericFeature("age"),
        IdSequence("history", 10, max_length=3, table="item", pooling="mean"),
        IdSequence("tags", 10, max_length=2, pooling="sqrtn"),
        IdSequence("sum", 10, max_length=2, pooling="sum", num_hashes=2),
        IdFeature("shop", 5),
        NumericFeature("price"),
    ),
)
SINGLES = FeatureSpec("s", (IdFeature("user", 9), IdFeature("item", 10), NumericFeature("age")))
ONE_HASH = FeatureSpec(
    "s", tuple(dataclasses.replace(f, num_hashes=1) if hasattr(f, "num_hashes") else f for f in SPEC.features)
)
NUMBERS = FeatureSpec("s", (NumericFeature("age"), NumericFeature("price")))
CONFIGS = {
    "default": (SPEC, {}),
    "one hash for each id": (ONE_HASH, {}),
    "numbers in the FM term": (SPEC, {"fm_numbers": True}),
    "logistic regression": (SPEC, {"use_fm": False, "use_deep": False}),
    "factorization machine": (SPEC, {"use_deep": False}),
    "without a linear term": (SPEC, {"use_linear": False}),
    "tower alone": (SPEC, {"use_linear": False, "use_fm": False}),
    "one hidden layer": (SPEC, {"hidden_units": (6,), "activation": "tanh"}),
    "batch norm and dropout": (SPEC, {"batch_norm": True, "dropout": 0.5}),
    "over positions of single ids": (SINGLES, {"fm_over": "positions"}),
    "no ids": (NUMBERS, {"fm_numbers": True}),
    "no numbers": (FeatureSpec("s", (IdFeature("user", 9), IdFeature("item", 10))), {}),
}
NOT = {
    "over positions of sequences": (SPEC, {"fm_over": "positions"}),
    "bfloat16": (SPEC, {"mixed_precision": True}),
    "no hidden layer": (SPEC, {"hidden_units": ()}),
    "attention": (
        FeatureSpec("s", (IdFeature("item", 9, table="t"), IdSequence("h", 9, 3, "target_attention", table="t"))),
        {},
    ),
}


def _model(spec, options):
    model = model_fn(spec, ModelConfig(**{"embedding_dim": 4, "hidden_units": (7, 5)} | options), seed=1)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(np.abs(generator.normal(scale=0.3, size=weight.shape)).astype(np.float32))
    for table in model.tables:
        table.assign(table.numpy() * (np.arange(table.shape[0]) > 0)[:, np.newaxis])
    return model


def _batch(spec):
    generator = np.random.default_rng(1)
    batch = {}
    if spec.id_fields:
        ids = np.zeros([6, spec.num_positions], np.int64)
        for field in spec.id_fields:
            is_id = np.tile(generator.random([6, field.max_length]) < 0.7, field.num_hashes)
            ids[:, field.positions] = np.where(is_id, generator.integers(1, field.unseen, is_id.shape), 0)
        ids[-1] = 0
        batch["ids"] = ids
    if spec.numbers:
        batch["numbers"] = generator.normal(size=[6, len(spec.numbers)]).astype(np.float32)
    return batch


@pytest.mark.parametrize(("spec", "options"), CONFIGS.values(), ids=CONFIGS.keys())
def test_the_logit_is_the_sum_of_the_models_terms(spec, options):
    model, batch = _model(spec, options), _batch(spec)
    assert has_short_form(model)
    logit = model(batch)
    np.testing.assert_allclose(logit, sum(model.terms(batch)), rtol=2e-5, atol=2e-6)
    assert len(np.unique(logit)) > 4
    np.testing.assert_array_equal(logit, short_logit(model, batch))  # which is what the model computes
    np.testing.assert_array_equal(logit, short_logit(model, batch, as_constant))


@pytest.mark.parametrize(("spec", "options"), NOT.values(), ids=NOT.keys())
def test_a_model_that_cannot_be_inferred_so_computes_its_terms(spec, options):
    model, batch = _model(spec, options), _batch(spec)
    assert not has_short_form(model)
    np.testing.assert_array_equal(model(batch), sum(model.terms(batch)))


def test_constants_are_in_the_graph_and_the_table_is_not():
    model = _model(SPEC, {})
    function = tf.function(lambda ids, numbers: short_logit(model, {"ids": ids, "numbers": numbers}, as_constant))
    graph = function.get_concrete_function(**{name: tf.constant(v) for name, v in _batch(SPEC).items()}).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert (kinds.count("ResourceGatherNd"), kinds.count("ReadVariableOp")) == (1, 0)


def test_the_towers_first_product_is_one_of_its_own():  # one impression's product is faster below some size
    model = _model(SPEC, {})
    function = tf.function(lambda ids, numbers: short_logit(model, {"ids": ids, "numbers": numbers}, as_constant))
    graph = function.get_concrete_function(**{name: tf.constant(v) for name, v in _batch(SPEC).items()}).graph
    widths = [operation.outputs[0].shape[1] for operation in graph.get_operations() if operation.type == "MatMul"]
    of_counts, tower, rest = 2 * (1 + 4), (7, 5), 1 + 4
    assert sorted(widths) == sorted([of_counts, *tower, rest, 1])
