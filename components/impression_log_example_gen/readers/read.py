"""The one way to a file's rows, whatever its format."""

from __future__ import annotations

import contextlib
import pathlib
import zlib
from collections.abc import Iterator

import pyarrow as pa

from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.log import format_of, is_gzip, unreadable
from components.impression_log_example_gen.readers.delimited import read_csv
from components.impression_log_example_gen.readers.json_lines import read_json
from components.impression_log_example_gen.readers.lines import Lines, open_text, read_blocks
from components.impression_log_example_gen.readers.parquet import count_parquet_rows, read_parquet
from components.impression_log_example_gen.readers.rows import CorruptFileError, Rows, is_systems

_ERRORS = (pa.ArrowException, OSError, EOFError, zlib.error)


def read_rows(
    file: pathlib.Path, columns: tuple[Column, ...], start: int = 0, stop: int | None = None
) -> Iterator[Rows]:
    """Yields the rows of a file.

    Args:
        file: The file.
        columns: The wanted columns.
        start: For Parquet the first row that is wanted, counted from 0.
        stop: For Parquet the row after the last one that is wanted.

    Raises:
        CorruptFileError: The file cannot be read to its end.
        LogError: It has been removed, or the machine could not read it.
    """
    names = list(dict.fromkeys(column.source for column in columns))
    with _named_errors(file):
        match format_of(file):
            case "parquet":
                yield from read_parquet(file, names, start, stop)
            case "csv":
                yield from read_csv(file, names)
            case "json":
                yield from read_json(file, columns)
            case _:
                # Not at the top, as TensorFlow takes seconds to import.
                from components.impression_log_example_gen.readers.tfrecord import read_tfrecord

                yield from read_tfrecord(file)


def count_rows(file: pathlib.Path) -> int | None:
    """Returns the number of rows that a Parquet file states; None where only reading the file can tell.

    Raises:
        LogError: It has been removed, or the machine could not read it.
    """
    if format_of(file) != "parquet" or is_gzip(file):
        return None
    try:
        with _named_errors(file):
            return count_parquet_rows(file)
    except CorruptFileError:
        return None


def has_rows(file: pathlib.Path) -> bool:
    """Whether a file has rows. A corrupt file is taken to have some, so that the run that uses its day names it.

    Raises:
        LogError: It has been removed, or the machine could not read it.
    """
    is_parquet, is_csv = (format_of(file) == name for name in ("parquet", "csv"))
    num_lines = 0
    try:
        with _named_errors(file):
            if is_parquet:
                return count_parquet_rows(file) > 0
            with open_text(file) as stream:
                if format_of(file) == "tfrecord":
                    return bool(stream.read(1))
                for _, block in read_blocks(stream):
                    lines = Lines(block, 1)
                    num_lines += len(lines)
                    # A header is no row. One with a carriage return in it is no header, but a corrupt file.
                    if num_lines > is_csv or (is_csv and num_lines and b"\r" in lines[0].rstrip(b"\r\n")):
                        return True
    except CorruptFileError:
        return True
    return False


@contextlib.contextmanager
def _named_errors(file: pathlib.Path) -> Iterator[None]:
    """Tells what is wrong with a file, CorruptFileError, from what is wrong with the machine, LogError."""
    try:
        yield
    except _ERRORS as error:
        if isinstance(error, OSError) and is_systems(error):
            raise unreadable(file, error) from None
        raise CorruptFileError(" ".join(str(error).split()).rstrip(".")) from None
