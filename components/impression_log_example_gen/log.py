"""The impression log on disk: its files and their days.

This module imports neither TFX, TensorFlow, Beam nor Arrow, so that a command line can look at a log at once.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import errno
import itertools
import logging
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence

EPOCH = datetime.date(1970, 1, 1)
_LOGGER = logging.getLogger(__name__)

_PREFIX = "day="
_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json", ".tfrecord": "tfrecord"}
_SUFFIXES = "*.parquet, *.csv, *.jsonl, *.json or *.tfrecord, each also with .gz"


class LogError(ValueError):
    """An impression log that cannot be used; the message is one sentence that names the place and the remedy."""


def unreadable(file: pathlib.Path, error: OSError) -> LogError:
    """Returns the error of a file that the system could not read, whatever is in it."""
    if isinstance(error, FileNotFoundError) and not os.path.lexists(file):
        return LogError(f"{file} has been removed since the run began: run again")
    number = error.errno or 0
    remedy = "mend that"
    if number in (errno.EACCES, errno.EPERM):
        remedy = "let the run's user read it"
    elif number in (errno.ENOSPC, errno.EDQUOT):  # what is gzip is uncompressed there
        remedy = f"make room in {tempfile.gettempdir()}"
    return LogError(f"{file} could not be read ({os.strerror(number)}): {remedy}, and run again")


@dataclasses.dataclass(frozen=True)
class Day:
    """One day of the log.

    Attributes:
        day: The day.
        files: Its files, sorted by name.
    """

    day: datetime.date
    files: tuple[pathlib.Path, ...]


def format_of(file: pathlib.Path) -> str | None:
    """Returns the format that a file's suffix states, `parquet`, `csv`, `json` or `tfrecord`; None for any other."""
    return FORMATS.get(pathlib.PurePath(file.name.removesuffix(".gz")).suffix)


def is_gzip(file: pathlib.Path) -> bool:
    """Whether a file's name says that it is gzip."""
    return file.name.endswith(".gz")


def is_partitioned(path: pathlib.Path) -> bool:
    """Whether a log has a `day=YYYY-MM-DD/` folder for each day; if not, it is flat: a timestamp tells a row's day.

    Raises:
        LogError: The folder is missing, is none, or has neither such folders nor files of a log.
    """
    if not path.exists():
        raise LogError(f"there is no impression log at {path}: write one there, or correct the path")
    if not path.is_dir():
        raise LogError(f"the impression log {path} is a file: name the folder that holds it")
    if any(map(_is_day, path.iterdir())):
        return True
    if not find_files(path):
        raise LogError(
            f"the impression log {path} is empty: it needs a day=YYYY-MM-DD folder of files a day, or files with a "
            f"timestamp, {_SUFFIXES}"
        )
    return False


def find_days(path: pathlib.Path) -> tuple[Day, ...]:
    """Returns the days of a partitioned log that have files, oldest first; whether these have rows is not looked at.

    Folders within a day's, as those of its hours, are part of it. Links are followed; but what is in the log anyway is
    used once, and not again for a link to it.

    Args:
        path: A folder with a `day=YYYY-MM-DD/` folder of files for each day.

    Raises:
        LogError: A day's name is malformed, there is no day with files, or files are beside the days.
    """
    depth = len(path.parts)
    files_of = {
        name: tuple(files) for name, files in itertools.groupby(_find_all(path), lambda file: file.parts[depth])
    }
    days = tuple(
        Day(parse_day(entry.name[len(_PREFIX) :], str(path / entry.name)), files_of.pop(entry.name, ()))
        for entry in _scan(path)
        if _is_day(entry)
    )
    if files_of:  # what is in no day
        beside = next(iter(files_of.values()))[0]
        raise LogError(
            f"{beside} is in no day=YYYY-MM-DD folder of the impression log {path}, which has such folders: move it "
            "into one, or, where it is no part of the log, let its name or its folder's begin with _"
        )
    with_files = tuple(day for day in days if day.files)
    if not with_files:
        raise LogError(
            f"no day=YYYY-MM-DD folder of the impression log {path} has a file {_SUFFIXES}: write some there"
        )
    return with_files


def find_files(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Returns a flat log's files of known formats, sorted by name.

    Names that begin with `_` or `.` are ignored, as in Hive: they are unfinished, or notes of the writer. A file with
    another suffix is no part of the log, which is logged.

    Raises:
        LogError: A folder in it has such files: what they hold would be missing.
    """
    files = _find_all(folder)
    within = next((file for file in files if file.parent != folder), None)
    if within:
        raise LogError(
            f"{within} is in a folder of its own, and the impression log {folder} has no day=YYYY-MM-DD folders: move "
            f"it to {folder}, or, where it is no part of the log, let its folder's name begin with _"
        )
    return files


def _scan(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if not entry.name.startswith(("_", "."))), key=lambda entry: entry.name
        )


def _find_all(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Returns the files of known formats in a folder, at any depth, sorted by name; each once, whatever links to it.

    Links come last: what one leads to is found by its own name where it is in the folder too.
    """
    files: list[pathlib.Path] = []
    others: list[pathlib.Path] = []
    known: list[pathlib.Path] = []
    places: set[str] = set()  # of the folders and files that were found, without links
    found = collections.deque([(folder, os.path.realpath(folder), True)])
    links: collections.deque[tuple[pathlib.Path, str, bool]] = collections.deque()
    while found or links:
        path, place, is_folder = (found or links).popleft()
        if not is_folder and not format_of(path):
            others.append(path)
        elif place in places:
            known.append(path)
        else:
            places.add(place)
            if not is_folder:
                files.append(path)
                continue
            for entry in _scan(path):  # which, unlike a path, knows what it is without asking the file system again
                inner = path / entry.name
                if entry.is_symlink():
                    links.append((inner, os.path.realpath(inner), inner.is_dir()))
                else:
                    found.append((inner, os.path.join(place, entry.name), entry.is_dir()))
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            raise LogError(f"the name of the file {os.fsencode(file)!r} is not UTF-8: rename it") from None
    if others:
        _LOGGER.warning(
            "%s is no part of the log%s: its name ends in none of %s",
            others[0],
            f", nor are {len(others) - 1} more" if len(others) > 1 else "",
            _SUFFIXES,
        )
    if known:
        _LOGGER.warning(
            "%s is in the log by another name, too%s, and used once",
            known[0],
            f", as are {len(known) - 1} more" if len(known) > 1 else "",
        )
    return tuple(sorted(files))


def parse_day(text: str, name: str) -> datetime.date:
    """Returns the day that is written YYYY-MM-DD.

    Args:
        text: The day.
        name: What has it, for the error.

    Raises:
        LogError: It is written in another form, or there is no such day.
    """
    try:
        # Python 3.11's fromisoformat takes more forms than this one.
        return datetime.date.fromisoformat(text if _ISO_DAY.fullmatch(text) else "")
    except ValueError:
        raise LogError(f"{name} has no day of the form YYYY-MM-DD: rename it, or remove it") from None


def day_name(file: pathlib.Path) -> str:
    """Returns the day of a partitioned log's file, YYYY-MM-DD."""
    return next(folder.name for folder in file.parents if folder.name.startswith(_PREFIX)).removeprefix(_PREFIX)


def find_gaps(days: Sequence[datetime.date]) -> list[str]:
    """Returns the days without rows between days with some, oldest first, as YYYY-MM-DD or YYYY-MM-DD to YYYY-MM-DD."""
    gaps, one = [], datetime.timedelta(days=1)
    for before, after in itertools.pairwise(days):
        first, last = before + one, after - one
        if first <= last:
            gaps.append(first.isoformat() if first == last else f"{first} to {last}")
    return gaps


def _is_day(entry: pathlib.Path | os.DirEntry[str]) -> bool:
    return entry.name.startswith(_PREFIX) and entry.is_dir()
