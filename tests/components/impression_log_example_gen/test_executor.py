from __future__ import annotations

import json
import pathlib
import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tfx.types import artifact_utils

from components.impression_log_example_gen.log import LogError


def _files(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


FILES = {
    f"{folder}/data_tfrecord-00000-of-00001.gz{suffix}"
    for split in ("train", "eval")
    for folder, suffix in ((f"Split-{split}", ""), (f"arrow/Split-{split}", ".arrow"))
}


@pytest.fixture
def days(write, make_row):
    """Writes a training day of good rows and some bad ones, and an eval day of a good row."""

    def write_both(num_good, *bad):
        good = [make_row(number) for number in range(num_good)]
        write("day=2026-01-01/a.csv", good + [make_row(0, **replaced) for replaced in bad])
        write("day=2026-01-02/a.csv", [make_row(99)])

    return write_both


@pytest.mark.parametrize("is_corrupt", [False, True], ids=["bad rows", "a corrupt file"])
def test_an_eval_day_gone_wrong_stops_the_run_however_many_training_days_are_good(
    is_corrupt, write, ingest, make_row, to_bytes
):
    rows = [make_row(number) for number in range(1_000)]
    write("day=2026-01-01/a.csv", rows * 9)
    write("day=2026-01-02/a.csv", rows)
    bad = rows[:30]
    write(
        "day=2026-01-02/b.csv", b"\xff" + to_bytes(bad, ".csv") if is_corrupt else [row | {"label": 2} for row in bad]
    )
    with pytest.raises(
        LogError, match=r"^\d\d of 1,0\d\d rows of the eval split are bad, [23]\.\d\d%, more than max_bad_"
    ):
        ingest(max_bad_fraction=0.02)
    assert len(ingest(max_bad_fraction=0.04).eval) == 1_000


def test_two_bad_rows_of_a_small_eval_day_do_not_stop_the_run(write, ingest, make_row):
    rows = [make_row(number) for number in range(500)]
    write("day=2026-01-01/a.csv", rows)
    write("day=2026-01-02/a.csv", rows[:20] + [rows[0] | {"label": 2}] * 2)
    assert len(ingest(max_bad_fraction=0.01).eval) == 20


def test_artifact_tells_readers_what_it_holds(days, ingest, tmp_path):
    days(2, {"label": 2}, {"item": -1}, {"label": 3})
    ingested = ingest()
    assert _files(tmp_path / "examples") == FILES
    assert artifact_utils.decode_split_names(ingested.artifact.split_names) == ["train", "eval"]
    properties = {
        name: ingested.artifact.get_string_custom_property(name)
        for name in ("payload_format", "file_format", "input_fingerprint", "quarantine")
    }
    assert properties["payload_format"] == "FORMAT_TF_EXAMPLE"
    assert properties["file_format"] == "tfrecords_gzip"
    assert len(properties["input_fingerprint"]) == 64
    assert pathlib.Path(properties["quarantine"]).parent == tmp_path / "quarantine"
    assert ingested.get("num_examples") == {"train": 2, "eval": 1}
    assert ingested.get("days") == {"train": ["2026-01-01"], "eval": ["2026-01-02"]}
    assert ingested.get("num_rows") == 6
    assert ingested.get("quarantined") == {"label not 0 or 1": 2, "negative id": 1}
    assert ingested.bad[0] == {
        "file": str(tmp_path / "log/day=2026-01-01/a.csv"),
        "row": 4,
        "column": "label",
        "reason": "label not 0 or 1",
        "value": "2",
    }


def test_more_bad_rows_than_allowed_stop_the_run_with_the_top_reasons_and_leave_the_quarantine(days, ingest, tmp_path):
    days(95, *[{"label": 2}] * 3, {"item": -1}, {"label": None})
    place = tmp_path / "log/day=2026-01-01/a.csv"
    with pytest.raises(LogError) as raised:
        ingest(max_bad_fraction=0.04)
    (file,) = (tmp_path / "quarantine").iterdir()
    assert str(raised.value) == (
        "5 of 101 rows of the log are bad, 4.95%, more than max_bad_fraction = 4.00%: "
        f"3 x label not 0 or 1 in label ({place}, row 97); 1 x negative id in item ({place}, row 100); "
        f"1 x missing label in label ({place}, row 101): correct the log, or raise log.max_bad_fraction; "
        f"all bad rows are in {file}"
    )
    assert [json.loads(line)["row"] for line in file.read_text().splitlines()] == [97, 98, 99, 100, 101]
    assert _files(tmp_path / "examples") == set()
    assert len(ingest(max_bad_fraction=5 / 101).train) == 95


def test_a_split_without_a_good_row_stops_the_run(write, ingest, make_row):
    write("day=2026-01-01/a.csv", [make_row(1)])
    write("day=2026-01-02/a.csv", [make_row(1, label=2)])
    with pytest.raises(LogError, match="the eval split has no good row: correct the log; its bad rows are in"):
        ingest()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_column_that_is_not_there_is_for_the_schema_gate_but_the_label_must_be(suffix, write, ingest, make_row):
    write(f"day=2026-01-01/a{suffix}", [{"label": 1}])
    write(f"day=2026-01-01/b{suffix}", [{"item": 1}, {"item": 2}])
    write(f"day=2026-01-01/c{suffix}", [{"key": "x"}, {"key": "y"}])  # none of the wanted columns
    write("day=2026-01-02/a.csv", [make_row(1)])
    ingested = ingest()
    assert ingested.train == [{"label": [1]}]
    assert ingested.get("quarantined") == {"missing label": 4}


def test_a_column_of_another_type_makes_its_rows_bad(write, ingest, make_row):
    rows = [make_row(number, item=None) | {"key": str(number)} for number in range(3)] + [make_row(3, item=None)]
    write("day=2026-01-01/a.parquet", rows)
    write("day=2026-01-02/a.parquet", [make_row(1) | {"key": None}])
    ingested = ingest(columns=json.dumps({"item": "key"}))
    assert [place[1:] for place in ingested.places] == [(number, "key", "wrong type") for number in (1, 2, 3)]
    assert [row["time"] for row in ingested.train] == [[3]]


def test_what_a_killed_attempt_left_is_replaced(days, ingest, tmp_path):
    days(2)
    (tmp_path / "examples/Split-train").mkdir(parents=True)
    (tmp_path / "examples/Split-train/data_tfrecord-00000-of-00009.gz").write_text("half")
    ingest()
    assert _files(tmp_path / "examples") == FILES
    assert _files(tmp_path / "tmp") == set()


def test_a_split_of_many_rows_has_several_shards_which_hold_it_in_order(write, ingest, tmp_path, monkeypatch):
    monkeypatch.setattr("components.impression_log_example_gen.portion.MAX_ROWS", 300)
    monkeypatch.setattr("components.impression_log_example_gen.readers.lines._BLOCK_BYTES", 700)
    for day, suffix in enumerate((".parquet", ".csv", ".parquet")):
        rows = [{"time": number, "label": 1} for number in range(1_000 * day, 1_000 * day + 1_000)]
        write(f"day=2026-01-0{day + 1}/a{suffix}", rows)
    write("day=2026-01-04/a.csv", [{"time": 1, "label": 1}])
    ingested = ingest()
    assert [row["time"] for row in ingested.train] == [[number] for number in range(3_000)]
    assert len(list((tmp_path / "examples/Split-train").glob("data_tfrecord-*"))) > 4
    assert len(list((tmp_path / "examples/Split-eval").iterdir())) == 1


def test_a_file_that_changes_while_it_is_read_is_named(write, ingest, make_row, monkeypatch):
    for day in ("2026-01-01", "2026-01-02"):
        write(f"day={day}/a.parquet", [make_row(1), make_row(2)])
    from components.impression_log_example_gen import executor

    def shrink(window, **cut):
        portions = plan(window)
        write("day=2026-01-01/a.parquet", [make_row(1)])
        return portions

    plan = executor.plan_portions
    monkeypatch.setattr(executor, "plan_portions", shrink)
    with pytest.raises(LogError, match=r"day=2026-01-01/a.parquet has changed while it was read: run again"):
        ingest()


def test_a_file_that_is_removed_while_the_run_goes_on_is_named(write, ingest, make_row, drive, log):
    for day in ("2026-01-01", "2026-01-02"):
        write(f"day={day}/a.csv", [make_row(1)])
    added = drive()
    (log / "day=2026-01-01/a.csv").unlink()
    write("day=2026-01-01/b.csv", [make_row(1)])
    with pytest.raises(LogError, match=r"day=2026-01-01/a.csv has been removed since the run began: run again"):
        ingest(window=added["window"])


BAD = [
    {"label": 2}, {"label": None}, {"item": -1}, {"history": [3, -1]}, {"price": float("nan")}, {"country": b"\xff"},
    {"tags": [b"a", b"\xff"]}, {"history": [1] * 9}, {"price": float("inf")},
]  # fmt: skip


@settings(
    phases=[Phase.generate], max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    kinds=st.lists(st.integers(-30, len(BAD) - 1), min_size=1, max_size=40),
    suffixes=st.lists(
        st.sampled_from([".parquet", ".csv", ".csv.gz", ".jsonl", ".tfrecord.gz"]), min_size=1, max_size=4
    ),
    num_torn=st.integers(0, 3),
    keyed=st.booleans(),
)
def test_every_row_is_an_example_or_in_the_quarantine(
    kinds, suffixes, num_torn, keyed, write, ingest, make_row, to_bytes, expected, log
):
    for file in log.rglob("*.*"):
        file.unlink()
    rows = [make_row(index, key=f"k{index}", **(BAD[kind] if kind >= 0 else {})) for index, kind in enumerate(kinds)]
    if keyed:
        rows += [row for row, kind in zip(rows, kinds, strict=True) if kind < -20]  # once more: duplicates
    good = [expected(row) for row, kind in zip(rows, kinds, strict=False) if kind < 0]
    write("day=2026-01-01/0.csv", [make_row(1000, key="first")])
    share = -(-len(rows) // len(suffixes))
    places, torn = [], []
    for index, suffix in enumerate(suffixes):
        part = rows[index * share : (index + 1) * share]
        if part:
            is_text = suffix in (".csv", ".jsonl")
            content = to_bytes(part, suffix) + b"torn\n" * (num_torn if is_text else 0)
            write(f"day=2026-01-01/{index + 1}{suffix}", content)
            first = len(part) + (2 if suffix == ".csv" else 1)
            torn += [(f"{index + 1}{suffix}", first + line) for line in range(num_torn if is_text else 0)]
        places += [(f"{index + 1}{suffix}", row + (2 if "csv" in suffix else 1)) for row in range(len(part))]
    write("day=2026-01-02/a.csv", [make_row(2000, key="last")])
    ingested = ingest(max_raw_length=8, key="key" if keyed else None)
    is_bad = [kind >= 0 for kind in kinds] + [True] * (len(rows) - len(kinds))
    assert ingested.train[1:] == good
    assert sorted(place[:2] for place in ingested.places) == sorted(
        torn + [place for place, bad in zip(places, is_bad, strict=True) if bad]
    )
    num_quarantined = sum(ingested.get("quarantined").values())
    assert ingested.get("num_rows") == len(rows) + len(torn) + 2
    assert ingested.get("num_rows") == sum(ingested.get("num_examples").values()) + num_quarantined


def test_files_by_day_are_named_by_what_is_in_them(write, make_row, ingest, tmp_path):
    def name(day):
        (file,) = (tmp_path / "examples").glob(f"Split-*/data_tfrecord-{day}-*")
        return re.sub(r"-0000[0-9]-of-0000[0-9]-", "-", file.name)

    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        write(f"day={day}/a.csv", [make_row(1), make_row(2)])
    ingest(by_day=1)
    first, second, third = name("2026-01-01"), name("2026-01-02"), name("2026-01-03")
    assert re.fullmatch(r"data_tfrecord-2026-01-01-[0-9a-f]{64}\.gz", first)
    write("day=2026-01-02/a.csv", [make_row(1), make_row(3)])
    ingested = ingest(by_day=1, eval_days=2)
    assert [row["item"] for row in ingested.train + ingested.eval] == [[1], [2], [1], [3], [1], [2]]
    assert (name("2026-01-01"), name("2026-01-03")) == (first, third)
    assert name("2026-01-02") != second


def test_other_settings_have_a_quarantine_file_of_their_own(write, ingest, make_row):
    for day in (1, 2):
        write(f"day=2026-01-0{day}/a.parquet", [make_row(1, history=[1] * 5), make_row(1), make_row(1, label=7)])
    both = ingest(max_raw_length=4).artifact.get_string_custom_property("quarantine")
    other = ingest().artifact.get_string_custom_property("quarantine")
    counts = [len(pathlib.Path(file).read_text().splitlines()) for file in (both, other)]
    assert counts == [4, 2]
    assert ingest(max_raw_length=4).artifact.get_string_custom_property("quarantine") == both
