"""What the commands of `ctr` have in common."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator

import click

config_option = click.option(
    "--config",
    type=click.Path(path_type=pathlib.Path),
    metavar="FILE",
    help="Config file, or the name of a packaged one: movielens (the default), criteo.",
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Use this value, not the config's."
)


@contextlib.contextmanager
def one_line(*errors: type[Exception]) -> Iterator[None]:
    """Turns errors whose message is meant for the user into that message and exit status 1."""
    try:
        yield
    except errors as error:
        print_error(str(error))
        sys.exit(1)


def print_error(message: str) -> None:
    """Writes what went wrong to standard error."""
    lines = message.replace("\n", "\n     ")
    click.secho(f"ctr: {lines}", fg="red", err=True)


def import_from_here() -> None:
    """Puts the current folder on the import path, where the user's own spec module is, as `python -m` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def silence_tensorflow() -> None:
    """Call it before TensorFlow is imported.

    It says which GPU libraries are not there, and Google's packages that Python 3.10 is old. What goes wrong is raised,
    not only logged.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
