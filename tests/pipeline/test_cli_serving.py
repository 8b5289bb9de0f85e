from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import pipeline
from pipeline.cli import main
from tests.small_model import make_rows

ROOT = Path(pipeline.__file__).parents[1]
ROWS = make_rows(5)
CONFIG = "name: small\nfeatures: tests.small_model:SPEC\nlog: {columns: {item: sku}}\n"


HANG = """
import os, sys, time
import tests
from pipeline.cli import main
from pipeline.score_portion import ScorePortion
tests.__path__ = [os.environ["PYTHONPATH"] + "/tests"]  # some package of others has tests, too
ScorePortion.__call__ = lambda work, portion: time.sleep(3600)
main(sys.argv[1:])
"""
SCORE = ["score", "--input", "log.jsonl", "--out", "scores"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path) -> Path:
    """The current folder, with a config, a log, and a model in service."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "runs" / "small" / "serving").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "serving" / "7").symlink_to(small_model)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row | {"sku": row["item"]}) + "\n" for row in ROWS))
    return tmp_path


def ctr(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--config", "small.yaml"], prog_name="ctr")


def test_predict_and_score_agree() -> None:
    predicted = ctr("predict", "--input", "log.jsonl")
    assert predicted.exit_code == 0
    scored = ctr("score", "--input", "log.jsonl", "--out", "scores")
    assert (scored.exit_code, scored.stderr) == (0, "")
    assert scored.stdout == "5 rows scored with runs/small/serving/7, in scores\n"
    ctrs = [json.loads(line)["ctr"] for line in predicted.stdout.splitlines()]
    assert pq.read_table("scores")["ctr"].to_pylist() == pytest.approx(ctrs, rel=1e-5)


def test_predict_answers_a_line_before_the_next_comes(small_model: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "predict", "--model", str(small_model)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, answer in ((json.dumps(ROWS[0]).encode(), "ctr"), (b"nonsense", "error"), (b"{}", "ctr")):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            assert next(iter(json.loads(process.stdout.readline()))) == answer
        process.stdin.close()
        assert process.wait() == 1


@pytest.fixture
def hang(home: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], Path]]]:
    """Starts a `ctr score` that does not end, and returns it with the folder that it writes."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> tuple[subprocess.Popen[bytes], Path]:
        before = set(home.glob(".scores.*"))
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", HANG, *SCORE, "--config", "small.yaml"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        )
        started.append(process)
        while not (found := {folder.parent for folder in home.glob(".scores.*/*/")} - before):
            assert process.poll() is None
            time.sleep(0.05)
        return process, found.pop()

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_score_that_is_told_to_end_leaves_nothing(
    home: Path, hang: Callable[[], tuple[subprocess.Popen[bytes], Path]]
) -> None:
    before = sorted(home.iterdir())
    process, _ = hang()
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert sorted(home.iterdir()) == before


def test_what_a_killed_score_has_left_is_removed_by_the_next_but_not_what_another_writes(
    home: Path, hang: Callable[[], tuple[subprocess.Popen[bytes], Path]]
) -> None:
    _, running = hang()
    killed, left = hang()
    killed.kill()
    killed.wait()
    assert left.is_dir()
    assert ctr(*SCORE).exit_code == 0
    assert list(home.glob(".*")) == [running]


def test_bad_rows_are_told() -> None:
    with Path("log.jsonl").open("a") as log:
        log.write("nonsense\n")
    scored = ctr("score", "--input", "log.jsonl", "--out", "scores", "--set", "log.max_bad_fraction=0.5")
    assert scored.exit_code == 0
    assert scored.stderr == (
        "1 bad rows: 1 x unparsable line (log.jsonl, row 6); all are in scores/_quarantine.jsonl\n"
    )
    refused = ctr("score", "--input", "log.jsonl", "--out", "others")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("ctr: 1 of 6 rows are bad, more than log.max_bad_fraction = 1.00%: ")
    assert not Path("others").exists()


def test_columns_that_no_row_has_are_told() -> None:
    Path("log.jsonl").write_text('{"sku": 1, "user": 2, "tags": ["a"], "history": [1]}\n')
    scored = ctr("score", "--input", "log.jsonl", "--out", "scores")
    assert scored.exit_code == 0
    assert (
        scored.stderr
        == "warning: country, age, price, rank: no value in any of the 1 rows; see log.columns and log.key\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--input", "nowhere", "--out", "scores"], "ctr: there is no impression log at nowhere: write one there, or"),
     (["--input", "small.yaml", "--out", "scores"], "ctr: small.yaml is no file of a log"),
     (["--input", "log.jsonl", "--out", "runs"], "ctr: runs exists: name another folder, or remove it\n"),
     (["--input", "log.jsonl", "--out", "s", "--model", "x"], "ctr: x is not a SavedModel: it has no saved_model.pb"),
     (["--input", "log.jsonl", "--out", "s", "--set", "name=other"], "ctr: no model in runs/other/serving: ")],
)  # fmt: skip
def test_what_cannot_be_scored_is_one_sentence(arguments: list[str], message: str) -> None:
    result = ctr("score", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("features=nowhere:X", "ctr: features 'nowhere:X': No module named 'nowhere'\n"),
        ("log.columns={itm: sku}", "ctr: log.columns: tests.small_model:SPEC has no column itm; did you mean item?\n"),
    ],
)
def test_score_says_what_is_wrong_with_the_spec(setting: str, message: str) -> None:
    result = ctr("score", "--input", "log.jsonl", "--out", "scores", "--set", setting)
    assert (result.exit_code, result.stderr) == (1, message)
    assert not Path("scores").exists()
