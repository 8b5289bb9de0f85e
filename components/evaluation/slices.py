"""Which slices a batch of impressions falls into, told for all its rows at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

SliceKey: TypeAlias = tuple[tuple[str, Any], ...]  # TFMA's: pairs of column and value, by the column's name
_Int64s: TypeAlias = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Values:
    """The values of one column, each once a row.

    Attributes:
        rows: Rows in ascending order, [n].
        codes: For each the place of its value in `values`, [n].
        values: The distinct values: text or numbers.
    """

    rows: _Int64s
    codes: _Int64s
    values: list[Any]


def column_values(column: Any, missing: Any = None) -> Values:
    """Returns the values of a column of TFMA's.

    Args:
        column: Of whichever kind: dense [batch] or [batch, any], sparse or ragged.
        missing: See `flatten`.
    """
    rows, flat = flatten(column, missing)
    distinct: tuple[Any, Any] = np.unique(flat, return_inverse=True)
    values, codes = distinct
    pairs = np.unique(rows * max(1, len(values)) + codes.reshape(-1))
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values.tolist()]
    return Values(pairs // max(1, len(values)), pairs % max(1, len(values)), texts)


def flatten(column: Any, missing: Any = None) -> tuple[_Int64s, Any]:
    """Returns the values of a column as two arrays: their rows, and themselves, [the number of all values] each.

    Args:
        column: See `column_values`.
        missing: A value that stands for a missing one and is left out, see `schemas.features.no_value`.
    """
    rows, flat = _flatten(column)
    if missing is None:
        return rows, flat
    is_value = np.asarray(flat != (missing.encode() if isinstance(missing, str) else missing), bool)
    return rows[is_value], flat[is_value]


def _flatten(column: Any) -> tuple[_Int64s, Any]:
    if isinstance(column, np.ndarray):
        flat = column.reshape(len(column), -1)
        return np.repeat(np.arange(flat.shape[0]), flat.shape[1]), flat.reshape(-1)
    if hasattr(column, "nested_row_splits"):  # RaggedTensorValue
        (splits,) = column.nested_row_splits
        return np.repeat(np.arange(len(splits) - 1), np.diff(splits)), np.asarray(column.values)
    # VarLenTensorValue, SparseTensorValue
    return np.asarray(column.indices, np.int64).reshape(-1, 2)[:, 0], np.asarray(column.values)


def find_slices(
    columns: Mapping[str, Values], num_rows: int, crossings: Sequence[Sequence[str]]
) -> Iterator[tuple[SliceKey, _Int64s]]:
    """Yields the slices of a batch that are not empty, each with its rows.

    Args:
        columns: The columns by name. A slice of one that is not there has no rows.
        num_rows: Number of rows of the batch.
        crossings: For each kind of slice the columns that it is made by; none for all rows.
    """
    for names in crossings:
        crossed = sorted(set(names))
        if all(name in columns for name in crossed):
            yield from _cross([(name, columns[name]) for name in crossed], num_rows)


def _cross(columns: Sequence[tuple[str, Values]], num_rows: int) -> Iterator[tuple[SliceKey, _Int64s]]:
    rows, codes = np.arange(num_rows), np.zeros(num_rows, np.int64)
    for _, column in columns:
        # Each row once for each of its values, which stand side by side from `starts` on.
        counts = np.bincount(column.rows, minlength=num_rows)
        starts, times = (np.cumsum(counts) - counts)[rows], counts[rows]
        place = np.arange(times.sum()) + np.repeat(starts - (np.cumsum(times) - times), times)
        codes = np.repeat(codes, times) * len(column.values) + column.codes[place]
        rows = np.repeat(rows, times)
    order = np.argsort(codes, kind="stable")
    changes = np.flatnonzero(np.diff(codes[order])) + 1
    for group in np.split(order, changes):
        if len(group):
            yield _key(columns, int(codes[group[0]])), rows[group]


def _key(columns: Sequence[tuple[str, Values]], code: int) -> SliceKey:
    pairs = []
    for name, column in reversed(columns):
        code, value = divmod(code, len(column.values))
        pairs.append((name, column.values[value]))
    return tuple(reversed(pairs))
