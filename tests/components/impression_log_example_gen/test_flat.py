from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pytest

from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.log import LogError
from components.impression_log_example_gen.values import convert

DAY = 86_400
SUFFIXES = (".parquet", ".csv.gz", ".jsonl", ".tfrecord")


def _at(make_row, *times, **replaced):
    return [make_row(number, time=time, **replaced) for number, time in enumerate(times)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_timestamps_tell_the_days(suffix, write, ingest, make_row, drive):
    write(f"a{suffix}", _at(make_row, 5 * DAY, 2 * DAY, 3 * DAY - 1, 9 * DAY - 1))
    write(f"b{suffix}", _at(make_row, 9 * DAY, 3 * DAY, 8 * DAY))
    write(f"old{suffix}", _at(make_row, DAY, -1))
    ingested = ingest(train_days=3)
    assert ingested.get("days") == {"train": ["1970-01-04", "1970-01-06", "1970-01-09"], "eval": ["1970-01-10"]}
    assert [row["time"] for row in ingested.train] == [[3 * DAY], [8 * DAY], [5 * DAY], [9 * DAY - 1]]
    assert [row["time"] for row in ingested.eval] == [[9 * DAY]]
    assert (ingested.get("num_rows"), ingested.bad) == (5, [])
    assert json.loads(drive(train_days=3)["window"])["files"] == {
        "train": [f"b{suffix}", f"a{suffix}"], "eval": [f"b{suffix}"],
    }  # fmt: skip


def test_a_row_without_a_day_is_bad_once_and_a_bad_row_outside_the_window_is_not_counted(write, ingest, make_row):
    rows = _at(make_row, 2 * DAY, None, 3 * DAY, DAY, 2 * DAY)
    rows[3]["label"] = rows[4]["label"] = 7
    write("a.csv", rows)
    with (write("b.csv", rows[:1])).open("ab") as file:
        file.write(b"too,few\n")
    write("c.csv", b"item,label\n5,0\n")
    ingested = ingest(train_days=1)
    assert sorted(ingested.places) == [
        ("a.csv", 3, "time", "missing timestamp"),
        ("a.csv", 6, "label", "label not 0 or 1"),
        ("b.csv", 3, None, "unparsable line"),
        ("c.csv", 2, "time", "missing timestamp"),
    ]
    assert ingested.get("num_examples") == {"train": 2, "eval": 1}
    assert ingested.get("num_rows") == 7


def test_a_timestamp_may_count_milliseconds_and_examples_have_seconds(write, ingest, make_row):
    day = 20_000 * DAY
    write("a.csv", _at(make_row, day * 1000 + 999, (day + DAY) * 1000))
    ingested = ingest(timestamp_unit="ms")
    assert ([row["time"] for row in ingested.train], [row["time"] for row in ingested.eval]) == (
        [[day]],
        [[day + DAY]],
    )


def test_as_of_and_late_files(write, drive, make_row):
    write("a.csv", _at(make_row, DAY, 2 * DAY, 5 * DAY))
    before = drive(as_of="1970-01-03")
    assert json.loads(before["window"])["days"] == {"train": ["1970-01-02"], "eval": ["1970-01-03"]}
    write("b.csv", _at(make_row, 6 * DAY))
    assert drive(as_of="1970-01-03") == before
    write("late.csv", _at(make_row, DAY))
    assert drive(as_of="1970-01-03")["input_fingerprint"] != before["input_fingerprint"]


def test_a_corrupt_file_counts_though_no_day_of_it_is_known(write, ingest, make_row, to_bytes):
    write("a.csv", _at(make_row, DAY, 2 * DAY))
    write("b.parquet", to_bytes(_at(make_row, DAY), ".parquet")[:-9])
    ingested = ingest()
    assert [(place[0], place[3]) for place in ingested.places] == [("b.parquet", "corrupt file")]


def test_a_flat_log_needs_a_timestamp_in_the_spec(write, drive, make_row):
    write("a.parquet", [make_row(1)])
    with pytest.raises(LogError, match=r"has no day=YYYY-MM-DD folders, and the feature spec names no timestamp: sort"):
        drive(features="schemas.notebook:NOTEBOOK")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("unit", "per_second", "of_other"), [("s", 1, 1000), ("s", 1, 10**6), ("ms", 1000, 1), ("us", 10**6, 1000)]
)
def test_a_timestamp_of_another_unit_makes_its_row_bad_and_not_the_log(
    unit, per_second, of_other, suffix, write, ingest, make_row, drive
):
    first, second = 1_767_225_600, 1_767_312_000  # 2026-01-01, 2026-01-02
    times = [first * per_second, first * of_other, second * per_second]
    write(f"a{suffix}", [make_row(number, time=time) for number, time in enumerate(times)])
    ingested = ingest(timestamp_unit=unit)
    assert ingested.places == [(f"a{suffix}", 2, "time", "timestamp out of range")]
    assert ingested.get("num_rows") == 3
    write(f"a{suffix}", [make_row(number, time=times[1]) for number in range(3)])
    with pytest.raises(LogError, match=r"no row of .* has a timestamp in the column time, or its unit is another one"):
        drive(timestamp_unit=unit)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_timestamps_of_another_type_are_told_as_such(suffix, write, make_row, drive):
    write(f"a{suffix}", [make_row(number, time="2026-03-04T05:06:07Z") for number in range(3)])
    first = 2 if suffix == ".csv" else 1
    told = rf"has a timestamp: its time is '?2026-03-04T05:06:07Z'? in .*a\{suffix}, row {first}; it must be an integer"
    with pytest.raises(LogError, match=told):
        drive()


def test_a_type_that_has_its_unit_may_be_of_any_day():
    column = Column("time", "int64", is_required=True, gives_day=True, per_second=1000)
    values, wrong = convert(pa.array([0, DAY], pa.timestamp("s")), column)
    assert (values.to_pylist(), wrong) == ([0, DAY], [])
    values, wrong = convert(pa.array([0]), dataclasses.replace(column, gives_day=False))
    assert (values.to_pylist(), wrong) == ([0], [])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_wrong_type_outside_the_window_is_not_counted_whatever_the_format(suffix, write, ingest, make_row):
    rows = _at(make_row, DAY, DAY, 2 * DAY, 2 * DAY, 3 * DAY)
    for row in (rows[0], rows[3]):
        row["price"] = "free"
    write(f"a{suffix}", rows)
    ingested = ingest(train_days=1)
    is_csv = suffix == ".csv"  # with a header
    assert ingested.places == [(f"a{suffix}", 4 + is_csv, "price", "wrong type")]
    assert ingested.get("num_rows") == 3
