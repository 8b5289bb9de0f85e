"""Parquet: row groups, streamed."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.impression_log_example_gen.readers.rows import (
    CorruptFileError,
    Rows,
    check_names,
    is_systems,
    uncompressed,
)

_BATCH_ROWS = 8_192


def read_parquet(file: pathlib.Path, names: list[str], start: int = 0, stop: int | None = None) -> Iterator[Rows]:
    """Yields the rows from `start` to before `stop`, counted from 0, in batches: never all of a row group at once."""
    with uncompressed(file) as path, pq.ParquetFile(path) as parquet:
        num_rows = parquet.metadata.num_rows
        check_names(parquet.schema_arrow.names, names)
        stop = num_rows if stop is None else stop
        try:
            yield from _read_groups(parquet, names, start, stop)
        except (pa.ArrowException, OSError) as error:
            if is_systems(error):
                raise
            raise CorruptFileError(str(error), num_rows) from None


def count_parquet_rows(file: pathlib.Path) -> int:
    """Returns the number of rows that the footer states."""
    with uncompressed(file) as path, pq.ParquetFile(path) as parquet:
        return int(parquet.metadata.num_rows)


def _read_groups(parquet: pq.ParquetFile, names: list[str], start: int, stop: int) -> Iterator[Rows]:
    row = 0
    for group in range(parquet.num_row_groups):
        group_stop = row + parquet.metadata.row_group(group).num_rows
        if group_stop > start and row < stop:
            for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                first, last = max(start, row), min(stop, row + batch.num_rows)
                if first < last:
                    yield Rows(batch.slice(first - row, last - first), np.arange(first + 1, last + 1))
                row += batch.num_rows
                if row >= stop:
                    return
        row = group_stop
