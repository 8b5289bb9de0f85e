"""Arrow columns of a log -> the list columns that the tf.Example encoder takes. No row is looked at in Python."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from components.impression_log_example_gen.log import LogError
from schemas.features import FeatureSpec

# What is taken for each type of a spec: what converts without loss, but for the digits that a float32 has not. The
# remedy for any other type is the log writer's, as it alone knows what the values mean.
_ARROW_TYPES = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.large_binary()}
_TAKEN = {
    "int64": (types.is_integer, types.is_boolean),
    "float32": (types.is_float32, types.is_float64, types.is_integer, types.is_decimal),
    "string": (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary),
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column to take from the log.

    Attributes:
        name: Its name.
        dtype: "int64", "float32" or "string".
        is_label: Whether it is the label, which every row must have.
    """

    name: str
    dtype: str
    is_label: bool = False


def find_columns(spec: FeatureSpec) -> tuple[Column, ...]:
    """Returns the columns of a spec: the features, the label, the timestamp and the weight if it has them."""
    features = tuple(Column(feature.name, feature.dtype) for feature in spec.features)
    timestamp = (Column(spec.timestamp, "int64"),) if spec.timestamp else ()
    weight = (Column(spec.weight, "float32"),) if spec.weight else ()
    return (*features, Column(spec.label.name, "int64", is_label=True), *timestamp, *weight)


def check_schema(schema: pa.Schema, columns: tuple[Column, ...], file: pathlib.Path) -> None:
    """Checks a file's schema. A feature may be missing from it: that is for the schema gate to judge.

    Raises:
        LogError: A column has a type that does not convert to the wanted one, or there is no label.
    """
    for column in columns:
        if column.name not in schema.names:
            if column.is_label:
                raise LogError(f"{file} has no column {column.name}, the label: write it, or correct the feature spec")
            continue
        found = schema.field(column.name).type
        if not _is_taken(found, column):
            wanted = column.dtype if column.is_label else f"{column.dtype} or a list of it"
            raise LogError(
                f"{file}: column {column.name} is {found}, but the feature spec says {wanted}: "
                "write the column so, or correct the spec"
            )


def to_lists(batch: pa.RecordBatch, columns: tuple[Column, ...]) -> pa.RecordBatch:
    """Returns the wanted columns as lists of int64, float32 or bytes.

    A null, an empty list and a column that is not there all become a null list, which is a feature without values. (An
    empty list would not do: TFDV counts it as present.) Nulls within a list are left out of it; NaN stays.

    Args:
        batch: Rows of a file whose schema `check_schema` has passed.
        columns: The wanted columns.

    Raises:
        pa.ArrowInvalid: An unsigned integer does not fit into int64.
    """
    return pa.RecordBatch.from_arrays(
        [_to_list(_find(batch, column.name), _ARROW_TYPES[column.dtype]) for column in columns],
        [column.name for column in columns],
    )


def find_bad_label(batch: pa.RecordBatch, label: str) -> tuple[int, Any] | None:
    """Returns the position in the batch, and the value, of the first label that is null or neither 0 nor 1."""
    labels = _find(batch, label)
    # Unsafe, so that an integer too large for int64 is a bad label like any other.
    is_good = pc.is_in(labels.cast(pa.int64(), safe=False), value_set=pa.array([0, 1]))
    position = pc.index(is_good, False).as_py()
    return None if position < 0 else (position, labels[position].as_py())


def _find(batch: pa.RecordBatch, name: str) -> pa.Array:
    index = batch.schema.get_field_index(name)
    return pa.nulls(batch.num_rows) if index < 0 else _decode(batch.column(index))


def _decode(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if types.is_dictionary(array.type) else array


def _is_list(arrow_type: pa.DataType) -> bool:
    return bool(types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type))


def _is_taken(found: pa.DataType, column: Column) -> bool:
    if _is_list(found) and not column.is_label:
        found = found.value_type
    if types.is_dictionary(found):
        found = found.value_type
    return types.is_null(found) or any(is_type(found) for is_type in _TAKEN[column.dtype])


def _to_list(array: pa.Array, value_type: pa.DataType) -> pa.Array:
    if _is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        values = _decode(array.flatten())
        if values.null_count:
            rows = np.repeat(np.arange(len(array)), lengths)
            lengths = np.bincount(rows[_is_valid(values)], minlength=len(array))
    else:
        lengths = _is_valid(array).astype(np.int64)
        values = array
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    offsets = pa.array(starts, mask=np.append(lengths == 0, False))  # a null offset makes a null list
    return pa.ListArray.from_arrays(offsets, _cast(values.drop_null(), value_type))


def _is_valid(array: pa.Array) -> np.ndarray[Any, Any]:
    return array.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _cast(values: pa.Array, value_type: pa.DataType) -> pa.Array:
    if value_type == pa.float32():
        # By way of float64: Arrow refuses to round an integer to the nearest float32.
        return values.cast(pa.float64(), safe=False).cast(value_type, safe=False)
    return values.cast(value_type)
