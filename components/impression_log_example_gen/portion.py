"""One portion of the log -> files of tf.train.Examples and of record batches, and a file of its bad rows."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import uuid
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.arrow_examples.files import ArrowWriter
from components.impression_log_example_gen.check import check, days_of, excerpt, find, first_values
from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.duplicates import KeyWriter, hash_keys, read_duplicates
from components.impression_log_example_gen.pieces import BadRowWriter, read_piece
from components.impression_log_example_gen.portions import MAX_ROWS, Days, Piece, Portion
from components.impression_log_example_gen.quarantine import DUPLICATE, BadRow
from components.impression_log_example_gen.readers.rows import Rows
from components.impression_log_example_gen.report import Report

_ROW_BITS = 40  # of a row's place in a portion, beneath its piece's
# Of zlib's levels the fastest: 40% of the time of level 6, files a fifth larger.
_COMPRESSION = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be done with portions.

    Attributes:
        columns: The columns to take.
        folder: Where to write: a folder that all workers reach.
        key: The column that tells one impression from another.
        keys: Where to write the keys, instead of the Examples. Empty to write Examples.
        num_partitions: How many partitions the keys have.
        duplicates: Where it is written which rows are duplicates. Empty if it is not known.
        corrupt: The files to leave out.
    """

    columns: tuple[Column, ...]
    folder: str
    key: Column | None = None
    keys: str = ""
    num_partitions: int = 1
    duplicates: str = ""
    corrupt: frozenset[pathlib.Path] = frozenset()


def write_portion(portion: Portion, job: Job) -> Report:
    """Reads a portion and writes its Examples, or its keys, and its bad rows.

    Raises:
        LogError: A file has changed or has been removed.
    """
    with _PortionWriter(portion, job) as writer:
        for index, piece in enumerate(portion.pieces):
            if piece.file not in job.corrupt:
                writer.write(index, piece)
    return writer.report


class _PortionWriter:
    def __init__(self, portion: Portion, job: Job) -> None:
        self.report = Report()
        self._job = job
        self._columns = job.columns
        self._read_columns = job.columns
        if job.key and job.key.source not in {column.source for column in job.columns}:
            self._read_columns += (job.key,)
        self._stack = contextlib.ExitStack()
        self._bad_rows = BadRowWriter(self.report, job.folder, self._stack)
        self._digest = hashlib.sha256() if portion.day else None
        self._shards = None if job.keys else self._stack.enter_context(_ShardWriter(job.folder, self.report.shards))
        self._keys = KeyWriter(job.keys, portion.index, job.num_partitions) if job.keys else None
        self._duplicates = read_duplicates(job.duplicates, portion.index) if job.duplicates else np.zeros(0, np.int64)
        self._ordinal = 0  # of the next row

    def __enter__(self) -> _PortionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._digest:
            self.report.digest = self._digest.hexdigest()
        if self._keys and error is None:
            self._keys.flush()
        self._stack.__exit__(kind, error, trace)

    def write(self, index: int, piece: Piece) -> None:
        # A row's place in the portion must be the same whether the files before it are corrupt, and left out, or not.
        start = self._ordinal = index << _ROW_BITS
        for rows in read_piece(piece, self._read_columns, self.report):
            self._add(rows, piece)
        self.report.ordinals_of_file[str(piece.file)] = (start, self._ordinal)

    def _add(self, rows: Rows, piece: Piece) -> None:
        checked = check(rows.batch, rows.numbers, self._columns, is_text=rows.is_text, known=rows.bad)
        ordinals = np.arange(self._ordinal, self._ordinal + rows.batch.num_rows)
        self._ordinal += rows.batch.num_rows
        bad, unparsable = checked.bad, rows.unparsable
        is_in = np.ones(rows.batch.num_rows, bool)
        if piece.days:
            is_in, num_outside = self._select(checked.lists, bad, piece.days)
            self.report.num_outside += num_outside
            bad = {row: what for row, what in bad.items() if is_in[row]}
            unparsable = unparsable if piece.days.with_undated else ()
        is_good = is_in.copy()
        is_good[list(bad)] = False
        if len(self._duplicates):
            bad = bad | self._find_duplicates(rows, ordinals, is_good)
            is_good[list(bad)] = False
        self.report.num_rows += int(is_in.sum()) + len(unparsable)
        self._bad_rows.write([*bad.values(), *unparsable], piece.file)
        if self._keys and self._job.key:
            with_key, hashes = hash_keys(rows.batch, self._job.key.source)
            self._keys.add(hashes[is_good[with_key]], ordinals[with_key[is_good[with_key]]])
            num_keyed = int(is_good[with_key].sum())
            self.report.num_keyed += num_keyed
            self.report.num_keyless += int(is_good.sum()) - num_keyed
        if self._shards:
            lists = checked.lists if is_good.all() else checked.lists.filter(pa.array(is_good))
            self._shards.write(lists)
            if self._digest:  # of the values, as an Example of the same values may be other bytes each time
                self._digest.update(lists.serialize())

    def _select(self, lists: pa.RecordBatch, bad: dict[int, BadRow], days: Days) -> tuple[np.ndarray[Any, Any], int]:
        """Returns which rows belong to the days, bool [rows], and how many belong to others."""
        (timestamp,) = (column for column in self._columns if column.gives_day)
        is_dated = np.ones(lists.num_rows, bool)
        is_dated[[row for row, what in bad.items() if what.column == timestamp.source]] = False
        day = np.zeros(lists.num_rows, np.int64)
        day[is_dated] = days_of(lists.column(lists.schema.get_field_index(timestamp.name)), is_dated)
        is_in = is_dated & (day >= days.first) & (day <= days.last)
        return is_in | (~is_dated & days.with_undated), int((is_dated & ~is_in).sum())

    def _find_duplicates(
        self, rows: Rows, ordinals: np.ndarray[Any, Any], is_good: np.ndarray[Any, Any]
    ) -> dict[int, BadRow]:
        assert self._job.key
        source = self._job.key.source
        repeated = np.flatnonzero(np.isin(ordinals, self._duplicates) & is_good).tolist()
        keys = first_values(find(rows.batch, source).take(pa.array(repeated, pa.int64())))
        return {
            row: BadRow(int(rows.numbers[row]), source, DUPLICATE, excerpt(keys, index))
            for index, row in enumerate(repeated)
        }


class _ShardWriter:
    """Writes Examples to gzip TFRecord files, of which none gets more than `MAX_ROWS`, but for one batch.

    Beside each, with `.arrow` at its name's end, is a file of the same rows as record batches. A batch is encoded in a
    thread while the one before is compressed and the next one is read: encoding is about half of the time, and does not
    hold Python's lock.
    """

    def __init__(self, folder: str, shards: list[tuple[str, int]]) -> None:
        self._folder = folder
        self._shards = shards
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._encoded: collections.deque[tuple[pa.RecordBatch, concurrent.futures.Future[list[bytes]]]] = (
            collections.deque()
        )
        self._writer: Any = None
        self._files = contextlib.ExitStack()

    def __enter__(self) -> _ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._thread:
            while self._encoded and kind is None:
                self._write(*self._encoded.popleft())
        self._files.close()

    def write(self, lists: pa.RecordBatch) -> None:
        if not lists.num_rows:
            return
        self._encoded.append((lists, self._thread.submit(_encode, lists)))
        if len(self._encoded) > 1:
            self._write(*self._encoded.popleft())

    def _write(self, lists: pa.RecordBatch, encoded: concurrent.futures.Future[list[bytes]]) -> None:
        if self._writer is None or self._shards[-1][1] >= MAX_ROWS:
            self._files.close()
            # Under a name of its own: a runner may give one portion to two workers.
            self._shards.append((os.path.join(self._folder, uuid.uuid4().hex), 0))
            path = self._shards[-1][0]
            self._writer = self._files.enter_context(tf.io.TFRecordWriter(path, _COMPRESSION))
            self._arrow = self._files.enter_context(ArrowWriter(f"{path}.arrow"))
        self._arrow.write(lists)
        for example in encoded.result():
            self._writer.write(example)
        path, number = self._shards[-1]
        self._shards[-1] = (path, number + lists.num_rows)


def _encode(lists: pa.RecordBatch) -> list[bytes]:
    return list(RecordBatchToExamplesEncoder().encode(lists))
