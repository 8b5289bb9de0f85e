"""`ctr report`: the report on the newest evaluation, and the history of all."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_common import config_option, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.history import Evaluated


def add_commands(main: click.Group) -> None:
    """Adds `report` to the command line."""

    @main.command(epilog="Example: ctr report --out report.html")
    @config_option
    @click.option("--out", type=click.Path(path_type=pathlib.Path), metavar="FILE", help="Write the page here.")
    @click.option("--json", "as_json", is_flag=True, help="Print the same figures as JSON.")
    @click.option("--history", is_flag=True, help="All evaluations over time, not the newest one.")
    def report(config: pathlib.Path | None, out: pathlib.Path | None, as_json: bool, history: bool) -> None:
        """Show what the newest evaluation found: its verdict, its metrics, and where its page is.

        The page is one HTML file that needs no network. With --history it is made anew, in RUNS_DIR/NAME/history.html
        where --out does not name another file; its links lead to the page of each run.
        """
        from pipeline.config import ConfigError, load_config
        from pipeline.history import ReportError, read_history

        with one_line(ConfigError, ReportError, OSError):
            settings = load_config(config)
            runs = read_history(settings)
            if history:
                if not as_json:
                    out = out or pathlib.Path(settings.runs_dir, settings.name, "history.html")
                _show_history(settings.name, runs, out, as_json)
            else:
                _show_newest(runs, out, as_json)


def _show_history(pipeline: str, runs: list[Evaluated], out: pathlib.Path | None, as_json: bool) -> None:
    import dataclasses

    from components.evaluation_report.page import render_history
    from pipeline.history import read_metrics

    rows = []
    for run in runs:
        metrics, failures = read_metrics(run)
        rows.append(dataclasses.asdict(run) | {"metrics": metrics, "failures": failures})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    if not out:
        return
    folder = out.resolve().parent
    for row, run in zip(rows, runs, strict=True):
        row["report"] = os.path.relpath(run.page.resolve(), folder) if run.page else None
    _write(out, render_history(pipeline, rows))
    if not as_json:
        pushed = sum(run.state == "pushed" for run in runs)
        click.echo(f"{len(runs)} evaluations, {pushed} of them pushed: {out}")


def _show_newest(runs: list[Evaluated], out: pathlib.Path | None, as_json: bool) -> None:
    from rich.console import Console

    from pipeline.history import ReportError, read_figures

    newest = next((run for run in reversed(runs) if run.report), None)
    if newest is None or newest.page is None or newest.report is None:
        raise ReportError("no evaluation has a report yet; `ctr run` makes one")
    if newest is not runs[-1]:
        click.echo(f"ctr: the evaluation of {runs[-1].made_at} has none; this is that of {newest.made_at}", err=True)
    figures = read_figures(newest.report)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
    if out:
        _write(out, newest.page.read_text(encoding="utf-8"))
    if not as_json:
        _print(figures, out or newest.page, Console())


def _print(figures: Mapping[str, Any], page: pathlib.Path, console: Console) -> None:
    """Prints the verdict and the metrics of all impressions."""
    from rich.table import Table
    from rich.text import Text

    from components.evaluation_report.metrics import find_metric

    console.print(Text(f"{figures['pipeline']}, {figures['made_at']}", "bold"))
    console.print(Text("blessed", "green") if figures["blessed"] else Text("not blessed", "yellow"))
    for gate in figures["gates"]:
        if not gate["passed"]:
            console.print(Text(f"  {' '.join(gate['sentence'].split())}", "yellow"), soft_wrap=True)
    overall = figures["slices"][0]
    columns = ["candidate", *(["baseline", "difference"] if figures["baseline"] else [])]
    table = Table("", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for name in overall["candidate"]:
        table.add_row(find_metric(name).label, *(_show((overall[column] or {}).get(name)) for column in columns))
    console.print(table)
    console.print(Text("± half of the 95% interval", "dim"))
    console.print(Text(os.path.relpath(page)), soft_wrap=True)


def _show(figure: Mapping[str, Any] | None) -> str:
    if not figure or figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.4f}"
    # TFMA's intervals are as wide to both sides, but none goes beyond what the figure can be.
    return f"{figure['value']:.4f} ±{max(figure['high'] - figure['value'], figure['value'] - figure['low']):.4f}"


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    from pipeline.history import ReportError

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
