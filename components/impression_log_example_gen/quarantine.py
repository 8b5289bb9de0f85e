"""Bad rows: why a row is left out, and what is told about it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping

UNPARSABLE = "unparsable line"
WRONG_TYPE = "wrong type"
BAD_LABEL = "label not 0 or 1"
MISSING_LABEL = "missing label"
MISSING_TIMESTAMP = "missing timestamp"
MISSING_WEIGHT = "missing weight"
NEGATIVE_WEIGHT = "negative weight"
NO_TIME = "timestamp out of range"
NOT_FINITE = "NaN or Inf"
NEGATIVE_ID = "negative id"
OVER_INT64 = "over int64"
TOO_LONG = "longer than max_raw_length"
INVALID_UTF8 = "invalid UTF-8"
DUPLICATE = "duplicate impression"
CORRUPT = "corrupt file"

_TOP = 3
_VALUE_LENGTH = 100


@dataclasses.dataclass(frozen=True)
class BadRow:
    """One row that is left out.

    Attributes:
        number: The line of a text file, else the row, the first being 1. None for a corrupt file as a whole.
        column: The log's column that is bad, the first of several in the spec's order; None where it is the row.
        reason: One of the reasons above.
        value: What is there instead, cut to 100 characters; None where that says nothing more.
    """

    number: int | None
    column: str | None
    reason: str
    value: str | None = None

    def to_json(self, file: str, **more: object) -> str:
        """Returns the line of the quarantine file."""
        value = {} if self.value is None else {"value": self.value[:_VALUE_LENGTH]}
        row = {"file": file, "row": self.number, "column": self.column, "reason": self.reason}
        return json.dumps({**row, **value, **more}, ensure_ascii=False) + "\n"


@dataclasses.dataclass
class Count:
    """How many rows have the same reason in the same column.

    Attributes:
        reason: The reason.
        column: The column, or None.
        rows: How many.
        first: The first of them, as `file, row 17`.
    """

    reason: str
    column: str | None
    rows: int
    first: str


class Counts:
    """Counts of bad rows by reason and column."""

    def __init__(self, counts: list[Count] | None = None) -> None:
        self.by_key = {(count.reason, count.column): count for count in counts or []}

    def add(self, count: Count) -> None:
        """Adds rows that come after those that were added before."""
        known = self.by_key.setdefault((count.reason, count.column), dataclasses.replace(count, rows=0))
        known.rows += count.rows

    @property
    def rows(self) -> int:
        """Number of all bad rows."""
        return sum(count.rows for count in self.by_key.values())

    @property
    def by_reason(self) -> dict[str, int]:
        """Number of bad rows by reason, the most frequent first."""
        reasons: dict[str, int] = {}
        for count in self.by_key.values():
            reasons[count.reason] = reasons.get(count.reason, 0) + count.rows
        return dict(sorted(reasons.items(), key=lambda item: -item[1]))

    def top(self) -> str:
        """Returns the most frequent reasons in words, with the first row of each."""
        top = sorted(self.by_key.values(), key=lambda count: -count.rows)
        texts = [
            f"{count.rows:,} x {count.reason}{f' in {count.column}' if count.column else ''} ({count.first})"
            for count in top[:_TOP]
        ]
        return "; ".join([*texts, *(["..."] if len(top) > _TOP else [])])


def estimate_rows(
    corrupt: Mapping[pathlib.Path, int], rows_read: Mapping[pathlib.Path, int], sizes: Mapping[pathlib.Path, int]
) -> dict[pathlib.Path, int]:
    """Returns as how many rows each corrupt file counts.

    Those that were seen of it (or that its footer states), or as many as the readable files have for its number of
    bytes, if that is more: the readable ones with the same suffixes, or all if there are none.

    Args:
        corrupt: The rows that were seen of each corrupt file.
        rows_read: The rows of each readable file.
        sizes: The bytes of each file.
    """
    estimates = {}
    for file, seen in corrupt.items():
        alike = [other for other in rows_read if other.suffixes == file.suffixes] or list(rows_read)
        num_bytes = sum(sizes[other] for other in alike)
        rate = sum(rows_read[other] for other in alike) / num_bytes if num_bytes else 0
        estimates[file] = max(seen, round(rate * sizes[file]), 1)
    return estimates
