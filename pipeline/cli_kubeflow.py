"""`ctr kubeflow`: the pipeline on Kubeflow Pipelines."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import click

FOLDER = pathlib.Path(__file__).parent.parent / "kubeflow"
_NAME = "ctr_kubeflow"


def load(module: str) -> types.ModuleType:
    """Returns a module of the folder `kubeflow/`, which stands beside `pipeline/` in a checkout as in site-packages.

    It is imported under another name, because `kubeflow` is the Kubeflow SDK's where that is installed.

    Args:
        module: Its name, such as `compile`.

    Raises:
        ImportError: The extra `kubeflow` is not installed.
    """
    if _NAME not in sys.modules:
        spec = importlib.machinery.ModuleSpec(_NAME, None, is_package=True)
        spec.submodule_search_locations = [str(FOLDER)]
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{_NAME}.{module}")


def add_commands(main: click.Group, config_option: Callable[[Any], Any], one_line: Callable[..., Any]) -> None:
    """Adds `ctr kubeflow`.

    Args:
        main: The group `ctr`.
        config_option: The option `--config`.
        one_line: The context manager that turns errors into one line and exit status 1.
    """

    @main.group()
    def kubeflow() -> None:
        """Run the pipeline on Kubeflow Pipelines. Needs the extra: pip install tfx-deepfm[kubeflow]."""

    @kubeflow.command("compile", epilog="Example: ctr kubeflow compile --image registry/ctr:1 --out pipeline.yaml")
    @config_option
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Use this value, not the config's.")
    @click.option("--image", required=True, metavar="IMAGE", help="The image of all containers.")
    @click.option(
        "--out",
        type=click.Path(path_type=pathlib.Path, dir_okay=False),
        default=pathlib.Path("pipeline.yaml"),
        show_default=True,
        metavar="FILE",
        help="Where to write the package.",
    )
    def compile_(config: pathlib.Path | None, overrides: tuple[str, ...], image: str, out: pathlib.Path) -> None:
        """Compile the pipeline to a package that Kubeflow Pipelines 2 runs."""
        from pipeline.config import ConfigError, load_config

        with one_line(ConfigError):
            settings = load_config(config, overrides)
            load("compile").compile_package(settings, image, out)
        click.echo(f"written: {out}, {out.stat().st_size / 1000:,.0f} kB")
