"""Serialized tf.Examples of a request -> the columns that the transformation reads.

`tf.io.parse_example` divides a request among threads, which takes longer than to parse some dozen impressions. On the
wire a tf.Example is a tf.SequenceExample without sequences, whose parser takes one after the other in the thread that
calls (docs/adr/0036).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

FEW = (4, 64)  # the least and the most impressions that are parsed so
Columns = dict[str, tf.Tensor | tf.RaggedTensor]


def parse_examples(examples: tf.Tensor, feature_spec: Mapping[str, Any]) -> Columns:
    """Returns what `tf.io.parse_example` returns; but of few examples an empty list is a missing feature.

    Args:
        examples: Serialized tf.Examples, string [batch].
        feature_spec: A `FixedLenFeature` of shape [] with a default value, or a `RaggedFeature`, for each column.

    Raises:
        tf.errors.InvalidArgumentError: In the graph: bytes that are not a tf.Example, a value of another type, or
            several values where there may be one, or an empty list, but of few examples.
    """
    count = tf.size(examples)
    found = _choose(
        (count >= FEW[0]) & (count <= FEW[1]),
        lambda: _parse_few(examples, feature_spec),
        lambda: tf.io.parse_example(examples, feature_spec),
    )
    return {name: found[name] for name in feature_spec}


def _parse_few(examples: tf.Tensor, feature_spec: Mapping[str, Any]) -> Columns:
    dense: dict[tf.DType, list[str]] = {}  # by dtype: what a function takes and returns costs by its number
    for name, feature in feature_spec.items():
        if not isinstance(feature, tf.io.RaggedFeature):
            dense.setdefault(feature.dtype, []).append(name)
    # Dense ones would be refused where a feature is there and holds no list, as tfx_bsl writes a null.
    ragged = {
        name: tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int32) for dtype, names in dense.items() for name in names
    }
    columns, _, _ = tf.io.parse_sequence_example(examples, context_features=dict(feature_spec) | ragged)
    found: Columns = {name: column for name, column in columns.items() if name not in ragged}
    if not ragged:
        return found
    values = [tf.concat([columns[name].values for name in names], axis=0) for names in dense.values()]
    splits = tf.stack([columns[name].row_splits for name in ragged])  # [columns, batch + 1]
    whole = tf.range(tf.size(examples) + 1)
    is_whole = tf.reduce_all(splits == tf.stack([whole] * len(ragged)))  # a comparison by broadcasting takes longer
    packed = _choose(
        is_whole,  # one value for each column of each example
        lambda: [tf.reshape(group, [len(names), -1]) for group, names in zip(values, dense.values(), strict=True)],
        lambda: _fill_gaps(values, splits, [[feature_spec[name] for name in names] for names in dense.values()]),
    )
    for group, names in zip(packed, dense.values(), strict=True):
        found |= zip(names, tf.unstack(group, num=len(names)), strict=True)
    return found


def _fill_gaps(values: Sequence[tf.Tensor], splits: tf.Tensor, groups: Sequence[Sequence[Any]]) -> list[tf.Tensor]:
    """Returns the columns with their default values where an example has none: [columns, batch] for each dtype."""
    lengths = splits[:, 1:] - splits[:, :-1]
    is_one = tf.debugging.Assert(
        tf.reduce_all(lengths <= 1), ["several values of a feature that may have one; values of each:", lengths]
    )
    with tf.control_dependencies([is_one]):
        has_value = tf.cast(lengths, tf.bool)
    packed = []
    parts = tf.split(has_value, [len(features) for features in groups])
    for group, part, features in zip(values, parts, groups, strict=True):
        defaults = tf.constant([[feature.default_value] for feature in features], features[0].dtype)
        empty = tf.repeat(defaults, tf.shape(lengths)[1], axis=1)
        packed.append(tf.tensor_scatter_nd_update(empty, tf.where(part), group))
    return packed


def _choose(condition: tf.Tensor, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Returns what one of two functions returns: columns, dense [batch] or ragged, or several of them in one tensor."""
    found = tf.cond(condition, if_true, if_false)
    for column in tf.nest.flatten(found):
        if isinstance(column, tf.Tensor) and column.shape.rank is None:
            column.set_shape([None])
    # As a call, not as operations that run dead: one impression takes 20 microseconds less.
    operations = tf.compat.v1.get_default_graph().get_operations()
    *_, choice = (operation for operation in operations if operation.type in ("If", "StatelessIf"))
    choice._set_attr("_lower_using_switch_merge", attr_value_pb2.AttrValue(b=False))
    return found
