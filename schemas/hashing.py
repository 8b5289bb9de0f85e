"""The hash of an id: what Transform puts into the model's graph, and what counts the collisions."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft

HASH_SALTS = ("", "\0second hash")  # of an id's hashes


def hash_ids(raw: tf.SparseTensor, num_buckets: int, salt: str = "") -> tf.SparseTensor:
    """Hashes ids to buckets.

    Args:
        raw: int64 or string ids, [batch, any].
        num_buckets: Number of buckets.
        salt: Put behind the id, to make another hash of it.

    Returns:
        int64 buckets in [0, num_buckets), [batch, any], without the empty strings.
    """
    if raw.dtype == tf.string:
        raw = tf.sparse.retain(raw, tf.not_equal(raw.values, ""))
        strings = raw.values
    else:
        strings = tf.strings.as_string(raw.values)
    if salt:
        strings = tf.strings.join([strings, salt])
    return tf.SparseTensor(raw.indices, tft.hash_strings(strings, num_buckets), raw.dense_shape)
