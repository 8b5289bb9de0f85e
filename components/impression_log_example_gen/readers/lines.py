"""Text files in blocks of whole lines."""

from __future__ import annotations

import codecs
import gzip
import pathlib
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np

from components.impression_log_example_gen.log import is_gzip
from components.impression_log_example_gen.readers.rows import CorruptFileError

_BLOCK_BYTES = 4 << 20
_MAX_LINE_BYTES = 16 << 20  # a file without line ends is not to be in memory


def open_text(file: pathlib.Path) -> IO[bytes]:
    """Opens a text file, gzip or not. Python's gzip, unlike Arrow's, checks length and checksum at the end."""
    return cast(IO[bytes], gzip.open(file)) if is_gzip(file) else file.open("rb")


def read_blocks(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields whole lines, a few megabytes at once, and the number of the first of them; the first line is 1.

    Raises:
        CorruptFileError: A line has more than 16 MiB.
    """
    number, rest, is_first = 1, b"", True
    while chunk := stream.read(_BLOCK_BYTES):
        if is_first:
            chunk, is_first = chunk.removeprefix(codecs.BOM_UTF8), False
        end = chunk.rfind(b"\n") + 1
        if not end:
            rest += chunk
            if len(rest) > _MAX_LINE_BYTES:
                raise CorruptFileError(f"line {number} has more than {_MAX_LINE_BYTES >> 20} MiB")
            continue
        block, rest = rest + chunk[:end], chunk[end:]
        yield number, block
        number += block.count(b"\n")
    if rest:
        yield number, rest


class Lines:
    """The lines of a block that are not empty.

    Attributes:
        numbers: int64 [lines]: the number of each in the file.
    """

    def __init__(self, block: bytes, first_number: int) -> None:
        content = np.frombuffer(block, np.uint8)
        newlines = np.flatnonzero(content == ord("\n"))
        starts = np.concatenate([[0], newlines + 1])
        stops = np.append(newlines, len(block))
        lengths = stops - starts
        # A carriage return before the newline is a part of the line's end.
        is_return = lengths == 1
        is_return[is_return] = content[starts[is_return]] == ord("\r")
        is_line = (lengths > 0) & ~is_return
        self._block = block
        self._starts, self._stops = starts[is_line], stops[is_line]
        self.numbers: np.ndarray[Any, Any] = np.flatnonzero(is_line) + first_number

    def leave_out(self, indexes: list[int]) -> None:
        """Leaves lines out."""
        stays = np.ones(len(self), bool)
        stays[indexes] = False
        self._starts, self._stops, self.numbers = self._starts[stays], self._stops[stays], self.numbers[stays]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> bytes:
        return self._block[self._starts[index] : self._stops[index]]

    def join(self, start: int, stop: int) -> bytes:
        """Returns the lines from `start` to before `stop`, each with a newline."""
        first, last = self._starts[start], self._stops[stop - 1]
        if self.numbers[stop - 1] - self.numbers[start] == stop - 1 - start:  # none was empty: no copy line by line
            return self._block[first:last] + b"\n"
        return b"".join(self[index] + b"\n" for index in range(start, stop))
