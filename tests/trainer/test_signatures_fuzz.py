"""Random tf.Examples and tensors for an export's signatures: an answer or an InvalidArgument, and never a crash."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.features import IdSequence
from tests.small_model import SPEC, make_rows, to_example

GOOD = to_example(make_rows(1)[0])
INTS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12)
FLOATS = st.lists(st.floats(width=32), max_size=12)
BYTES = st.lists(st.binary(max_size=30), max_size=12)
HUGE = st.sampled_from([[2**63 - 1] * 20_000, [-1] * 20_000])
KINDS = {"int64": INTS | HUGE, "float32": FLOATS, "string": BYTES}
ONE = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32),
    "string": st.binary(max_size=30),
}
FIELDS = {"int64": "int64_list", "float32": "float_list", "string": "bytes_list"}


def _values(feature):
    """A sequence has any number of values, any other feature one where it is there."""
    one = st.lists(ONE[feature.dtype], min_size=1, max_size=1)
    return KINDS[feature.dtype] if isinstance(feature, IdSequence) else one


NO_LIST = st.just(("", ()))
FITTING = st.fixed_dictionaries(
    {"label": st.tuples(st.just("int64_list"), st.sampled_from([[0], [1]]))},
    optional={f.name: st.tuples(st.just(FIELDS[f.dtype]), _values(f)) | NO_LIST for f in SPEC.features},
)
ANY = st.dictionaries(
    st.sampled_from([feature.name for feature in SPEC.features]) | st.text(max_size=8),
    st.tuples(st.just("int64_list"), INTS)
    | st.tuples(st.just("float_list"), FLOATS)
    | st.tuples(st.just("bytes_list"), BYTES),
    max_size=8,
)
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def _serialize(features):
    example = tf.train.Example()
    for name, (field, values) in features.items():
        feature = example.features.feature[name]
        if field:
            getattr(feature, field).value.extend(values)
    return example.SerializeToString()


FIT = FITTING.map(_serialize)
CUT = st.builds(lambda example, length: example[:length], FIT, st.integers(0, 60))


@pytest.fixture(scope="module")
def signatures(small_model):
    model = tf.saved_model.load(str(small_model))
    return model, model.signatures["serving_default"](examples=tf.constant([GOOD]))["ctr"].numpy()


def _is_ctr(answer, count):
    ctrs = answer["ctr"].numpy()
    assert ctrs.shape == (count, 1)
    assert np.all((ctrs >= 0) & (ctrs <= 1))


def _call(signature, **inputs):
    """Returns the answer, None where the request is refused."""
    try:
        return signature(**inputs)
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # the latter is how the former's message ends
        return None


@settings(FUZZ, max_examples=150)
@given(examples=st.lists(FIT, max_size=4))
def test_examples_of_the_right_types_are_answered(signatures, examples):
    model, _ = signatures
    request = tf.constant(examples, tf.string)
    _is_ctr(model.signatures["serving_default"](examples=request), len(examples))
    features = model.signatures["transform_features"](examples=request)
    assert {name: values.shape[0] for name, values in features.items()} == dict.fromkeys(features, len(examples))
    assert all(np.all(np.isfinite(values)) for values in features.values())


@settings(FUZZ, max_examples=200)
@given(examples=st.lists(ANY.map(_serialize) | st.binary(max_size=50) | CUT | FIT, min_size=1, max_size=3))
def test_any_other_examples_are_answered_or_refused(signatures, examples):
    model, good = signatures
    request = tf.constant(examples, tf.string)
    answer = _call(model.signatures["serving_default"], examples=request)
    if answer is not None:
        _is_ctr(answer, len(examples))
    _call(model.signatures["transform_features"], examples=request)
    np.testing.assert_allclose(
        model.signatures["serving_default"](examples=tf.constant([GOOD]))["ctr"], good, rtol=1e-6
    )


@settings(FUZZ, max_examples=300)
@given(example=ANY.map(_serialize) | st.binary(max_size=50) | CUT | FIT | st.builds(bytes.__add__, FIT, FIT))
def test_an_example_among_many_gets_the_same_answer(signatures, example):
    model, _ = signatures
    alone = _call(model.signatures["serving_default"], examples=tf.constant([example]))
    among = _call(model.signatures["serving_default"], examples=tf.constant([example] + [GOOD] * 99))
    assert (alone is None) == (among is None)
    if alone is not None:
        np.testing.assert_allclose(alone["ctr"][0], among["ctr"][0], rtol=1e-5)


@st.composite
def dense(draw):
    """Inputs of `predict`: as long as each other or not, lengths that fit or not, numbers of any size."""
    count = draw(st.integers(0, 4))
    inputs = {}
    for feature in SPEC.features:
        rows = count if draw(st.integers(0, 9)) else draw(st.integers(0, 4))
        if hasattr(feature, "max_length"):
            shape = (rows, draw(st.integers(0, 5)))
            fitting = st.integers(0, shape[1])
            any_length = fitting if draw(st.integers(0, 4)) else fitting | st.integers(-2, 6) | st.just(2**62)
            lengths = draw(st.lists(any_length, min_size=rows, max_size=rows))
            inputs[feature.length_name] = tf.constant(lengths, tf.int64)
        else:
            shape = (rows,)
        size = int(np.prod(shape))
        numeric = not hasattr(feature, "table")
        if numeric:
            values, dtype = st.floats(width=32), tf.float32
        elif feature.dtype == "string":
            values, dtype = st.binary(max_size=9), tf.string
        else:
            values, dtype = st.integers(-(2**63), 2**63 - 1), tf.int64
        drawn = draw(st.lists(values, min_size=size, max_size=size))
        inputs[feature.name] = tf.reshape(tf.constant(drawn, dtype), shape)
    return inputs


@settings(FUZZ, max_examples=150)
@given(request=dense())
def test_dense_inputs_are_answered_or_refused(signatures, request):
    model, good = signatures
    answer = _call(model.signatures["predict"], **request)
    sizes = {value.shape[0] for value in request.values()}
    fits = all(
        0 <= length <= request[feature.name].shape[1]
        for feature in SPEC.features
        if hasattr(feature, "max_length")
        for length in request[feature.length_name].numpy()
    )
    if len(sizes) > 1 or not fits:
        assert answer is None
    elif answer is not None:
        _is_ctr(answer, *sizes)
    np.testing.assert_allclose(
        model.signatures["serving_default"](examples=tf.constant([GOOD]))["ctr"], good, rtol=1e-6
    )
