"""Whole runs through the command line, in this order: each builds on what the ones before it left."""

from __future__ import annotations

import collections
import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from pipeline.last_run import REPEATED

COMPONENTS = {
    "ImpressionLogExampleGen", "CuratedSchemaGen", "StatisticsGen", "ExampleValidator", "SchemaGate",
    "EarlierStatistics", "DriftGate", "Transform", "Trainer", "LatestBlessedModel", "Evaluator", "EvaluationReport",
    "ServingCheck", "Pusher",
}  # fmt: skip
PASSING = {"run_id", "seconds", "total_seconds", "peak_rss_mb"}  # of one run; the rest is of its artifacts
State = metadata_store_pb2.Execution


def _store(workplace):
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(workplace / "runs/movielens/metadata.sqlite")
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    return metadata_store.MetadataStore(config)


def _states(workplace, run_id):
    """State of each node's execution in one run."""
    store = _store(workplace)
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    states = {}
    for execution in store.get_executions_by_context(context.id):
        (node,) = (c.name for c in store.get_contexts_by_execution(execution.id) if c.name.startswith("movielens."))
        states[node.removeprefix("movielens.")] = execution.last_known_state
    return states


def _served(workplace):
    return {
        path: (path / "saved_model.pb").stat().st_mtime_ns for path in (workplace / "runs/movielens/serving").iterdir()
    }


@pytest.fixture(scope="module")
def first(run_pipeline):
    return run_pipeline()


@pytest.fixture(scope="module")
def second(first, run_pipeline):
    return run_pipeline()


@pytest.fixture(scope="module")
def third(second, workplace, run_pipeline):
    num_artifacts = len(_store(workplace).get_artifacts())
    return *run_pipeline(), num_artifacts


def test_first_run_pushes_a_blessed_model_and_keeps_the_output_contract(first, workplace):
    process, summary = first
    assert process.returncode == 0, process.stdout + process.stderr
    assert set(summary) == {
        "pipeline", "run_id", "stack", "rows", "quarantined", "quarantine", "examples", "collisions", "drift", "tuned",
        "training", "metrics", "intervals", "differences", "blessed", "not_blessed_because", "failed_gates",
        "serving_check", "baseline", "not_compared_with", "report", "no_report_because", "pushed_model",
        "not_pushed_because", "seconds", "total_seconds", "peak_rss_mb",
    }  # fmt: skip
    assert summary["pipeline"] == "movielens"
    assert set(summary["stack"]) == {"python", "tfx", "tensorflow", "keras", "beam"}
    assert summary["stack"]["keras"].startswith("3.")
    assert summary["examples"] == {"train": 3000, "eval": 1000}
    assert (summary["rows"], summary["quarantined"], summary["quarantine"]) == (4000, {}, None)
    assert list(summary["collisions"]) == ["user_id", "item_id", "history", "skipped", "gender", "occupation", "genres"]
    assert summary["collisions"]["gender"] == {
        "ids": 2, "buckets": 16, "colliding_ids": 0, "colliding_impressions": 0, "exact": True,
    }  # fmt: skip
    assert summary["tuned"] is None
    training = summary["training"]
    assert training["start"] is None
    assert 1 <= training["best_epoch"] <= training["epochs"]
    assert {(found["feature"], found["kind"]) for found in summary["drift"]} >= {("item_id", "skew"), ("age", "skew")}
    assert {found["kind"] for found in summary["drift"]} == {"skew"}  # no run before: nothing to have drifted from
    assert set(summary["metrics"]) == {
        "auc", "auc_pr", "log_loss", "normalized_entropy", "calibration", "expected_calibration_error", "mean_label",
        "mean_prediction", "gauc", "ndcg", "mrr",
    }  # fmt: skip
    low, high = summary["intervals"]["auc"]
    assert low < summary["metrics"]["auc"] < high
    assert (summary["differences"], summary["failed_gates"]) == (None, [])
    assert 0.55 < summary["metrics"]["auc"] < 1
    assert (summary["blessed"], summary["not_blessed_because"], summary["baseline"]) == (True, [], None)
    assert pathlib.Path(summary["pushed_model"]).parent == workplace / "runs/movielens/serving"
    assert pathlib.Path(summary["pushed_model"], "saved_model.pb").is_file()
    assert set(summary["seconds"]) == COMPONENTS
    assert summary["total_seconds"] >= sum(summary["seconds"].values())
    assert summary["peak_rss_mb"] > 100
    assert (workplace / "runs/movielens/root/Trainer").is_dir()
    assert len(list((workplace / "runs/movielens/logs").glob("*.log"))) == 1
    assert "blessed" in process.stdout
    assert "epoch 1/3" in process.stdout
    assert "\x1b" not in process.stdout
    assert len(list(workplace.rglob("events.out.tfevents.*"))) >= 2


def test_pushed_model_scores_what_ctr_predict_scores(first, ctr):
    impression = {"user_id": 7, "item_id": 3, "history": [1, 2], "gender": "F", "genres": ["Drama"], "age": 30}
    process = ctr("predict", stdin=json.dumps(impression) + "\n{}\nnot json\n")
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert process.returncode == 1
    assert lines[2]["line"] == 3
    features = {
        "user_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[7])),
        "item_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[3])),
        "history": tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 2])),
        "gender": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"F"])),
        "genres": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"Drama"])),
        "age": tf.train.Feature(int64_list=tf.train.Int64List(value=[30])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    serve = tf.saved_model.load(first[1]["pushed_model"]).signatures["serving_default"]
    expected = serve(tf.constant([example, b""]))["ctr"][:, 0]
    np.testing.assert_allclose([lines[0]["ctr"], lines[1]["ctr"]], expected, rtol=1e-5)
    assert abs(float(expected[0] - expected[1])) > 1e-4


def test_second_run_compares_with_the_first_model_and_repeats_nothing_else(first, second, workplace):
    process, summary = second
    assert process.returncode == 0, process.stdout + process.stderr
    assert summary["baseline"] is not None
    assert pathlib.Path(summary["baseline"]).is_relative_to(workplace / "runs/movielens/root/Trainer/model")
    assert summary["blessed"]
    states = _states(workplace, summary["run_id"])
    assert {node for node, state in states.items() if state != State.CACHED} == {
        "EarlierStatistics",
        "LatestBlessedModel",
        "Evaluator",
        "EvaluationReport",
        "Pusher",
    }
    assert summary["metrics"] == pytest.approx(first[1]["metrics"])
    assert all(difference == {"value": 0, "low": 0, "high": 0} for difference in summary["differences"].values())


def test_third_run_is_cached(third, second, workplace):
    process, summary, num_artifacts_before = third
    assert process.returncode == 0, process.stdout + process.stderr
    states = _states(workplace, summary["run_id"])
    assert set(states) == COMPONENTS
    assert collections.Counter(states.values()) == {State.CACHED: 12, State.COMPLETE: 2}
    assert states["LatestBlessedModel"] == states["EarlierStatistics"] == State.COMPLETE
    assert len(_store(workplace).get_artifacts()) == num_artifacts_before
    assert summary["pushed_model"] == second[1]["pushed_model"]
    assert process.stdout.count("cached") == 12
    (log,) = (line.split()[-1] for line in process.stdout.splitlines() if line.startswith("  log: "))
    assert REPEATED in (workplace / log).read_text()
    assert {key: value for key, value in summary.items() if key not in PASSING} == {
        key: value for key, value in second[1].items() if key not in PASSING
    }


def test_a_model_that_another_one_has_replaced_in_service_is_pushed_again(third, run_pipeline, workplace):
    pushed = pathlib.Path(third[1]["pushed_model"])
    other = pushed.with_name(str(int(pushed.name) + 1))
    shutil.copytree(pushed, other)
    source = other / "assets.extra" / "source.json"
    source.write_text(json.dumps(json.loads(source.read_text()) | {"sha256": "another model"}))
    process, summary = run_pipeline()
    assert process.returncode == 0, process.stdout + process.stderr
    assert int(pathlib.Path(summary["pushed_model"]).name) > int(other.name)
    states = _states(workplace, summary["run_id"])
    assert {node for node, state in states.items() if state != State.CACHED} == {
        "EarlierStatistics", "LatestBlessedModel", "Pusher",
    }  # fmt: skip


def test_an_impossible_threshold_pushes_nothing_and_says_why(third, run_pipeline, workplace):
    served = _served(workplace)
    process, summary = run_pipeline("evaluation.min_auc=0.9999")
    assert process.returncode == 0, process.stdout + process.stderr
    assert not summary["blessed"]
    (reason,) = summary["not_blessed_because"]
    assert reason.startswith("auc is 0.")
    assert reason.endswith("must be at least 0.9999")
    assert summary["pushed_model"] is None
    assert reason in process.stdout
    assert _served(workplace) == served


def test_a_tuned_run_trains_with_what_was_best_and_repeats_nothing_before_it(third, run_pipeline, workplace):
    # The config learns nothing, so that the one other choice is better.
    settings = {
        "training.learning_rate": "1e-9",
        "training.table_learning_rate": "null",  # the same
        "training.max_epochs": "1",
        "tuner.trials": "3",
        "tuner.learning_rate": "[0.005]",
    } | {f"tuner.{name}": "[]" for name in ("embedding_dim", "hidden_units", "dropout", "id_dropout", "embedding_l2")}
    process, summary = run_pipeline(*(f"{key}={value}" for key, value in settings.items()))
    assert process.returncode == 0, process.stdout + process.stderr
    tuned = summary["tuned"]
    assert (tuned["trials"], tuned["monitor"], tuned["values"]) == (2, "auc", {"learning_rate": 0.005})
    assert tuned["best"] > tuned["config"] + 0.02
    assert summary["metrics"]["auc"] > tuned["config"] + 0.02
    states = _states(workplace, summary["run_id"])
    assert {node for node, state in states.items() if state != State.CACHED} == {
        "EarlierStatistics", "Tuner", "Trainer", "LatestBlessedModel", "Evaluator", "EvaluationReport",
        "ServingCheck", "Pusher",
    }  # fmt: skip
    lines = process.stdout.splitlines()
    assert sum(line.startswith("    trial ") for line in lines) == 2
    assert sum(line.startswith("    epoch ") for line in lines) == 1  # the Trainer's
    assert "Search" not in process.stdout
    assert any(line.startswith("  tuned       validation AUC 0.") for line in lines)


BROKEN_LOGS = {
    "a value outside the domain": (
        {"gender": lambda rows: pa.array(["X", *["F"] * (rows - 1)])},
        "SchemaGate",
        "gender",
    ),
    "a column that is gone": ({"age": None}, "SchemaGate", "age"),
    "a column of the wrong type": (
        {"item_id": lambda rows: pa.array([f"item {row}" for row in range(rows)])},
        "ImpressionLogExampleGen",
        "item_id",
    ),
    "a label that is neither 0 nor 1": (
        {"label": lambda rows: pa.array(([7] * (rows // 20) + [0, 1] * rows)[:rows])},
        "ImpressionLogExampleGen",
        "label",
    ),
}


@pytest.mark.parametrize(("columns", "component", "named"), BROKEN_LOGS.values(), ids=BROKEN_LOGS.keys())
def test_a_broken_log_stops_the_run_and_leaves_what_was_there(
    third, run_pipeline, workplace, write_log, tmp_path, columns, component, named
):
    served = _served(workplace)
    summary_file = workplace / "runs/movielens/summary.json"
    before = summary_file.read_text()
    write_log(tmp_path / "log", ["2026-01-01", "2026-01-02"], 500, **columns)
    process, _ = run_pipeline(f"log.path={tmp_path / 'log'}")
    assert process.returncode == 1
    failed, cause, log = process.stderr.strip().splitlines()
    assert failed == f"ctr: {component} failed"
    assert named in cause
    assert pathlib.Path(workplace, log.split("log: ")[1]).is_file()
    assert "Traceback" not in process.stderr + process.stdout
    assert "Transform " not in process.stdout
    assert _served(workplace) == served
    assert summary_file.read_text() == before
