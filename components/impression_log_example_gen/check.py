"""Rows of the log -> the list columns that the tf.Example encoder takes, and the rows that are bad.

No good row is looked at in Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from components.impression_log_example_gen import quarantine
from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.quarantine import BadRow
from components.impression_log_example_gen.values import convert, decode

_SECONDS_PER_DAY = 86_400
_ROWS_TO_TELL = 1_000  # of more rows none of which has a value the column is as good as gone


@dataclasses.dataclass(frozen=True)
class Checked:
    """Rows, and what is wrong with some of them.

    Attributes:
        lists: The wanted columns as lists of int64, float32 or bytes. A null, an empty list and a column that is not
            there all become a null list, which is a feature without values. (An empty list would not do: TFDV counts it
            as present.) Nulls within a list are left out of it.
        bad: By its position in `lists`, each row that is to be left out.
    """

    lists: pa.RecordBatch
    bad: dict[int, BadRow]


def check(
    batch: pa.RecordBatch,
    numbers: np.ndarray[Any, Any],
    columns: tuple[Column, ...],
    *,
    is_text: bool = False,
    known: Mapping[int, BadRow] | None = None,
) -> Checked:
    """Returns rows as lists, and those that are bad.

    Args:
        batch: The rows.
        numbers: int64 [batch.num_rows]: their numbers in the file.
        columns: The wanted columns.
        is_text: Whether all values are text, to be parsed.
        known: As `Rows.bad`.
    """
    bad: dict[int, BadRow] = {}
    arrays = []
    # The timestamp first that gives the day: a row that has none belongs to no day, whatever else is wrong with it.
    columns = tuple(sorted(columns, key=lambda column: not column.gives_day))
    for column in columns:
        if not column.gives_day:
            bad = {**(known or {}), **bad}
        arrays.append(_check_column(find(batch, column.source), numbers, column, is_text=is_text, bad=bad))
    return Checked(pa.RecordBatch.from_arrays(arrays, [column.name for column in columns]), bad)


def find(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Returns a column, nulls where it is not there; a dictionary's values in the dictionary's place."""
    indices = batch.schema.get_all_field_indices(name)
    assert len(indices) <= 1, name  # a name that is there twice would be found neither time
    return decode(batch.column(indices[0])) if indices else pa.nulls(batch.num_rows)


def flatten(array: pa.Array) -> tuple[pa.Array, np.ndarray[Any, Any]]:
    """Returns the values of all rows, without nulls, and the number of values of each row, int64 [rows]."""
    if not (types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type)):
        return array.drop_null(), _is_valid(array).astype(np.int64)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
    values = decode(array.flatten())
    if values.null_count:
        rows = np.repeat(np.arange(len(array)), lengths)
        lengths = np.bincount(rows[_is_valid(values)], minlength=len(array))
        values = values.drop_null()
    return values, lengths


def days_of(timestamps: pa.Array, is_dated: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the days of the rows that have one, int64 [dated rows], since 1970-01-01 UTC.

    Args:
        timestamps: Lists of seconds, one for each dated row.
        is_dated: bool [rows].
    """
    values, lengths = flatten(timestamps)
    days: np.ndarray[Any, Any] = values.to_numpy()[(np.cumsum(lengths) - lengths)[is_dated]] // _SECONDS_PER_DAY
    return days


def _check_column(
    array: pa.Array, numbers: np.ndarray[Any, Any], column: Column, *, is_text: bool, bad: dict[int, BadRow]
) -> pa.Array:
    if is_text and column.is_list and types.is_string(array.type):
        array = pc.split_pattern(array, "|")
    raw, lengths = flatten(array)
    values, wrong = convert(raw, column, is_text=is_text)
    stops = np.cumsum(lengths)

    def add(row: int, reason: str, value: str | None) -> None:
        bad.setdefault(row, BadRow(int(numbers[row]), column.source, reason, value))

    for position, reason in wrong:
        add(int(np.searchsorted(stops, position, side="right")), reason, excerpt(raw, position))
    if len(lengths) and int(lengths.max()) > column.max_raw_length:
        for row in np.flatnonzero(lengths > column.max_raw_length).tolist():
            add(row, quarantine.TOO_LONG, f"{lengths[row]} values")
    if not column.is_list:
        for row in np.flatnonzero(lengths > 1).tolist():
            add(row, quarantine.WRONG_TYPE, f"{lengths[row]} values")
    # A column of nulls is there; but of many rows that would be a strange coincidence.
    is_there = bool(lengths.any()) or (not types.is_null(array.type) and len(lengths) < _ROWS_TO_TELL)
    missing = _why_missing_is_bad(column, is_there=is_there)
    if missing:
        for row in np.flatnonzero(lengths == 0).tolist():
            add(row, missing, None)
    # In the types that tfx_bsl decodes Examples to, see components/arrow_examples. A null offset makes a null list.
    offsets = pa.array(np.concatenate([[0], stops]), pa.int64(), mask=np.append(lengths == 0, False))
    if types.is_binary(values.type):
        values = values.cast(pa.large_binary())
    return pa.LargeListArray.from_arrays(offsets, values)


def _why_missing_is_bad(column: Column, *, is_there: bool) -> str | None:
    """Returns why a row without a value is bad, None if it is not: no more is a column that is gone, see SchemaGate.

    Args:
        column: The column.
        is_there: Whether the rows have the column.
    """
    if column.is_label:
        return quarantine.MISSING_LABEL
    if column.is_weight and is_there:
        return quarantine.MISSING_WEIGHT
    if column.gives_day or (column.is_required and is_there):
        return quarantine.MISSING_TIMESTAMP
    return None


def first_values(array: pa.Array) -> pa.Array:
    """Returns the first value of each row, null where there is none."""
    values, lengths = flatten(array)
    starts = np.cumsum(lengths) - lengths
    return values.take(pa.array(np.where(lengths, starts, 0), mask=lengths == 0))


def excerpt(values: pa.Array, position: int) -> str:
    """Returns a value as the quarantine has it: 400 characters of it."""
    value = values.slice(position, 1)
    if types.is_string(value.type) or types.is_large_string(value.type):  # which may be invalid UTF-8
        value = value.cast(pa.large_binary())
    (element,) = value.to_pylist()
    return element[:400].decode(errors="replace") if isinstance(element, bytes) else str(element)[:400]


def _is_valid(array: pa.Array) -> np.ndarray[Any, Any]:
    return array.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
