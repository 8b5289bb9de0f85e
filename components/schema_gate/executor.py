"""Passes the schema on if the examples have no anomalies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from absl import logging
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator.executor import DEFAULT_FILE_NAME
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

_NUM_IN_FIRST_LINE = 3


class SchemaAnomalies(ValueError):  # noqa: N818 - what they are is what went wrong
    """The examples do not fit the schema.

    The message's first line is one sentence with the number of anomalies and the first of them; all of them follow, a
    line each.
    """


class Executor(BaseExecutor):
    """Reads what ExampleValidator found in each split."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the schema.

        Args:
            input_dict: `anomalies`, one ExampleAnomalies artifact, and `candidate`, one Schema artifact.
            output_dict: `schema`, one Schema artifact.
            exec_properties: Not read.

        Raises:
            SchemaAnomalies: There is an anomaly in any split.
            ValueError: No split was validated.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        check(read_anomalies(artifact_utils.get_single_instance(input_dict["anomalies"])))
        source = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["candidate"]))
        folder = artifact_utils.get_single_uri(output_dict["schema"])
        io_utils.copy_file(source, os.path.join(folder, os.path.basename(source)))
        logging.info("no anomalies: passed %s on", source)


def read_anomalies(artifact: Artifact) -> dict[str, anomalies_pb2.Anomalies]:
    """Returns the anomalies of each split of an ExampleAnomalies artifact.

    Raises:
        ValueError: It has no splits.
    """
    splits = artifact_utils.decode_split_names(artifact.split_names) if artifact.split_names else []
    if not splits:
        raise ValueError(f"the anomalies at {artifact.uri} are of no split: let ExampleValidator validate at least one")
    anomalies = {}
    for split in splits:
        file = os.path.join(artifact_utils.get_split_uri([artifact], split), DEFAULT_FILE_NAME)
        with fileio.open(file, "rb") as content:
            anomalies[split] = anomalies_pb2.Anomalies.FromString(content.read())
    return anomalies


def check(anomalies: dict[str, anomalies_pb2.Anomalies]) -> None:
    """Raises an error if there is any anomaly, be it only a warning.

    Args:
        anomalies: The anomalies of each split.

    Raises:
        SchemaAnomalies: There is one.
    """
    lines = sorted(f"{split}: {line}" for split, found in anomalies.items() for line in describe(found))
    if not lines:
        return
    first = "; ".join(lines[:_NUM_IN_FIRST_LINE])
    more = f"; and {len(lines) - _NUM_IN_FIRST_LINE} more" if len(lines) > _NUM_IN_FIRST_LINE else ""
    noun = "anomaly" if len(lines) == 1 else "anomalies"
    raise SchemaAnomalies("\n".join([f"the examples have {len(lines)} {noun}: {first}{more}", *lines]))


def describe(anomalies: anomalies_pb2.Anomalies) -> Iterator[str]:
    """Yields one line for each anomaly of a split: what is affected, what is wrong."""
    if anomalies.data_missing:
        yield "the split: no examples"
    if anomalies.HasField("dataset_anomaly_info"):
        yield from _describe_reasons("the split", anomalies.dataset_anomaly_info)
    for name, anomaly in anomalies.anomaly_info.items():
        yield from _describe_reasons(".".join(anomaly.path.step) or name, anomaly)
    # Measurements are listed for every feature that has a threshold, most of them below it.
    for entry in anomalies.drift_skew_info:
        for kind, measurements in (("drift", entry.drift_measurements), ("skew", entry.skew_measurements)):
            for measurement in measurements:
                if measurement.value > measurement.threshold:
                    name = ".".join(entry.path.step)
                    yield f"{name}: {kind}: {measurement.value:.4g} is above {measurement.threshold:.4g}"


def _describe_reasons(name: str, anomaly: anomalies_pb2.AnomalyInfo) -> Iterator[str]:
    for reason in anomaly.reason or [anomaly]:  # without reasons, the anomaly has the same two texts itself
        texts = [" ".join(text.split()) for text in (reason.short_description, reason.description) if text]
        yield ": ".join([name, *(texts or ["unknown anomaly"])])
