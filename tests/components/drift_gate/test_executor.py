from __future__ import annotations

import json

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleStatistics

from components.drift_gate.component import DriftReport
from components.drift_gate.executor import DriftError, Executor, read_drift

MOVED = {"train": [0] * 50 + [9] * 50, "eval": [0] * 90 + [9] * 10}


@pytest.fixture
def gate(tmp_path):
    """Runs the gate on splits of one number, with the given bounds; returns the output's folder."""

    def run(splits, earlier=None, **bounds):
        def put(name, of):
            artifact = ExampleStatistics()
            artifact.uri = str(tmp_path / name)
            artifact.split_names = artifact_utils.encode_split_names(list(of))
            for split, ages in of.items():
                folder = tmp_path / name / f"Split-{split}"
                folder.mkdir(parents=True)
                statistics = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"age": ages}), n_jobs=1)
                (folder / "FeatureStats.pb").write_bytes(statistics.SerializeToString())
            return artifact

        report = DriftReport()
        report.uri = str(tmp_path / "drift")
        inputs = {"statistics": [put("now", splits)]}
        inputs["earlier_statistics"] = [put("before", earlier)] if earlier else []
        Executor().Do(inputs, {"drift": [report]}, {"bounds": json.dumps({"age": bounds})})
        return report.uri

    return run


def test_what_is_beyond_its_bound_is_reported(gate):
    (skew,) = read_drift(gate(MOVED, skew=0.01))
    assert (skew.feature, skew.kind, skew.action, skew.is_beyond) == ("age", "skew", "warn", True)


def test_a_blocking_feature_stops_the_run_and_leaves_no_report(gate, tmp_path):
    with pytest.raises(
        DriftError, match=r"^age has moved by 0\.1\d+ from training to eval \(Jensen-Shannon, bound 0\.01\)$"
    ):
        gate(MOVED, skew=0.01, action="block")
    assert not (tmp_path / "drift").exists()


def test_a_feature_within_its_bound_passes(gate):
    (skew,) = read_drift(gate(MOVED, skew=0.9, action="block"))
    assert not skew.is_beyond
    assert 0 < skew.value < 0.9


def test_the_drift_is_from_the_previous_runs_training_split(gate):
    same = {"train": MOVED["train"], "eval": [5]}
    drift, _ = read_drift(gate(MOVED, earlier=same, drift=0.001, action="block"))
    assert (drift.kind, drift.value) == ("drift", 0)
