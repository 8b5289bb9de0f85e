"""Rows of the log -> TFRecord files of tf.train.Examples."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.impression_log_example_gen.columns import Column, find_bad_label, to_lists
from components.impression_log_example_gen.log import LogError, open_parquet, unreadable
from components.impression_log_example_gen.shards import Piece, Shard

_BATCH_ROWS = 8_192
# Of zlib's levels the fastest: 40% of the time of level 6, files a fifth larger.
_COMPRESSION = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)


def write_shard(shard: Shard, columns: tuple[Column, ...], path: str) -> None:
    """Writes a shard's rows as tf.train.Examples to a gzip TFRecord file.

    Raises:
        LogError: A file is not readable or has changed, or a label is null or neither 0 nor 1.
    """
    encoder = RecordBatchToExamplesEncoder()
    with tf.io.TFRecordWriter(path, _COMPRESSION) as writer:
        for piece in shard.pieces:
            num_examples = 0
            for batch in read_piece(piece, columns):
                for example in encoder.encode(batch):
                    writer.write(example)
                num_examples += batch.num_rows
            if num_examples != piece.stop - piece.start:
                raise LogError(f"{piece.file} has changed while it was read: run again when its writer is done")


def read_piece(piece: Piece, columns: tuple[Column, ...]) -> Iterator[pa.RecordBatch]:
    """Yields a piece's rows as `to_lists` returns them, in batches: never a whole row group is in memory.

    Raises:
        LogError: As in `write_shard`.
    """
    (label,) = (column.name for column in columns if column.is_label)
    for row, batch in _read_batches(piece, [column.name for column in columns]):
        bad = find_bad_label(batch, label)
        if bad:
            raise LogError(
                f"{piece.file}: row {row + bad[0]} (the first is 0) has label {label} = {bad[1]}, must be 0 or 1: "
                "correct it, or remove the row"
            )
        try:
            yield to_lists(batch, columns)
        except pa.ArrowInvalid as error:
            raise LogError(
                f"{piece.file}: a value in rows {row} to {row + batch.num_rows - 1} does not fit the spec's type: "
                f"write another, or correct the spec ({error})"
            ) from None


def _read_batches(piece: Piece, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields the rows of a piece with the number that the first of them has in the file."""
    try:
        with open_parquet(piece.file) as parquet:
            group_start = 0
            for group in range(parquet.num_row_groups):
                row = group_start
                group_start += parquet.metadata.row_group(group).num_rows
                if group_start <= piece.start or row >= piece.stop:
                    continue
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                    first, last = max(piece.start, row), min(piece.stop, row + batch.num_rows)
                    if first < last:
                        yield first, batch.slice(first - row, last - first)
                    row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise unreadable(piece.file, error) from None
