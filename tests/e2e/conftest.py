from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CTR = pathlib.Path(sys.executable).with_name("ctr")


def _write_log(folder, days, rows_per_day, **columns):
    """Writes a MovieLens-shaped log of invented impressions, in which some items and users click more than others.

    Args:
        folder: Where to write.
        days: Names of its days.
        rows_per_day: Rows of each.
        columns: Columns to replace, each a function of the number of rows; None drops one.
    """
    generator = np.random.default_rng(1)
    for number, day in enumerate(days):
        users = generator.integers(1, 200, rows_per_day)
        items = generator.zipf(1.3, rows_per_day) % 300
        taste = np.sin(items) + 0.5 * np.sin(users)
        table = {
            "user_id": pa.array(users),
            "item_id": pa.array(items),
            "history": pa.array([list(range(user % 5)) for user in users.tolist()], pa.list_(pa.int64())),
            "skipped": pa.array([list(range(user % 3)) for user in users.tolist()], pa.list_(pa.int64())),
            "age": pa.array(generator.integers(18, 70, rows_per_day)),
            "gender": pa.array(generator.choice(["F", "M"], rows_per_day)),
            "occupation": pa.array(generator.choice(["student", "doctor", "artist"], rows_per_day)),
            "genres": pa.array([[["Drama"], ["Comedy", "Drama"], []][item % 3] for item in items.tolist()]),
            "release_year": pa.array(generator.integers(1950, 1998, rows_per_day)),
            **{f"{of}_impressions": pa.array(np.arange(rows_per_day)) for of in ("user", "item", "genre")},
            **{
                f"{of}_click_share": pa.array(generator.random(rows_per_day).astype(np.float32))
                for of in ("user", "item", "genre")
            },
            "timestamp": pa.array(np.full(rows_per_day, 86_400 * number)),
            "label": pa.array((generator.random(rows_per_day) < 1 / (1 + np.exp(-2 * taste))).astype(np.int64)),
        }
        for name, make in columns.items():
            table.pop(name)
            if make:
                table[name] = make(rows_per_day)
        partition = folder / f"day={day}"
        partition.mkdir(parents=True)
        pq.write_table(pa.table(table), partition / "part-0.parquet")


@pytest.fixture(scope="session")
def write_log():
    """Returns the function that writes a log; see `_write_log`."""
    return _write_log


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, write_log):
    """A folder with a log of 4,000 impressions on four days in `log/`."""
    folder = tmp_path_factory.mktemp("workplace")
    write_log(folder / "log", ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"], 1000)
    return folder


@pytest.fixture(scope="session")
def ctr(workplace):
    """Runs `ctr` in the workplace as a user does, and returns the finished process."""

    def run(*arguments, stdin=None):
        environment = {**os.environ, "COLUMNS": "200"}
        return subprocess.run(
            [CTR, *arguments], cwd=workplace, env=environment, input=stdin, capture_output=True, text=True, timeout=600
        )

    return run


@pytest.fixture(scope="session")
def run_pipeline(ctr, workplace):
    """Runs the pipeline on the workplace's log, and returns the finished process and the summary."""

    def run(*settings):
        # A small log needs more and larger steps than MovieLens.
        defaults = [
            "log.path=log",
            "log.eval_days=1",
            "training.max_epochs=3",
            "training.batch_size=100",
            "training.learning_rate=0.005",
            "evaluation.max_auc_drop=0.05",
            "evaluation.min_calibration=0.8",
        ]
        process = ctr("run", *(word for setting in [*defaults, *settings] for word in ("--set", setting)))
        summary = workplace / "runs" / "movielens" / "summary.json"
        return process, json.loads(summary.read_text()) if summary.exists() else None

    return run
