"""Which days of the log a run uses, the files that hold them, and a fingerprint of what these hold.

Like `log`, it imports nothing heavy before it reads rows.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import logging
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from components.impression_log_example_gen.log import Day, LogError, find_days, is_partitioned, unreadable

if TYPE_CHECKING:
    from components.impression_log_example_gen.columns import Column

_CHUNK_BYTES = 1 << 20
_NUM_NAMED = 3
_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Split:
    """The days of one split.

    Attributes:
        days: The days, oldest first; all have rows.
        files: The files that hold their rows, in the order of the log.
    """

    days: tuple[datetime.date, ...]
    files: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Window:
    """The days that one run uses.

    Attributes:
        train: The training split.
        eval: The eval split, whose days are newer than those of `train`.
        is_partitioned: Whether a file's folder says its day. If not, its rows' timestamps do, and a file may hold rows
            of other days and of both splits.
    """

    train: Split
    eval: Split
    is_partitioned: bool = True

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by their names."""
        return {"train": self.train, "eval": self.eval}

    @property
    def day_names(self) -> dict[str, list[str]]:
        """The days as YYYY-MM-DD by the name of their split."""
        return {name: [day.isoformat() for day in split.days] for name, split in self.splits.items()}

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """All files, each once."""
        return tuple(dict.fromkeys(self.train.files + self.eval.files))

    def to_json(self, path: pathlib.Path) -> str:
        """Returns it as JSON, the files relative to the log's `path`."""
        files = {name: [str(file.relative_to(path)) for file in split.files] for name, split in self.splits.items()}
        return json.dumps({"days": self.day_names, "files": files, "is_partitioned": self.is_partitioned})

    @classmethod
    def from_json(cls, text: str, path: pathlib.Path) -> Window:
        """Returns the window that `to_json` has written."""
        tree = json.loads(text)
        splits = {
            name: Split(
                tuple(map(datetime.date.fromisoformat, days)), tuple(path / file for file in tree["files"][name])
            )
            for name, days in tree["days"].items()
        }
        return cls(**splits, is_partitioned=tree["is_partitioned"])


def split_days(
    days: Sequence[Day],
    eval_days: int,
    train_days: int | None,
    as_of: datetime.date | None = None,
    in_all: Sequence[Day] = (),
) -> Window:
    """Assigns days to the splits: the newest are the eval split, those before them the training split.

    Args:
        days: Days with rows, oldest first.
        eval_days: How many of the newest days are the eval split.
        train_days: How many of the days before them are the training split; fewer where there are fewer, all if None.
        as_of: Newer days are as if they were not there; see `up_to` for None.
        in_all: The log's days, where `days` are only some of them: for the error.

    Raises:
        LogError: There are too few days to leave one to the training split.
        ValueError: `eval_days` or `train_days` is not positive.
    """
    if eval_days < 1 or (train_days is not None and train_days < 1):
        raise ValueError(f"eval_days is {eval_days} and train_days {train_days}, must be positive")
    known, days = in_all or days, up_to(days, as_of)
    if len(days) <= eval_days:
        until = f" up to {as_of or 'today'}" if as_of or len(days) < len(known) else ""
        if known:
            span = f"{known[0].day} to {known[-1].day}" if len(known) > 1 else f"{known[0].day}"
            until += f" ({len(known)} in all, from {span})" if until else f" ({span})"
        remedy = "name a later day" if len(known) > eval_days else "log more days"
        raise LogError(
            f"the impression log has {len(days)} day(s) with rows{until}, too few for {eval_days} eval day(s) and at "
            f"least one training day: {remedy}, or lower eval_days"
        )
    first = 0 if train_days is None else max(0, len(days) - eval_days - train_days)
    return Window(train=_split(days[first:-eval_days]), eval=_split(days[-eval_days:]))


def choose_window(
    path: pathlib.Path,
    eval_days: int,
    train_days: int | None,
    as_of: datetime.date | None = None,
    timestamp: Column | None = None,
) -> Window:
    """Returns the newest window of a log.

    Days without rows do not count. Of a partitioned log's files that are not in the window nothing is read, of a flat
    log's files the timestamps.

    Args:
        path: The log.
        eval_days: As in `split_days`.
        train_days: As in `split_days`.
        as_of: Newer days are as if they were not there; see `up_to` for None.
        timestamp: The timestamp column, for a flat log.

    Raises:
        LogError: As in `find_days` and `split_days`, or a flat log has no timestamp column.
    """
    # Not at the top: importing Arrow takes longer than all else that a command line does.
    from components.impression_log_example_gen.readers.read import has_rows

    limit = None if train_days is None else eval_days + train_days
    if is_partitioned(path):
        in_all = find_days(path)
        newest_first = (day for day in reversed(up_to(in_all, as_of)) if any(map(has_rows, day.files)))
        newest = tuple(itertools.islice(newest_first, limit))[::-1]
        return split_days(newest, eval_days, train_days, as_of, in_all if as_of else ())

    from components.impression_log_example_gen.flat import find_days_by_timestamp

    days, undated = find_days_by_timestamp(path, timestamp)
    window = split_days(days, eval_days, train_days, as_of)
    # A file of which no row has a day: so that it is named, and its rows are counted as bad.
    train = dataclasses.replace(window.train, files=window.train.files + undated)
    return dataclasses.replace(window, train=train, is_partitioned=False)


def up_to(days: Sequence[Day], as_of: datetime.date | None) -> tuple[Day, ...]:
    """Returns the days that are not after `as_of`; if it is None, those that have come somewhere on the earth.

    One row of a device whose clock is wrong must not be the newest day, and with it all that a model is measured on.
    """
    last = as_of or datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=1)
    if as_of is None and days and days[-1].day > last:
        later = [day.day.isoformat() for day in days if day.day > last]
        _LOGGER.warning(
            "the log has rows of days that have not come yet, and they are left out: %s%s (first file: %s); log.as_of "
            "takes them in",
            ", ".join(later[:_NUM_NAMED]),
            f" and {len(later) - _NUM_NAMED} more" if len(later) > _NUM_NAMED else "",
            next(day for day in days if day.day > last).files[0],
        )
    return tuple(day for day in days if day.day <= last)


def fingerprint(files: Iterable[pathlib.Path], path: pathlib.Path) -> str:
    """Returns the SHA-256 of the files, by their names within the log at `path`, sizes and contents.

    Contents, not times of modification: a log that was copied or written again the same is not ingested, and its model
    not trained, anew; and one that was changed under its old time is. It costs a read of the window, at a gigabyte or
    more of Parquet a second: about a hundredth of what ingesting the same window costs.

    Raises:
        LogError: A file has been removed, or the machine could not read it.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                while chunk := content.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise unreadable(file, error) from None
    return digest.hexdigest()


def _split(days: Sequence[Day]) -> Split:
    return Split(
        days=tuple(day.day for day in days),
        files=tuple(dict.fromkeys(file for day in days for file in day.files)),
    )
