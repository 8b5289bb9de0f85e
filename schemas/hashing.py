"""The hash of an id: what Transform puts into the model's graph, and what counts the collisions."""

from __future__ import annotations

import tensorflow as tf

HASH_SALTS = ("", "\0second hash")  # of an id's hashes


def hash_ids(ids: tf.Tensor, num_buckets: tf.Tensor | int, salt: str = "") -> tf.Tensor:
    """Hashes ids to buckets.

    Args:
        ids: int64 or string [any].
        num_buckets: Number of buckets, or int64 [any], that of each id.
        salt: Put behind the id, to make another hash of it.

    Returns:
        int64 [any], in [0, num_buckets): what `tf.strings.to_hash_bucket_fast` gives, which takes one number for all.
    """
    strings = ids if ids.dtype == tf.string else tf.strings.as_string(ids)
    if salt:
        strings = tf.strings.join([strings, salt])
    if isinstance(num_buckets, int):  # as one operation, which makes no strings of integers in between
        return tf.strings.to_hash_bucket_fast(strings, num_buckets)
    fingerprints = tf.bitcast(tf.fingerprint(strings), tf.uint64)
    return tf.cast(fingerprints % tf.cast(num_buckets, tf.uint64), tf.int64)
