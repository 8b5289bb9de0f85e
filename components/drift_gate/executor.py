"""Measures the movements, writes them down, and stops the run where one may not be."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import pydantic
import tensorflow_data_validation as tfdv
from absl import logging
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from components.drift_gate.bounds import DriftBounds
from components.drift_gate.measure import Movement, Statistics, measure

FILE = "drift.json"
_BOUNDS = pydantic.TypeAdapter(dict[str, DriftBounds])


class DriftError(ValueError):
    """A feature whose action is `block` has moved beyond its bound; the message names each, the worst first."""


class Executor(BaseExecutor):
    """Compares the statistics of this run's splits with each other and with the previous run's."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `drift.json`.

        Args:
            input_dict: `statistics`, this run's, and `earlier_statistics`, the previous run's, which may be empty.
            output_dict: `drift`, one DriftReport artifact.
            exec_properties: `bounds`, JSON: the bounds of each feature, see `DriftBounds`.

        Raises:
            DriftError: A feature that blocks is beyond its bound.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        earlier = input_dict.get("earlier_statistics") or []
        movements = measure(
            _load(statistics, "train"),
            _load(statistics, "eval"),
            _load(earlier[0], "train") if earlier else None,
            _BOUNDS.validate_json(exec_properties["bounds"]),
        )
        logging.info("compared with the previous run's: %s", earlier[0].uri if earlier else "there is none")
        check(movements)
        folder = artifact_utils.get_single_uri(output_dict["drift"])
        content = [dataclasses.asdict(movement) | {"is_beyond": movement.is_beyond} for movement in movements]
        io_utils.write_string_file(os.path.join(folder, FILE), json.dumps(content, indent=2) + "\n")


def check(movements: Sequence[Movement]) -> None:
    """Logs what is beyond its bound.

    Args:
        movements: All distances.

    Raises:
        DriftError: One that blocks is.
    """
    beyond = sorted((movement for movement in movements if movement.is_beyond), key=lambda found: -found.value)
    for movement in beyond:
        logging.warning("%s", movement.sentence())
    blocking = [movement.sentence() for movement in beyond if movement.action == "block"]
    if blocking:
        raise DriftError("; ".join(blocking))


def read_drift(uri: str) -> list[Movement]:
    """Returns what a DriftReport artifact holds.

    Args:
        uri: Its folder.
    """
    with fileio.open(os.path.join(uri, FILE), "r") as file:
        return [
            Movement(**{name: value for name, value in entry.items() if name != "is_beyond"})
            for entry in json.loads(file.read())
        ]


def _load(artifact: Artifact, split: str) -> Statistics:
    folder = artifact_utils.get_split_uri([artifact], split)
    return tfdv.load_stats_binary(os.path.join(folder, "FeatureStats.pb"))
