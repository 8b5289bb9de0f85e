from __future__ import annotations

import struct

import numpy as np
import pytest
import tensorflow as tf

from schemas.hashing import fingerprint_ids, hash_ids

NUM_IDS = 200_000
IDS = {
    "ascending": np.arange(NUM_IDS),
    "spread": np.arange(NUM_IDS) * 4096,
    "high bits alone": np.arange(NUM_IDS) << 40,
    "random": np.random.default_rng(0).integers(0, 2**63 - 1, NUM_IDS),
}

KNOWN = {"bytes": [611297, 8234], "second hash": [374380, 739931], "digits": [34849, 8998]}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("num_buckets", [1000, 1024])
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
def test_ids_fall_into_all_buckets_alike(ids, num_buckets, number):
    counts = np.bincount(hash_ids(tf.constant(ids, tf.int64), num_buckets, number), minlength=num_buckets)
    expected = NUM_IDS / num_buckets
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    # Of uniform ids its mean is num_buckets - 1, its standard deviation sqrt(2 * num_buckets).
    assert abs(chi_squared - num_buckets) < 5 * np.sqrt(2 * num_buckets)


def test_the_second_hash_says_nothing_of_the_first():
    ids = tf.constant(IDS["ascending"], tf.int64)
    pairs = hash_ids(ids, 100) * 100 + hash_ids(ids, 100, 1)
    counts = np.bincount(pairs, minlength=10_000)
    assert abs(float(((counts - 20) ** 2 / 20).sum()) - 10_000) < 5 * np.sqrt(20_000)


@pytest.mark.parametrize("shape", [[6], [2, 3], [3, 2, 1]])
def test_an_int64_is_hashed_by_its_eight_bytes_lowest_first(shape):
    ids = [0, 1, -5, 2**63 - 1, 1103, 2**40]
    expected = tf.strings.to_hash_bucket_fast([struct.pack("<q", id_) for id_ in ids], 997)
    found = hash_ids(tf.reshape(tf.constant(ids, tf.int64), shape), 997)
    np.testing.assert_array_equal(found, tf.reshape(expected, shape))


def test_each_column_has_its_number_of_buckets():
    ids = tf.constant([[7, 7, 7], [8, 8, 8]], tf.int64)
    found = hash_ids(ids, np.array([10, 1000, 1]))
    for column, num_buckets in enumerate([10, 1000, 1]):
        np.testing.assert_array_equal(found[:, column], hash_ids(ids[:, column], num_buckets))


def test_known_answers_that_no_version_may_change():
    ids = tf.constant([1, 1103], tf.int64)
    assert hash_ids(ids, 1_000_000).numpy().tolist() == KNOWN["bytes"]
    assert hash_ids(ids, 1_000_000, 1).numpy().tolist() == KNOWN["second hash"]
    assert hash_ids(ids, 1_000_000, hashing="digits").numpy().tolist() == KNOWN["digits"]
    assert hash_ids(tf.constant(["1", "1103"]), 1_000_000).numpy().tolist() == KNOWN["digits"]


def test_no_ids_have_no_fingerprints():
    assert fingerprint_ids(tf.zeros([0, 3], tf.int64)).shape == (0, 3)
    assert fingerprint_ids(tf.zeros([0], tf.string)).shape == (0,)
