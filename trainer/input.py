"""Transformed examples -> batches for `keras.Model.fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from schemas.features import LABEL


def train_batches(
    patterns: Sequence[str],
    feature_spec: Mapping[str, tf.io.FixedLenFeature],
    batch_size: int,
    shuffle_buffer: int,
    seed: int,
) -> tf.data.Dataset:
    """Returns one epoch of shuffled batches; every iteration has another order, drawn from the seed.

    Args:
        patterns: File patterns of gzipped TFRecords of transformed examples.
        feature_spec: How they are parsed.
        batch_size: Examples per batch; the last one may have fewer.
        shuffle_buffer: Examples among which the next one is drawn at random.
        seed: Seed of the order.
    """
    records = _records(patterns).shuffle(shuffle_buffer, seed=seed)
    return _parsed(records.batch(batch_size), feature_spec)


def eval_batches(
    patterns: Sequence[str], feature_spec: Mapping[str, tf.io.FixedLenFeature], batch_size: int
) -> tf.data.Dataset:
    """Returns all examples once, in the order of the files; arguments as in `train_batches`."""
    return _parsed(_records(patterns).batch(batch_size), feature_spec)


def _records(patterns: Sequence[str]) -> tf.data.Dataset:
    files = tf.data.Dataset.list_files(list(patterns), shuffle=False)
    return files.interleave(
        lambda file: tf.data.TFRecordDataset(file, compression_type="GZIP"),
        cycle_length=4,
        block_length=16,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _parsed(batches: tf.data.Dataset, feature_spec: Mapping[str, tf.io.FixedLenFeature]) -> tf.data.Dataset:
    def parse(serialized: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        features = tf.io.parse_example(serialized, dict(feature_spec))
        label = features.pop(LABEL)[:, tf.newaxis]  # [batch, 1]
        return features, label

    return batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
