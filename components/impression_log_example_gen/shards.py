"""Which rows of the log go to which output file.

A shard is the unit of work: a range of a split's rows, read and written as one stream. So no rows pass through Beam,
what is in a shard does not depend on the runner, and the shards of a split, one after the other, are the log in order.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence

from components.impression_log_example_gen.columns import Column, check_schema
from components.impression_log_example_gen.log import LogError, Window, open_parquet

# A few shards, so that the trainer has files to interleave, but none so small that opening it is what costs; and in a
# large log none so large that a worker has long to go with its last one.
_MIN_SHARDS = 4
_MIN_SHARD_ROWS = 1_000
_MAX_SHARD_ROWS = 250_000


@dataclasses.dataclass(frozen=True)
class Piece:
    """Rows of one file: from `start` to before `stop`.

    Attributes:
        file: The file.
        start: Its first row, counted from 0.
        stop: The row after its last one.
    """

    file: pathlib.Path
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """One output file.

    Attributes:
        split: Name of its split.
        index: Its place in the split, from 0.
        num_shards: How many the split has.
        pieces: What goes into it, in order.
    """

    split: str
    index: int
    num_shards: int
    pieces: tuple[Piece, ...]

    @property
    def file_name(self) -> str:
        """Its name, as TFX's own ExampleGens name it."""
        return f"data_tfrecord-{self.index:05d}-of-{self.num_shards:05d}.gz"

    @property
    def num_rows(self) -> int:
        """Its number of rows."""
        return sum(piece.stop - piece.start for piece in self.pieces)


def plan_shards(window: Window, columns: tuple[Column, ...]) -> list[Shard]:
    """Reads the footers of all files and returns the shards, those of a split in its order.

    Raises:
        LogError: A file is not readable, or its columns are not the wanted ones, or a split has no rows.
    """
    shards = []
    for split, days in window.splits.items():
        files = []
        for file in (file for day in days for file in day.files):
            with open_parquet(file) as parquet:
                check_schema(parquet.schema_arrow, columns, file)
                files.append(Piece(file, 0, int(parquet.metadata.num_rows)))
        shards += split_pieces(split, files)
    return shards


def split_pieces(split: str, files: Sequence[Piece]) -> list[Shard]:
    """Cuts a split's files into shards of about the same number of rows.

    Args:
        split: The split's name.
        files: Its files, whole, in order.

    Raises:
        LogError: The files have no rows.
    """
    num_rows = sum(file.stop for file in files)
    if num_rows == 0:
        raise LogError(f"the {split} split has no rows: its days were emptied since the run began, run again")
    num_shards = max(-(-num_rows // _MAX_SHARD_ROWS), min(_MIN_SHARDS, -(-num_rows // _MIN_SHARD_ROWS)))
    bounds = [num_rows * index // num_shards for index in range(num_shards + 1)]
    shards = []
    for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
        pieces, file_start = [], 0
        for file in files:
            first, last = max(start - file_start, 0), min(stop - file_start, file.stop)
            if first < last:
                pieces.append(Piece(file.file, first, last))
            file_start += file.stop
        shards.append(Shard(split, index, num_shards, tuple(pieces)))
    return shards
