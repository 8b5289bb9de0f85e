"""The transformation of raw impressions, the same graph in training and serving.

What becomes of a value:

| raw | transformed |
|---|---|
| id | fingerprint64 of its bytes modulo `num_buckets`, plus 1; see `schemas/hashing.py` |
| id, int64, with `hashing: digits` | the same of its decimal digits |
| id with `num_hashes: 2` | the same, and once more with another hash, at positions of its own |
| id, missing, negative or the empty string | 0: no id, which adds exactly nothing to any term of the model |
| id or number with several values | an error of the request; the ingestion has put such rows aside |
| id sequence longer than `max_length` | its last `max_length` ids, in their order |
| id sequence shorter, empty or missing | 0 in front of its ids |
| number | normalized with the training split's statistics |
| number, more than a million standard deviations from the mean | a million; no value of the training split is |
| number, missing, NaN or infinite | 0.0, the training split's mean; for `quantile_buckets` no id |
| number, constant in the training split or missing in all of it | 0.0 |
| weight | as it is |

Hashing `digits` is that of `tf.feature_column.categorical_column_with_hash_bucket`, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import (
    IDS,
    LABEL,
    NO_ID,
    NO_NUMBER,
    NUMBERS,
    WEIGHT,
    FeatureSpec,
    IdSequence,
    NumericFeature,
    load_spec,
)
from schemas.hashing import hash_ids

Inputs = Mapping[str, tf.Tensor | tf.RaggedTensor]
# Of n values none is more than sqrt(n - 1) standard deviations from their mean. In service what is sent for "unknown",
# as the greatest int64, may be so far away that float32 has no square of it.
_MAX_SCORE = 1e6


def preprocessing_fn(inputs: Inputs, custom_config: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """TFX Transform's entry: `custom_config["features"]` names the spec."""
    return transform_impressions(inputs, load_spec(custom_config["features"]))


def transform_impressions(inputs: Inputs, spec: FeatureSpec) -> dict[str, tf.Tensor]:
    """Packs raw impressions into what the model reads.

    The same few operations do it for all columns together: in service, what an operation costs is not its values'.

    Args:
        inputs: The columns of the spec, of the column's dtype: a sequence ragged [batch, any], any other dense [batch],
            with `NO_ID` or `NO_NUMBER` where there is no value, as `schemas/tfmd.py` says.
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
        outputs[WEIGHT] = inputs[spec.weight]
    outputs[LABEL] = tf.cast(inputs[spec.label.name], tf.float32)
    return outputs


def pack_ids(inputs: Inputs, spec: FeatureSpec) -> tf.Tensor:
    """Lays the buckets of all id fields out at fixed positions.

    Args:
        inputs: See `transform_impressions`.
        spec: The data set.

    Returns:
        Bucket + 1 at each position, 0 where there is no id: int64 [batch, num_positions].
    """
    features = {feature.name: feature for feature in spec.features}
    # What is hashed in the same way is hashed together, and then laid out in the fields' order.
    groups: dict[Any, list[tuple[tf.Tensor, Any]]] = {}  # the raw ids, [batch, length], and their positions and buckets
    for field in spec.id_fields:
        feature = features[field.name]
        raw = _last_ids(inputs[field.name], field.max_length) if isinstance(feature, IdSequence) else inputs[field.name]
        positions = np.arange(field.start, field.start + field.num_positions).reshape(field.num_hashes, -1)
        for number, places in enumerate(positions):
            key = feature.name if isinstance(feature, NumericFeature) else (feature.dtype, feature.hashing, number)
            groups.setdefault(key, []).append((raw, [(place, field.num_buckets) for place in places]))
    packed, order = [], []
    for key, members in groups.items():
        places, num_buckets = np.array([pair for _, pairs in members for pair in pairs]).T
        order.append(places)
        if isinstance(key, str):
            packed.append(quantile_bucket(members[0][0], int(num_buckets[0]))[:, tf.newaxis])
        else:
            dtype, hashing, number = key
            raw = _side_by_side([raw for raw, _ in members])
            is_id = raw != "" if dtype == "string" else raw >= 0
            packed.append((hash_ids(raw, num_buckets, number, hashing) + 1) * tf.cast(is_id, tf.int64))
    found = np.argsort(np.concatenate(order))
    ids = packed[0] if len(packed) == 1 else tf.concat(packed, axis=1)
    return ids if np.array_equal(found, np.arange(len(found))) else tf.gather(ids, found, axis=1)


def normalize_numbers(columns: Sequence[tf.Tensor], is_log: Sequence[bool]) -> tf.Tensor:
    """Normalizes numbers to mean 0 and variance 1 over the training split.

    Args:
        columns: int64 or float32 [batch] each.
        is_log: Whether to take sign(x) * log(1 + |x|) first, for each.

    Returns:
        float32 [batch, num_columns], at most `_MAX_SCORE` from 0; 0.0 where missing or not finite.
    """
    numbers = tf.stack([_as_float(column) for column in columns], axis=1)
    is_number = tf.math.is_finite(numbers)
    if any(is_log):
        logs = tf.sign(numbers) * tf.math.log1p(tf.abs(numbers))
        numbers = tf.where(tf.constant(is_log), logs, numbers)
    # TFT leaves what is not finite out of its statistics. In double precision, as how Beam cuts the rows into batches
    # depends on time: in single precision the same log gives other last digits, and other weights, with every run.
    double = tf.cast(numbers, tf.float64)
    mean = tft.mean(double, reduce_instance_dims=False)
    mean = tf.where(tf.math.is_finite(mean), mean, tf.zeros_like(mean))  # NaN where the training split has no value
    deviation = tf.sqrt(tft.var(double, reduce_instance_dims=False))
    scale = tf.where(deviation > 0, 1 / deviation, tf.zeros_like(deviation))
    # The statistics are constants in service, so that these are three operations.
    scores = (numbers - tf.cast(mean, tf.float32)) * tf.cast(scale, tf.float32)
    scores = tf.raw_ops.ClipByValue(t=scores, clip_value_min=-_MAX_SCORE, clip_value_max=_MAX_SCORE)
    return tf.math.multiply_no_nan(scores, tf.cast(is_number, tf.float32))


def quantile_bucket(raw: tf.Tensor, num_buckets: int) -> tf.Tensor:
    """Returns the quantile bucket + 1 of a number over the training split: int64 [batch], 0 where it is not finite.

    Args:
        raw: int64 or float32 [batch].
        num_buckets: Number of buckets, which hold about equally many impressions of the training split.
    """
    numbers = _as_float(raw)
    is_number = tf.math.is_finite(numbers)
    boundaries = tft.quantiles(tf.boolean_mask(numbers, is_number), num_buckets, epsilon=min(1 / num_buckets, 0.01))
    buckets = tft.apply_buckets(tf.where(is_number, numbers, tf.zeros([])), boundaries)
    return tf.where(is_number, buckets + 1, tf.zeros([], tf.int64))


def _as_float(column: tf.Tensor) -> tf.Tensor:
    """Returns a number as float32 [batch], NaN where an int64 one is missing."""
    if column.dtype == tf.float32:
        return column
    return tf.where(column == NO_NUMBER["int64"], math.nan, tf.cast(column, tf.float32))


def _last_ids(sequence: tf.RaggedTensor, max_length: int) -> tf.Tensor:
    """Returns each row's last ids, in their order, with no id in front where there are fewer: [batch, max_length]."""
    # TensorFlow cuts a row's end off. So all is turned round, and back again.
    splits = tf.reverse(sequence.row_splits, axis=[0])
    number = tf.size(sequence.values, out_type=splits.dtype)
    turned = tf.RaggedTensor.from_row_splits(tf.reverse(sequence.values, axis=[0]), number - splits, validate=False)
    dense = turned.to_tensor(default_value=NO_ID[sequence.dtype.name], shape=[None, max_length])
    return tf.reverse(dense, axis=[0, 1])


def _side_by_side(columns: Sequence[tf.Tensor]) -> tf.Tensor:
    """Puts columns, [batch] or [batch, length], side by side: [batch, sum of lengths]."""
    runs: list[list[tf.Tensor]] = []
    for column in columns:  # one operation for a run of single columns
        if column.shape.rank == 1 and runs and runs[-1][0].shape.rank == 1:
            runs[-1].append(column)
        else:
            runs.append([column])
    # To stack them below each other and to turn that is faster than to put value beside value.
    parts = [tf.transpose(tf.stack(run)) if run[0].shape.rank == 1 else run[0] for run in runs]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)
