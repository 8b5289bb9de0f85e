"""Transformed examples -> batches for `keras.Model.fit`.

What an element of a `tf.data` pipeline costs is the element's, not its bytes': so whole chunks of records are read,
parsed, shuffled and cut into batches, and no step handles an example by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from schemas.features import LABEL, WEIGHT

CHUNK = 1024  # records that are parsed together

Features = dict[str, tf.Tensor]


def read_chunks(
    patterns: Sequence[str], feature_spec: Mapping[str, tf.io.FixedLenFeature], num_files: int = 1
) -> tf.data.Dataset:
    """Returns transformed examples in chunks.

    Args:
        patterns: File patterns of gzipped TFRecords of transformed examples.
        feature_spec: How they are parsed.
        num_files: Files that are read side by side, a chunk of each in turn; 1 for the order of the files.
    """

    def read(file: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(file, compression_type="GZIP").batch(CHUNK)
        return records.map(lambda serialized: tf.io.parse_example(serialized, dict(feature_spec)))

    files = tf.data.Dataset.list_files(list(patterns), shuffle=False)
    return files.interleave(
        read, cycle_length=num_files, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    ).prefetch(tf.data.AUTOTUNE)


def shuffled_batches(
    chunks: tf.data.Dataset,
    batch_size: int,
    shuffle_buffer: int,
    seed: int,
    negative_sampling_rate: float = 1.0,
    position: tf.Variable | None = None,
) -> tf.data.Dataset:
    """Returns one epoch of shuffled batches: each run of `shuffle_buffer` examples is put in a random order.

    Args:
        chunks: What `read_chunks` gives.
        batch_size: Examples per batch; the last one may have fewer.
        shuffle_buffer: Examples that are shuffled together.
        seed: Seed of the order and of the sampling.
        negative_sampling_rate: Share of the examples without a click that is used, drawn anew in each epoch.
        position: int64 [2], the epoch and the batch at which the next iteration begins; an iteration sets it to the
            begin of the next epoch. The order is drawn from the epoch and the seed, so that a training can be resumed
            in the middle of an epoch.

    Returns:
        Batches of (features, label [batch, 1]), or of (features, label, weight [batch]) where there are weights.
    """
    windows = chunks.rebatch(shuffle_buffer).enumerate()
    begin = tf.Variable([0, 0], dtype=tf.int64) if position is None else position

    def take_position(_: tf.Tensor) -> tf.Tensor:
        epoch_and_batch = begin.read_value()
        with tf.control_dependencies([epoch_and_batch]):
            begin.assign(tf.stack([epoch_and_batch[0] + 1, 0]))
        return epoch_and_batch

    def one_epoch(epoch_and_batch: tf.Tensor) -> tf.data.Dataset:
        def shuffle(window: tf.Tensor, examples: Features) -> Features:
            label = examples[LABEL]
            order_seed = tf.stack([seed + epoch_and_batch[0] * 2**32, window])
            kept = tf.range(tf.shape(label, tf.int64)[0])
            if negative_sampling_rate < 1:
                drawn = tf.random.stateless_uniform(tf.shape(label), order_seed + 1)
                kept = tf.where((label > 0) | (drawn < negative_sampling_rate))[:, 0]
            order = tf.random.experimental.stateless_shuffle(kept, order_seed)
            return {name: tf.gather(values, order) for name, values in examples.items()}

        return windows.map(shuffle).prefetch(1).rebatch(batch_size).skip(epoch_and_batch[1])

    # Not a data set's own shuffling, whose order in a later epoch cannot be had without the epochs before it.
    return _for_fit(tf.data.Dataset.from_tensors(0).map(take_position).flat_map(one_epoch))


def ordered_batches(chunks: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Returns all examples of the chunks once, in their order; batches as in `shuffled_batches`."""
    return _for_fit(chunks.rebatch(batch_size))


def _for_fit(batches: tf.data.Dataset) -> tf.data.Dataset:
    def split(examples: Features) -> tuple[tf.Tensor | Features, ...]:
        features = dict(examples)
        label = features.pop(LABEL)[:, tf.newaxis]  # [batch, 1]
        weight = features.pop(WEIGHT, None)
        return (features, label) if weight is None else (features, label, weight)

    return batches.map(split).prefetch(tf.data.AUTOTUNE)
