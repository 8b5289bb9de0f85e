"""Who reads what: the log's rows -> portions.

A portion is the unit of work: consecutive rows of a split, read and written as one stream. So no rows pass through
Beam, what is in a portion does not depend on the runner, and the portions of a split, one after the other, are the log
in order.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import pathlib
from collections.abc import Sequence

from components.impression_log_example_gen.log import EPOCH, LogError, day_name, format_of, is_gzip
from components.impression_log_example_gen.readers.read import count_rows
from components.impression_log_example_gen.window import Window

MAX_ROWS = 250_000
# A few portions, so that the trainer has files to interleave, but none so small that opening it is what costs; and in a
# large log none so large that a worker has long to go with its last one.
_MIN_PORTIONS = 4
_MIN_ROWS = 1_000
# What a row of the Criteo logs takes, for the sake of about equal portions of files whose rows nobody has counted.
_ROW_BYTES, _GZIP_ROW_BYTES = 250, 100


@dataclasses.dataclass(frozen=True)
class Days:
    """The days of which a flat log's rows are wanted.

    Attributes:
        first: The first, in days since 1970-01-01 UTC.
        last: The last.
        with_undated: Whether rows without a day are taken too: by one of the splits, as they are bad rows of the log.
    """

    first: int
    last: int
    with_undated: bool


@dataclasses.dataclass(frozen=True)
class Piece:
    """Rows of one file.

    Attributes:
        file: The file.
        start: Its first row, counted from 0.
        stop: The row after its last one; None for all that the file has, where only reading it tells how many.
        size: About how many rows that are.
        days: Of a flat log: which of the rows are wanted.
    """

    file: pathlib.Path
    start: int
    stop: int | None
    size: int
    days: Days | None = None


@dataclasses.dataclass(frozen=True)
class Portion:
    """One unit of work.

    Attributes:
        split: Name of its split.
        index: Its place in the log, from 0: those of the training split come before those of the eval split.
        pieces: What is in it, in order.
        day: The day of its rows as YYYY-MM-DD, where portions are cut by the day.
    """

    split: str
    index: int
    pieces: tuple[Piece, ...]
    day: str | None = None


def plan_portions(window: Window, *, by_day: bool = False) -> list[Portion]:
    """Reads the footers of all Parquet files and returns the portions, in the order of the log.

    Args:
        window: The days.
        by_day: Whether each portion has rows of one day only, if the log is partitioned: a day's portions are the same
            then in whichever window it is.

    Raises:
        LogError: A split has no rows.
    """
    portions: list[Portion] = []
    seen: set[pathlib.Path] = set()
    for name, split in window.splits.items():
        pieces = []
        for file in split.files:
            days = None
            if not window.is_partitioned:
                first, last = ((day - EPOCH).days for day in (split.days[0], split.days[-1]))
                days = Days(first, last, with_undated=file not in seen)
            pieces.append(whole(file, days))
        seen |= set(split.files)
        for day, of_day in _by_day(pieces) if by_day and window.is_partitioned else [(None, pieces)]:
            portions += [Portion(name, len(portions) + index, taken, day) for index, taken in enumerate(cut(of_day))]
        if not any(piece.size for piece in pieces):
            raise LogError(f"the {name} split has no rows: its days were emptied since the run began, run again")
    return portions


def cut(pieces: Sequence[Piece]) -> list[tuple[Piece, ...]]:
    """Cuts a split's files into groups of about the same number of rows.

    Args:
        pieces: The files, whole, in order. Those whose rows nobody has counted stay whole.
    """
    num_rows = sum(piece.size for piece in pieces)
    num_groups = max(-(-num_rows // MAX_ROWS), min(_MIN_PORTIONS, -(-num_rows // _MIN_ROWS)))
    bounds = [num_rows * index // num_groups for index in range(num_groups + 1)] if num_rows else []
    firsts = list(itertools.accumulate((piece.size for piece in pieces), initial=0))  # each one's first row
    groups = []
    for start, stop in itertools.pairwise(bounds):
        group = []
        # From the piece that `start` is in.
        for index in range(max(bisect.bisect_right(firsts, start) - 1, 0), bisect.bisect_left(firsts, stop)):
            piece, row = pieces[index], firsts[index]
            first, last = max(start - row, 0), min(stop - row, piece.size)
            if piece.stop is None and start <= row < stop:
                group.append(piece)
            elif piece.stop is not None and first < last:
                group.append(dataclasses.replace(piece, start=first, stop=last, size=last - first))
        if group:
            groups.append(tuple(group))
    return groups


def _by_day(pieces: Sequence[Piece]) -> list[tuple[str | None, list[Piece]]]:
    """Returns the pieces of each day, whose name is that of their folder, in the order of the log."""
    return [(day, list(of_day)) for day, of_day in itertools.groupby(pieces, lambda piece: day_name(piece.file))]


def whole(file: pathlib.Path, days: Days | None = None) -> Piece:
    """Returns all rows of a file as one piece.

    Args:
        file: The file.
        days: Of a flat log: which of the rows are wanted.

    Raises:
        LogError: It has been removed.
    """
    if not file.exists():
        raise LogError(f"{file} has been removed since the run began: run again")
    num_rows = count_rows(file)
    if num_rows is not None:
        return Piece(file, 0, num_rows, num_rows, days)
    row_bytes = _GZIP_ROW_BYTES if is_gzip(file) or format_of(file) == "parquet" else _ROW_BYTES
    return Piece(file, 0, None, max(1, file.stat().st_size // row_bytes), days)
