"""Columns that are derived from an impression for slicing: how long its sequences are, what time of the day it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.features import FeatureSpec, IdSequence

TIME_OF_DAY = "time_of_day"
_LENGTH = "_length"
_LONGEST = (0, 4, 19, 99)  # of each band of lengths but the last


def derived_columns(spec: FeatureSpec) -> tuple[str, ...]:
    """Returns the names of the columns that can be derived, which slices may name beside those of the log.

    - `<sequence>_length`: 0, 1-4, 5-19, 20-99 or 100+ ids, before the sequence is cut to its `max_length`;
    - `time_of_day`: 00-06, 06-12, 12-18 or 18-24 o'clock UTC, where the spec has a timestamp.
    """
    names = [feature.name + _LENGTH for feature in spec.features if isinstance(feature, IdSequence)]
    return (*names, *([TIME_OF_DAY] if spec.timestamp else []))


def derive(spec: FeatureSpec, features: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns the derived columns of a batch that are named, text [batch].

    Args:
        spec: The data set.
        features: The batch's raw columns.
        names: Which are wanted; what is none of `derived_columns` is left out.
    """
    derived: dict[str, Any] = {}
    for name in set(names) & set(derived_columns(spec)):
        if name == TIME_OF_DAY:
            assert spec.timestamp is not None
            seconds = [0 if value is None else int(value) for value in first_values(features[spec.timestamp])]
            quarters = np.array(seconds, np.int64) % 86_400 // 21_600
            derived[name] = np.array(["00-06", "06-12", "12-18", "18-24"])[quarters]
        else:
            derived[name] = _bands(lengths(features[name.removesuffix(_LENGTH)]))
    return derived


def _bands(counts: npt.NDArray[np.int64]) -> Any:
    starts = [0, *(longest + 1 for longest in _LONGEST)]
    names = ["0", *(f"{low}-{high}" for low, high in zip(starts[1:], _LONGEST[1:], strict=False)), f"{starts[-1]}+"]
    return np.array(names)[np.searchsorted(_LONGEST, counts)]


def first_values(column: Any) -> list[Any]:
    """Returns each impression's first value, None where it has none: bytes, or a number, [batch]."""
    return [row[0] if len(row) else None for row in _rows(column)]


def lengths(column: Any) -> npt.NDArray[np.int64]:
    """Returns each impression's number of values, [batch]."""
    return np.array([len(row) for row in _rows(column)], np.int64)


def _rows(column: Any) -> list[Any]:
    """Returns each impression's values, whichever of TFMA's kinds of columns it is."""
    if isinstance(column, np.ndarray):
        return list(column.reshape(len(column), -1).tolist())
    rows: list[list[Any]] = [[] for _ in range(int(column.dense_shape[0]))]  # VarLenTensorValue, SparseTensorValue
    for row, value in zip(np.asarray(column.indices)[:, 0].tolist(), np.asarray(column.values).tolist(), strict=True):
        rows[row].append(value)
    return rows
