"""A model that has failed is checked anew: the driver looks for such a verdict, before TFX asks its cache."""

from __future__ import annotations

from tfx.orchestration.data_types_utils import set_metadata_value
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto.orchestration.driver_output_pb2 import DriverOutput

from components.driver import KeyDriver


class Driver(KeyDriver):
    """Adds the exec property `after_failure`, which thereby becomes part of the cache's key.

    Latencies, and whether a process ends in time, depend on the machine's hour: without this, a model that has failed
    once would never be served, however often the run is repeated. One that has passed is not checked again.
    """

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        """Looks for the last InfraBlessing of the model that is none.

        Args:
            execution_info: The execution with its input `model`.

        Returns:
            The added exec property: the artifact's id as text, empty where the model has never failed.
        """
        blessings = self.made_of_model(execution_info, "InfraBlessing")
        failed = [one.id for one in blessings if not one.custom_properties["blessed"].int_value]
        output = DriverOutput()
        set_metadata_value(output.exec_properties["after_failure"], str(max(failed, default="")))
        return output
