from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer.parsing import FEW, parse_examples

PARSING = {
    "item": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    "price": tf.io.FixedLenFeature([], tf.float32, default_value=-np.inf),
    "history": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    "shop": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "age": tf.io.FixedLenFeature([], tf.int64, default_value=-(2**63)),
    "words": tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64),
    "user": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
}
SIZES = [0, 1, FEW[0] - 1, FEW[0], 7, FEW[1], FEW[1] + 1]


def _feature(dtype, values):
    if dtype == tf.int64:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    if dtype == tf.float32:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _make_examples(count, share_of_gaps, parsing=PARSING, seed=0):
    generator = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        example = tf.train.Example()
        for name, feature in parsing.items():
            number = int(generator.integers(0, 4)) if isinstance(feature, tf.io.RaggedFeature) else 1
            kind = generator.choice(["value", "no feature", "no list"], p=_shares(share_of_gaps))
            if kind == "no list":  # as tfx_bsl writes a null
                example.features.feature[name].Clear()
            elif kind == "value":
                values = generator.integers(-3, 2**40, number).tolist()
                values = [str(value).encode() for value in values] if feature.dtype == tf.string else values
                example.features.feature[name].CopyFrom(_feature(feature.dtype, values))
        examples.append(example.SerializeToString())
    return examples


def _shares(of_gaps):
    return [1 - of_gaps, of_gaps / 2, of_gaps / 2]


def _assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, column in expected.items():
        if isinstance(column, tf.RaggedTensor):
            np.testing.assert_array_equal(found[name].values, column.values, err_msg=name)
            np.testing.assert_array_equal(found[name].row_splits, column.row_splits, err_msg=name)
        else:
            assert found[name].dtype == column.dtype
            np.testing.assert_array_equal(found[name], column, err_msg=name)


@pytest.fixture(scope="module")
def parse():
    return tf.function(lambda examples: parse_examples(examples, PARSING), [tf.TensorSpec([None], tf.string)])


@pytest.mark.parametrize("share_of_gaps", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_the_columns_are_those_of_parse_example(parse, size, share_of_gaps):
    examples = tf.constant(_make_examples(size, share_of_gaps), tf.string, [size])
    expected = tf.io.parse_example(examples, PARSING)
    _assert_equal(parse(examples), {name: expected[name] for name in PARSING})


@pytest.mark.parametrize("names", [["history"], ["item"], ["shop", "words"], ["price", "item"]])
def test_any_kinds_of_columns(names):
    parsing = {name: PARSING[name] for name in names}
    for share in (0.0, 0.5):
        examples = tf.constant(_make_examples(9, share, parsing))
        expected = tf.io.parse_example(examples, parsing)
        found = tf.function(parse_examples)(examples, parsing)
        _assert_equal(found, {name: expected[name] for name in names})


def _with(name, feature):
    example = tf.train.Example.FromString(_make_examples(1, 0.0)[0])
    example.features.feature[name].CopyFrom(feature)
    return example.SerializeToString()


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xff\xff",
        _make_examples(1, 0.0)[0][:-3],
        _with("item", _feature(tf.int64, [1, 2])),
        _with("shop", _feature(tf.string, [b"a", b"b", b"c"])),
        _with("item", _feature(tf.float32, [1.0])),
        _with("history", _feature(tf.string, [b"1"])),
    ],
    ids=["no example", "cut short", "two ids", "three texts", "an id of another type", "a list of another type"],
)
@pytest.mark.parametrize("size", [1, *FEW, FEW[1] + 1])
def test_an_example_that_is_none_is_an_error_of_the_request(parse, bad, size):
    examples = _make_examples(size, 0.1)
    parse(tf.constant(examples))
    examples[size // 2] = bad
    # Python cannot read the message of parse_example, which has the bytes in it.
    with pytest.raises((tf.errors.InvalidArgumentError, UnicodeDecodeError)):
        parse(tf.constant(examples))


@pytest.mark.parametrize(("size", "is_few"), [(1, False), (FEW[0], True), (FEW[1], True), (FEW[1] + 1, False)])
def test_an_empty_list_is_an_error_or_of_few_examples_a_missing_feature(parse, size, is_few):
    examples = _make_examples(size, 0.0)
    examples[0] = _with("item", _feature(tf.int64, []))
    if is_few:
        assert parse(tf.constant(examples))["item"][0] == PARSING["item"].default_value
    else:
        with pytest.raises((tf.errors.InvalidArgumentError, UnicodeDecodeError)):
            parse(tf.constant(examples))


def test_of_two_values_for_one_key_the_last_one_counts(parse):
    (first, second) = _make_examples(2, 0.0)
    examples = tf.constant([first + second] * FEW[0])  # what protobuf makes of one after the other
    expected = tf.io.parse_example(examples, PARSING)
    _assert_equal(parse(examples), {name: expected[name] for name in PARSING})
