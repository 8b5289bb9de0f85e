"""A flat log: files in one folder, and each row's timestamp says its day.

Which days there are is known only by reading, of Parquet the timestamp column, of other formats the file, in every run.
So for a large log let folders say the day.
"""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Iterator

import numpy as np

from components.impression_log_example_gen.check import Checked, check, days_of
from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.log import EPOCH, Day, LogError, find_files
from components.impression_log_example_gen.quarantine import WRONG_TYPE
from components.impression_log_example_gen.readers.read import read_rows
from components.impression_log_example_gen.readers.rows import CorruptFileError, Rows


def find_days_by_timestamp(
    path: pathlib.Path, timestamp: Column | None
) -> tuple[tuple[Day, ...], tuple[pathlib.Path, ...]]:
    """Returns the days that have rows, oldest first, each with the files that hold some; and the files without any day.

    Args:
        path: The log.
        timestamp: The timestamp column. A day is one of UTC.

    Raises:
        LogError: There is no timestamp column.
    """
    if timestamp is None:
        raise LogError(
            f"the impression log {path} has no day=YYYY-MM-DD folders, and the feature spec names no timestamp: sort "
            "the files into such folders, or give the spec a timestamp"
        )
    files_of: dict[int, list[pathlib.Path]] = {}
    undated = []
    for file in find_files(path):
        days, has_rows = find_days_of(file, timestamp)
        for day in days:
            files_of.setdefault(day, []).append(file)
        if has_rows and not days:
            undated.append(file)
    if not files_of:
        if wrong := _first_of_another_type(undated, timestamp):
            raise LogError(
                f"no row of the impression log {path} has a timestamp: {wrong}; it must be an integer, as "
                "log.timestamp_unit counts from 1970 on, or a timestamp of Parquet's"
            )
        raise LogError(
            f"no row of the impression log {path} has a timestamp in the column {timestamp.source}, or its unit is "
            "another one: correct log.columns, or log.timestamp_unit"
        )
    days_with_files = (Day(EPOCH + datetime.timedelta(day), tuple(files)) for day, files in sorted(files_of.items()))
    return tuple(days_with_files), tuple(undated)


def _first_of_another_type(files: list[pathlib.Path], timestamp: Column) -> str | None:
    """Returns which row's timestamp is the first that is of another type, and what it is."""
    for file in files:
        try:
            for rows, checked in _read_checked(file, timestamp):
                for row in (*rows.unparsable, *checked.bad.values()):
                    if row.column == timestamp.source and row.reason == WRONG_TYPE:
                        return f"its {row.column} is {row.value} in {file}, row {row.number}"
        except CorruptFileError:
            continue
    return None


def find_days_of(file: pathlib.Path, timestamp: Column) -> tuple[list[int], bool]:
    """Returns the days that a file has rows of, in days since 1970-01-01, and whether it has any row.

    A corrupt file has those days that could be read of it.
    """
    days: set[int] = set()
    has_rows = False
    try:
        for rows, checked in _read_checked(file, timestamp):
            has_rows = has_rows or bool(rows.batch.num_rows or rows.unparsable)
            is_dated = np.ones(rows.batch.num_rows, bool)
            is_dated[list(checked.bad)] = False
            days.update(np.unique(days_of(checked.lists.column(0), is_dated)).tolist())
    except CorruptFileError:
        has_rows = True
    return sorted(days), has_rows


def _read_checked(file: pathlib.Path, timestamp: Column) -> Iterator[tuple[Rows, Checked]]:
    for rows in read_rows(file, (timestamp,)):
        yield rows, check(rows.batch, rows.numbers, (timestamp,), is_text=rows.is_text)
