from __future__ import annotations

import datetime
import os
import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.impression_log_example_gen.log import (
    LogError,
    choose_window,
    find_days,
    fingerprint,
    restore_window,
    split_days,
)


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
    return [day.day.isoformat() for day in days]


def test_days_come_oldest_first_with_their_files_by_name(log):
    days = find_days(log)
    assert _names(days) == ["2025-12-31", "2026-01-02", "2026-01-05", "2026-01-10"]
    assert days[0].day == datetime.date(2025, 12, 31)
    assert [file.name for file in days[1].files] == ["part-0.parquet", "part-1.parquet"]


def test_hidden_names_other_files_and_days_without_parquet_are_no_part_of_the_log(log):
    for name in ("_SUCCESS", "day=2026-01-10/.part.parquet", "day=2026-01-10/_tmp.parquet", "day=2026-01-10/a.csv"):
        (log / name).write_text("")
    (log / "day=2026-01-10/folder.parquet").mkdir()
    (log / "day=2026-02-01").mkdir()
    (log / "notes").mkdir()
    days = find_days(log)
    assert _names(days)[-1] == "2026-01-10"
    assert [file.name for file in days[-1].files] == ["part-0.parquet"]


BAD_LOGS = {
    "missing": (lambda path: None, "there is no impression log at .*: write one there, or correct the path"),
    "a file": (lambda path: path.write_text(""), "is a file: name the folder"),
    "no days": (lambda path: path.mkdir(), r"is empty: it needs a day=YYYY-MM-DD folder"),
    "a day that is none": (
        lambda path: _write(path / "day=2026-02-30/a.parquet"),
        "day=2026-02-30 is not named day=YYYY",
    ),
    "a day in another form": (lambda path: _write(path / "day=20260201/a.parquet"), "day=20260201 is not named"),
    "no files": (
        lambda path: (path / "day=2026-01-01").mkdir(parents=True),
        r"no day=YYYY-MM-DD folder .* has a \*.parquet",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_bad_log_is_one_sentence_that_names_it(make, message, tmp_path):
    make(tmp_path / "log")
    with pytest.raises(LogError, match=message) as raised:
        find_days(tmp_path / "log")
    assert "\n" not in str(raised.value)


WINDOWS = {
    "all older days train": (1, None, ["2025-12-31", "2026-01-02"], ["2026-01-10"]),
    "only so many train": (1, 1, ["2026-01-02"], ["2026-01-10"]),
    "fewer than asked for": (2, 5, ["2025-12-31"], ["2026-01-02", "2026-01-10"]),
}


@pytest.mark.parametrize(("eval_days", "train_days", "train", "eval_"), WINDOWS.values(), ids=WINDOWS.keys())
def test_newest_days_with_rows_are_eval_and_those_before_train(log, eval_days, train_days, train, eval_):
    window = choose_window(log, eval_days, train_days)
    assert (_names(window.train), _names(window.eval)) == (train, eval_)
    assert restore_window(log, window.day_names) == window


def test_of_more_days_than_are_asked_for_the_oldest_are_left_out(log):
    window = split_days(find_days(log), 1, 2)
    assert (_names(window.train), _names(window.eval)) == (["2026-01-02", "2026-01-05"], ["2026-01-10"])


def test_too_few_days_and_bad_numbers_of_days_are_errors(log):
    with pytest.raises(LogError, match=r"has 3 day\(s\) with rows, too few for 3 eval day\(s\)"):
        choose_window(log, 3, None)
    with pytest.raises(ValueError, match="eval_days is 0"):
        split_days(find_days(log), 0, None)
    with pytest.raises(ValueError, match="train_days 0"):
        split_days(find_days(log), 1, 0)


def test_a_day_that_is_gone_since_the_window_was_chosen_is_an_error(log):
    names = choose_window(log, 1, None).day_names
    (log / "day=2026-01-10/part-0.parquet").unlink()
    with pytest.raises(LogError, match="day=2026-01-10 has been removed since the run began"):
        restore_window(log, names)


def test_an_unreadable_file_in_the_window_is_named_and_one_before_it_is_not_read(log):
    (log / "day=2025-12-31/part-0.parquet").write_bytes(b"PAR1 cut short")
    assert _names(choose_window(log, 1, 1).train) == ["2026-01-02"]
    with pytest.raises(LogError, match=r"day=2025-12-31/part-0.parquet is not a readable Parquet file"):
        choose_window(log, 1, 2)


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
    before = fingerprint(choose_window(log, 1, 1).files)
    change(log)
    assert (fingerprint(choose_window(log, 1, 1).files) != before) == changes


def test_fingerprint_is_the_same_for_a_copy_and_tells_files_apart(tmp_path):
    def digest(folder, *contents):
        files = [tmp_path / folder / str(index) for index in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return fingerprint(files)

    assert digest("log/day=2026-01-01", b"xy", b"z") == digest("copy/day=2026-01-01", b"xy", b"z")
    assert digest("log/day=2026-01-01", b"xy", b"z") != digest("log/day=2026-01-02", b"xy", b"z")
    assert digest("log/day=2026-01-01", b"xy", b"z") != digest("log/day=2026-01-01", b"x", b"yz")
    assert digest("log/day=2026-01-01", b"day=2026-01-01/1") != digest("log/day=2026-01-01", b"", b"")


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, components.impression_log_example_gen.log\n"
        "print(sorted({'tensorflow', 'tfx', 'apache_beam', 'pyarrow'} & set(sys.modules)))"
    )
    root = pathlib.Path(__file__).parents[3]
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout
    assert printed.strip() == "[]"
