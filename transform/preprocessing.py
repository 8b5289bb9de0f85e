"""The transformation of raw impressions, the same graph in training and serving.

What becomes of a value:

| raw | transformed |
|---|---|
| id, int64 | its decimal digits as a string, then as string ids |
| id, string | fingerprint64 modulo `num_buckets`, plus 1 |
| id with `num_hashes: 2` | the same, and once more with another hash, at positions of its own |
| id, missing or the empty string | 0: no id, which adds exactly nothing to any term of the model |
| id feature with several values | the first |
| id sequence longer than `max_length` | its last `max_length` ids, in their order |
| id sequence shorter, empty or missing | padded with 0 at the end |
| number | normalized with the training split's statistics |
| number, missing, NaN or infinite | 0.0, the training split's mean; for `quantile_buckets` no id |
| number, constant in the training split | 0.0 |
| weight | as it is |

Hashing is that of `tf.feature_column.categorical_column_with_hash_bucket`, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import (
    IDS,
    LABEL,
    NUMBERS,
    WEIGHT,
    FeatureSpec,
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

    Args:
        inputs: For each column of the spec its values, of the column's dtype, [batch, any].
        spec: The data set.

    Returns:
        `ids` int64 [batch, num_positions], `numbers` float32 [batch, num_numbers], `weight` float32 [batch] (each only
        where the spec has any) and `label` float32 [batch].
    """
    ids, numbers = [], []
    for feature in spec.features:
        raw = inputs[feature.name]
        if not isinstance(feature, NumericFeature):
            max_length = feature.max_length if isinstance(feature, IdSequence) else None
            for salt in HASH_SALTS[: feature.num_hashes]:
                ids.append(pack_ids(hash_ids(raw, feature.num_buckets, salt), max_length))
        elif feature.normalization == "quantile_buckets":
            ids.append(pack_ids(quantile_bucket(raw, feature.num_buckets)))
        else:
            numbers.append(normalize_number(raw, log1p=feature.normalization == "log1p_z_score"))
    outputs = {}
    if ids:
        outputs[IDS] = tf.concat(ids, axis=1)  # [batch, num_positions]
    if numbers:
        outputs[NUMBERS] = tf.concat(numbers, axis=1)  # [batch, num_numbers]
    if spec.weight:
        outputs[WEIGHT] = _first_value(inputs[spec.weight])[:, 0]  # [batch]
    outputs[LABEL] = tf.cast(_first_value(inputs[spec.label.name]), tf.float32)[:, 0]  # [batch]
    return outputs


def pack_ids(buckets: tf.SparseTensor, max_length: int | None = None) -> tf.Tensor:
    """Lays the buckets of one field out at fixed positions.

    Args:
        buckets: int64 [batch, any].
        max_length: Number of positions of a sequence, which keeps its last ids; None for a single id, the first.

    Returns:
        Bucket + 1 at each position, 0 where there is no id: int64 [batch, max_length or 1].
    """
    values = _with_values(buckets, buckets.values + 1)
    if max_length is None:
        return _first_value(values)
    return _rows(values)[:, -max_length:].to_tensor(default_value=0, shape=[None, max_length])


def normalize_number(raw: tf.SparseTensor, log1p: bool) -> tf.Tensor:
    """Normalizes a number to mean 0 and variance 1 over the training split.

    Args:
        raw: int64 or float32 [batch, any].
        log1p: Take sign(x) * log(1 + |x|) first.

    Returns:
        float32 [batch, 1]; 0.0 where missing or not finite.
    """
    finite = _finite(raw)
    if log1p:
        finite = _with_values(finite, tf.sign(finite.values) * tf.math.log1p(tf.abs(finite.values)))
    return _first_value(tft.scale_to_z_score(finite))


def quantile_bucket(raw: tf.SparseTensor, num_buckets: int) -> tf.SparseTensor:
    """Returns the quantile bucket of a number over the training split: int64 in [0, num_buckets), [batch, any].

    Args:
        raw: int64 or float32 [batch, any]; values that are not finite are dropped.
        num_buckets: Number of buckets, which hold about equally many impressions of the training split.
    """
    finite = _finite(raw)
    return _with_values(finite, tft.bucketize(finite.values, num_buckets))


def _finite(raw: tf.SparseTensor) -> tf.SparseTensor:
    numbers = tf.cast(raw, tf.float32)
    return tf.sparse.retain(numbers, tf.math.is_finite(numbers.values))


def _first_value(values: tf.SparseTensor) -> tf.Tensor:
    """Returns each row's first value, 0 where it has none, [batch, 1]."""
    return _rows(values).to_tensor(default_value=0, shape=[None, 1])


def _rows(values: tf.SparseTensor) -> tf.RaggedTensor:
    """Returns each row's values, [batch, any], without the gaps that dropped values leave."""
    return tf.RaggedTensor.from_value_rowids(
        values.values, values.indices[:, 0], nrows=values.dense_shape[0], validate=False
    )


def _with_values(like: tf.SparseTensor, values: tf.Tensor) -> tf.SparseTensor:
    return tf.SparseTensor(like.indices, values, like.dense_shape)
