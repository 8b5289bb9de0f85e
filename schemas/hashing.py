"""The hash of an id: what Transform puts into the model's graph, and what finds the collisions."""

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
    if isinstance(num_buckets, int):  # as one operation
        return tf.strings.to_hash_bucket_fast(_salted(ids, salt), num_buckets)
    return tf.cast(fingerprint_ids(ids, salt) % tf.cast(num_buckets, tf.uint64), tf.int64)


def fingerprint_ids(ids: tf.Tensor, salt: str = "") -> tf.Tensor:
    """Returns what ids are hashed by, FarmHash's Fingerprint64: int64 or string [any] -> uint64 [any].

    Args:
        ids: The ids.
        salt: See `hash_ids`.
    """
    return tf.bitcast(tf.fingerprint(_salted(ids, salt)), tf.uint64)


def _salted(ids: tf.Tensor, salt: str) -> tf.Tensor:
    strings = ids if ids.dtype == tf.string else tf.strings.as_string(ids)
    return tf.strings.join([strings, salt]) if salt else strings
