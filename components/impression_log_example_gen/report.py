"""What came of one portion."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from components.impression_log_example_gen.quarantine import Count, Counts


@dataclasses.dataclass
class Corrupt:
    """What is known of a corrupt file.

    Attributes:
        message: What is wrong with it.
        num_rows: How many rows were read of it, or it states that it has.
    """

    message: str
    num_rows: int


@dataclasses.dataclass
class Report:
    """What came of one portion.

    Attributes:
        num_rows: Rows that were read and belong to the window, good or bad.
        num_outside: Rows of a flat log that do not.
        num_keyed: Good rows that have a key, where keys are looked at; `num_keyless`: those that have none.
        num_quarantined: Lines that were written to the quarantine file.
        counts: The bad rows, by reason and column.
        shards: The files of Examples, and how many each holds, in order.
        digest: SHA-256 of the values of the Examples, where portions are cut by the day.
        quarantine: The file of bad rows; None where there are none.
        rows_of_file: The rows of each file that were read.
        ordinals_of_file: Where a file's rows begin and end among the portion's parsed rows, counted from 0.
        corrupt: The files that turned out corrupt. The portion is to be written again without them.
        valued: The columns that have a value in a good row, where that is looked at.
        problem: Why the run cannot go on.
    """

    num_rows: int = 0
    num_outside: int = 0
    num_keyed: int = 0
    num_keyless: int = 0
    num_quarantined: int = 0
    counts: Counts = dataclasses.field(default_factory=Counts)
    shards: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    digest: str | None = None
    quarantine: str | None = None
    rows_of_file: dict[str, int] = dataclasses.field(default_factory=dict)
    ordinals_of_file: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    corrupt: dict[str, Corrupt] = dataclasses.field(default_factory=dict)
    valued: list[str] = dataclasses.field(default_factory=list)
    problem: str | None = None

    @property
    def num_examples(self) -> int:
        """Number of Examples that were written."""
        return sum(number for _, number in self.shards)

    def to_json(self) -> str:
        """Returns it as JSON."""
        return json.dumps(self, default=_plain)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Returns the report that `to_json` has written."""
        tree = json.loads(text)
        tree["counts"] = Counts([Count(**count) for count in tree["counts"]])
        tree["shards"] = [(path, number) for path, number in tree["shards"]]
        tree["ordinals_of_file"] = {file: (start, stop) for file, (start, stop) in tree["ordinals_of_file"].items()}
        tree["corrupt"] = {file: Corrupt(**corrupt) for file, corrupt in tree["corrupt"].items()}
        return cls(**tree)


def _plain(value: Any) -> Any:
    return list(value.by_key.values()) if isinstance(value, Counts) else vars(value)
