"""`ctr explain`: what a model relies on."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING

import click

from pipeline.cli_common import config_option, one_line, silence_tensorflow

if TYPE_CHECKING:
    from components.evaluation_report.importance import Importance, Lost


def add_commands(main: click.Group) -> None:
    """Adds `explain` to the command line."""

    @main.command(epilog="Example: ctr explain --repeats 10")
    @config_option
    @click.option(
        "--model",
        type=click.Path(path_type=pathlib.Path),
        metavar="DIR",
        help="A SavedModel's folder; by default the model pushed last or, where there is none, trained last.",
    )
    @click.option(
        "--repeats", type=click.IntRange(1, 50), default=5, show_default=True, help="How often each field is shuffled."
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the same figures as JSON.")
    def explain(config: pathlib.Path | None, model: pathlib.Path | None, repeats: int, as_json: bool) -> None:
        """Show how much a model relies on each field.

        A field's values are shuffled among impressions of the newest evaluation's days (20,000 at most, evenly over
        them; fewer where fields times repeats are more than 50): how much AUC the model loses by that, and how much its
        log loss rises. Near zero: it hardly uses the field.
        """
        silence_tensorflow()
        from pipeline.config import ConfigError, load_config
        from pipeline.explain import explain_newest
        from pipeline.history import ReportError

        with one_line(ConfigError, ReportError, OSError, ValueError):
            found, folder, days = explain_newest(load_config(config), model, repeats)
        if as_json:
            import dataclasses

            click.echo(json.dumps({"model": folder, "eval_days": days} | dataclasses.asdict(found), indent=2))
        else:
            _print(found, folder, days)


def _print(found: Importance, folder: str, days: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    console = Console()
    console.print(Text(folder, "bold"), soft_wrap=True)
    console.print(
        f"AUC {found.auc:.4f}, log loss {found.log_loss:.4f} on {found.num_examples:,} impressions of {span}; each "
        + (
            f"field shuffled {found.num_repeats} times, \N{PLUS-MINUS SIGN} their standard deviation"
            if found.num_repeats > 1
            else "field shuffled once"
        ),
        soft_wrap=True,
        highlight=False,
    )
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("field")
    table.add_column("AUC lost", justify="right")
    table.add_column("log loss added", justify="right")
    for field in found.fields:
        table.add_row(Text(field.field), *(_show(lost, found.num_repeats > 1) for lost in (field.auc, field.log_loss)))
    console.print(table)


def _show(lost: Lost, has_spread: bool) -> str:
    return f"{lost.value:+.4f}" + (f" \N{PLUS-MINUS SIGN} {lost.spread:.4f}" if has_spread else "")
