"""Transformed examples -> batches for `keras.Model.fit`.

What an element of a `tf.data` pipeline costs is the element's, not its bytes': so whole chunks of records are read,
parsed, shuffled and cut into batches, and no step handles an example by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow as tf

from schemas.features import LABEL, WEIGHT

CHUNK = 1024  # records that are parsed together

Features = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Share:
    """Which examples of each batch are one worker's: every `number`-th, from `rank` on.

    A batch that cannot be divided is filled up with its first example, at weight 0, so that all workers take the same
    number of steps, with the same number of examples. The weights of such a batch are greater in turn: the mean of
    the workers' mean losses is always the mean over the batch's examples.

    Attributes:
        rank: The worker's place among the workers.
        number: How many workers there are.
    """

    rank: int = 0
    number: int = 1

    def take(self, examples: Features) -> Features:
        """Returns the worker's examples of a batch, with their weights in it."""
        size = tf.shape(examples[LABEL])[0]
        own = -(-size // self.number)
        places = tf.range(own) * self.number + self.rank
        is_filler = places >= size
        taken = {name: tf.gather(values, tf.where(is_filler, 0, places)) for name, values in examples.items()}
        factors = tf.where(is_filler, 0.0, tf.cast(own * self.number, tf.float32) / tf.cast(size, tf.float32))
        return taken | {WEIGHT: taken[WEIGHT] * factors if WEIGHT in taken else factors}


ALL = Share()


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
        # Two calls: one chunk is parsed while the next is read.
        return records.map(lambda serialized: tf.io.parse_example(serialized, dict(feature_spec)), num_parallel_calls=2)

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
    share: Share = ALL,
) -> tf.data.Dataset:
    """Returns one epoch of shuffled batches: each run of some `shuffle_buffer` examples is put in a random order.

    Args:
        chunks: What `read_chunks` gives.
        batch_size: Examples per batch of all workers together; the last one may have fewer.
        shuffle_buffer: Examples that are shuffled together, less what is left of whole batches.
        seed: Seed of the order and of the sampling.
        negative_sampling_rate: Share of the examples without a click that is used, drawn anew in each epoch.
        position: int64 [2], the epoch and the batch at which an iteration begins, for the caller to set; without it
            each begins with the next epoch. The order is drawn from the epoch and the seed, so that a training can be
            resumed in the middle of an epoch.
        share: Which examples of each batch are taken: the workers' batches together are those of one worker.

    Returns:
        Batches of (features, label [batch, 1]), or of (features, label, weight [batch]) where there are weights or
        several workers.
    """
    # Whole batches, so that none is put together from two windows, unless negatives are sampled.
    windows = chunks.rebatch(max(shuffle_buffer // batch_size, 1) * batch_size).enumerate()
    epoch = tf.Variable(-1, dtype=tf.int64)

    def begin(_: tf.Tensor) -> tf.Tensor:
        # Where it is given, not counted: with several devices, Keras begins an iteration more for each epoch.
        return tf.stack([epoch.assign_add(1), 0]) if position is None else position.read_value()

    def one_epoch(epoch_and_batch: tf.Tensor) -> tf.data.Dataset:
        def shuffle(window: tf.Tensor, examples: Features) -> tuple[Features, tf.Tensor]:
            label = examples[LABEL]
            order_seed = tf.stack([seed + epoch_and_batch[0] * 2**32, window])
            kept = tf.range(tf.shape(label, tf.int64)[0])
            if negative_sampling_rate < 1:
                drawn = tf.random.stateless_uniform(tf.shape(label), order_seed + 1)
                kept = tf.where((label > 0) | (drawn < negative_sampling_rate))[:, 0]
            return examples, tf.random.experimental.stateless_shuffle(kept, order_seed)

        def batches_of(examples: Features, order: tf.Tensor) -> tf.data.Dataset:
            places = tf.data.Dataset.from_tensors(order).rebatch(batch_size)
            return places.map(lambda of_batch: {name: tf.gather(values, of_batch) for name, values in examples.items()})

        return windows.map(shuffle).prefetch(1).flat_map(batches_of).rebatch(batch_size).skip(epoch_and_batch[1])

    # Not a data set's own shuffling, whose order in a later epoch cannot be had without the epochs before it.
    batches = tf.data.Dataset.from_tensors(0).map(begin).flat_map(one_epoch)
    return _for_fit(batches if share is ALL else batches.map(share.take))


def ordered_batches(chunks: tf.data.Dataset, batch_size: int, share: Share = ALL) -> tf.data.Dataset:
    """Returns all examples of the chunks once, in their order; batches as in `shuffled_batches`.

    Of several workers each gets whole batches, every `share.number`-th.
    """
    return _for_fit(chunks.rebatch(batch_size).shard(share.number, share.rank))


def _for_fit(batches: tf.data.Dataset) -> tf.data.Dataset:
    def split(examples: Features) -> tuple[tf.Tensor | Features, ...]:
        features = dict(examples)
        label = features.pop(LABEL)[:, tf.newaxis]  # [batch, 1]
        weight = features.pop(WEIGHT, None)
        return (features, label) if weight is None else (features, label, weight)

    return batches.map(split).prefetch(tf.data.AUTOTUNE)
