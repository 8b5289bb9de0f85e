"""Writes MovieLens-100K as an impression log: Parquet files in one `day=YYYY-MM-DD` folder a UTC day.

A rating is an impression; a rating of 4 or 5 is a click. The ratings come from the examples inside
the RecBole wheel, which the package index serves. GroupLens grants their use for research, not
their redistribution: no copy is kept in this package.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.movielens_context import Rating, with_context
from pipeline.whole_folder import SUCCESS, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k/"  # zipfile.Path wants the slash at the end
MIN_CLICK_RATING = 4
VERSION = 2  # of the log's columns

ProgressHook = Callable[[str, int, int | None], None]
"""Takes what is being done, how many steps of it are done, and of how many (None: not known)."""


class MovieLensError(RuntimeError):
    """The impression log cannot be written; the message is one sentence for the user."""


@dataclasses.dataclass(frozen=True)
class ImpressionLog:
    """What a finished log holds.

    Attributes:
        num_impressions: rows, over all days.
        num_clicks: rows with label 1.
        num_days: `day=YYYY-MM-DD` folders; days without an impression have none.
        first_day: earliest UTC day, YYYY-MM-DD.
        last_day: latest UTC day, YYYY-MM-DD.
    """

    num_impressions: int
    num_clicks: int
    num_days: int
    first_day: str
    last_day: str


class User(NamedTuple):
    """What is known of a user: age in years, gender ("F" or "M"), occupation."""

    age: int
    gender: str
    occupation: str


class Item(NamedTuple):
    """What is known of a film: its genres, and the year of its release where there is one."""

    genres: list[str]
    release_year: int | None


def write_impression_log(
    directory: Path,
    progress: ProgressHook,
    *,
    wheel: Path | None = None,
    sha256: str = WHEEL_SHA256,
) -> ImpressionLog:
    """Writes the impression log, or does nothing where `directory` holds a finished one.

    The log is written beside `directory` and renamed when it is complete.

    Args:
        directory: where the log goes; absent, empty, or a finished log.
        progress: told of each step.
        wheel: the RecBole wheel, if the user has it; None downloads it.
        sha256: hexadecimal checksum that the wheel must have.

    Returns:
        What the log holds.

    Raises:
        MovieLensError: the wheel cannot be had or is not the pinned one, or `directory` is in use
            or not writable.
    """
    with _explained(f"cannot write {directory}"):
        if finished := read_summary(directory):
            return finished
        if directory.is_dir() and any(directory.iterdir()):
            raise MovieLensError(
                f"{directory} is not empty and holds no finished impression log of this version:"
                " remove it or choose another directory with --out"
            )
    impressions = _read_impressions(progress, wheel, sha256)
    with _explained(f"cannot write {directory}"):
        try:
            return _write_days(impressions, directory.resolve(), progress)
        except OSError:
            if finished := read_summary(directory):  # another process has written it in the meantime
                return finished
            raise


def read_summary(directory: Path) -> ImpressionLog | None:
    """Returns what the finished log in `directory` holds, None if there is no finished log of today's columns."""
    try:
        summary = json.loads((directory / SUCCESS).read_text(encoding="utf-8"))
        return ImpressionLog(**summary) if summary.pop("version") == VERSION else None
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, LookupError, AttributeError):
        return None


def verify_wheel(wheel: Path, sha256: str) -> None:
    """Raises MovieLensError unless the file `wheel` can be read and has the checksum `sha256`."""
    with _explained(f"cannot read {wheel}"):
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        raise MovieLensError(f"{wheel} is cut short or not {WHEEL}: its sha256 is {found}, expected {sha256}")


def install_wheel(directory: Path, sha256: str) -> None:
    """Unpacks the RecBole wheel, without its dependencies, from the package index into `directory`.

    Only an installer knows the user's index, mirror, proxy and credentials: this asks one, and has
    it check `sha256`.

    Raises:
        MovieLensError: there is no installer here, none could download the wheel, or the index
            served another file.
    """
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes"]
    failures = []
    for command in _install_commands():
        finished = subprocess.run(
            [*command, *options, "--target", str(directory), "-r", str(requirements)],
            stdin=subprocess.DEVNULL,  # a question for credentials fails at once
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        if finished.returncode == 0:
            return
        if re.search("hash mismatch|not match the hashes", finished.stdout, re.IGNORECASE):
            raise MovieLensError(
                f"the {WHEEL} that the package index served is cut short or altered: its sha256 is not {sha256}"
            )
        failures.append(f"{Path(command[0]).name}: {_last_error(finished.stdout)}")
    reason = "; ".join(failures) or "this environment has neither pip nor uv"
    raise MovieLensError(f"cannot download {WHEEL} ({reason}); if you have the file, pass it with --wheel")


def _install_commands() -> Iterator[list[str]]:
    """Yields the install commands of this machine, first those that can have made `sys.prefix`."""
    pip_install = ["-m", "pip", "install", "--disable-pip-version-check"]
    if importlib.util.find_spec("pip"):
        yield [sys.executable, *pip_install]
    # requirements/setup.sh uses the uv on PATH, or else puts one beside the environment.
    for path in (None, str(Path(sys.prefix).parent / ".cache" / "uv" / "bin")):
        if uv := shutil.which("uv", path=path):
            yield [uv, "pip", "install", "--python", sys.executable]
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = shutil.which(name, path=str(Path(sys.base_prefix) / "bin"))
    if base and sys.prefix != sys.base_prefix:
        yield [base, *pip_install]


def _last_error(output: str) -> str:
    """Returns the innermost cause that pip or uv printed: it comes last."""
    causes = re.findall(r"(?:error:|cause:|caused by:|╰─▶) *(.+)", output, re.IGNORECASE)
    return (causes or output.strip().splitlines() or ["no message"])[-1].rstrip(".")


def _read_impressions(progress: ProgressHook, wheel: Path | None, sha256: str) -> pa.Table:
    """Returns the table of all impressions, from `wheel` or from the package index."""
    if wheel:
        verify_wheel(wheel, sha256)
        with zipfile.ZipFile(wheel) as archive:
            return join_impressions(zipfile.Path(archive, FOLDER))
    with (
        _explained(f"cannot download {WHEEL}"),
        tempfile.TemporaryDirectory(prefix="movielens-") as unpacked,
    ):
        progress(f"download {WHEEL}", 0, None)
        install_wheel(Path(unpacked), sha256)
        progress(f"download {WHEEL}", 1, 1)
        return join_impressions(Path(unpacked) / FOLDER)


def join_impressions(folder: Path | zipfile.Path) -> pa.Table:
    """Joins the ratings, users and items in `folder`.

    Returns:
        One row for each rating, by timestamp, then user_id, then item_id.
    """
    import pyarrow as pa

    users = {
        int(row["user_id:token"]): User(int(row["age:token"]), row["gender:token"], row["occupation:token"])
        for row in _read_rows(folder / "ml-100k.user")
    }
    items = {
        int(row["item_id:token"]): Item(row["class:token_seq"].split(), _year(row["release_year:token"]))
        for row in _read_rows(folder / "ml-100k.item")
    }
    genres = {item_id: item.genres for item_id, item in items.items()}
    impressions = list(with_context(list(_read_ratings(folder / "ml-100k.inter")), genres))
    ratings = [rating for rating, _ in impressions]
    columns = {
        "user_id": (pa.int64(), [rating.user_id for rating in ratings]),
        "item_id": (pa.int64(), [rating.item_id for rating in ratings]),
        "history": (pa.list_(pa.int64()), [context.history for _, context in impressions]),
        "skipped": (pa.list_(pa.int64()), [context.skipped for _, context in impressions]),
        "age": (pa.int64(), [users[rating.user_id].age for rating in ratings]),
        "gender": (pa.string(), [users[rating.user_id].gender for rating in ratings]),
        "occupation": (pa.string(), [users[rating.user_id].occupation for rating in ratings]),
        "genres": (pa.list_(pa.string()), [items[rating.item_id].genres for rating in ratings]),
        "release_year": (pa.int64(), [items[rating.item_id].release_year for rating in ratings]),
        **{
            f"{of}_{name}": (type_, [getattr(context, f"{of}_{name}") for _, context in impressions])
            for of in ("user", "item", "genre")
            for name, type_ in (("impressions", pa.int64()), ("click_share", pa.float32()))
        },
        "timestamp": (pa.int64(), [rating.timestamp for rating in ratings]),
        "label": (pa.int64(), [rating.label for rating in ratings]),
    }
    return pa.table({name: pa.array(values, type_) for name, (type_, values) in columns.items()})


def _read_ratings(path: Path | zipfile.Path) -> Iterator[Rating]:
    for row in _read_rows(path):
        yield Rating(
            timestamp=int(row["timestamp:float"]),
            user_id=int(row["user_id:token"]),
            item_id=int(row["item_id:token"]),
            label=int(float(row["rating:float"]) >= MIN_CLICK_RATING),
        )


def _read_rows(path: Path | zipfile.Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def _year(text: str) -> int | None:
    """Returns the year, None for the two items whose year is a word ("unkonwn", "V")."""
    return int(text) if text.isdecimal() else None


def _write_days(impressions: pa.Table, target: Path, progress: ProgressHook) -> ImpressionLog:
    """Writes `impressions`, which are ordered by timestamp, into one folder a UTC day of `target`."""
    import pyarrow.parquet as pq

    timestamps = impressions["timestamp"].to_pylist()
    sizes = {day: len(list(group)) for day, group in itertools.groupby(timestamps, key=_utc_day)}
    days = list(sizes)
    summary = ImpressionLog(
        num_impressions=impressions.num_rows,
        num_clicks=sum(impressions["label"].to_pylist()),
        num_days=len(days),
        first_day=days[0],
        last_day=days[-1],
    )
    with write_whole(target) as unfinished:
        offset = 0
        for num_written, (day, size) in enumerate(sizes.items()):
            progress("write days", num_written, len(days))
            folder = unfinished / f"day={day}"
            folder.mkdir(parents=True)
            pq.write_table(impressions.slice(offset, size), folder / "part-0.parquet")
            offset += size
        (unfinished / SUCCESS).write_text(
            json.dumps(dataclasses.asdict(summary) | {"version": VERSION}), encoding="utf-8"
        )
    progress("write days", len(days), len(days))
    return summary


def _utc_day(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, tz=timezone.utc).date().isoformat()


@contextlib.contextmanager
def _explained(what_failed: str) -> Iterator[None]:
    """Turns an OSError into a MovieLensError that says what failed and why."""
    try:
        yield
    except OSError as error:
        raise MovieLensError(f"{what_failed}: {error.strerror or error}") from error
