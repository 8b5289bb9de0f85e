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
    Pusher is cached would tell of a model that nobody serves. Where the model's own version is gone, that is in the
    property, too: the folder may then be as it was before the push.
    """

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        """Looks at the serving folder.

        Args:
            execution_info: The execution with its input `model` and the component's parameters.

        Returns:
            The added exec property.
        """
        destination = json_format.Parse(
            execution_info.exec_properties["push_destination"], pusher_pb2.PushDestination()
        )
        versions = _list_versions(destination.filesystem.base_directory)
        gone = [
            pushed.id
            for pushed in self.made_of_model(execution_info, "PushedModel")
            if pushed.custom_properties["pushed"].int_value
            and int(pushed.custom_properties["pushed_version"].string_value) not in versions
        ]
        in_service = str(max(versions, default=""))
        if gone:
            in_service += f" without PushedModel {max(gone)}"
        output = DriverOutput()
        set_metadata_value(output.exec_properties["in_service"], in_service)
        return output


def _list_versions(serving: str) -> set[int]:
    if "://" in serving:
        # Not at the top: TFX's files are TensorFlow's, and a run with nothing to do imports none of it.
        from components.model_pusher.versions import list_versions

        return set(list_versions(serving))
    return {int(path.name) for path in pathlib.Path(serving).glob("*") if path.name.isdecimal()}
