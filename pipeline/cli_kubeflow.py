"""`ctr kubeflow`: the pipeline on Kubeflow Pipelines."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import types
from collections.abc import Sequence

import click

from pipeline.cli_common import config_option, one_line, set_option, silence_tensorflow

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


def add_commands(main: click.Group) -> None:
    """Adds `ctr kubeflow`."""

    @main.group()
    def kubeflow() -> None:
        """Run the pipeline on Kubeflow Pipelines. Needs the extra: pip install tfx-deepfm[kubeflow]."""

    @kubeflow.command("compile", epilog="Example: ctr kubeflow compile --image registry/ctr:1 --out pipeline.yaml")
    @config_option
    @set_option
    @click.option("--image", required=True, metavar="IMAGE", help="The image of all containers.")
    @click.option(
        "--out",
        type=click.Path(path_type=pathlib.Path, dir_okay=False),
        default=pathlib.Path("pipeline.yaml"),
        show_default=True,
        metavar="FILE",
        help="Where to write the package.",
    )
    @click.option(
        "--target",
        type=click.Choice(["kubeflow", "vertex"]),
        default="kubeflow",
        show_default=True,
        help="What the package is to run on. For Vertex AI it is only compiled, and was never run.",
    )
    def compile_(
        config: pathlib.Path | None, overrides: tuple[str, ...], image: str, out: pathlib.Path, target: str
    ) -> None:
        """Compile the pipeline to a package that Kubeflow Pipelines 2 runs."""
        from pipeline.config import ConfigError, load_config
        from pipeline.preflight import PreflightError, check_spec

        silence_tensorflow()
        with one_line(ConfigError, PreflightError):
            settings = load_config(config, overrides)
            check_spec(settings)
            if target == "vertex":
                settings = load("vertex").for_vertex(settings)
            load("compile").compile_package(settings, image, out)
        click.echo(f"written: {out}, {out.stat().st_size / 1000:,.0f} kB")

    package = click.argument("package", type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False))
    experiment = click.option("--experiment", default="ctr", show_default=True, help="The runs' experiment in KFP.")
    parameter = click.option(
        "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A pipeline parameter, such as max_epochs=2."
    )
    as_of = click.option("--as-of", metavar="DAY", help="Use the log up to this day; the parameter as_of.")

    @kubeflow.command(epilog="Example: KFP_HOST=https://kfp.example.com ctr kubeflow submit pipeline.yaml --wait")
    @package
    @experiment
    @parameter
    @as_of
    @click.option("--wait/--no-wait", help="Wait for the run's end, and show its tasks.")
    @click.option("--timeout", default=86_400, show_default=True, metavar="SECONDS", help="How long to wait at most.")
    def submit(
        package: pathlib.Path,
        experiment: str,
        parameters: tuple[str, ...],
        as_of: str | None,
        wait: bool,
        timeout: float,
    ) -> None:
        """Upload a package to a Kubeflow Pipelines server, and start a run.

        The server is KFP_HOST; KFP_TOKEN, KFP_NAMESPACE, KFP_CA_FILE and KFP_SERVICE_ACCOUNT where it needs them. A
        package that is there already is not uploaded again. With --wait the exit status is 1 where the run has not
        succeeded.
        """
        client = load("client")
        with one_line(client.KubeflowError):
            server = client.Server()
            run_id = server.submit(package, experiment, _parameters(parameters, as_of))
            click.echo(f"run {run_id}: {server.link(run_id)}")
            if wait:
                server.wait(run_id, timeout, lambda task, state: click.echo(f"  {task:<26} {state.lower()}"))
                click.echo("succeeded")

    @kubeflow.command(epilog="Example: ctr kubeflow schedule pipeline.yaml --cron '0 30 3 * * *'")
    @package
    @experiment
    @parameter
    @click.option("--cron", required=True, metavar="CRON", help="When: six fields, seconds first, in UTC.")
    def schedule(package: pathlib.Path, experiment: str, parameters: tuple[str, ...], cron: str) -> None:
        """Upload a package, and start a run of it again and again.

        Never two at a time, and none for times that were missed. It takes the place of the pipeline's other recurring
        runs in the experiment, which are disabled. See `ctr kubeflow submit` for the server.
        """
        client = load("client")
        with one_line(client.KubeflowError):
            recurring, earlier = client.Server().schedule(package, experiment, cron, _parameters(parameters, None))
        click.echo(f"recurring run {recurring}: {cron}")
        if earlier:
            click.echo(f"disabled, as it takes their place: {', '.join(earlier)}")


def _parameters(words: Sequence[str], as_of: str | None) -> dict[str, str]:
    """Returns pipeline parameters as they were written."""
    parameters = {} if as_of is None else {"as_of": as_of}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.BadParameter(f"{word}: write NAME=VALUE")
        parameters[name] = value
    if parameters.get("as_of"):
        from components.impression_log_example_gen.log import LogError, parse_day

        try:
            parse_day(parameters["as_of"], "as_of")
        except LogError:
            raise click.BadParameter(f"as_of: there is no day {parameters['as_of']}; write YYYY-MM-DD") from None
    return parameters
