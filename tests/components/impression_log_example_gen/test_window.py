from __future__ import annotations

import datetime
import gzip
import os
import pathlib
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.impression_log_example_gen.log import (
    LogError,
    day_name,
    find_days,
    find_files,
    find_gaps,
    is_partitioned,
)
from components.impression_log_example_gen.readers.read import has_rows
from components.impression_log_example_gen.window import Window, choose_window, fingerprint, split_days


def _write(file, num_rows=1):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"label": [0] * num_rows}), file)


@pytest.fixture
def log(tmp_path):
    """Four days of a row each, written out of order; one has two files, one has no row."""
    for day in ("2026-01-10", "2026-01-02", "2025-12-31"):
        _write(tmp_path / f"day={day}/part-0.parquet")
    _write(tmp_path / "day=2026-01-02/part-1.parquet")
    _write(tmp_path / "day=2026-01-05/empty.parquet", num_rows=0)
    return tmp_path


def _names(days):
    return [(day if isinstance(day, datetime.date) else day.day).isoformat() for day in days]


def test_days_come_oldest_first_with_their_files_by_name(log):
    days = find_days(log)
    assert _names(days) == ["2025-12-31", "2026-01-02", "2026-01-05", "2026-01-10"]
    assert days[0].day == datetime.date(2025, 12, 31)
    assert [file.name for file in days[1].files] == ["part-0.parquet", "part-1.parquet"]


def test_folders_within_a_days_are_part_of_it(log):
    hour = log / "day=2026-01-10" / "hour=05"
    _write(hour / "part-0.parquet")
    _write(log / "day=2026-01-10" / "_tmp" / "part-0.parquet")
    *_, newest = find_days(log)
    assert newest.files == (hour / "part-0.parquet", log / "day=2026-01-10" / "part-0.parquet")
    assert {day_name(file) for file in newest.files} == {"2026-01-10"}


LINKS = {
    "to a folder beside it": ("day=2026-01-02/latest", "hour=23"),
    "that comes before what it leads to": ("day=2026-01-02/first", "hour=23"),
    "to its own folder": ("day=2026-01-02/self", "."),
    "to the log": ("day=2026-01-02/up", ".."),
    "to another day": ("day=2025-12-31/next", "../day=2026-01-02"),
    "to a file": ("day=2025-12-31/b.parquet", "../day=2026-01-02/hour=23/a.parquet"),
    "beside the days": ("latest", "day=2026-01-02"),
    "that is a day": ("day=2025-12-30", "day=2026-01-02"),
}


def test_a_file_whose_name_is_not_utf_8_is_named(tmp_path):
    folder = tmp_path / "day=2026-01-01"
    folder.mkdir()
    open(os.path.join(os.fsencode(folder), b"caf\xe9.csv"), "w").close()
    with pytest.raises(LogError, match=r"day=2026-01-01/caf\\xe9.csv' is not UTF-8: rename it"):
        find_days(tmp_path)


@pytest.mark.parametrize(("link", "target"), LINKS.values(), ids=LINKS.keys())
def test_a_link_to_what_the_log_has_is_named_and_does_not_count_rows_twice(link, target, log, caplog):
    _write(log / "day=2026-01-02/hour=23/a.parquet")
    before = find_days(log)
    (log / link).symlink_to(target)
    assert find_days(log) == before
    assert f"{log / link} is in the log by another name, too, and used once" in caplog.text


def test_links_to_what_is_elsewhere_are_followed_each_file_once(tmp_path):
    _write(tmp_path / "exports/3/hour=01/a.parquet")
    for name in ("a", "b"):
        _write(tmp_path / f"exports/files/{name}.parquet")
    _write(tmp_path / "logs/_store/c")  # as Kubernetes' volumes and snapshots have it
    log = tmp_path / "log"
    log.symlink_to("logs")
    (log / "day=2026-01-02").mkdir()
    (log / "day=2026-01-03").symlink_to("../exports/3")
    for name, target in (("a", "../../exports/files/a.parquet"), ("b", "a.parquet"), ("c", "../_store/c")):
        (log / f"day=2026-01-02/{name}.parquet").symlink_to(target)
    days = find_days(log)
    assert [[str(file.relative_to(log)) for file in day.files] for day in days] == [
        ["day=2026-01-02/a.parquet", "day=2026-01-02/c.parquet"],
        ["day=2026-01-03/hour=01/a.parquet"],
    ]


def test_a_flat_logs_links_do_not_count_rows_twice(tmp_path):
    _write(tmp_path / "log/b.parquet")
    _write(tmp_path / "other/c.parquet")
    for name, target in (("a.parquet", "b.parquet"), ("c.parquet", "../other/c.parquet"), ("self", ".")):
        (tmp_path / "log" / name).symlink_to(target)
    assert [file.name for file in find_files(tmp_path / "log")] == ["b.parquet", "c.parquet"]


def test_what_is_beside_the_days_is_not_silently_left_out(log):
    _write(log / "late.parquet")
    with pytest.raises(LogError, match=r"late\.parquet is in no day=YYYY-MM-DD folder .*: move it into one, or"):
        find_days(log)
    (log / "late.parquet").unlink()
    _write(log / "2026-01-11" / "late.parquet")
    with pytest.raises(LogError, match=r"2026-01-11/late\.parquet is in no day=YYYY-MM-DD folder"):
        find_days(log)
    (log / "2026-01-11").rename(log / "_2026-01-11")
    assert len(find_days(log)) == 4


def test_a_flat_logs_folders_are_not_silently_left_out(tmp_path):
    _write(tmp_path / "a.parquet")
    _write(tmp_path / "older" / "b.parquet")
    with pytest.raises(LogError, match=r"older/b\.parquet is in a folder of its own"):
        find_files(tmp_path)


def test_files_of_other_formats_are_named(log, caplog):
    for name in ("part-1.parq", "part-2.parq"):
        (log / "day=2026-01-10" / name).write_text("")
    find_days(log)
    assert "part-1.parq is no part of the log, nor are 1 more: its name ends in none of" in caplog.text
    assert caplog.records[0].levelname == "WARNING"


def test_hidden_names_other_files_and_days_without_files_are_no_part_of_the_log(log):
    for name in ("_SUCCESS", "day=2026-01-10/.part.parquet", "day=2026-01-10/_tmp.parquet", "day=2026-01-10/a.orc"):
        (log / name).write_text("")
    (log / "day=2026-01-10/folder.parquet").mkdir()
    (log / "day=2026-02-01").mkdir()
    (log / "notes").mkdir()
    days = find_days(log)
    assert _names(days)[-1] == "2026-01-10"
    assert [file.name for file in days[-1].files] == ["part-0.parquet"]


BAD_LOGS = {
    "missing": (lambda path: None, "there is no impression log at .*: write one there, or correct the path"),
    "a file": (lambda path: path.write_text(""), "is a file: name the folder that holds it"),
    "no days": (lambda path: path.mkdir(), r"is empty: it needs a day=YYYY-MM-DD folder"),
    "a day that is none": (
        lambda path: _write(path / "day=2026-02-30/a.parquet"),
        "day=2026-02-30 has no day of the form YYYY-MM-DD: rename it",
    ),
    "a day in another form": (
        lambda path: _write(path / "day=20260201/a.parquet"),
        "day=20260201 has no day of the form",
    ),
    "no files": (
        lambda path: (path / "day=2026-01-01").mkdir(parents=True),
        r"no day=YYYY-MM-DD folder .* has a file \*.parquet, ",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_bad_log_is_one_sentence_that_names_it(make, message, tmp_path):
    make(tmp_path / "log")
    with pytest.raises(LogError, match=message) as raised:
        find_days(tmp_path / "log") if is_partitioned(tmp_path / "log") else None
    assert "\n" not in str(raised.value)


WINDOWS = {
    "all older days train": (1, None, ["2025-12-31", "2026-01-02"], ["2026-01-10"]),
    "only so many train": (1, 1, ["2026-01-02"], ["2026-01-10"]),
    "fewer than asked for": (2, 5, ["2025-12-31"], ["2026-01-02", "2026-01-10"]),
}


@pytest.mark.parametrize(("eval_days", "train_days", "train", "eval_"), WINDOWS.values(), ids=WINDOWS.keys())
def test_newest_days_with_rows_are_eval_and_those_before_train(log, eval_days, train_days, train, eval_):
    window = choose_window(log, eval_days, train_days)
    assert (_names(window.train.days), _names(window.eval.days)) == (train, eval_)
    assert Window.from_json(window.to_json(log), log) == window
    assert [file.parent.name for file in window.eval.files] == [
        f"day={day}" for day in eval_ for _ in (log / f"day={day}").iterdir()
    ]


def test_too_few_days_up_to_one_are_told_of_all(log):
    message = r"1 day\(s\) with rows up to 2025-12-31 \(4 in all, from 2025-12-31 to 2026-01-10\).*: name a later day"
    with pytest.raises(LogError, match=message):
        choose_window(log, 1, None, as_of=datetime.date(2025, 12, 31))


def test_of_more_days_than_are_asked_for_the_oldest_are_left_out(log):
    window = split_days(find_days(log), 1, 2)
    assert (_names(window.train.days), _names(window.eval.days)) == (["2026-01-02", "2026-01-05"], ["2026-01-10"])


def test_too_few_days_and_bad_numbers_of_days_are_errors(log):
    with pytest.raises(
        LogError, match=r"has 3 day\(s\) with rows \(2025-12-31 to 2026-01-10\), too few for 3 eval day\(s\)"
    ):
        choose_window(log, 3, None)
    with pytest.raises(ValueError, match="eval_days is 0"):
        split_days(find_days(log), 0, None)
    with pytest.raises(ValueError, match="train_days 0"):
        split_days(find_days(log), 1, 0)


AS_OF = {
    "a day with rows": ("2026-01-02", ["2025-12-31"], ["2026-01-02"]),
    "a day in a gap": ("2026-01-09", ["2025-12-31"], ["2026-01-02"]),
    "after the newest": ("2030-01-01", ["2025-12-31", "2026-01-02"], ["2026-01-10"]),
}


@pytest.mark.parametrize(("as_of", "train", "eval_"), AS_OF.values(), ids=AS_OF.keys())
def test_days_after_as_of_are_as_if_they_were_not_there(log, as_of, train, eval_):
    window = choose_window(log, 1, None, datetime.date.fromisoformat(as_of))
    assert (_names(window.train.days), _names(window.eval.days)) == (train, eval_)


def test_a_day_that_has_not_come_is_left_out_named_and_taken_in_where_it_is_asked_for(log, caplog):
    tomorrow, later = (
        datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days) for days in (1, 3)
    )
    for day in (tomorrow, later):  # tomorrow has come in some time zone
        shutil.copytree(log / "day=2026-01-10", log / f"day={day}")
    assert _names(choose_window(log, 1, None).eval.days) == [tomorrow.isoformat()]
    assert f"left out: {later} (first file: {log}/day={later}/" in caplog.text
    assert _names(choose_window(log, 1, None, later).eval.days) == [later.isoformat()]
    with pytest.raises(LogError, match=rf"1 day\(s\) with rows up to today \(2 in all, from 2026-01-10 to {later}\)"):
        split_days(find_days(log)[-3::2], 1, None)


def test_gaps_are_named():
    days = [
        datetime.date(2025, 12, 30),
        datetime.date(2025, 12, 31),
        datetime.date(2026, 1, 2),
        datetime.date(2026, 1, 9),
    ]
    assert find_gaps(days) == ["2026-01-01", "2026-01-03 to 2026-01-08"]
    assert find_gaps(days[:2]) == []


def test_a_corrupt_file_makes_its_day_one_with_rows_and_one_before_the_window_is_not_looked_at(log, monkeypatch):
    looked_at = []
    module = "components.impression_log_example_gen.readers.read"
    monkeypatch.setattr(f"{module}.has_rows", lambda file: looked_at.append(file.parent.name) or has_rows(file))
    (log / "day=2026-01-05/empty.parquet").write_bytes(b"PAR1 cut short")
    assert _names(choose_window(log, 1, 1).train.days) == ["2026-01-05"]
    assert looked_at == ["day=2026-01-10", "day=2026-01-05"]


ROWS = {
    "a.csv": (b"label\n", b"label\n\n\n1"),
    "old-macintosh.csv": (b"label\r\n", b"label\r1\r0\r"),  # which is a corrupt file
    "a.csv.gz": (gzip.compress(b""), gzip.compress(b"label\n1\n")),
    "a.jsonl": (b"\n\n", b"\n{}"),
    "a.tfrecord": (b"", b"x"),
}


@pytest.mark.parametrize(("name", "empty", "filled"), [(name, *contents) for name, contents in ROWS.items()], ids=ROWS)
def test_whether_a_file_has_rows(tmp_path, name, empty, filled):
    (tmp_path / name).write_bytes(empty)
    assert not has_rows(tmp_path / name)
    (tmp_path / name).write_bytes(filled)
    assert has_rows(tmp_path / name)


def _edit_in_place(file):
    """Changes one byte, and neither the size nor the time."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "a new file in the window": (lambda log: _write(log / "day=2026-01-02/part-2.parquet"), True),
    "a rewritten file": (lambda log: _write(log / "day=2026-01-10/part-0.parquet", 2), True),
    "a file edited under its old size and time": (
        lambda log: _edit_in_place(log / "day=2026-01-10/part-0.parquet"),
        True,
    ),
    "a renamed file": (
        lambda log: (log / "day=2026-01-10/part-0.parquet").rename(log / "day=2026-01-10/b.parquet"),
        True,
    ),
    "a file before the window": (lambda log: _write(log / "day=2025-12-31/part-9.parquet"), False),
    "a new time": (lambda log: (log / "day=2026-01-10/part-0.parquet").touch(), False),
}


@pytest.mark.parametrize(("change", "changes"), CHANGES.values(), ids=CHANGES.keys())
def test_fingerprint_is_of_the_windows_contents(log, change, changes):
    before = fingerprint(choose_window(log, 1, 1).files, log)
    change(log)
    assert (fingerprint(choose_window(log, 1, 1).files, log) != before) == changes


def test_fingerprint_is_the_same_for_a_copy_and_tells_files_apart(tmp_path):
    def digest(folder, *contents):
        files = [tmp_path / folder / str(index) for index in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return fingerprint(files, tmp_path / folder.partition("/")[0])

    assert digest("log/day=2026-01-01", b"xy", b"z") == digest("copy/day=2026-01-01", b"xy", b"z")
    assert digest("log/day=2026-01-01", b"xy", b"z") != digest("log/day=2026-01-02", b"xy", b"z")
    assert digest("log/day=2026-01-01", b"xy", b"z") != digest("log/day=2026-01-01", b"x", b"yz")
    assert digest("log/day=2026-01-01", b"day=2026-01-01/1") != digest("log/day=2026-01-01", b"", b"")


def test_a_file_that_cannot_be_read_any_more_is_named(log):
    files = choose_window(log, 1, 1).files
    files[-1].unlink()
    with pytest.raises(LogError, match=rf"^{files[-1]} has been removed since the run began: run again$"):
        fingerprint(files, log)
    files[-1].symlink_to("nowhere")
    with pytest.raises(
        LogError, match=rf"^{files[-1]} could not be read \(No such file or directory\): mend that, and"
    ):
        fingerprint(files, log)


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, components.impression_log_example_gen.window\n"
        "print(sorted({'tensorflow', 'tfx', 'apache_beam', 'pyarrow'} & set(sys.modules)))"
    )
    root = pathlib.Path(__file__).parents[3]
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout
    assert printed.strip() == "[]"
