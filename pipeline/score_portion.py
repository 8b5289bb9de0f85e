"""Scores one portion of a log: what a Beam worker does."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from apache_beam.utils import shared
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.impression_log_example_gen.check import check, find, first_values
from components.impression_log_example_gen.columns import Column, find_columns
from components.impression_log_example_gen.pieces import BadRowWriter, read_piece
from components.impression_log_example_gen.portions import Piece, Portion
from components.impression_log_example_gen.quarantine import BadRow
from components.impression_log_example_gen.readers.rows import Rows
from components.impression_log_example_gen.report import Report
from pipeline.config import PipelineConfig
from pipeline.predict import Model, load_model
from schemas.features import FeatureSpec

NO_CTR = "no finite ctr"
KEY = "log.key"  # among the columns that have a value


@dataclasses.dataclass(frozen=True)
class ScorePortion:
    """Scores a portion: a function that Beam sends to its workers.

    Attributes:
        columns: The columns to take.
        key: The column that tells one impression from another.
        timestamp: The spec's timestamp.
        log: What the files are named relative to.
        folder: Where to write: a folder that all workers reach.
        model: The SavedModel's folder.
        loaded: Keeps the model once in each process.
        corrupt: The files to leave out.
    """

    columns: tuple[Column, ...]
    key: str | None
    timestamp: str | None
    log: pathlib.Path
    folder: str
    model: pathlib.Path
    loaded: shared.Shared = dataclasses.field(default_factory=shared.Shared)
    corrupt: frozenset[pathlib.Path] = frozenset()

    @classmethod
    def for_log(
        cls, config: PipelineConfig, spec: FeatureSpec, log: pathlib.Path, folder: pathlib.Path, model: pathlib.Path
    ) -> ScorePortion:
        """Returns the work on a log; see `score_log`."""
        columns = find_columns(
            spec,
            config.log.columns,
            max_raw_length=config.log.max_raw_length,
            timestamp_unit=config.log.timestamp_unit,
        )
        unused = (spec.label.name, spec.weight)
        taken = tuple(column for column in columns if column.name not in unused)
        root = log.parent if log.is_file() else log
        return cls(taken, config.log.key, spec.timestamp, root, str(folder), model.absolute())

    def __call__(self, portion: Portion) -> Report:
        """Writes a portion's Parquet file and its bad rows.

        Raises:
            LogError: A file has changed or has been removed.
        """
        model = self.loaded.acquire(functools.partial(load_model, self.model), tag=str(self.model))
        report = Report()
        with contextlib.ExitStack() as stack:
            writer = _Writer(self, report, stack)
            for piece in portion.pieces:
                if piece.file not in self.corrupt:
                    self._score(piece, model, writer)
        writer.finish()
        return report

    def _score(self, piece: Piece, model: Model, writer: _Writer) -> None:
        key = (Column(self.key, None),) if self.key else ()
        for rows in read_piece(piece, (*self.columns, *key), writer.report):
            writer.write(piece.file, *self._score_rows(rows, model))

    def _score_rows(self, rows: Rows, model: Model) -> tuple[pa.RecordBatch, list[BadRow], set[str]]:
        """Returns the good rows' output without `file`, the bad ones, and the columns with a value in the good ones."""
        checked = check(rows.batch, rows.numbers, self.columns, is_text=rows.is_text, known=rows.bad)
        is_good = np.ones(rows.batch.num_rows, bool)
        is_good[list(checked.bad)] = False
        mask = pa.array(is_good)
        lists = checked.lists.filter(mask)
        examples = list(RecordBatchToExamplesEncoder().encode(lists)) if lists.num_rows else []
        ctrs = model.signature(tf.constant(examples, tf.string))["ctr"].numpy()[:, 0]  # [good rows]
        columns: dict[str, Any] = {"row": pa.array(rows.numbers[is_good], pa.int64())}
        if self.key:
            columns["key"] = _to_text(first_values(find(rows.batch, self.key).filter(mask)))
        if self.timestamp:
            columns[self.timestamp] = first_values(lists.column(lists.schema.get_field_index(self.timestamp)))
        columns["ctr"] = pa.array(ctrs, pa.float32())
        output = pa.RecordBatch.from_pydict(columns)
        is_finite = np.isfinite(ctrs)
        odd = [BadRow(int(number), None, NO_CTR) for number in rows.numbers[is_good][~is_finite]]
        bad = [*checked.bad.values(), *rows.unparsable, *odd]
        valued = {name for name in lists.schema.names if lists.column(name).null_count < lists.num_rows}
        if self.key and columns["key"].null_count < lists.num_rows:
            valued.add(KEY)
        return output.filter(pa.array(is_finite)), bad, valued


class _Writer:
    """Writes a portion's scored rows and its bad rows, each file when there is a first row for it."""

    def __init__(self, work: ScorePortion, report: Report, stack: contextlib.ExitStack) -> None:
        self.report = report
        self._work, self._stack = work, stack
        self._parquet: Any = None
        self._bad_rows = BadRowWriter(report, work.folder, stack)
        self._path, self._num_rows = os.path.join(work.folder, uuid.uuid4().hex), 0

    def write(self, file: pathlib.Path, rows: pa.RecordBatch, bad: list[BadRow], valued: set[str]) -> None:
        name = pa.array([str(file.relative_to(self._work.log))] * rows.num_rows, pa.string())
        table = pa.Table.from_batches([rows]).add_column(0, "file", name)
        if self._parquet is None:
            self._parquet = self._stack.enter_context(pq.ParquetWriter(self._path, table.schema))
        self._parquet.write_table(table)
        self._num_rows += rows.num_rows
        self.report.num_rows += rows.num_rows + len(bad)
        self._bad_rows.write(bad, file)
        self.report.valued = sorted(valued.union(self.report.valued))

    def finish(self) -> None:
        """Enters the Parquet file into the report; call it when all is closed."""
        if self._parquet is not None:
            self.report.shards.append((self._path, self._num_rows))


def _to_text(keys: pa.Array) -> pa.Array:
    """Returns keys of any type as text; bytes that are no UTF-8 with the replacement character."""
    if pa.types.is_binary(keys.type) or pa.types.is_large_binary(keys.type):
        return pa.array(
            [None if key is None else key.decode(errors="replace") for key in keys.to_pylist()], pa.string()
        )
    if pa.types.is_null(keys.type) or pa.types.is_integer(keys.type) or pa.types.is_large_string(keys.type):
        return pc.cast(keys, pa.string())
    return pa.array([None if key is None else str(key) for key in keys.to_pylist()], pa.string())
