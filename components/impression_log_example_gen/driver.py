"""Which days a run uses is known only when it starts: the driver finds out, before TFX asks its cache."""

from __future__ import annotations

import json
import pathlib

from absl import logging
from tfx.dsl.components.base.base_driver import BaseDriver as LegacyBaseDriver
from tfx.orchestration.data_types_utils import set_metadata_value
from tfx.orchestration.metadata import Metadata
from tfx.orchestration.portable.base_driver import BaseDriver
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto.orchestration.driver_output_pb2 import DriverOutput

from components.impression_log_example_gen.log import choose_window, fingerprint


# TFX's compiler asks for the one base class, its launcher calls the other: its own drivers derive from both, too.
class Driver(LegacyBaseDriver, BaseDriver):
    """Adds the exec properties `days` and `input_fingerprint`, which thereby become part of the cache's key.

    A new day in the window, or a changed file of it, gives a new key; a log whose window is what it was does not.
    """

    def __init__(self, mlmd_connection: Metadata) -> None:
        LegacyBaseDriver.__init__(self, mlmd_connection)
        BaseDriver.__init__(self, mlmd_connection)

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        """Finds the newest window of the log.

        Args:
            execution_info: The execution with the component's parameters.

        Returns:
            The added exec properties: `days`, JSON of the days by split, and `input_fingerprint`.

        Raises:
            LogError: The log cannot be used.
        """
        parameters = execution_info.exec_properties
        window = choose_window(
            pathlib.Path(parameters["log_path"]), parameters["eval_days"], parameters.get("train_days")
        )
        for split, days in window.splits.items():
            logging.info("%s: %d days, %s to %s", split, len(days), days[0].day, days[-1].day)
        output = DriverOutput()
        set_metadata_value(output.exec_properties["days"], json.dumps(window.day_names))
        set_metadata_value(output.exec_properties["input_fingerprint"], fingerprint(window.files))
        return output
