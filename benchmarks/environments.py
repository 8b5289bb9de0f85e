"""The peers' environments, which `benchmarks/setup.sh` makes."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from pipeline.environment import training_environment

FOLDER = pathlib.Path(".cache/bench")
OURS = ""  # this project's own


class ChildError(RuntimeError):
    """A child process has failed; the message is the last line of what it said."""


def run_module(environment: str, module: str, *arguments: str, **variables: str) -> str:
    """Runs a module in an environment and returns its standard output.

    It has the environment variables that the pipeline's training has, the peers too.

    Args:
        environment: `deepctr`, `torch` or `OURS`.
        module: Its dotted name.
        arguments: Its command line.
        variables: Environment variables that it has besides.

    Raises:
        ChildError: The environment has not been made, or the module failed.
    """
    command, variables = _command(environment, module, *arguments, **variables)
    process = subprocess.run(command, env=variables, check=False, capture_output=True, text=True)
    if process.returncode:
        raise ChildError((process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1])
    return process.stdout


def start_module(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a module in this project's environment, with pipes to it and from it; otherwise as `run_module`."""
    command, variables = _command(OURS, module, *arguments)
    return subprocess.Popen(
        command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _command(environment: str, module: str, *arguments: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """Returns the command of a module, and its environment variables."""
    python = FOLDER / environment / "bin" / "python" if environment else pathlib.Path(sys.executable)
    variables = os.environ | training_environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    if environment == "deepctr":  # it is written for Keras 2
        variables |= {"TF_USE_LEGACY_KERAS": "1"}
    if not python.exists():
        raise ChildError(f"there is no {python}: run benchmarks/setup.sh")
    return [str(python), "-m", module, *arguments], variables
