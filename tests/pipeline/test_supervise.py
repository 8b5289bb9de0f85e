from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group

from pipeline import supervise as module
from pipeline.config import PipelineConfig, config_from_json, load_config
from pipeline.supervise import RunFailedError, supervise

SUMMARY: dict[str, Any] = {
    "pipeline": "movielens",
    "rows": 100_000,
    "quarantined": {},
    "quarantine": None,
    "examples": {"train": 89619, "eval": 10381},
    "collisions": {
        "user_id": {"colliding_ids": 0.049, "colliding_impressions": 0.01},
        "item_id": {"colliding_ids": 0.081, "colliding_impressions": 0.0432},
    },
    "drift": [],
    "tuned": None,
    "training": {"start": None, "epochs": 3, "best_epoch": 2},
    "metrics": {"auc": 0.7231, "auc_pr": 0.7, "log_loss": 0.6101, "calibration": None},
    "blessed": True,
    "not_blessed_because": None,
    "serving_check": [{"check": "loads", "ok": True, "text": "1.0 s", "seconds": 1.0}],
    "baseline": None,
    "not_compared_with": None,
    "report": "root/EvaluationReport/report/14/report.html",
    "no_report_because": None,
    "pushed_model": "serving/17",
    "not_pushed_because": None,
    "seconds": {"Trainer": 12.3},
}
PRELUDE = """
import argparse, json, os, pathlib, signal, subprocess, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--events-fd", type=int, required=True)
fd = parser.parse_args().events_fd
text = sys.stdin.read()
config = json.loads(text)
def emit(event, **fields):
    os.write(fd, (json.dumps({"event": event, **fields}) + "\\n").encode())
def finish(**changes):
    path = pathlib.Path(config["runs_dir"]) / config["name"] / "summary.json"
    path.write_text(json.dumps({**SUMMARY, **changes}))
    emit("summary", path=str(path))
"""


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    (tmp_path / "movielens" / "logs").mkdir(parents=True)
    return load_config(None, [f"runs_dir={tmp_path}"])


def child(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "child.py"
    script.write_text(f"SUMMARY = {SUMMARY!r}\n{PRELUDE}\n{textwrap.dedent(body)}", encoding="utf-8")
    return [sys.executable, str(script)]


def run(config: PipelineConfig, body: str, encoding: str = "utf-8") -> tuple[dict[str, Any], str]:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, write_through=True), width=80)
    summary = supervise(config, child(Path(config.runs_dir), body), console)
    return summary, raw.getvalue().decode(encoding)


def the_log(config: PipelineConfig) -> Path:
    (log,) = Path(config.runs_dir).glob("movielens/logs/*")
    return log


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has waited for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


SUCCESS = """
emit("started", component="Transform")
emit("finished", component="Transform", seconds=0.04, cached=True)
emit("started", component="Trainer")
emit("progress", component="Trainer", text="reading")
emit("progress", component="Trainer", text="epoch 1/2: loss 0.5 [x]")
emit("finished", component="Trainer", seconds=12.34, cached=False)
finish()
"""


def test_a_success_prints_plain_lines_where_there_is_no_terminal(config: PipelineConfig) -> None:
    _, output = run(config, SUCCESS)
    lines = output.splitlines()
    assert lines[0] == f"  log: {the_log(config)}"
    assert lines[1:4] == [
        "✓ Transform                  cached",
        "    epoch 1/2: loss 0.5 [x]",
        "✓ Trainer                      12.3 s",
    ]
    assert "\x1b" not in output
    assert "reading" not in output


def test_a_success_ends_with_the_figures(config: PipelineConfig) -> None:
    _, output = run(config, SUCCESS)
    rows = [line.split(maxsplit=1) for line in output.partition("\nmovielens\n")[2].splitlines()]
    assert [row for row in rows if row[0] in ("rows", "AUC", "calibration", "verdict", "baseline", "model", "log")] == [
        ["rows", "89,619 train, 10,381 eval"],
        ["AUC", "0.7231"],
        ["log", "loss    0.6101"],
        ["calibration", "-"],
        ["verdict", "blessed"],
        ["baseline", "none: no model was pushed before"],
        ["model", "serving/17"],
        ["log", str(the_log(config))],
    ]


def test_paths_below_the_current_folder_are_short(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.runs_dir)
    _, output = run(config, f"finish(pushed_model={config.runs_dir + '/serving/3'!r}, baseline='/elsewhere/7')")
    assert "  model       serving/3\n" in output
    assert "  baseline    /elsewhere/7\n" in output
    _, output = run(config, "finish(not_compared_with='/elsewhere/7')")
    assert "  baseline    none: evaluation.baseline is false; in service is /elsewhere/7\n" in output


def test_the_summary_names_the_fields_of_which_many_ids_collide(config: PipelineConfig) -> None:
    _, output = run(config, "finish()")
    assert "  collisions  item_id 8.1% of ids, 4.3% of impressions\n" in output
    _, output = run(
        config,
        "finish(collisions={f'c{n}': {'colliding_ids': n / 100, 'colliding_impressions': n / 50} for n in range(9)})",
    )
    assert (
        "  collisions  c8 8.0% of ids, 16.0% of impressions; c7 7.0% of ids, 14.0% of impressions; "
        "c6 6.0% of ids, 12.0% of impressions; 3 more fields, see summary.json\n"
    ) in output
    _, output = run(config, "finish(collisions={'c': {'colliding_ids': 0.05, 'colliding_impressions': 0.01}})")
    assert "  collisions  at most 5% of any field's ids share a bucket\n" in output
    _, output = run(config, "finish(collisions={})")  # there are no ids
    assert "collisions" not in output


def test_the_summary_says_how_the_training_began(config: PipelineConfig) -> None:
    _, output = run(config, "finish()")
    assert "  training    epoch 2 of 3 was kept\n" in output
    start = "cold start: there is no earlier blessed model"
    _, output = run(config, f"finish(training={{'start': '{start}', 'epochs': 1, 'best_epoch': 1}})")
    assert f"  training    epoch 1 of 1 was kept; {start}\n" in output
    _, output = run(config, "finish(training=None)")
    assert "  training  " not in output


def test_the_summary_says_where_more_epochs_may_be_better(config: PipelineConfig) -> None:
    _, output = run(config, "finish(training={'start': None, 'epochs': 3, 'best_epoch': 3})")
    hint = "the last one: with more, see training.max_epochs and max_steps, it may be better"
    assert f"  training    epoch 3 of 3 was kept, {hint}\n" in output
    start = "warm start from model"  # the number of a warm one's epochs is chosen, see docs/daily-training.md
    _, output = run(config, f"finish(training={{'start': '{start}', 'epochs': 3, 'best_epoch': 3}})")
    assert f"  training    epoch 3 of 3 was kept; {start}\n" in output


def test_the_summary_says_what_was_tuned(config: PipelineConfig) -> None:
    _, output = run(config, "finish()")
    assert "tuned" not in output
    tuned = {
        "trials": 7,
        "monitor": "auc",
        "config": 0.71234,
        "best": 0.72,
        "values": {"dropout": 0.1, "hidden_units": [4, 2]},
    }
    _, output = run(config, f"finish(tuned={tuned})")
    line = "  tuned       validation AUC 0.7123 -> 0.7200 in 7 trials: dropout 0.1, hidden_units [4, 2]\n"
    assert line in output


def test_a_trial_has_a_line_and_its_epochs_have_none(config: PipelineConfig) -> None:
    body = """
    emit("started", component="Tuner")
    emit("progress", component="Tuner", text="epoch 1/2: loss 0.5")
    emit("progress", component="Tuner", text="trial 1/3: val_auc 0.7")
    emit("finished", component="Tuner", seconds=1, cached=False)
    finish()
    """
    _, output = run(config, body)
    assert output.splitlines()[1:3] == ["    trial 1/3: val_auc 0.7", "✓ Tuner                         1.0 s"]


def test_the_summary_tells_of_bad_rows(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.runs_dir)
    _, output = run(config, "finish()")
    assert "  quarantine  no bad rows\n" in output
    bad = {"wrong type": 1500, "missing label": 20}
    _, output = run(config, f"finish(quarantined={bad}, quarantine={config.runs_dir + '/quarantine/a.jsonl'!r})")
    wanted = "  quarantine  1,520 bad rows (1.52%): 1,500 wrong type, 20 missing label; in quarantine/a.jsonl\n"
    assert wanted in output


def test_the_parent_completes_the_summary(config: PipelineConfig) -> None:
    summary, _ = run(config, "x = b'x' * 150_000_000; time.sleep(0.3); finish()")
    file = Path(config.runs_dir) / "movielens" / "summary.json"
    assert json.loads(file.read_text()) == summary
    assert {key: summary[key] for key in SUMMARY} == SUMMARY
    assert 0.3 <= summary["total_seconds"] < 30
    assert 150 < summary["peak_rss_mb"] < 100_000
    assert sorted(path.name for path in file.parent.iterdir()) == ["logs", "summary.json"]


def test_a_model_that_is_not_blessed_is_no_failure(config: PipelineConfig) -> None:
    body = "finish(blessed=False, not_blessed_because=['auc is 0.4,\\n not 0.5', 'b'], "
    body += "pushed_model=None, not_pushed_because='the Evaluator has not blessed it')"
    _, output = run(config, body)
    assert "  verdict     not blessed\n" in output
    assert "  because     auc is 0.4, not 0.5\n  because     b\n" in output
    assert "  model       not pushed: the Evaluator has not blessed it\n" in output


def test_a_model_that_cannot_be_served_is_no_failure(config: PipelineConfig) -> None:
    body = """
    finish(serving_check=[
        {"check": "loads", "ok": True, "text": "1.0 s"},
        {"check": "latency", "ok": False, "text": "30 ms is above serving_check.max_p50_ms"},
        {"check": "size", "ok": False, "text": "9 MB"},
    ], pushed_model=None, not_pushed_because='it has not passed the serving check')
    """
    _, output = run(config, body)
    assert "  serving     latency: 30 ms is above serving_check.max_p50_ms; size: 9 MB\n" in output
    assert "  model       not pushed: it has not passed the serving check\n" in output


def test_of_a_served_models_error_the_summary_says_what_it_was(config: PipelineConfig) -> None:
    text = (
        "InvalidArgumentError: Graph execution error:\\n\\nDetected at node GatherV2\\nindices[0] = 7 is not in [0, 2)"
    )
    _, output = run(config, f"finish(serving_check=[{{'check': 'predict', 'ok': False, 'text': '{text}'}}])")
    line = "predict: InvalidArgumentError: Graph execution error: indices[0] = 7 is not in [0, 2)"
    assert f"  serving     {line}\n" in output


MOVEMENT = {
    "feature": "item_id", "kind": "drift", "measure": "L-infinity", "value": 0.25, "bound": None, "action": "warn",
    "most_moved": None, "is_beyond": False,
}  # fmt: skip
BEYOND = {"bound": 0.1, "is_beyond": True, "most_moved": "7"}


@pytest.mark.parametrize(
    ("movements", "line"),
    [
        ([], "no bound applies"),
        ([MOVEMENT], "no bound applies; largest: item_id drift 0.250"),
        ([MOVEMENT, MOVEMENT | {"bound": 0.5, "value": 0.3}], "all within their bounds; largest: item_id drift 0.300"),
        ([MOVEMENT, MOVEMENT | BEYOND], "beyond its bound: item_id drift 0.250 > 0.1, most at 7"),
    ],
    ids=["none", "unbound", "within", "beyond"],
)
def test_the_summary_says_what_has_moved(config: PipelineConfig, movements: list[Any], line: str) -> None:
    _, output = run(config, f"finish(drift={movements!r})")
    assert f"  drift       {line}\n" in output


def test_the_child_gets_the_config_and_its_output_goes_to_the_log(config: PipelineConfig) -> None:
    body = """
    print("to stdout")
    print("to stderr", file=sys.stderr)
    pathlib.Path(sys.argv[0]).with_name("got").write_text(text)
    finish()
    """
    _, output = run(config, body)
    assert config_from_json((Path(config.runs_dir) / "got").read_text()) == config
    assert sorted(the_log(config).read_text().splitlines()) == ["to stderr", "to stdout"]
    assert "to std" not in output


def test_the_log_is_named_by_time_and_process(config: PipelineConfig) -> None:
    run(config, "finish()")
    stamp, _, pid = the_log(config).stem.partition("-")
    assert time.strptime(stamp, "%Y%m%dT%H%M%SZ")
    assert pid == str(os.getpid())


def test_ascii_output_has_ascii_marks(config: PipelineConfig) -> None:
    _, output = run(config, SUCCESS, encoding="ascii")
    assert "\n+ Trainer " in output


def test_colours_in_a_file_bring_no_spinner(config: PipelineConfig) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True)  # as FORCE_COLOR does
    supervise(config, child(Path(config.runs_dir), "time.sleep(0.5); finish()"), console)
    assert "\x1b[" in output.getvalue()
    assert "starting" not in output.getvalue()


FAILURES = {
    "event": (
        'emit("started", component="Trainer"); emit("failed", component="Trainer", cause="a\\n  b"); sys.exit(1)',
        ["Trainer failed", "a b"],
    ),
    "event and status 0": ('emit("failed", component="Trainer", cause="a"); finish()', ["Trainer failed", "a"]),
    "event outside a component": ('emit("failed", component=None, cause="a"); sys.exit(1)', ["the run failed", "a"]),
    "out of memory": (
        'emit("started", component="Trainer"); os.kill(os.getpid(), signal.SIGKILL)',
        ["Trainer failed", "killed (out of memory?)"],
    ),
    "crash": (
        'emit("started", component="Trainer"); os.kill(os.getpid(), signal.SIGSEGV)',
        ["Trainer failed", "killed by SIGSEGV"],
    ),
    "between components": (
        'emit("started", component="A"); emit("finished", component="A", seconds=1, cached=False); sys.exit(3)',
        ["the run failed", "exit status 3: nothing in the log"],
    ),
    "exception": (
        "print('early', flush=True); 1 / 0",
        ["the run failed", "exit status 1: ZeroDivisionError: division by zero"],
    ),
    "status after the summary": ("finish(); sys.exit(2)", ["the run failed", "exit status 2: nothing in the log"]),
    "torn event": (
        'os.write(fd, b\'{"event": "fai\'); sys.exit(2)',
        ["the run failed", "exit status 2: nothing in the log"],
    ),
    "no summary": ("", ["the run failed", "the pipeline ended without a readable summary: none was written"]),
}


@pytest.mark.parametrize(("body", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failure_has_component_cause_and_log(config: PipelineConfig, body: str, message: list[str]) -> None:
    with pytest.raises(RunFailedError) as raised:
        run(config, body)
    assert str(raised.value).splitlines() == [*message, f"log: {the_log(config)}"]


def test_a_summary_that_is_no_json_is_a_failure(config: PipelineConfig) -> None:
    with pytest.raises(RunFailedError, match="ended without a readable summary: Expecting value"):
        run(config, "path = sys.argv[0] + '.json'; pathlib.Path(path).write_text('x'); emit('summary', path=path)")


def test_the_failed_component_is_shown_with_its_seconds(config: PipelineConfig) -> None:
    output = io.StringIO()
    body = 'emit("started", component="Trainer"); time.sleep(0.25); sys.exit(1)'
    with pytest.raises(RunFailedError):
        supervise(config, child(Path(config.runs_dir), body), Console(file=output))
    name, seconds, unit = output.getvalue().splitlines()[1].split()[1:]
    assert (name, unit) == ("Trainer", "s")
    assert 0.2 <= float(seconds) < 10


def test_a_line_that_is_no_json_is_skipped(config: PipelineConfig) -> None:
    _, output = run(
        config,
        "os.write(fd, b'nonsense\\n'); emit('unknown'); os.write(fd, b'[1]\\n');"
        + SUCCESS.replace("\n", ";").strip(";"),
    )
    assert "✓ Trainer " in output


def test_an_event_that_comes_in_two_pieces_is_one_event(config: PipelineConfig) -> None:
    body = """
    emit("started", component="Trainer")
    os.write(fd, b'{"event": "progress", "text": "epo')
    time.sleep(0.3)
    os.write(fd, b'ch 1/2"}' + bytes([10]))
    finish()
    """
    _, output = run(config, body)
    assert "    epoch 1/2\n" in output


def test_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_end_and_is_ended(config: PipelineConfig) -> None:
    body = """
    grandchild = subprocess.Popen(["sleep", "60"], pass_fds=[fd])
    pathlib.Path(sys.argv[0]).with_name("pid").write_text(str(grandchild.pid))
    finish()
    """
    start = time.monotonic()
    run(config, body)
    assert time.monotonic() - start < 30
    wait_until(lambda: not is_running(int((Path(config.runs_dir) / "pid").read_text())))


PARENT = """
import sys
from pipeline import supervise
from pipeline.config import load_config
supervise.GRACE_SECONDS = 0.5
supervise.supervise(load_config(None, ["runs_dir=" + sys.argv[1]]), sys.argv[2:])
"""


def start_parent(config: PipelineConfig, body: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PARENT, config.runs_dir, *child(Path(config.runs_dir), body)]
    return subprocess.Popen(command, cwd=Path(module.__file__).parents[1], **options)


HANG = """
grandchild = subprocess.Popen(["sleep", "60"])
pids = pathlib.Path(sys.argv[0]).with_name("pids")
pids.with_suffix(".new").write_text(f"{os.getpid()} {grandchild.pid}")
pids.with_suffix(".new").rename(pids)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("stubborn", [False, True], ids=["", "child ignores SIGTERM"])
def test_a_signal_ends_the_child_and_its_children(
    config: PipelineConfig, number: signal.Signals, stubborn: bool
) -> None:
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" * stubborn + HANG
    parent = start_parent(
        config,
        body,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run under nohup
    )
    pids = Path(config.runs_dir) / "pids"
    wait_until(pids.exists)
    parent.send_signal(number)
    status = parent.wait(20)
    assert status == (-signal.SIGINT if number == signal.SIGINT else 128 + number)
    wait_until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))


def test_nohup_is_respected(config: PipelineConfig) -> None:
    parent = start_parent(
        config,
        HANG.replace("time.sleep(60)", "time.sleep(1); finish()"),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_until((Path(config.runs_dir) / "pids").exists)
    parent.send_signal(signal.SIGHUP)
    assert parent.wait(20) == 0


def test_a_terminal_shows_a_spinner_with_the_latest_progress(config: PipelineConfig) -> None:
    body = SUCCESS.replace('text="reading")', 'text="reading"); time.sleep(0.6)')
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    parent = start_parent(config, body, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    output = b""
    try:
        while chunk := os.read(master, 65536):
            output += chunk
    except OSError:  # how Linux reports that the other side is closed
        pass
    os.close(master)
    assert parent.wait(20) == 0
    text = output.decode()
    assert "reading" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"
    assert any(frame in text for frame in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")


def test_a_terminal_line_is_cut_not_wrapped(config: PipelineConfig) -> None:
    output = io.StringIO()
    console = Console(file=output, width=40)
    progress = module._Progress(console)
    progress.handle({"event": "started", "component": "Trainer"})
    progress.handle({"event": "progress", "component": "Trainer", "text": "x" * 100})
    console.print(Group(progress._status()))  # alone, it would be merged into a text that wraps
    (line,) = output.getvalue().splitlines()
    assert len(line) == 40
    assert line.endswith("…")
