"""The impression log on disk: its days, which of them a run uses, and a fingerprint of what they hold.

This module imports neither TFX, TensorFlow nor Beam, so that a command line can look at a log at once.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_PREFIX = "day="
_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CHUNK_BYTES = 1 << 20


class LogError(ValueError):
    """An impression log that cannot be used; the message is one sentence that names the place and the remedy."""


@dataclasses.dataclass(frozen=True)
class Day:
    """One day of the log.

    Attributes:
        day: The day.
        files: Its Parquet files, sorted by name.
    """

    day: datetime.date
    files: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Window:
    """The days that one run uses.

    Attributes:
        train: The days of the training split, oldest first.
        eval: The days of the eval split, oldest first, all newer than those of `train`.
    """

    train: tuple[Day, ...]
    eval: tuple[Day, ...]

    @property
    def splits(self) -> dict[str, tuple[Day, ...]]:
        """The days by the name of their split."""
        return {"train": self.train, "eval": self.eval}

    @property
    def day_names(self) -> dict[str, list[str]]:
        """The days as YYYY-MM-DD by the name of their split, for JSON; `restore_window` is the way back."""
        return {split: [day.day.isoformat() for day in days] for split, days in self.splits.items()}

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """All files, in the order of the days."""
        return tuple(file for day in self.train + self.eval for file in day.files)


def find_days(path: pathlib.Path) -> tuple[Day, ...]:
    """Returns the days of a log that have files, oldest first; whether the files have rows is not looked at.

    Args:
        path: A folder with a `day=YYYY-MM-DD/` folder of `*.parquet` files for each day. Names that begin with `_` or
            `.` are ignored, as in Hive: they are unfinished or notes of the writer.

    Raises:
        LogError: The folder is missing or is none, a day's name is malformed, or there is no day with files.
    """
    if not path.exists():
        raise LogError(f"there is no impression log at {path}: write one there, or correct the path")
    if not path.is_dir():
        raise LogError(f"the impression log {path} is a file: name the folder that holds the day=YYYY-MM-DD folders")
    folders = sorted(entry for entry in path.iterdir() if entry.name.startswith(_PREFIX) and entry.is_dir())
    if not folders:
        raise LogError(f"the impression log {path} is empty: it needs a day=YYYY-MM-DD folder of Parquet files a day")
    days = (Day(_parse_day(folder), _find_files(folder)) for folder in folders)
    with_files = tuple(day for day in days if day.files)
    if not with_files:
        raise LogError(f"no day=YYYY-MM-DD folder of the impression log {path} has a *.parquet file: write some there")
    return with_files


def split_days(days: Sequence[Day], eval_days: int, train_days: int | None) -> Window:
    """Assigns days to the splits: the newest are the eval split, those before them the training split.

    Args:
        days: Days with rows, oldest first.
        eval_days: How many of the newest days are the eval split.
        train_days: How many of the days before them are the training split; fewer where there are fewer, all if None.

    Raises:
        LogError: There are too few days to leave one to the training split.
        ValueError: `eval_days` or `train_days` is not positive.
    """
    if eval_days < 1 or (train_days is not None and train_days < 1):
        raise ValueError(f"eval_days is {eval_days} and train_days {train_days}, must be positive")
    if len(days) <= eval_days:
        raise LogError(
            f"the impression log has {len(days)} day(s) with rows, too few for {eval_days} eval day(s) and at least "
            "one training day: log more days, or lower eval_days"
        )
    first = 0 if train_days is None else max(0, len(days) - eval_days - train_days)
    return Window(train=tuple(days[first:-eval_days]), eval=tuple(days[-eval_days:]))


def choose_window(path: pathlib.Path, eval_days: int, train_days: int | None) -> Window:
    """Returns the newest window of a log.

    Days without rows do not count. Of files that are older than the window not even the footers are read.

    Raises:
        LogError: As in `find_days` and `split_days`, or a file is not readable.
    """
    newest_first = (day for day in reversed(find_days(path)) if any(map(count_rows, day.files)))
    limit = None if train_days is None else eval_days + train_days
    return split_days(tuple(itertools.islice(newest_first, limit))[::-1], eval_days, train_days)


def restore_window(path: pathlib.Path, day_names: Mapping[str, Sequence[str]]) -> Window:
    """Returns the window that `Window.day_names` describes.

    Raises:
        LogError: As in `find_days`, or a day is no longer there.
    """
    days = {day.day.isoformat(): day for day in find_days(path)}
    for name in itertools.chain.from_iterable(day_names.values()):
        if name not in days:
            raise LogError(f"{path / (_PREFIX + name)} has been removed since the run began: run again")
    return Window(**{split: tuple(days[name] for name in names) for split, names in day_names.items()})


def fingerprint(files: Iterable[pathlib.Path]) -> str:
    """Returns the SHA-256 of the files, by their names within the log, sizes and contents.

    Contents, not times of modification: a log that was copied or written again the same is not ingested, and its model
    not trained, anew; and one that was changed under its old time is. It costs a read of the window, at a gigabyte or
    more of Parquet a second: about a hundredth of what ingesting the same window costs.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.parent.name}/{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def open_parquet(file: pathlib.Path) -> pq.ParquetFile:
    """Opens a file, of which only the footer is read.

    Raises:
        LogError: It is not readable.
    """
    # Not at the top: importing pyarrow takes longer than all else that a command line does.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from None


def count_rows(file: pathlib.Path) -> int:
    """Returns the number of rows that a file's footer states."""
    with open_parquet(file) as parquet:
        return int(parquet.metadata.num_rows)


def unreadable(file: pathlib.Path, error: Exception) -> LogError:
    """Returns the error that says that a file is not readable Parquet."""
    reason = " ".join(str(error).split()).rstrip(".")
    return LogError(f"{file} is not a readable Parquet file: write it again, or remove it ({reason})")


def _parse_day(folder: pathlib.Path) -> datetime.date:
    name = folder.name[len(_PREFIX) :]
    try:
        # Python 3.11's fromisoformat takes more forms than this one.
        return datetime.date.fromisoformat(name if _ISO_DAY.fullmatch(name) else "")
    except ValueError:
        raise LogError(f"{folder} is not named day=YYYY-MM-DD: rename it, or remove it") from None


def _find_files(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    return tuple(
        file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(("_", ".")) and file.is_file()
    )
