from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import movielens
from pipeline.movielens import ImpressionLog, MovieLensError, write_impression_log

MIDNIGHT = 883612800  # 1998-01-01 00:00:00 UTC

USERS = """\
user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token
7\t31\tF\tpilot\t00000
12\t64\tM\tbaker\tT1E1S
"""
ITEMS = """\
item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
1\t"Invented\t1990\tDrama
2\tCafé Imaginaire\t1985\tFilm-Noir Children's
3\tNo Year\tunkonwn\tunknown
4\tMisplaced Year (1994)\tV\tComedy
"""
RATINGS = f"""\
user_id:token\titem_id:token\trating:float\ttimestamp:float
12\t3\t3\t{MIDNIGHT + 50}
7\t4\t5\t{MIDNIGHT + 50}
7\t2\t4\t{MIDNIGHT - 1}
7\t1\t5\t{MIDNIGHT - 1}
12\t2\t4\t{MIDNIGHT + 50}
7\t3\t2\t{MIDNIGHT}
"""
MEMBERS = {
    "recbole/dataset_example/ml-100k/ml-100k.user": USERS,
    "recbole/dataset_example/ml-100k/ml-100k.item": ITEMS,
    "recbole/dataset_example/ml-100k/ml-100k.inter": RATINGS,
    "recbole-1.2.1.dist-info/METADATA": """\
Metadata-Version: 2.1
Name: recbole
Version: 1.2.1
Requires-Dist: no-such-package
""",
    "recbole-1.2.1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


class Wheel(NamedTuple):
    path: Path
    sha256: str


class RecordedProgress(list[tuple[str, int, int | None]]):
    def __call__(self, description: str, completed: int, total: int | None) -> None:
        self.append((description, completed, total))


@pytest.fixture
def progress() -> RecordedProgress:
    return RecordedProgress()


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    """Returns an installable wheel with an invented data set."""
    path = tmp_path / "index" / movielens.WHEEL
    path.parent.mkdir()
    record = "".join(f"{name},,\n" for name in [*MEMBERS, "recbole-1.2.1.dist-info/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**MEMBERS, "recbole-1.2.1.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    return Wheel(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def only_index(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """Makes the folder of the invented wheel the only place where pip and uv look for packages."""
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheel.path.parent),
        "UV_FIND_LINKS": str(wheel.path.parent),
        "UV_OFFLINE": "1",
        "UV_CACHE_DIR": str(tmp_path / "uv-cache"),
        "TMPDIR": str(tmp_path / "temporary"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    return wheel


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "movielens"


def read_day(log: Path, day: str) -> pa.Table:
    # Not pq.read_table: it would take a `day` column from the folder's name.
    return pq.ParquetFile(log / f"day={day}" / "part-0.parquet").read()


def read_rows(log: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(log.glob("day=*/part-0.parquet")) for row in pq.ParquetFile(file).read().to_pylist()]


def modified_at(log: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [log, *log.rglob("*")]}


def history_by_definition(row: dict[str, Any], rows_of_user: list[dict[str, Any]]) -> list[int]:
    earlier = [r for r in rows_of_user if r["timestamp"] < row["timestamp"] and r["label"] == 1]
    return [r["item_id"] for r in sorted(earlier, key=lambda r: (r["timestamp"], r["item_id"]))][-20:]


def test_writes_every_column_of_every_day(wheel: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    log = write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)

    assert log == ImpressionLog(
        num_impressions=6, num_clicks=4, num_days=2, first_day="1997-12-31", last_day="1998-01-01"
    )
    assert sorted(path.name for path in log_path.iterdir()) == ["_SUCCESS", "day=1997-12-31", "day=1998-01-01"]
    assert read_day(log_path, "1997-12-31").to_pydict() == {
        "user_id": [7, 7],
        "item_id": [1, 2],
        "history": [[], []],
        "skipped": [[], []],
        "age": [31, 31],
        "gender": ["F", "F"],
        "occupation": ["pilot", "pilot"],
        "genres": [["Drama"], ["Film-Noir", "Children's"]],
        "release_year": [1990, 1985],
        "user_impressions": [0, 0],
        "user_click_share": [0.5, 0.5],
        "item_impressions": [0, 0],
        "item_click_share": [0.5, 0.5],
        "genre_impressions": [0, 0],
        "genre_click_share": [0.5, 0.5],
        "timestamp": [883612799, 883612799],
        "label": [1, 1],
    }
    assert read_day(log_path, "1998-01-01").to_pydict() == {
        "user_id": [7, 7, 12, 12],
        "item_id": [3, 4, 2, 3],
        "history": [[1, 2], [1, 2], [], []],
        "skipped": [[], [3], [], []],
        "age": [31, 31, 64, 64],
        "gender": ["F", "F", "M", "M"],
        "occupation": ["pilot", "pilot", "baker", "baker"],
        "genres": [["unknown"], ["Comedy"], ["Film-Noir", "Children's"], ["unknown"]],
        "release_year": [None, None, 1985, None],
        "user_impressions": [2, 3, 0, 0],
        "user_click_share": [0.75, np.float32(0.6), 0.5, 0.5],
        "item_impressions": [0, 0, 1, 1],
        "item_click_share": [0.5, 0.5, np.float32(2 / 3), np.float32(1 / 3)],
        "genre_impressions": [0, 0, 0, 0],
        "genre_click_share": [0.5, 0.5, 0.5, 0.5],
        "timestamp": [883612800, 883612850, 883612850, 883612850],
        "label": [0, 1, 1, 0],
    }


def test_types_of_the_columns(wheel: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)

    schema = read_day(log_path, "1997-12-31").schema
    assert {
        field.name: (str(field.type.value_type),) if pa.types.is_list(field.type) else str(field.type)
        for field in schema
    } == {
        "user_id": "int64",
        "item_id": "int64",
        "history": ("int64",),
        "skipped": ("int64",),
        "age": "int64",
        "gender": "string",
        "occupation": "string",
        "genres": ("string",),
        "release_year": "int64",
        "user_impressions": "int64",
        "user_click_share": "float",
        "item_impressions": "int64",
        "item_click_share": "float",
        "genre_impressions": "int64",
        "genre_click_share": "float",
        "timestamp": "int64",
        "label": "int64",
    }


def test_reports_the_steps(wheel: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)

    assert progress == [("write days", 0, 2), ("write days", 1, 2), ("write days", 2, 2)]


def test_second_call_does_nothing(wheel: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    first = write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)
    before = modified_at(log_path)
    progress.clear()

    second = write_impression_log(log_path, progress, wheel=Path("no such wheel"))

    assert second == first
    assert modified_at(log_path) == before
    assert progress == []


def test_a_log_of_older_columns_is_not_taken_for_todays(
    wheel: Wheel, log_path: Path, progress: RecordedProgress
) -> None:
    write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)
    summary = json.loads((log_path / "_SUCCESS").read_text(encoding="utf-8"))
    summary.pop("version")
    (log_path / "_SUCCESS").write_text(json.dumps(summary), encoding="utf-8")

    with pytest.raises(MovieLensError, match="holds no finished impression log of this version: remove it"):
        write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)


def test_a_log_that_another_process_has_written_in_the_meantime_is_taken(
    wheel: Wheel, log_path: Path, tmp_path: Path, progress: RecordedProgress
) -> None:
    def write_it_meanwhile(step: str, done: int, total: int | None) -> None:
        if step == "write days" and done == 0 and not log_path.exists():
            shutil.copytree(other, log_path)

    other = tmp_path / "other"
    written = write_impression_log(other, progress, wheel=wheel.path, sha256=wheel.sha256)
    assert write_impression_log(log_path, write_it_meanwhile, wheel=wheel.path, sha256=wheel.sha256) == written
    assert read_rows(log_path) == read_rows(other)
    assert not [*tmp_path.glob(f".{log_path.name}.*")]


def test_an_empty_directory_is_filled(wheel: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    log_path.mkdir(parents=True)

    write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)

    assert (log_path / "_SUCCESS").exists()


@pytest.mark.parametrize("name", ["notes.txt", "_SUCCESS"])
def test_a_directory_in_use_is_left_alone(wheel: Wheel, log_path: Path, progress: RecordedProgress, name: str) -> None:
    log_path.mkdir(parents=True)
    (log_path / name).write_text("mine", encoding="utf-8")

    with pytest.raises(
        MovieLensError, match=r"holds no finished impression log of this version: remove it or choose another .* --out"
    ):
        write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)

    assert [path.read_text(encoding="utf-8") for path in log_path.iterdir()] == ["mine"]


def test_a_wheel_with_the_wrong_checksum(wheel: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    with pytest.raises(MovieLensError, match=f"its sha256 is {wheel.sha256}, expected {'0' * 64}"):
        write_impression_log(log_path, progress, wheel=wheel.path, sha256="0" * 64)

    assert not log_path.parent.exists()


def test_a_truncated_wheel(wheel: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    wheel.path.write_bytes(wheel.path.read_bytes()[:-100])

    with pytest.raises(MovieLensError, match="is cut short or not recbole"):
        write_impression_log(log_path, progress, wheel=wheel.path, sha256=wheel.sha256)

    assert not log_path.parent.exists()


def test_a_missing_wheel(tmp_path: Path, log_path: Path, progress: RecordedProgress) -> None:
    with pytest.raises(MovieLensError, match=r"cannot read .*absent\.whl: No such file"):
        write_impression_log(log_path, progress, wheel=tmp_path / "absent.whl")


def test_a_path_below_a_file(wheel: Wheel, tmp_path: Path, progress: RecordedProgress) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MovieLensError, match=r"cannot write .*file/movielens: Not a directory"):
        write_impression_log(tmp_path / "file" / "movielens", progress, wheel=wheel.path, sha256=wheel.sha256)


def test_an_interrupted_run_leaves_no_log(wheel: Wheel, log_path: Path) -> None:
    def interrupt(description: str, completed: int, total: int | None) -> None:
        if completed == 1:
            assert len(list(log_path.parent.glob(".movielens.*/day=*/part-0.parquet"))) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_impression_log(log_path, interrupt, wheel=wheel.path, sha256=wheel.sha256)

    assert list(log_path.parent.iterdir()) == []


def test_installs_the_wheel_from_the_users_index(
    only_index: Wheel, tmp_path: Path, log_path: Path, progress: RecordedProgress
) -> None:
    log = write_impression_log(log_path, progress, sha256=only_index.sha256)

    assert log.num_impressions == 6
    assert progress[:2] == [(f"download {movielens.WHEEL}", 0, None), (f"download {movielens.WHEEL}", 1, 1)]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_index_that_serves_another_file(
    only_index: Wheel, tmp_path: Path, log_path: Path, progress: RecordedProgress
) -> None:
    with pytest.raises(MovieLensError, match=f"is cut short or altered: its sha256 is not {movielens.WHEEL_SHA256}"):
        write_impression_log(log_path, progress)

    assert not log_path.parent.exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_index_that_serves_a_truncated_file(
    only_index: Wheel, tmp_path: Path, log_path: Path, progress: RecordedProgress
) -> None:
    only_index.path.write_bytes(only_index.path.read_bytes()[:-100])

    with pytest.raises(MovieLensError, match=f"^(the|cannot download) {movielens.WHEEL}"):
        write_impression_log(log_path, progress, sha256=only_index.sha256)

    assert not log_path.parent.exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_index_without_the_wheel(only_index: Wheel, log_path: Path, progress: RecordedProgress) -> None:
    only_index.path.unlink()

    with pytest.raises(MovieLensError, match=r"^cannot download recbole\S+ \(.+\); if you have the file, pass it with"):
        write_impression_log(log_path, progress)


def test_a_machine_without_pip_and_uv(
    log_path: Path, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)

    with pytest.raises(MovieLensError, match=r"this environment has neither pip nor uv"):
        write_impression_log(log_path, progress)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        pytest.param("WARNING: Retrying\nERROR: No version\nERROR: No match.\n", "No match", id="pip"),
        pytest.param("error: Request failed\n  cause: dns error\n\nhint: x", "dns error", id="uv"),
        pytest.param(
            "error:\n  ╰─▶ Because it was not found\n      in the cache",
            "Because it was not found",
            id="uv with a tree",
        ),
        pytest.param("/usr/bin/python3: No module named pip\n", "/usr/bin/python3: No module named pip", id="no pip"),
        pytest.param("", "no message", id="silent"),
    ],
)
def test_reason_that_an_installer_gives(output: str, reason: str) -> None:
    assert movielens._last_error(output) == reason


@pytest.fixture(scope="module")
def movielens_100k(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImpressionLog, list[dict[str, Any]]]:
    """Downloads the wheel from the package index for real."""
    directory = tmp_path_factory.mktemp("movielens") / "log"
    log = write_impression_log(directory, RecordedProgress())
    return log, read_rows(directory)


def test_movielens_100k_is_whole(movielens_100k: tuple[ImpressionLog, list[dict[str, Any]]]) -> None:
    log, rows = movielens_100k

    assert log == ImpressionLog(
        num_impressions=100_000, num_clicks=55_375, num_days=213, first_day="1997-09-20", last_day="1998-04-22"
    )
    assert len(rows) == 100_000
    assert sum(row["label"] for row in rows) == 55_375
    assert len({row["user_id"] for row in rows}) == 943
    assert len({row["item_id"] for row in rows}) == 1682
    assert {row["item_id"] for row in rows if row["release_year"] is None} == {267, 1412}
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)


def test_counts_of_movielens_100k_are_of_the_past(
    movielens_100k: tuple[ImpressionLog, list[dict[str, Any]]],
) -> None:
    _, rows = movielens_100k

    for row in rows[::5_000]:
        before = [r for r in rows if r["timestamp"] < row["timestamp"]]
        of_user = [r["label"] for r in before if r["user_id"] == row["user_id"]]
        of_item = [r["label"] for r in before if r["item_id"] == row["item_id"]]
        of_genre = [
            r["label"] for r in before if r["user_id"] == row["user_id"] for _ in set(r["genres"]) & set(row["genres"])
        ]
        for name, labels in (("user", of_user), ("item", of_item), ("genre", of_genre)):
            assert row[f"{name}_impressions"] == len(labels)
            assert row[f"{name}_click_share"] == np.float32((sum(labels) + 1) / (len(labels) + 2))


def test_no_history_of_movielens_100k_leaks(movielens_100k: tuple[ImpressionLog, list[dict[str, Any]]]) -> None:
    _, rows = movielens_100k
    by_user = defaultdict(list)
    for row in rows:
        by_user[row["user_id"]].append(row)
    clicked_at = {(row["user_id"], row["item_id"]): row["timestamp"] for row in rows if row["label"] == 1}

    for row in rows:
        times = [clicked_at[row["user_id"], item_id] for item_id in row["history"]]
        assert all(time < row["timestamp"] for time in times)
        assert times == sorted(times)
        assert len(times) <= 20
        assert not set(row["history"]) & set(row["skipped"])
    for row in rows[::50]:
        assert row["history"] == history_by_definition(row, by_user[row["user_id"]])
