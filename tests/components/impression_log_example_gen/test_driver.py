from __future__ import annotations

import json
import logging

import pytest

from components.impression_log_example_gen.log import LogError


@pytest.fixture
def days(write, make_row):
    """A log of four days, with a gap before the last one, and a function that adds a file to a day."""

    def add(day, name="part-0.csv"):
        write(f"day=2026-01-0{day}/{name}", [make_row(day)])

    for day in (1, 2, 3, 6):
        add(day)
    return add


def _names(added):
    return json.loads(added["window"])["days"]


def test_window_and_fingerprint_become_exec_properties(days, drive):
    added = drive(train_days=2)
    assert set(added) == {"window", "input_fingerprint", "as_of", "train_days", "eval_days"}
    assert json.loads(added["window"]) == {
        "days": {"train": ["2026-01-02", "2026-01-03"], "eval": ["2026-01-06"]},
        "files": {
            "train": ["day=2026-01-02/part-0.csv", "day=2026-01-03/part-0.csv"],
            "eval": ["day=2026-01-06/part-0.csv"],
        },
        "is_partitioned": True,
    }
    assert len(added["input_fingerprint"]) == 64


@pytest.mark.parametrize("replaced", [{}, {"train_days": 5}])
def test_all_older_days_train(days, drive, replaced):
    assert _names(drive(**replaced))["train"] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_as_of_is_the_newest_day(days, drive):
    assert _names(drive(as_of="2026-01-03", train_days=1)) == {"train": ["2026-01-02"], "eval": ["2026-01-03"]}


@pytest.mark.parametrize(
    ("day", "changed"),
    [
        pytest.param(1, set(), id="before-the-window"),
        pytest.param(2, {"input_fingerprint", "window"}, id="late-in-a-training-day"),
        pytest.param(6, {"input_fingerprint", "window"}, id="late-in-the-eval-day"),
        pytest.param(5, {"input_fingerprint", "window"}, id="in-a-gap"),
        pytest.param(7, {"input_fingerprint", "window"}, id="on-a-new-day"),
    ],
)
def test_a_new_file_counts_only_in_the_window(days, drive, day, changed):
    before = drive(train_days=2)
    days(day, "part-1.csv")
    after = drive(train_days=2)
    assert {name for name in after if after[name] != before[name]} == changed


def test_the_same_window_is_the_same_however_it_is_asked_for(days, drive):
    assert drive() == drive(as_of="2026-01-06", train_days=3) == drive(as_of="2026-01-09", train_days=7)
    assert drive() != drive(train_days=2)


def test_a_new_file_after_as_of_does_not_count(days, drive):
    before = drive(as_of="2026-01-03")
    days(7)
    assert drive(as_of="2026-01-03") == before


def test_gaps_are_named_in_the_log(days, drive, caplog):
    with caplog.at_level(logging.WARNING):
        drive()
    assert "the window has no rows of 2026-01-04 to 2026-01-05" in caplog.text


def test_errors_of_the_log_come_out_as_they_are(days, drive):
    with pytest.raises(LogError, match=r"^the impression log has 4 day\(s\) with rows \(.*\), too few for 4 eval"):
        drive(eval_days=4)
