"""What every reader yields."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from components.impression_log_example_gen.log import is_gzip
from components.impression_log_example_gen.quarantine import BadRow


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a file, some thousand at most, in the order of the file.

    Attributes:
        batch: Those that could be parsed, with at least those of the wanted columns that the file has.
        numbers: int64 [batch.num_rows]: the line of each in a text file, else the row, the first being 1.
        unparsable: The others.
        is_text: Whether every value is text, as in CSV: to be parsed as what the spec says.
        bad: By its position in `batch`, each row with a value that could not be taken there, which is null.
    """

    batch: pa.RecordBatch
    numbers: np.ndarray[Any, Any]
    unparsable: tuple[BadRow, ...] = ()
    is_text: bool = False
    bad: Mapping[int, BadRow] = dataclasses.field(default_factory=dict)


class CorruptFileError(ValueError):
    """A file that cannot be read to its end.

    Attributes:
        num_rows: How many rows it states that it has; 0 where it does not.
    """

    def __init__(self, message: str, num_rows: int = 0) -> None:
        super().__init__(message)
        self.num_rows = num_rows


def is_systems(error: Exception) -> bool:
    """Whether an error is of the system, which has a number, and not of what is in a file, as Arrow's and gzip's."""
    return getattr(error, "errno", None) is not None


def check_names(found: list[str], wanted: list[str]) -> None:
    """Checks that no wanted column is there twice, which would leave open which one is meant.

    Raises:
        CorruptFileError: One is.
    """
    for name in wanted:
        if found.count(name) > 1:
            raise CorruptFileError(f"column {name} is there {found.count(name)} times")


@contextlib.contextmanager
def uncompressed(file: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a file, if gzip as an uncompressed temporary copy, for readers that cannot do with a stream."""
    if not is_gzip(file):
        yield file
        return
    with tempfile.NamedTemporaryFile() as copy:
        with gzip.open(file) as source:
            shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        yield pathlib.Path(copy.name)
