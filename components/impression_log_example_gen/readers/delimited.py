"""CSV: a header, then one row a line. Fields are separated by commas and may be quoted; a quoted line end is none.

All values stay text here: what they are to be is for the columns to say, so that a wrong one is a bad row, not a bad
file.
An empty field, quoted or not, is missing.
"""

from __future__ import annotations

import csv
import functools
import gc
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv

from components.impression_log_example_gen.quarantine import UNPARSABLE, BadRow
from components.impression_log_example_gen.readers.lines import Lines, open_text, read_blocks
from components.impression_log_example_gen.readers.rows import CorruptFileError, Rows, check_names
from components.impression_log_example_gen.values import is_utf8


def read_csv(file: pathlib.Path, names: list[str]) -> Iterator[Rows]:
    """Yields the rows below the header.

    Raises:
        CorruptFileError: The header is not UTF-8, or has a wanted column twice.
    """
    _freeze()
    header: list[str] = []
    with open_text(file) as stream:
        for first_number, block in read_blocks(stream):
            lines = Lines(block, first_number)
            start = 0
            if not header and len(lines):
                header, start = _parse_header(lines[0]), 1
                check_names(header, names)
            if not is_utf8(block):
                yield _unparsable(_leave_out(lines, start, len(header)))
            wanted = [name for name in header if name in names]
            if len(lines) > start:
                yield from _parse(lines, start, len(lines), header, wanted or header[:1])


def _parse_header(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode().rstrip("\r")]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptFileError(f"the header cannot be read ({error})") from None


def _unparsable(bad: list[BadRow]) -> Rows:
    return Rows(pa.RecordBatch.from_arrays([], []), np.arange(0), tuple(bad), is_text=True)


def _leave_out(lines: Lines, start: int, num_fields: int) -> list[BadRow]:
    """Leaves out, and returns, lines of wrong length that are no UTF-8, which Arrow cannot tell `note` of."""

    def is_odd(line: bytes) -> bool:
        try:
            return not is_utf8(line) and len(next(csv.reader([line.decode("latin-1").rstrip("\r")]))) != num_fields
        except csv.Error:
            return True

    odd = [index for index in range(start, len(lines)) if is_odd(lines[index])]
    bad = [BadRow(int(lines.numbers[index]), None, UNPARSABLE, _excerpt(lines[index])) for index in odd]
    lines.leave_out(odd)
    return bad


def _parse(lines: Lines, start: int, stop: int, header: list[str], wanted: list[str]) -> Iterator[Rows]:
    """Yields the rows of some lines, each of which stands for itself.

    To the parser a quote that is not closed joins lines, and a lone carriage return parts them. So where it sees
    another number of rows than there are lines, each half is parsed on its own, down to the line that is to blame.
    """
    text = lines.join(start, stop)
    numbers = lines.numbers[start:stop]
    bad: list[int] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        bad.append(row.number - 1)
        return "skip"

    batch = None
    if b'"' not in text or text.count(b"\r") == text.count(b"\r\n"):  # else one could make up for the other
        batch = _parse_text(text, header, wanted, note)
    if batch is not None and batch.num_rows + len(bad) == stop - start:
        is_good = np.ones(stop - start, bool)
        is_good[bad] = False
        unparsable = tuple(
            BadRow(int(numbers[index]), None, UNPARSABLE, _excerpt(lines[start + index])) for index in bad
        )
        yield Rows(batch, numbers[is_good], unparsable, is_text=True)
    elif stop - start == 1:
        yield _unparsable([BadRow(int(numbers[0]), None, UNPARSABLE, _excerpt(lines[start]))])
    else:
        middle = (start + stop) // 2
        yield from _parse(lines, start, middle, header, wanted)
        yield from _parse(lines, middle, stop, header, wanted)


@functools.cache
def _freeze() -> None:
    """Takes what there is of objects in this process out of the garbage collector's sight, once.

    Arrow's reader of CSV asks the collector in each call who refers to a frame. With TensorFlow imported, it would look
    at half a million objects for a tenth of a second, which is more than most files take.
    """
    gc.collect()
    gc.freeze()


def _parse_text(text: bytes, header: list[str], wanted: list[str], note: object) -> pa.RecordBatch | None:
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(text),
            # One thread: with more, the parser does not know the numbers of the rows.
            pyarrow.csv.ReadOptions(column_names=header, use_threads=False, block_size=len(text) + 1),
            pyarrow.csv.ParseOptions(invalid_row_handler=note),
            pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in wanted},
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    columns = [table.column(name).combine_chunks() for name in wanted]
    return pa.RecordBatch.from_arrays([_one_chunk(column) for column in columns], wanted)


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):  # what combine_chunks gives depends on Arrow's version
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return column


def _excerpt(line: bytes) -> str:
    return line[:400].decode(errors="replace")
