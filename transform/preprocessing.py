"""The transformation of raw impressions, the same graph in training and serving.

What becomes of a value:

| raw | transformed |
|---|---|
| id, int64 | its decimal digits as a string, then as string ids |
| id, string | fingerprint64 modulo `num_buckets`, plus 1 |
| id with `num_hashes: 2` | the same, and once more with another hash, at positions of its own |
| id, missing or the empty string | 0: no id, which adds exactly nothing to any term of the model |
| id or number with several values | the first |
| id sequence longer than `max_length` | its last `max_length` ids, in their order |
| id sequence shorter, empty or missing | padded with 0 at the end |
| number | normalized with the training split's statistics |
| number, missing, NaN or infinite | 0.0, the training split's mean; for `quantile_buckets` no id |
| number, constant in the training split | 0.0 |
| weight | as it is |

Hashing is that of `tf.feature_column.categorical_column_with_hash_bucket`, to the bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import (
    IDS,
    LABEL,
    NUMBERS,
    WEIGHT,
    FeatureSpec,
    IdFeature,
    IdSequence,
    NumericFeature,
    load_spec,
)
from schemas.hashing import HASH_SALTS, hash_ids


def preprocessing_fn(inputs: Mapping[str, tf.SparseTensor], custom_config: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """TFX Transform's entry: `custom_config["features"]` names the spec."""
    return transform_impressions(inputs, load_spec(custom_config["features"]))


def transform_impressions(inputs: Mapping[str, tf.SparseTensor], spec: FeatureSpec) -> dict[str, tf.Tensor]:
    """Packs raw impressions into what the model reads.

    The same few operations do it for all columns together: in service, what an operation costs is not its values'.

    Args:
        inputs: For each column of the spec its values, of the column's dtype, [batch, any].
        spec: The data set.

    Returns:
        `ids` int64 [batch, num_positions], `numbers` float32 [batch, num_numbers], `weight` float32 [batch] (each only
        where the spec has any) and `label` float32 [batch].
    """
    outputs = {}
    if spec.id_fields:
        outputs[IDS] = pack_ids(inputs, spec)
    if spec.numbers:
        is_log = [feature.normalization == "log1p_z_score" for feature in spec.numbers]
        outputs[NUMBERS] = normalize_numbers([inputs[feature.name] for feature in spec.numbers], is_log)
    if spec.weight:
        outputs[WEIGHT] = _first_values([inputs[spec.weight]])[:, 0]
    outputs[LABEL] = tf.cast(_first_values([inputs[spec.label.name]]), tf.float32)[:, 0]
    return outputs


def pack_ids(inputs: Mapping[str, tf.SparseTensor], spec: FeatureSpec) -> tf.Tensor:
    """Lays the buckets of all id fields out at fixed positions.

    Args:
        inputs: See `transform_impressions`.
        spec: The data set.

    Returns:
        Bucket + 1 at each position, 0 where there is no id: int64 [batch, num_positions].
    """
    features = [feature for feature in spec.features if not isinstance(feature, NumericFeature)]
    hashes = [(feature, salt) for feature in features for salt in HASH_SALTS[: feature.num_hashes]]
    hashed = iter(hash_columns([(inputs[feature.name], feature.num_buckets, salt) for feature, salt in hashes]))
    columns: list[tuple[tf.SparseTensor, int | None]] = []
    for feature in spec.features:
        if isinstance(feature, IdFeature | IdSequence):
            max_length = feature.max_length if isinstance(feature, IdSequence) else None
            columns += [(next(hashed), max_length) for _ in range(feature.num_hashes)]
        elif feature.normalization == "quantile_buckets":
            buckets = quantile_bucket(inputs[feature.name], feature.num_buckets)
            columns.append((_with_values(buckets, buckets.values + 1), None))
    runs = [list(run) for _, run in itertools.groupby(columns, key=_sequence_key)]
    singles = [column for column, max_length in columns if max_length is None]
    sizes = [len(run) for run in runs if run[0][1] is None]
    # One layout for all single ids, cut where a sequence stands between them.
    parts = iter(tf.split(_first_values(singles), sizes, axis=1) if singles else [])
    return tf.concat(
        [next(parts) if length is None else _last_values(column, length) for [(column, length), *_] in runs], 1
    )


def hash_columns(columns: Sequence[tuple[tf.SparseTensor, int, str]]) -> list[tf.SparseTensor]:
    """Hashes the ids of many columns.

    Args:
        columns: For each its int64 or string ids, [batch, any], its number of buckets and its salt.

    Returns:
        For each int64 bucket + 1, 0 for the empty string, [batch, any].
    """
    hashed: dict[int, tf.SparseTensor] = {}
    for key in dict.fromkeys((raw.dtype, salt) for raw, _, salt in columns):
        members = [index for index, (raw, _, salt) in enumerate(columns) if (raw.dtype, salt) == key]
        raws = [columns[index][0] for index in members]
        ids = _concat([raw.values for raw in raws])
        sizes = _sizes(raws)
        counts = [columns[index][1] for index in members]
        num_buckets = (
            tf.gather(tf.constant(counts, tf.int64), _column_of_value(sizes)) if len(set(counts)) > 1 else counts[0]
        )
        values = hash_ids(ids, num_buckets, key[1]) + 1
        if ids.dtype == tf.string:
            values = tf.where(ids == "", tf.zeros_like(values), values)
        parts = tf.split(values, sizes, num=len(raws))
        hashed |= {index: _with_values(raw, part) for index, raw, part in zip(members, raws, parts, strict=True)}
    return [hashed[index] for index in range(len(columns))]


def normalize_numbers(columns: Sequence[tf.SparseTensor], is_log: Sequence[bool]) -> tf.Tensor:
    """Normalizes numbers to mean 0 and variance 1 over the training split.

    Args:
        columns: int64 or float32 [batch, any] each.
        is_log: Whether to take sign(x) * log(1 + |x|) first, for each.

    Returns:
        float32 [batch, num_columns]; 0.0 where missing or not finite.
    """
    numbers = _first_values([tf.cast(column, tf.float32) for column in columns], default=math.nan)
    is_number = tf.math.is_finite(numbers)
    if any(is_log):
        logs = tf.sign(numbers) * tf.math.log1p(tf.abs(numbers))
        numbers = tf.where(tf.constant(is_log), logs, numbers)
    # TFT leaves what is not finite out of its statistics. In double precision, as how Beam cuts the rows into batches
    # depends on time: in single precision the same log gives other last digits, and other weights, with every run.
    scores = tf.cast(tft.scale_to_z_score(tf.cast(numbers, tf.float64), elementwise=True), tf.float32)
    return tf.where(is_number, scores, tf.zeros_like(numbers))


def quantile_bucket(raw: tf.SparseTensor, num_buckets: int) -> tf.SparseTensor:
    """Returns the quantile bucket of a number over the training split: int64 in [0, num_buckets), [batch, any].

    Args:
        raw: int64 or float32 [batch, any]; values that are not finite are dropped.
        num_buckets: Number of buckets, which hold about equally many impressions of the training split.
    """
    numbers = tf.cast(raw, tf.float32)
    finite = tf.sparse.retain(numbers, tf.math.is_finite(numbers.values))
    return _with_values(finite, tft.bucketize(finite.values, num_buckets))


def _first_values(columns: Sequence[tf.SparseTensor], default: float = 0) -> tf.Tensor:
    """Returns each row's first value of each column, `default` where it has none, [batch, num_columns]."""
    batch = columns[0].dense_shape[0]
    rows = _concat([column.indices for column in columns])[:, 0]
    if len(columns) > 1:
        rows += batch * _column_of_value(_sizes(columns))  # the columns' rows below each other
    values = tf.RaggedTensor.from_value_rowids(
        _concat([column.values for column in columns]), rows, nrows=batch * len(columns), validate=False
    )
    first = values.to_tensor(default_value=default, shape=[None, 1])
    return tf.transpose(tf.reshape(first, [len(columns), -1]))


def _last_values(column: tf.SparseTensor, max_length: int) -> tf.Tensor:
    """Returns each row's last ids, in their order, without the empty ones, padded with 0: [batch, max_length]."""
    column = tf.sparse.retain(column, column.values > 0)
    rows = tf.RaggedTensor.from_value_rowids(
        column.values, column.indices[:, 0], nrows=column.dense_shape[0], validate=False
    )
    return rows[:, -max_length:].to_tensor(default_value=0, shape=[None, max_length])


def _sequence_key(column: tuple[tf.SparseTensor, int | None]) -> int:
    """Groups neighbouring single ids; a sequence stands alone."""
    return 0 if column[1] is None else id(column)


def _column_of_value(sizes: tf.Tensor) -> tf.Tensor:
    """Returns for each value of columns put behind each other the number of its column, int64 [sum of sizes]."""
    ends = tf.cumsum(sizes)
    return tf.searchsorted(ends, tf.range(ends[-1]), side="right", out_type=tf.int64)


def _sizes(columns: Sequence[tf.SparseTensor]) -> tf.Tensor:
    """Returns the number of values of each column, int64 [num_columns]."""
    return _concat(tf.shape_n([column.values for column in columns], out_type=tf.int64))


def _concat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=0)


def _with_values(like: tf.SparseTensor, values: tf.Tensor) -> tf.SparseTensor:
    return tf.SparseTensor(like.indices, values, like.dense_shape)
