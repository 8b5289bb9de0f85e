"""TFRecord files of tf.train.Examples."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.impression_log_example_gen.quarantine import UNPARSABLE, BadRow
from components.impression_log_example_gen.readers.rows import CorruptFileError, Rows, uncompressed

_BATCH_ROWS = 4_096


def read_tfrecord(file: pathlib.Path) -> Iterator[Rows]:
    """Yields the rows, with the columns and types that their Examples have.

    Raises:
        CorruptFileError: A record's checksum is wrong, or the file ends within a record.
        OSError: It cannot be opened.
        tf.errors.OpError: The machine could not read it.
    """
    decoder = ExamplesToRecordBatchDecoder()
    # Uncompressed before: TensorFlow takes a gzip stream that is cut off for one that ends there.
    with uncompressed(file) as path:
        start = 1
        path.open("rb").close()  # Python's error says why not; TensorFlow's says in which function of its own, too
        try:
            for records in tf.data.TFRecordDataset(str(path)).batch(_BATCH_ROWS).as_numpy_iterator():
                yield from _decode(decoder, records.tolist(), start)
                start += len(records)
        except tf.errors.DataLossError as error:
            raise CorruptFileError(error.message) from None


def _decode(decoder: ExamplesToRecordBatchDecoder, records: list[bytes], start: int) -> Iterator[Rows]:
    """Yields the rows of some records; halves of them where not all have a column in the same type, or one is none."""
    try:
        batch = decoder.DecodeBatch(records)
    except RuntimeError:
        batch = None
    if batch is not None and batch.num_rows == len(records):
        yield Rows(batch, np.arange(start, start + len(records)))
    elif len(records) == 1:
        empty = pa.RecordBatch.from_arrays([], [])
        yield Rows(empty, np.arange(0), (BadRow(start, None, UNPARSABLE),))
    else:
        middle = len(records) // 2
        yield from _decode(decoder, records[:middle], start)
        yield from _decode(decoder, records[middle:], start + middle)
