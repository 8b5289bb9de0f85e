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
    python = FOLDER / environment / "bin" / "python" if environment else pathlib.Path(sys.executable)
    variables = os.environ | training_environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    if environment == "deepctr":  # it is written for Keras 2
        variables |= {"TF_USE_LEGACY_KERAS": "1"}
    if not python.exists():
        raise ChildError(f"there is no {python}: run benchmarks/setup.sh")
    command = [str(python), "-m", module, *arguments]
    process = subprocess.run(command, env=variables, check=False, capture_output=True, text=True)
    if process.returncode:
        raise ChildError((process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1])
    return process.stdout
