"""What is in service decides whether a push is one that was made before: the driver looks before TFX asks its cache."""

from __future__ import annotations

import pathlib

from google.protobuf import json_format
from tfx.orchestration.data_types_utils import set_metadata_value
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto import pusher_pb2
from tfx.proto.orchestration.driver_output_pb2 import DriverOutput

from components.driver import KeyDriver


class Driver(KeyDriver):
    """Adds the exec property `in_service`, the newest version, which thereby becomes part of the cache's key.

    Where another run, a rollback or a person has changed the serving folder since, the Pusher runs again: a run whose
    Pusher is cached would tell of a model that nobody serves.
    """

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        """Looks at the serving folder.

        Args:
            execution_info: The execution with the component's parameters.

        Returns:
            The added exec property.
        """
        destination = json_format.Parse(
            execution_info.exec_properties["push_destination"], pusher_pb2.PushDestination()
        )
        output = DriverOutput()
        set_metadata_value(output.exec_properties["in_service"], _newest(destination.filesystem.base_directory))
        return output


def _newest(serving: str) -> str:
    """Returns the newest version, or nothing where there is none."""
    if "://" in serving:
        # Not at the top: TFX's files are TensorFlow's, and a run with nothing to do imports none of it.
        from components.model_pusher.versions import list_versions

        versions = list_versions(serving)
    else:
        versions = [int(path.name) for path in pathlib.Path(serving).glob("*") if path.name.isdecimal()]
    return str(max(versions, default=""))
