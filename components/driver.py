"""What drivers that add to the cache's key have in common."""

from __future__ import annotations

from ml_metadata.proto.metadata_store_pb2 import Artifact, Event
from tfx.dsl.components.base.base_driver import BaseDriver as LegacyBaseDriver
from tfx.orchestration.metadata import Metadata
from tfx.orchestration.portable.base_driver import BaseDriver
from tfx.orchestration.portable.data_types import ExecutionInfo


# TFX's compiler asks for the one base class, its launcher calls the other: its own drivers derive from both, too.
class KeyDriver(LegacyBaseDriver, BaseDriver):
    """A driver whose `run` returns exec properties, which thereby become part of the cache's key."""

    def __init__(self, mlmd_connection: Metadata) -> None:
        LegacyBaseDriver.__init__(self, mlmd_connection)
        BaseDriver.__init__(self, mlmd_connection)

    def made_of_model(self, execution_info: ExecutionInfo, kind: str) -> list[Artifact]:
        """Returns the artifacts of a type that executions have made of the input `model`.

        Args:
            execution_info: The execution with its inputs.
            kind: Name of the artifacts' type.
        """
        models = [model.id for model in execution_info.input_dict["model"]]
        with self._mlmd_connection as connection:
            store = connection.store
            readers = {
                event.execution_id for event in store.get_events_by_artifact_ids(models) if event.type == Event.INPUT
            }
            events = store.get_events_by_execution_ids(list(readers)) if readers else []
            made = {event.artifact_id for event in events if event.type == Event.OUTPUT}
            artifacts = store.get_artifacts_by_id(list(made)) if made else []
        return [artifact for artifact in artifacts if artifact.type == kind]
