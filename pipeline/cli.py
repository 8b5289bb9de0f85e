"""The command line, `ctr`. Each command imports what it needs, so that `ctr --help` answers at once."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import IO, Any

import click

from pipeline import cli_kubeflow, cli_report

_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=pathlib.Path),
    metavar="FILE",
    help="Config file, or the name of a packaged one: movielens (the default), criteo.",
)


class _Group(click.Group):
    """A group whose commands end with status 130 on Ctrl-C, as a shell expects; click's own is 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _print_error("interrupted")
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tfx-deepfm", prog_name="ctr")
def main() -> None:
    """Train, evaluate and ship a DeepFM click-through-rate model."""


@main.group()
def data() -> None:
    """Get an impression log to try the pipeline on."""


@data.command()
@click.option(
    "--out",
    type=click.Path(path_type=pathlib.Path),
    default=pathlib.Path("logs/movielens"),
    show_default=True,
    metavar="DIR",
    help="Where to write the log.",
)
@click.option(
    "--wheel",
    type=click.Path(path_type=pathlib.Path),
    metavar="FILE",
    help="The RecBole wheel that holds MovieLens-100K, if you have it; by default it is downloaded.",
)
def movielens(out: pathlib.Path, wheel: pathlib.Path | None) -> None:
    """Write MovieLens-100K as an impression log: a rating of 4 or 5 is a click."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from pipeline.movielens import MovieLensError, write_impression_log

    tasks: dict[str, TaskID] = {}
    console = Console(stderr=True)
    # In a file, even a bar that vanishes leaves an empty line.
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    with _one_line(MovieLensError), progress as bars:

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        log = write_impression_log(out, show, wheel=wheel)
    state = "written" if tasks else "already there"
    click.echo(
        f"{state}: {log.num_impressions:,} rows, {log.num_clicks:,} of them clicks, on {log.num_days} days from "
        f"{log.first_day} to {log.last_day}, in {out}"
    )


@main.command(epilog="Example: ctr run --config criteo --set training.batch_size=4096")
@_CONFIG
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Use this value, not the config's.")
@click.option("--as-of", metavar="DAY", help="Use the log up to this day, YYYY-MM-DD; by default up to the newest.")
def run(config: pathlib.Path | None, overrides: tuple[str, ...], as_of: str | None) -> None:
    """Run the whole pipeline on this machine.

    The exit status is 0 where the pipeline ran to its end, even if the model missed a threshold: then the summary says
    "not blessed", nothing is pushed, and the model served before stays. It is 1 where the run failed. The summary is
    also in RUNS_DIR/NAME/summary.json.
    """
    from pipeline.config import ConfigError, load_config
    from pipeline.lock import LockedError, hold_lock
    from pipeline.preflight import PreflightError, check, home
    from pipeline.supervise import RunFailedError, supervise

    with _one_line(ConfigError, PreflightError, LockedError, RunFailedError):
        settings = load_config(config, overrides if as_of is None else (*overrides, f"log.as_of={as_of}"))
        check(settings)
        with hold_lock(home(settings)) as lock:
            supervise(settings, lock=lock)


@main.command(epilog="Example: ctr backfill --from 2026-11-01 --to 2026-11-07 --set training.warm_start=true")
@_CONFIG
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Use this value, not the config's.")
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), required=True, metavar="DAY", help="The first day.")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), required=True, metavar="DAY", help="The last day.")
def backfill(
    config: pathlib.Path | None, overrides: tuple[str, ...], first: datetime.datetime, last: datetime.datetime
) -> None:
    """Run the pipeline for each day of the log, one after the other, as `ctr run --as-of DAY` does.

    A day without rows is left out. A model that is not blessed does not stop the days after it; a run that fails does.
    What has been run already, with nothing changed since, is taken from the cache.
    """
    from components.impression_log_example_gen.log import LogError
    from pipeline.backfill import find_runs
    from pipeline.config import ConfigError, load_config
    from pipeline.lock import LockedError, hold_lock
    from pipeline.preflight import PreflightError, check, home
    from pipeline.supervise import RunFailedError, supervise

    with _one_line(ConfigError, LogError, PreflightError, LockedError, RunFailedError):
        settings = load_config(config, overrides)
        check(settings)
        with hold_lock(home(settings)) as lock:
            runs = find_runs(settings, first.date(), last.date())
            for number, day in enumerate(runs, start=1):
                click.echo(f"day {day.log.as_of}, {number} of {len(runs)}")
                check(day)
                supervise(day, lock=lock)


@main.command(epilog="Example: ctr rollback --config shop.yaml")
@_CONFIG
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Use this value, not the config's.")
@click.option("--to", type=int, metavar="VERSION", help="Go back to this version, not to the last other model.")
def rollback(config: pathlib.Path | None, overrides: tuple[str, ...], to: int | None) -> None:
    """Take the model in service back: the version before it becomes the newest one.

    The model taken back stays on disk, and is not pushed again: the runs that come compare with the restored one, and
    go on from it.
    """
    _silence_tensorflow()
    from pipeline.config import ConfigError, load_config
    from pipeline.lock import LockedError, hold_lock
    from pipeline.preflight import PreflightError, find_latest_model, home
    from pipeline.rollback import RollbackError, roll_back

    with _one_line(ConfigError, PreflightError, LockedError, RollbackError):
        settings = load_config(config, overrides)
        find_latest_model(settings)
        with hold_lock(home(settings)):
            done = roll_back(settings, to)
    click.echo(f"version {done.version} is in service: a copy of {done.restored_from}, model {done.model_uri}")
    click.echo(f"taken back: {', '.join(map(str, done.taken_back))}")


@main.command(epilog="Example: ctr predict --input impressions.jsonl > ctrs.jsonl")
@click.option(
    "--model",
    default="latest",
    show_default=True,
    metavar="DIR|latest",
    help="A SavedModel's folder, or the model that the config's pipeline has pushed last.",
)
@click.option(
    "--input",
    "lines",
    type=click.File("rb"),
    default="-",
    metavar="FILE|-",
    help="JSON objects, one a line; by default standard input.",
)
@_CONFIG
def predict(model: str, lines: IO[bytes], config: pathlib.Path | None) -> None:
    """Score impressions with a pushed model.

    Writes a line {"ctr": 0.1234} for each line read. A line that cannot be scored gives {"error": ..., "line": ...} in
    its place, and exit status 1 at the end.
    """
    from pipeline.config import ConfigError, load_config
    from pipeline.preflight import PreflightError, find_latest_model

    with _one_line(ConfigError, PreflightError):
        directory = find_latest_model(load_config(config)) if model == "latest" else pathlib.Path(model)
    _silence_tensorflow()
    from pipeline.predict import ModelError, load_model
    from pipeline.predict import predict as predict_lines

    with _one_line(ModelError):
        counts = predict_lines(load_model(directory), lines, sys.stdout)
    click.echo(f"{counts.scored:,} scored, {counts.failed:,} failed, with {directory}", err=True)
    if counts.failed:
        sys.exit(1)


def _silence_tensorflow() -> None:
    """Call it before TensorFlow is imported.

    It says which GPU libraries are not there, and Google's packages that Python 3.10 is old. What goes wrong is raised,
    not only logged.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")


@contextlib.contextmanager
def _one_line(*errors: type[Exception]) -> Iterator[None]:
    """Turns errors whose message is meant for the user into that message and exit status 1."""
    try:
        yield
    except errors as error:
        _print_error(str(error))
        sys.exit(1)


def _print_error(message: str) -> None:
    lines = message.replace("\n", "\n     ")
    click.secho(f"ctr: {lines}", fg="red", err=True)


cli_kubeflow.add_commands(main, _CONFIG, _one_line, _silence_tensorflow)
cli_report.add_commands(main, _CONFIG, _one_line)

if __name__ == "__main__":
    main(prog_name="ctr")
