"""The hash of an id: what Transform puts into the model's graph, and what finds the collisions.

It is FarmHash's Fingerprint64 (Pike and Alakuijala, https://github.com/google/farmhash), which is the same on every
machine and in every version, modulo the number of buckets. Hashed are the bytes of an id: those of a string, and the
eight of an int64, lowest first. With `digits` an int64 is written in decimal before, and hashed as that text: what
`tf.feature_column.categorical_column_with_hash_bucket` does. That takes some twenty times as long.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from schemas.features import Hashing

# What makes the second hash of an id another one: put behind a text, or xored with an int64. The number is pi's
# fraction in 64 bits: any other would do.
_TEXT_SALT, _INT64_SALT = "\0second hash", 0x243F6A8885A308D3


def hash_ids(ids: tf.Tensor, num_buckets: Any, number: int = 0, hashing: Hashing = "bytes") -> tf.Tensor:
    """Hashes ids to buckets.

    Args:
        ids: int64 or string, of any static shape but for its first dimension.
        num_buckets: Number of buckets: int, or a numpy array that `ids` can be laid over.
        number: Which of an id's hashes, 0 or 1.
        hashing: What of the ids is hashed.

    Returns:
        int64 in [0, num_buckets), of the shape of `ids`.
    """
    return tf.bitcast(fingerprint_ids(ids, number, hashing) % tf.constant(num_buckets, tf.uint64), tf.int64)


def fingerprint_ids(ids: tf.Tensor, number: int = 0, hashing: Hashing = "bytes") -> tf.Tensor:
    """Returns what ids are hashed by: int64 or string -> uint64, of the same shape.

    Args:
        ids: See `hash_ids`.
        number: See `hash_ids`.
        hashing: See `hash_ids`.
    """
    ids = tf.convert_to_tensor(ids)
    if ids.dtype != tf.string and hashing == "digits":
        ids = tf.strings.as_string(ids)
    if number and ids.dtype == tf.string:
        ids = tf.strings.join([ids, _TEXT_SALT])
    elif number:
        ids = tf.bitwise.bitwise_xor(ids, tf.constant(_INT64_SALT, tf.int64))
    # One fingerprint a row, of all the row's bytes: a row is an id.
    fingerprints = tf.fingerprint(tf.reshape(ids, [-1] if ids.dtype == tf.string else [-1, 1]))  # uint8 [ids, 8]
    return tf.bitcast(tf.reshape(fingerprints, [-1, *ids.shape[1:], 8]), tf.uint64)
