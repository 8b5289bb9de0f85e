"""The child process of `ctr run`, up to the first node that the cache does not know.

    python -m pipeline.repeat --events-fd N

TensorFlow, Beam and the components' executors take many seconds to import, and a node that is cached needs none of
them: its inputs are resolved and the cache is asked by TFX's launcher, which works without them (TFX ships as
ml-pipelines-sdk, too). So where settings and code are those of the last run, this process launches its compiled
pipeline. At the first node that has something to do, `pipeline.local` takes this process over, and goes on with the
run. See ADR 31.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from typing import NoReturn

from pipeline.child import Child, start_child


def main() -> int:
    """The process; its exit status is 0 where the pipeline ran to its end."""
    child = start_child()
    do_without_executors()
    from pipeline.last_run import read_last_run, repeat
    from pipeline.runner import ReportingRunner

    last_run = read_last_run(child.config)
    if last_run is None:
        go_on(child)
    runner = ReportingRunner(child.emit)
    if not repeat(last_run, runner, child.config, child.emit):
        if runner.running:
            child.emit({"event": "progress", "component": runner.running, "text": "importing TFX"})
        go_on(child, "--run-id", runner.run_id, "--told", str(len(runner.results)))
    return 0


def do_without_executors() -> None:
    """Makes this process one in which TensorFlow and Beam are not installed, for TFX.

    TFX then leaves out what needs them. One of its resolvers reads a constant from a package in `tfx.components`, which
    imports all components: that is left out, too.
    """
    for name in ("tensorflow", "apache_beam"):
        sys.modules[name] = None  # type: ignore[assignment]
    found = importlib.util.find_spec("tfx.components")
    if found and found.submodule_search_locations:
        package = types.ModuleType(found.name)
        package.__path__ = found.submodule_search_locations
        sys.modules[found.name] = package


def go_on(child: Child, *arguments: str) -> NoReturn:
    """Becomes the process that can run everything."""
    os.lseek(sys.stdin.fileno(), 0, os.SEEK_SET)
    command = [sys.executable, "-m", "pipeline.local", "--events-fd", str(child.events_fd), *arguments]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main())
