"""The parent's side of `ctr run`: starts the pipeline in a child process, shows what it does, and sums it up."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import IO, Any, NoReturn

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from pipeline.config import PipelineConfig, config_to_json
from pipeline.environment import training_environment
from pipeline.signals import ended_by_signals
from schemas.errors import one_line

CHILD = (sys.executable, "-m", "pipeline.repeat")
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL

_NAME_WIDTH = 24
_NAMED_FIELDS = 3
_SHOWN_COLLISIONS = 0.05  # of a field's ids or impressions


class RunFailedError(RuntimeError):
    """A run that did not get to its end.

    The message has three lines: which component, why, where the log is.
    """

    def __init__(self, component: str | None, cause: str, log: pathlib.Path) -> None:
        super().__init__(f"{component or 'the run'} failed\n{' '.join(cause.split())}\nlog: {log}")


def supervise(
    config: PipelineConfig,
    command: Sequence[str] = CHILD,
    console: Console | None = None,
    lock: int | None = None,
) -> dict[str, Any]:
    """Runs the pipeline in a child process.

    The child gets the config as JSON on standard input, and writes events as JSON lines to the file descriptor that
    `--events-fd` names; its output goes to a log file in `<runs_dir>/<name>/logs`, which must exist. Whatever ends this
    function ends the child and all that the child has started.

    Args:
        config: The pipeline's settings.
        command: The child's command.
        console: Where to show what happens; by default standard output.
        lock: A file descriptor that the child shall hold as long as it lives.

    Returns:
        The content of `summary.json`, to which the total time and the peak memory have been added.

    Raises:
        RunFailedError: The child failed, was killed, or has written no summary.
    """
    console = console or Console()
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    log = pathlib.Path(config.runs_dir) / config.name / "logs" / f"{stamp}-{os.getpid()}.log"
    start = time.monotonic()
    progress = _Progress(console)
    progress.show(Text(f"  log: {log}", "dim"))
    with log.open("wb") as log_file, ended_by_signals(_leave), progress:
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb", buffering=0) as events:
            with os.fdopen(write_fd, "wb"):
                inherited = [write_fd] if lock is None else [write_fd, lock]
                child = _start([*command, "--events-fd", str(write_fd)], inherited, config, log_file)
            try:
                for event in _events(child, events):
                    progress.handle(event)
            finally:
                _end(child)
        cause = progress.cause or _unexplained(child.returncode, log)
        if cause:
            progress.fail()
            raise RunFailedError(progress.component, cause, log)
    try:
        summary = _complete(progress.summary, time.monotonic() - start)
    except (OSError, ValueError) as error:
        raise RunFailedError(None, f"the pipeline ended without a readable summary: {error}", log) from error
    show_summary(summary, log, console)
    return summary


class _Progress(contextlib.AbstractContextManager["_Progress"]):
    """Shows the events: a line for each finished component, epoch and trial, and a spinner for the running component.

    Attributes:
        component: The running component, or None.
        cause: Why the run has failed, or None.
        summary: Where the child has written its summary, or None.
    """

    def __init__(self, console: Console) -> None:
        self.component: str | None = None
        self.cause: str | None = None
        self.summary: pathlib.Path | None = None
        self._text = "importing TFX"
        self._start = time.monotonic()
        self._console = console
        self._done, self._failed = ("+", "x") if console.options.ascii_only else ("✓", "✗")
        self._spinner = Spinner("line" if console.options.ascii_only else "dots", style="cyan")
        # FORCE_COLOR makes rich take a CI's log for a terminal; a spinner needs a real one.
        self._is_live = console.is_interactive and console.file.isatty()
        self._live = Live(console=console, get_renderable=self._status, refresh_per_second=8, transient=True)

    def __enter__(self) -> _Progress:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_live:
            self._live.stop()

    def show(self, line: Text) -> None:
        """Prints a line that stays; a line that is too long is the terminal's to wrap, so that it can be copied."""
        self._console.print(line, soft_wrap=True)

    def handle(self, event: dict[str, Any]) -> None:
        """Shows one event, and keeps what it says."""
        match event:
            case {"event": "started", "component": str(component)}:
                self.component, self._text, self._start = component, "", time.monotonic()
            case {"event": "progress", "text": str(text)}:
                self._text = " ".join(text.split())
                if self._text.startswith("trial " if self.component == "Tuner" else "epoch "):
                    self.show(Text(f"    {self._text}", "dim"))
            case {"event": "finished", "component": str(component), "seconds": int() | float() as seconds}:
                self._finish(component, seconds, is_cached=event.get("cached") is True)
            case {"event": "skipped", "component": str(component), "cause": str(cause)}:
                self.fail()
                self.show(Text(f"    the run goes on without it: {' '.join(cause.split())}", "yellow"))
                self.component, self._text, self._start = None, "", time.monotonic()
            case {"event": "failed", "component": component, "cause": str(cause)}:
                self.component, self.cause = component, cause
            case {"event": "summary", "path": str(path)}:
                self.summary = pathlib.Path(path)

    def fail(self) -> None:
        """Shows that the running component has failed."""
        if self.component:
            seconds = time.monotonic() - self._start
            self.show(Text(f"{self._failed} {self.component:<{_NAME_WIDTH}} {seconds:8.1f} s", "red"))

    def _finish(self, component: str, seconds: float, *, is_cached: bool) -> None:
        self.component, self._text, self._start = None, "", time.monotonic()
        if is_cached:
            self.show(Text(f"{self._done} {component:<{_NAME_WIDTH}}   cached", "dim"))
        else:
            self.show(Text.assemble((self._done, "green"), f" {component:<{_NAME_WIDTH}} {seconds:8.1f} s"))

    def _status(self) -> Text:
        frame = self._spinner.render(self._console.get_time())
        seconds = time.monotonic() - self._start
        status = Text.assemble(
            frame if isinstance(frame, Text) else "",
            f" {self.component or 'starting':<{_NAME_WIDTH}} {seconds:8.1f} s  ",
            (self._text, "dim"),
        )
        status.no_wrap, status.overflow = True, "ellipsis"
        return status


def _start(
    command: Sequence[str], inherited: Sequence[int], config: PipelineConfig, log_file: IO[bytes]
) -> subprocess.Popen[bytes]:
    # A file, not a pipe: a child that dies before it reads its input breaks no pipe.
    with tempfile.TemporaryFile() as stdin:
        stdin.write(config_to_json(config).encode())
        stdin.seek(0)
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
            start_new_session=True,
            # Unbuffered: a killed child's last lines are in the log.
            env=training_environment() | dict(os.environ) | {"PYTHONUNBUFFERED": "1"},
        )


def _events(child: subprocess.Popen[bytes], events: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yields the child's events until it has ended, even if a process that it has started holds the pipe open."""
    pending = b""
    while True:
        has_ended = child.poll() is not None  # asked before reading, so that nothing that it wrote is missed
        if select.select([events], [], [], 0 if has_ended else 0.2)[0]:
            chunk = events.read(65536)
            if not chunk:
                child.wait()
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):  # lost at worst is a line on the screen, not the run
                    yield json.loads(line)
        elif has_ended:
            return


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the child, if it has not ended, and what is left of the processes that it has started."""
    try:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also at a second Ctrl-C
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """Exits in an orderly way, like Ctrl-C."""
    raise SystemExit(128 + number)


def _unexplained(status: int, log: pathlib.Path) -> str | None:
    """Returns the cause of an end that no event explains; None where the child ended well."""
    if status == 0:
        return None
    if status == -signal.SIGKILL:
        return "killed (out of memory?)"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    lines = log.read_bytes()[-4096:].decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "nothing in the log")
    return f"exit status {status}: {last[:300]}"


def show_summary(summary: dict[str, Any], log: pathlib.Path, console: Console) -> None:
    """Prints what a run came to, one line for each figure.

    Args:
        summary: The content of `summary.json`.
        log: The log file.
        console: Where to print.
    """
    examples, metrics, pushed = summary["examples"], summary["metrics"], summary["pushed_model"]
    reasons = summary["not_blessed_because"] or []
    rows: list[tuple[str, str | Text]] = [
        ("rows", f"{examples['train']:,} train, {examples['eval']:,} eval"),
        ("quarantine", _quarantine(summary)),
        *((("collisions", _collisions(summary["collisions"])),) if summary["collisions"] else ()),
        ("drift", _drift(summary["drift"])),
        *((("tuned", _tuned(summary["tuned"])),) if summary["tuned"] else ()),
        *((("training", _training(summary["training"])),) if summary["training"] else ()),
        ("AUC", _decimal(metrics.get("auc"))),
        ("log loss", _decimal(metrics.get("log_loss"))),
        ("calibration", _decimal(metrics.get("calibration"))),
        ("verdict", Text("blessed", "green") if summary["blessed"] else Text("not blessed", "yellow")),
        *(("because", Text(" ".join(reason.split()), "yellow")) for reason in reasons),
        ("serving", _serving(summary["serving_check"])),
        ("baseline", _baseline(summary)),
        ("model", _short_path(pushed) if pushed else f"not pushed: {summary['not_pushed_because']}"),
        ("report", _report(summary)),
        ("log", str(log)),
        ("time", f"{summary['total_seconds']:.1f} s, peak memory {summary['peak_rss_mb']:,} MB"),
    ]
    console.print()
    console.print(Text(summary["pipeline"], "bold"))
    for name, value in rows:
        console.print(Text.assemble((f"  {name:<12}", "dim"), value), soft_wrap=True)


def _quarantine(summary: dict[str, Any]) -> str | Text:
    """Returns how many rows were left out, why, and where they are."""
    counts = summary["quarantined"]
    if not counts:
        return "no bad rows"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    bad = sum(counts.values())
    share = bad / summary["rows"]
    return Text(f"{bad:,} bad rows ({share:.2%}): {reasons}; in {_short_path(summary['quarantine'])}", "yellow")


def _serving(checks: Sequence[dict[str, Any]]) -> Text:
    """Returns whether the model can be served, and what of it cannot."""
    failed = [f"{check['check']}: {one_line(check['text'])}" for check in checks if not check["ok"]]
    return Text("; ".join(failed), "yellow") if failed else Text(f"{len(checks)} checks passed", "green")


def _collisions(fields: dict[str, Any]) -> str:
    """Returns the fields of which most ids share their buckets, in one line."""
    many = {
        name: f"{name} {field['colliding_ids']:.1%} of ids, {field['colliding_impressions']:.1%} of impressions"
        for name, field in fields.items()
        if max(field["colliding_ids"], field["colliding_impressions"]) > _SHOWN_COLLISIONS
    }
    worst = sorted(many, key=lambda name: -fields[name]["colliding_impressions"])[:_NAMED_FIELDS]
    more = f"; {len(many) - len(worst)} more fields, see summary.json" if len(many) > len(worst) else ""
    return (
        "; ".join(many[name] for name in worst) + more
        or f"at most {_SHOWN_COLLISIONS:.0%} of any field's ids share a bucket"
    )


def _drift(movements: list[dict[str, Any]]) -> str | Text:
    """Returns what is beyond its bound, or else what has moved the most."""
    beyond = [movement for movement in movements if movement["is_beyond"]]
    if not beyond:
        bound = any(movement["bound"] is not None for movement in movements)
        most = max(movements, key=lambda movement: movement["value"], default=None)
        largest = f"; largest: {_movement(most)}" if most else ""
        return ("all within their bounds" if bound else "no bound applies") + largest
    return Text("beyond its bound: " + "; ".join(map(_movement, beyond)), "yellow")


def _movement(movement: dict[str, Any]) -> str:
    most = f", most at {movement['most_moved']}" if movement["most_moved"] else ""
    bound = f" > {movement['bound']:g}" if movement["is_beyond"] else ""
    return f"{movement['feature']} {movement['kind']} {movement['value']:.3f}{bound}{most}"


def _tuned(tuned: dict[str, Any]) -> str:
    """Returns what the tuning has come to, in one line."""
    name = {"auc": "AUC", "log_loss": "log loss"}[tuned["monitor"]]
    values = ", ".join(f"{name} {value}" for name, value in tuned["values"].items())
    figures = f"validation {name} {tuned['config']:.4f} -> {tuned['best']:.4f}"
    return f"{figures} in {tuned['trials']} trials: {values}"


def _training(training: dict[str, Any]) -> str:
    """Returns which epoch was kept, whether more might have been better, and whether it began warm or cold."""
    best, epochs, start = training["best_epoch"], training["epochs"], (training["start"] or "")
    is_cut_off = best == epochs > 1 and not start.startswith("warm")
    hint = ", the last one: with more, see training.max_epochs and max_steps, it may be better" if is_cut_off else ""
    return f"epoch {best} of {epochs} was kept{hint}" + (f"; {start.replace(f'{os.getcwd()}/', '')}" if start else "")


def _report(summary: dict[str, Any]) -> str | Text:
    """Returns where the page of the evaluation is, or why there is none."""
    if summary["report"]:
        return _short_path(summary["report"])
    return Text(f"none: {' '.join((summary['no_report_because'] or 'it was not made').split())}", "yellow")


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _baseline(summary: Mapping[str, Any]) -> str:
    if summary["not_compared_with"]:
        return f"none: evaluation.baseline is false; in service is {_short_path(summary['not_compared_with'])}"
    return _short_path(summary["baseline"]) if summary["baseline"] else "none: no model was pushed before"


def _short_path(path: str) -> str:
    """Returns the path from the current directory if it is below it."""
    here = f"{os.getcwd()}/"
    return path.removeprefix("file://").removeprefix(here)


def _complete(path: pathlib.Path | None, total_seconds: float) -> dict[str, Any]:
    """Adds to the child's summary what the parent knows better, and returns it."""
    if path is None:
        raise ValueError("none was written")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    summary["total_seconds"] = round(total_seconds, 1)
    # Linux counts in KiB: the largest resident set of any one process, not their sum.
    summary["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return summary
