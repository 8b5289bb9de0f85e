from __future__ import annotations

import json

import pytest
from tfx.orchestration.portable.data_types import ExecutionInfo

from components.impression_log_example_gen.driver import Driver
from components.impression_log_example_gen.log import LogError


@pytest.fixture
def drive(log, write_day):
    """Runs the driver on a log of four days of a row each, and returns the exec properties that it adds."""
    for day in range(1, 5):
        write_day(f"2026-01-0{day}", {"label": [1]})

    def run(**parameters):
        exec_properties = {"log_path": str(log), "eval_days": 1, "train_days": 2, **parameters}
        added = Driver(None).run(ExecutionInfo(exec_properties=exec_properties)).exec_properties
        return {name: value.string_value for name, value in added.items()}

    return run


def test_window_and_fingerprint_become_exec_properties(drive):
    added = drive()
    assert json.loads(added["days"]) == {"train": ["2026-01-02", "2026-01-03"], "eval": ["2026-01-04"]}
    assert len(added["input_fingerprint"]) == 64
    assert set(added) == {"days", "input_fingerprint"}


@pytest.mark.parametrize("parameters", [{"train_days": None}, {"train_days": 5}])
def test_all_older_days_train(drive, parameters):
    assert json.loads(drive(**parameters)["days"])["train"] == ["2026-01-01", "2026-01-02", "2026-01-03"]


@pytest.mark.parametrize(
    ("day", "changed"),
    [
        pytest.param("2026-01-01", set(), id="before-the-window"),
        pytest.param("2026-01-02", {"input_fingerprint"}, id="in-a-training-day"),
        pytest.param("2026-01-04", {"input_fingerprint"}, id="in-the-eval-day"),
        pytest.param("2026-01-05", {"input_fingerprint", "days"}, id="on-a-new-day"),
    ],
)
def test_a_new_file_counts_only_in_the_window(drive, write_day, day, changed):
    before = drive()
    write_day(day, {"label": [0]}, name="part-1.parquet")
    after = drive()
    assert {name for name in after if after[name] != before[name]} == changed


def test_errors_of_the_log_come_out_as_they_are(drive):
    with pytest.raises(LogError, match=r"^the impression log has 4 day\(s\) with rows, too few for 4 eval"):
        drive(eval_days=4)
