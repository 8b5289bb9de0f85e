"""Day after day, each model going on from the one of the days before."""

from __future__ import annotations

import json
import pathlib

import pytest


@pytest.fixture(scope="module")
def run_days(ctr, workplace):
    settings = {
        "name": "days",
        "log.path": "log",
        "log.eval_days": 1,
        "log.train_days": 2,
        "transform.analyzer_cache": "true",
        "training.warm_start": "true",
        "training.max_epochs": 1,
        "training.batch_size": 100,
        "training.learning_rate": 0.01,
        "training.when_warm.learning_rate": 0.005,
        "training.table_learning_rate": "null",  # the same
        "evaluation.max_auc_drop": 0.5,
        "evaluation.max_calibration": 1.2,  # one pass over 1,000 rows
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    def run(command, *arguments):
        process = ctr(command, *arguments, *words)
        assert process.returncode == 0, process.stdout + process.stderr
        logs = sorted((workplace / "runs" / "days" / "logs").glob("*.log"), key=lambda log: log.stat().st_mtime)
        summary = json.loads((workplace / "runs" / "days" / "summary.json").read_text())
        return process.stdout, [log.read_text() for log in logs], summary

    return run


def test_days_go_on_from_each_other_and_a_repeated_day_is_cached(run_days):
    output, logs, summary = run_days("backfill", "--from", "2026-01-02", "--to", "2026-01-03")
    assert "day 2026-01-02, 1 of 2" in output
    assert "day 2026-01-03, 2 of 2" in output
    assert "cold start: there is no earlier blessed model" in logs[0]
    assert "warm start from" in logs[1]
    assert "nothing is cold" in logs[1]
    before, after = output.split("day 2026-01-03, 2 of 2")
    assert "  training    epoch 1 of 1 was kept; cold start: there is no earlier blessed model\n" in before
    assert "  training    epoch 1 of 1 was kept; warm start from runs/days/root/Trainer/model/" in after
    card = json.loads((pathlib.Path(summary["pushed_model"]) / "assets.extra/model_card.json").read_text())
    assert card["training"]["learning_rate"] == 0.005
    assert "analyzing 1 data set(s), 0 known" in logs[0]
    assert "analyzing 1 data set(s), 1 known" in logs[1]
    assert summary["blessed"]
    # The first day was compared with nothing, the second with the first.
    assert {found["kind"] for found in summary["drift"]} == {"drift", "skew"}

    # The latest blessed model is now that of this very day: going on from it would learn the day twice.
    output, logs, _ = run_days("run", "--as-of", "2026-01-03")
    assert "warm start from" not in logs[-1]
    assert "✓ Trainer" in output
    assert "cached" in next(line for line in output.splitlines() if "✓ Trainer" in line)
    assert "cached" in next(line for line in output.splitlines() if "✓ Transform" in line)


def test_a_feature_that_has_moved_too_far_stops_the_run_before_it_trains(run_days, workplace, ctr):
    before = (workplace / "runs/days/summary.json").read_text()
    bound = "drift.features={item_id: {drift: 0.001, action: block}, age: {drift: 0.0}}"
    settings = ["name=days", "log.path=log", "log.eval_days=1", "log.train_days=1", bound]
    process = ctr("run", "--as-of", "2026-01-04", *(word for setting in settings for word in ("--set", setting)))
    assert process.returncode == 1
    assert "ctr: DriftGate failed\n     item_id has moved by 0.0" in process.stderr
    assert "since the previous run (L-infinity, bound 0.001), most at " in process.stderr
    assert "✓ Transform" not in process.stdout
    assert (workplace / "runs/days/summary.json").read_text() == before
