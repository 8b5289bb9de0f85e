"""Transformed examples -> batches for `keras.Model.fit`.

What an element of a `tf.data` pipeline costs is the element's, not its bytes': so whole chunks of records are read,
parsed, shuffled and cut into batches, and no step handles an example by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from schemas.features import LABEL, WEIGHT

CHUNK = 1024  # records that are parsed together

Features = dict[str, tf.Tensor]
Parsing = Mapping[str, tf.io.FixedLenFeature]
_RECORD = "record"


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

    def places(self, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the worker's examples of a batch of `size`, int32 [own], and their weights, float32 [own]."""
        own = -(-size // self.number)
        places = tf.range(own) * self.number + self.rank
        is_filler = places >= size
        weight = tf.cast(own * self.number, tf.float32) / tf.cast(size, tf.float32)
        return tf.where(is_filler, 0, places), tf.where(is_filler, 0.0, weight)


ALL = Share()


def read_chunks(patterns: Sequence[str], feature_spec: Parsing, num_files: int = 1) -> tf.data.Dataset:
    """Returns transformed examples in chunks.

    Args:
        patterns: File patterns of gzipped TFRecords of transformed examples.
        feature_spec: How they are parsed.
        num_files: Files that are read side by side, a chunk of each in turn; 1 for the order of the files.
    """
    return _read(patterns, num_files, lambda records: tf.io.parse_example(records, dict(feature_spec)))


def read_records(patterns: Sequence[str], num_files: int = 1) -> tf.data.Dataset:
    """Returns the chunks of `read_chunks` before they are parsed: a worker parses its share only."""
    return _read(patterns, num_files, lambda records: {_RECORD: records})


def _read(patterns: Sequence[str], num_files: int, make: Callable[[tf.Tensor], Features]) -> tf.data.Dataset:
    def read(file: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(file, compression_type="GZIP").batch(CHUNK).map(make)

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
    parsing: Parsing | None = None,
) -> tf.data.Dataset:
    """Returns one epoch of shuffled batches: each run of `shuffle_buffer` examples is put in a random order.

    Args:
        chunks: What `read_chunks` or `read_records` gives.
        batch_size: Examples per batch of all workers together; the last one may have fewer.
        shuffle_buffer: Examples that are shuffled together.
        seed: Seed of the order and of the sampling.
        negative_sampling_rate: Share of the examples without a click that is used, drawn anew in each epoch.
        position: int64 [2], the epoch and the batch at which the next iteration begins; an iteration sets it to the
            begin of the next epoch. The order is drawn from the epoch and the seed, so that a training can be resumed
            in the middle of an epoch.
        share: Which examples of each batch are taken: the workers' batches together are those of one worker.
        parsing: How the chunks' records are parsed, where they are records.

    Returns:
        Batches of (features, label [batch, 1]), or of (features, label, weight [batch]) where there are weights or
        several workers.
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
            order_seed = tf.stack([seed + epoch_and_batch[0] * 2**32, window])
            kept = tf.range(_size(examples, tf.int64))
            if negative_sampling_rate < 1:
                label = _labels(examples, parsing)
                drawn = tf.random.stateless_uniform(tf.shape(label), order_seed + 1)
                kept = tf.where((label > 0) | (drawn < negative_sampling_rate))[:, 0]
            order = tf.random.experimental.stateless_shuffle(kept, order_seed)
            return {name: tf.gather(values, order) for name, values in examples.items()}

        return windows.map(shuffle).prefetch(1).rebatch(batch_size).skip(epoch_and_batch[1])

    # Not a data set's own shuffling, whose order in a later epoch cannot be had without the epochs before it.
    batches = tf.data.Dataset.from_tensors(0).map(take_position).flat_map(one_epoch)
    if share.number == 1:
        return _for_fit(batches)

    def take_share(examples: Features) -> Features:
        places, weights = share.places(_size(examples, tf.int32))
        taken = _parsed({name: tf.gather(values, places) for name, values in examples.items()}, parsing)
        return taken | {WEIGHT: taken[WEIGHT] * weights if WEIGHT in taken else weights}

    return _for_fit(batches.map(take_share, num_parallel_calls=tf.data.AUTOTUNE))


def ordered_batches(
    chunks: tf.data.Dataset, batch_size: int, share: Share = ALL, parsing: Parsing | None = None
) -> tf.data.Dataset:
    """Returns all examples of the chunks once, in their order; batches as in `shuffled_batches`.

    Of several workers each gets whole batches, every `share.number`-th.
    """
    batches = chunks.rebatch(batch_size)
    if share.number > 1:
        batches = batches.shard(share.number, share.rank).map(
            lambda examples: _parsed(examples, parsing), num_parallel_calls=tf.data.AUTOTUNE
        )
    return _for_fit(batches)


def _parsed(examples: Features, parsing: Parsing | None) -> Features:
    return tf.io.parse_example(examples[_RECORD], dict(parsing)) if parsing and _RECORD in examples else examples


def _labels(examples: Features, parsing: Parsing | None) -> tf.Tensor:
    return _parsed(examples, {LABEL: parsing[LABEL]} if parsing else None)[LABEL]


def _size(examples: Features, dtype: tf.DType) -> tf.Tensor:
    return tf.shape(next(iter(examples.values())), dtype)[0]


def _for_fit(batches: tf.data.Dataset) -> tf.data.Dataset:
    def split(examples: Features) -> tuple[tf.Tensor | Features, ...]:
        features = dict(examples)
        label = features.pop(LABEL)[:, tf.newaxis]  # [batch, 1]
        weight = features.pop(WEIGHT, None)
        return (features, label) if weight is None else (features, label, weight)

    return batches.map(split).prefetch(tf.data.AUTOTUNE)
