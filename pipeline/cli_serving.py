"""`ctr predict` and `ctr score`: what a pushed model says, of a few impressions and of a whole log."""

from __future__ import annotations

import pathlib
import sys
from typing import IO, Any

import click

from pipeline.cli_common import config_option, one_line, set_option, silence_tensorflow

_MODEL = click.option(
    "--model",
    default="latest",
    show_default=True,
    metavar="DIR|latest",
    help="A SavedModel's folder, or the model that the config's pipeline has pushed last.",
)


def add_commands(main: click.Group) -> None:
    """Adds `predict` and `score` to the command line."""

    @main.command(epilog="Example: ctr predict --input impressions.jsonl > ctrs.jsonl")
    @_MODEL
    @click.option(
        "--input",
        "lines",
        type=click.File("rb"),
        default="-",
        metavar="FILE|-",
        help="JSON objects, one a line; by default standard input.",
    )
    @config_option
    def predict(model: str, lines: IO[bytes], config: pathlib.Path | None) -> None:
        """Score impressions with a pushed model.

        Writes a line {"ctr": 0.1234} for each line read, as soon as it is read. A line that cannot be scored gives
        {"error": ..., "line": ...} in its place, and exit status 1 at the end.
        """
        from pipeline.config import ConfigError, load_config
        from pipeline.preflight import PreflightError

        with one_line(ConfigError, PreflightError):
            directory = pathlib.Path(model) if model != "latest" else _latest(load_config(config))
        silence_tensorflow()
        from pipeline.predict import ModelError, load_model, read_batches
        from pipeline.predict import predict as predict_lines

        with one_line(ModelError):
            counts = predict_lines(load_model(directory), read_batches(lines), sys.stdout)  # type: ignore[arg-type]
        click.echo(f"{counts.scored:,} scored, {counts.failed:,} failed, with {directory}", err=True)
        if hint := counts.hint():
            click.echo(f"warning: {hint}", err=True)
        if counts.failed:
            sys.exit(1)

    @main.command(epilog="Example: ctr score --input logs/shop --out scores/2026-11-24")
    @_MODEL
    @click.option(
        "--input",
        "log",
        type=click.Path(path_type=pathlib.Path),
        required=True,
        metavar="LOG",
        help="A folder with day=YYYY-MM-DD folders or with files, or one file: whatever `ctr run` reads.",
    )
    @click.option(
        "--out",
        type=click.Path(path_type=pathlib.Path),
        required=True,
        metavar="DIR",
        help="The folder to write. It appears when all is done, and must not be there before.",
    )
    @config_option
    @set_option
    def score(model: str, log: pathlib.Path, out: pathlib.Path, config: pathlib.Path | None, overrides: Any) -> None:
        """Score a whole log with a pushed model, in Beam, to Parquet.

        A row of the Parquet files is one of the log's: its file, its row (or line) there, the config's log.key and the
        spec's timestamp where there are any, and its ctr. No label is needed. Rows that are bad are in
        DIR/_quarantine.jsonl with the reason; with more of them than log.max_bad_fraction nothing is written but
        DIR.quarantine.jsonl, and the exit status is 1. The config's `beam` says where it runs.
        """
        from components.impression_log_example_gen.log import LogError
        from pipeline.config import ConfigError, load_config
        from pipeline.preflight import PreflightError, check_beam, check_columns

        with one_line(ConfigError, PreflightError):
            settings = load_config(config, overrides)
            check_columns(settings)
            directory = pathlib.Path(model) if model != "latest" else _latest(settings)
            check_beam(settings.beam, {"--input": str(log), "--out": str(out), "the model": str(directory)})
        silence_tensorflow()
        from pipeline.lock import LockedError
        from pipeline.predict import ModelError
        from pipeline.score import ScoreError, score_log

        with one_line(LogError, LockedError, ModelError, ScoreError, OSError):
            scored = score_log(settings, log, out, directory)
        click.echo(f"{scored.rows:,} rows scored with {directory}, in {out}")
        if hint := scored.hint():
            click.echo(f"warning: {hint}", err=True)
        if scored.bad_rows:
            click.echo(
                f"{scored.bad_rows:,} bad rows: {scored.reasons}; all are in {out / '_quarantine.jsonl'}", err=True
            )


def _latest(settings: Any) -> pathlib.Path:
    from pipeline.preflight import find_latest_model

    return find_latest_model(settings)
