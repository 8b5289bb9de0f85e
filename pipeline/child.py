"""What the child processes of `ctr run` have in common.

The configuration comes as JSON on standard input; what happens goes as JSON lines to the file descriptor that
`--events-fd` names, the log to standard error.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import logging
import os
import signal
import sys
from typing import Any

import absl.logging

from pipeline.config import PipelineConfig, config_from_json


@dataclasses.dataclass(frozen=True)
class Child:
    """What a child process is told.

    Attributes:
        config: The pipeline's settings.
        events_fd: File descriptor for the events.
        run_id: The id of a run that is to go on, or None.
        num_told: How many of its nodes have been told of already.
    """

    config: PipelineConfig
    events_fd: int
    run_id: str | None
    num_told: int

    def emit(self, event: dict[str, Any]) -> None:
        """Tells the parent of an event."""
        os.write(self.events_fd, (json.dumps(event) + "\n").encode())


def start_child() -> Child:
    """Reads what this process is told, sets its log up, and has it end with its parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events-fd", type=int, required=True, help="file descriptor for the events")
    parser.add_argument("--run-id", help="the id of a run that is to go on")
    parser.add_argument("--told", type=int, default=0, help="how many of its nodes have been told of")
    options = parser.parse_args()
    _die_with_the_parent()
    absl.logging.set_verbosity(absl.logging.INFO)
    logging.getLogger().setLevel(logging.INFO)
    return Child(config_from_json(sys.stdin.read()), options.events_fd, options.run_id, options.told)


def _die_with_the_parent() -> None:
    """Has the kernel kill this process when its parent ends: nobody would see what a run without one comes to."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
