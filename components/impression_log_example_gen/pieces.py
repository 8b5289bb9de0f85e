"""Reads the pieces of a portion, and writes down what is wrong with them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfx.dsl.io import fileio

from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.log import LogError
from components.impression_log_example_gen.portions import Piece
from components.impression_log_example_gen.quarantine import BadRow, Count
from components.impression_log_example_gen.readers.read import read_rows
from components.impression_log_example_gen.readers.rows import CorruptFileError, Rows
from components.impression_log_example_gen.report import Corrupt, Report


def read_piece(piece: Piece, columns: Sequence[Column], report: Report) -> Iterator[Rows]:
    """Yields the rows of a piece; how many there are, or that the file is corrupt, goes to the report.

    Args:
        piece: The piece.
        columns: The columns to read.
        report: The portion's report.

    Raises:
        LogError: The file has changed or has been removed.
    """
    num_rows, name = 0, str(piece.file)
    try:
        for rows in read_rows(piece.file, tuple(columns), piece.start, piece.stop):
            num_rows += rows.batch.num_rows + len(rows.unparsable)
            yield rows
    except CorruptFileError as error:
        report.corrupt[name] = Corrupt(str(error), max(error.num_rows, num_rows))
    else:
        if piece.stop is not None and num_rows != piece.stop - piece.start:
            raise LogError(f"{piece.file} has changed while it was read: run again when its writer is done")
    report.rows_of_file[name] = report.rows_of_file.get(name, 0) + num_rows


class BadRowWriter:
    """Writes a portion's bad rows to a file, when there is a first one, and counts them in the report.

    Args:
        report: The portion's report.
        folder: Where to write.
        stack: Closes the file.
    """

    def __init__(self, report: Report, folder: str, stack: contextlib.ExitStack) -> None:
        self._report, self._folder, self._stack = report, folder, stack
        self._file: Any = None

    def write(self, bad: Iterable[BadRow], file: pathlib.Path) -> None:
        """Writes bad rows in their order.

        Args:
            bad: The rows.
            file: The file of the log that has them.
        """
        for row in sorted(bad, key=lambda row: row.number or 0):
            if self._file is None:
                self._report.quarantine = os.path.join(self._folder, uuid.uuid4().hex)
                self._file = self._stack.enter_context(fileio.open(self._report.quarantine, "w"))
            self._file.write(row.to_json(str(file)))
            self._report.num_quarantined += 1
            self._report.counts.add(Count(row.reason, row.column, 1, f"{file}, row {row.number}"))
