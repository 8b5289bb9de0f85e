"""JSON lines: an object a line.

Arrow parses a block at once, or not at all: if a single value in it is not of the type that the block's first line has.
Then the block's lines are parsed one by one, at a tenth of the speed.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json

from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.quarantine import INVALID_UTF8, OVER_INT64, UNPARSABLE, WRONG_TYPE, BadRow
from components.impression_log_example_gen.readers.lines import Lines, open_text, read_blocks
from components.impression_log_example_gen.readers.rows import Rows
from schemas.whole import as_integer

_NARROWEST_FIRST = ("int64", "string", "float32", None)
_TYPES = {"int64": pa.int64(), "float32": pa.float64(), "string": pa.string()}


def read_json(file: pathlib.Path, columns: tuple[Column, ...]) -> Iterator[Rows]:
    """Yields the rows."""
    columns = _one_of_each_source(columns)
    with open_text(file) as stream:
        for first_number, block in read_blocks(stream):
            lines = Lines(block, first_number)
            if len(lines):
                batch = _parse_block(lines, columns)
                yield _parse_lines(lines, columns) if batch is None else Rows(batch, lines.numbers)


def _one_of_each_source(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Returns, of columns that are one in the log, that of the narrowest type: a whole number is a float, too."""
    of_source: dict[str, Column] = {}
    for column in sorted(columns, key=lambda column: (_NARROWEST_FIRST.index(column.dtype), not column.gives_day)):
        of_source.setdefault(column.source, column)
    return tuple(of_source.values())


def _parse_block(lines: Lines, columns: tuple[Column, ...]) -> pa.RecordBatch | None:
    """Returns the rows, or None if not every line is an object with values of the types of the first line's."""
    try:
        first = json.loads(lines[0])
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict):
        return None
    text = lines.join(0, len(lines))
    schema = pa.schema({column.source: _type_of(first.get(column.source), column) for column in columns})
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(text),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        return None
    # Two objects on a line, or one on two, are no JSON lines. An object that ends in a line and one that begins in it
    # could make up for each other, but not where all lines begin and end like objects.
    if table.num_rows != len(lines) or text.count(b"}\n{") + text.count(b"}\r\n{") != len(lines) - 1:
        return None
    batches = table.combine_chunks().to_batches()
    return batches[0] if len(batches) == 1 else None


def _type_of(value: Any, column: Column) -> pa.DataType:
    element = value[0] if isinstance(value, list) and value else value
    if isinstance(element, bool):
        arrow_type = pa.bool_()
    elif column.dtype is None:
        arrow_type = pa.int64() if isinstance(element, int) else pa.string()
    else:
        arrow_type = _TYPES[column.dtype]
    return pa.list_(arrow_type) if isinstance(value, list) or (value is None and column.is_list) else arrow_type


def _parse_lines(lines: Lines, columns: tuple[Column, ...]) -> Rows:
    values: dict[str, list[list[Any]]] = {column.source: [] for column in columns}
    good: list[int] = []
    unparsable: list[BadRow] = []
    bad: dict[int, BadRow] = {}
    for index, number in enumerate(lines.numbers.tolist()):
        line = lines[index]
        if not line.strip():
            continue
        found, wrong = _parse_line(line, number, columns)
        if found is None:
            assert wrong
            unparsable.append(wrong)
            continue
        if wrong:
            bad[len(good)] = wrong
        good.append(index)
        for name, value in found.items():
            values[name].append(value)
    arrays = [pa.array(values[column.source], pa.list_(_ELEMENTS[column.dtype])) for column in columns]
    batch = pa.RecordBatch.from_arrays(arrays, [column.source for column in columns])
    return Rows(batch, lines.numbers[good], tuple(unparsable), bad=bad)


_ELEMENTS = {"int64": pa.int64(), "float32": pa.float64(), "string": pa.large_binary(), None: pa.large_binary()}


def _parse_line(
    line: bytes, number: int, columns: tuple[Column, ...]
) -> tuple[dict[str, list[Any]] | None, BadRow | None]:
    """Returns each column's values as a list, and what is wrong with the first that is, which has none.

    There are no values where the line is wrong, or the timestamp that says the row's day.
    """
    try:
        # Invalid bytes become lone surrogates, so that the column that has them can be named.
        row = json.loads(line.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return None, BadRow(number, None, UNPARSABLE, line[:400].decode(errors="replace"))
    found: dict[str, list[Any]] = {}
    wrong = None
    for column in sorted(columns, key=lambda column: not column.gives_day):
        value = row.get(column.source)
        elements = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
        try:
            found[column.source] = [_convert(element, column) for element in elements]
        except _BadValueError as error:
            found[column.source] = []
            excerpt = repr(value)[:400].encode(errors="replace").decode()
            wrong = wrong or BadRow(number, column.source, str(error), excerpt)
            if column.gives_day:
                return None, wrong
    return found, wrong


class _BadValueError(ValueError):
    pass


def _convert(value: Any, column: Column) -> Any:
    if column.dtype is None and isinstance(value, int):
        value = str(value)
    if column.dtype in ("string", None) and isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise _BadValueError(INVALID_UTF8) from None
    if column.dtype == "int64":
        value = as_integer(value)
    if column.dtype == "int64" and isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _BadValueError(OVER_INT64)
        return int(value)
    if column.dtype == "float32" and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise _BadValueError(WRONG_TYPE)
