"""Columns that are derived from an impression for slicing, such as how long its sequences are.

Without TensorFlow, for it is imported to check a config.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.evaluation.slices import flatten
from schemas.features import NO_ID, FeatureSpec, IdFeature, IdSequence, no_value

if TYPE_CHECKING:
    from components.evaluation.training_ids import TrainingIds

TIME_OF_DAY = "time_of_day"
_LENGTH, _NEW, _COLLIDING = "_length", "_new", "_colliding"
_LONGEST = (0, 4, 19, 99)  # of each band of lengths but the last


def derived_columns(spec: FeatureSpec) -> tuple[str, ...]:
    """Returns the names of the columns that can be derived, which slices may name beside those of the log.

    - `<sequence>_length`: 0, 1-4, 5-19, 20-99 or 100+ ids, before the sequence is cut to its `max_length`;
    - `<id>_new`: "new", an id that the column has nowhere in the training split, or "known";
    - `<id>_colliding`: "colliding", an id that is the same to the model as another one of the training split, or
      "alone"; both are "none" where there is no id;
    - `time_of_day`: 00-06, 06-12, 12-18 or 18-24 o'clock UTC, where the spec has a timestamp.
    """
    names = [feature.name + _LENGTH for feature in spec.features if isinstance(feature, IdSequence)]
    ids = [feature.name for feature in spec.features if isinstance(feature, IdFeature)]
    names += [id_ + ending for id_ in ids for ending in (_NEW, _COLLIDING)]
    return (*names, *([TIME_OF_DAY] if spec.timestamp else []))


def fields_read(spec: FeatureSpec, names: Collection[str]) -> frozenset[str]:
    """Returns the id features whose training ids are needed to derive the named columns."""
    ids = [feature.name for feature in spec.features if isinstance(feature, IdFeature)]
    return frozenset(id_ for id_ in ids if {id_ + _NEW, id_ + _COLLIDING} & set(names))


def derive(
    spec: FeatureSpec, features: Mapping[str, Any], names: Collection[str], training_ids: TrainingIds | None = None
) -> dict[str, Any]:
    """Returns the derived columns of a batch that are named, text [batch].

    Args:
        spec: The data set.
        features: The batch's raw columns.
        names: Which are wanted; what is none of `derived_columns` is left out.
        training_ids: The ids of the training split; may be None where no named column needs them.
    """
    derived: dict[str, Any] = {}
    for name in set(names) & set(derived_columns(spec)):
        if name.endswith((_NEW, _COLLIDING)):
            assert training_ids is not None
            derived[name] = _tell_ids(name, features, training_ids)
        elif name == TIME_OF_DAY:
            assert spec.timestamp is not None
            seconds = [0 if value is None else int(value) for value in first_values(features[spec.timestamp])]
            quarters = np.array(seconds, np.int64) % 86_400 // 21_600
            derived[name] = np.array(["00-06", "06-12", "12-18", "18-24"])[quarters]
        else:
            (sequence,) = (one for one in spec.features if one.name + _LENGTH == name)
            derived[name] = _bands(lengths(features[sequence.name], no_value(sequence)))
    return derived


def _tell_ids(name: str, features: Mapping[str, Any], training_ids: TrainingIds) -> Any:
    field, _, question = name.rpartition("_")
    ids = first_ids(features[field])
    is_id = np.array([id_ is not None for id_ in ids], bool)
    answers = np.full(len(ids), "none", "U9")
    present = [id_ for id_, is_present in zip(ids, is_id, strict=True) if is_present]
    if f"_{question}" == _NEW:
        answers[is_id] = np.where(training_ids.are_known(field, present), "known", "new")
    else:
        answers[is_id] = np.where(training_ids.are_colliding(field, present), "colliding", "alone")
    return answers


def _bands(counts: npt.NDArray[np.int64]) -> Any:
    starts = [0, *(longest + 1 for longest in _LONGEST)]
    names = ["0", *(f"{low}-{high}" for low, high in zip(starts[1:], _LONGEST[1:], strict=False)), f"{starts[-1]}+"]
    return np.array(names)[np.searchsorted(_LONGEST, counts)]


def first_ids(column: Any) -> list[Any]:
    """Returns each impression's id, None where it has none: bytes or int, [batch]."""
    return [None if id_ in (b"", NO_ID["int64"]) else id_ for id_ in first_values(column)]


def first_values(column: Any) -> list[Any]:
    """Returns each impression's first value, None where it has none: bytes, or a number, [batch]."""
    return [row[0] if len(row) else None for row in _rows(column)]


def lengths(column: Any, missing: Any) -> npt.NDArray[np.int64]:
    """Returns each impression's number of ids, [batch]; `missing` is what is none to the model."""
    rows, _ = flatten(column, missing)
    return np.bincount(rows, minlength=_num_rows(column)).astype(np.int64)


def _rows(column: Any) -> list[list[Any]]:
    """Returns each impression's values."""
    if isinstance(column, np.ndarray):
        dense: list[list[Any]] = column.reshape(len(column), -1).tolist()
        return dense
    rows: list[list[Any]] = [[] for _ in range(_num_rows(column))]
    for row, value in zip(*(part.tolist() for part in flatten(column)), strict=True):
        rows[row].append(value)
    return rows


def _num_rows(column: Any) -> int:
    """Returns the number of rows of a column."""
    if isinstance(column, np.ndarray):
        return len(column)
    return len(column.nested_row_splits[0]) - 1 if hasattr(column, "nested_row_splits") else int(column.dense_shape[0])
