"""The command line, `ctr`. Each command imports what it needs, so that `ctr --help` answers at once."""

from __future__ import annotations

import datetime
import errno
import json
import pathlib
from typing import Any

import click

from pipeline import cli_explain, cli_kubeflow, cli_report, cli_serving
from pipeline.cli_common import config_option, import_from_here, one_line, print_error, set_option, silence_tensorflow


class _Group(click.Group):
    """A group whose commands end with status 130 on Ctrl-C, as a shell expects, and with a line on a full disk."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print_error("interrupted")
            ctx.exit(130)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            print_error(f"cannot write {error.filename or 'the output'}: {error.strerror}")
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tfx-deepfm", prog_name="ctr")
def main() -> None:
    """Train, evaluate and ship a DeepFM click-through-rate model."""
    import_from_here()


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
    with one_line(MovieLensError), progress as bars:

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


@data.command(epilog="Example: ctr data synthetic --config criteo --rows 1000000 && ctr run --config criteo")
@config_option
@click.option(
    "--out",
    type=click.Path(path_type=pathlib.Path),
    metavar="DIR",
    help="Where to write the log; by default where the config looks for it.",
)
@click.option("--rows", type=click.IntRange(min=1), default=100_000, show_default=True, help="Impressions in all.")
@click.option("--days", type=click.IntRange(min=1), default=7, show_default=True, help="Days, from 2026-01-01 on.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same rows.")
@click.option(
    "--bad-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the rows that get a label that is none.",
)
def synthetic(
    config: pathlib.Path | None, out: pathlib.Path | None, rows: int, days: int, seed: int, bad_rate: float
) -> None:
    """Invent a log of the config's features, of which it is known how well a model can do.

    The clicks come from a DeepFM with random weights, ids from Zipf's law; what is popular drifts, and each day has new
    ids. No model can beat the AUC and the log loss that are printed, but by chance.
    """
    from rich.console import Console
    from rich.progress import Progress

    from pipeline.config import ConfigError, load_config
    from pipeline.synthetic import SyntheticError, write_synthetic_log
    from schemas.features import load_spec

    console = Console(stderr=True)
    with (
        one_line(ConfigError, SyntheticError, ValueError),
        Progress(console=console, transient=True, disable=not console.is_terminal) as bars,
    ):
        settings = load_config(config)
        out = out or pathlib.Path(settings.log.path)
        task = bars.add_task("write rows", total=rows)
        log = write_synthetic_log(
            out,
            load_spec(settings.features),
            num_rows=rows,
            num_days=days,
            seed=seed,
            bad_rate=bad_rate,
            log=settings.log,
            progress=lambda done: bars.update(task, completed=done),
        )
    bad = f", {log.num_bad:,} bad rows" if log.num_bad else ""
    click.echo(
        f"written: {log.num_impressions:,} rows, {log.num_clicks:,} of them clicks{bad}, on {days} days from "
        f"{log.first_day} to {log.last_day}, in {out}"
    )
    click.echo(
        f"at best: AUC {log.bayes_auc:.4f}, log loss {log.bayes_log_loss:.4f}; on the last day "
        f"{log.last_day_auc:.4f}, {log.last_day_log_loss:.4f}"
    )


@main.command(epilog="Example: ctr run --config criteo --set training.batch_size=4096")
@config_option
@set_option
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

    with one_line(ConfigError, PreflightError, LockedError, RunFailedError):
        settings = load_config(config, overrides if as_of is None else (*overrides, f"log.as_of={json.dumps(as_of)}"))
        check(settings)
        with hold_lock(home(settings)) as lock:
            supervise(settings, lock=lock)


@main.command(epilog="Example: ctr backfill --from 2026-11-01 --to 2026-11-07 --set training.warm_start=true")
@config_option
@set_option
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

    if last < first:
        raise click.BadParameter(f"--from {first.date()} is after --to {last.date()}")
    with one_line(ConfigError, LogError, PreflightError, LockedError, RunFailedError):
        settings = load_config(config, overrides)
        check(settings)
        with hold_lock(home(settings)) as lock:
            runs = find_runs(settings, first.date(), last.date())
            if runs[0].log.as_of != first.date().isoformat():
                click.echo(f"first day with rows, and with days before it to train on: {runs[0].log.as_of}")
            for number, day in enumerate(runs, start=1):
                click.echo(f"day {day.log.as_of}, {number} of {len(runs)}")
                check(day)
                supervise(day, lock=lock)


@main.command(epilog="Example: ctr rollback --config shop.yaml")
@config_option
@set_option
@click.option("--to", type=int, metavar="VERSION", help="Go back to this version, not to the last other model.")
def rollback(config: pathlib.Path | None, overrides: tuple[str, ...], to: int | None) -> None:
    """Take the model in service back: the version before it becomes the newest one.

    The model taken back stays on disk, and is not pushed again: the runs that come compare with the restored one, and
    go on from it.
    """
    silence_tensorflow()
    from pipeline.config import ConfigError, load_config
    from pipeline.lock import LockedError, hold_lock
    from pipeline.preflight import PreflightError, find_latest_model, home
    from pipeline.rollback import RollbackError, roll_back

    with one_line(ConfigError, PreflightError, LockedError, RollbackError):
        settings = load_config(config, overrides)
        find_latest_model(settings)
        with hold_lock(home(settings)):
            done = roll_back(settings, to)
    click.echo(f"version {done.version} is in service: a copy of {done.restored_from}, model {done.model_uri}")
    click.echo(f"taken back: {', '.join(map(str, done.taken_back))}")


for commands in (cli_kubeflow, cli_report, cli_explain, cli_serving):
    commands.add_commands(main)

if __name__ == "__main__":
    main(prog_name="ctr")
