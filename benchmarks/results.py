"""`benchmarks/results/NAME.json`: what a benchmark measured, where and when, and which of its goals it met."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

FOLDER = pathlib.Path("benchmarks/results")
_PACKAGES = ("tfx", "tensorflow", "keras", "apache-beam")


@dataclasses.dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        name: What is to be reached.
        goal: The bound, a number or in words.
        measured: What was, a number or several by their names; None where it was not measured.
        met: Whether that is enough.
    """

    name: str
    goal: Any
    measured: Any
    met: bool


def at_least(name: str, goal: float, measured: float) -> Goal:
    """Returns a goal that is met from `goal` upwards."""
    return Goal(name, goal, None if measured != measured else measured, measured >= goal)


def at_most(name: str, goal: float, measured: float) -> Goal:
    """Returns a goal that is met up to `goal`."""
    return Goal(name, goal, None if measured != measured else measured, measured <= goal)


def read_figures(name: str) -> dict[str, Any]:
    """Returns the figures of the last run of a benchmark, empty where there is none."""
    file = FOLDER / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["figures"]) if file.is_file() else {}


def report(name: str, figures: Any, goals: list[Goal]) -> None:
    """Prints which of a benchmark's goals are met, writes its results, and prints the file."""
    for goal in goals:
        print(f"{'met   ' if goal.met else 'missed'} {goal.name}: {goal.measured}, goal {goal.goal}")
    print(_write(name, figures, goals))


def _write(name: str, figures: Any, goals: list[Goal]) -> pathlib.Path:
    content = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "hardware": _hardware(),
        "stack": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
        "figures": figures,
        "goals": [dataclasses.asdict(goal) for goal in goals],
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return file


def _hardware() -> dict[str, Any]:
    models = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
