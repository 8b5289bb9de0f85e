"""Which days a run uses is known only when it starts: the driver finds out, before TFX asks its cache."""

from __future__ import annotations

import json
import pathlib

from absl import logging
from tfx.orchestration.data_types_utils import set_metadata_value
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto.orchestration.driver_output_pb2 import DriverOutput

from components.driver import KeyDriver
from components.impression_log_example_gen.columns import find_timestamp
from components.impression_log_example_gen.log import find_gaps, parse_day
from components.impression_log_example_gen.window import choose_window, fingerprint
from schemas.features import load_spec


class Driver(KeyDriver):
    """Adds the exec properties `window` and `input_fingerprint`, which thereby become part of the cache's key.

    A new day in the window, a late file for one, or a changed file gives a new key; a log whose window is what it was
    does not.
    """

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        """Finds the window of the log.

        Args:
            execution_info: The execution with the component's parameters.

        Returns:
            The added exec properties: `window`, JSON of the days and files by split, and `input_fingerprint`; and empty
            ones in the place of those that the window follows from.

        Raises:
            LogError: The log cannot be used.
        """
        parameters = execution_info.exec_properties
        path = pathlib.Path(parameters["log_path"])
        as_of = parameters.get("as_of")
        window = choose_window(
            path,
            parameters["eval_days"],
            parameters.get("train_days"),
            parse_day(as_of, "as_of") if as_of else None,
            find_timestamp(
                load_spec(parameters["features"]), json.loads(parameters["columns"]), parameters["timestamp_unit"]
            ),
        )
        for name, split in window.splits.items():
            logging.info("%s: %d days, %s to %s", name, len(split.days), split.days[0], split.days[-1])
        gaps = find_gaps(window.train.days + window.eval.days)
        if gaps:
            logging.warning("the window has no rows of %s", ", ".join(gaps))
        output = DriverOutput()
        set_metadata_value(output.exec_properties["window"], window.to_json(path))
        set_metadata_value(output.exec_properties["input_fingerprint"], fingerprint(window.files, path))
        # The window has what became of these: that it is the same is what counts, and not how it was asked for.
        for name, nothing in (("as_of", ""), ("train_days", 0), ("eval_days", 0)):
            set_metadata_value(output.exec_properties[name], nothing)
        return output
