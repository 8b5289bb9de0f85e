"""A model and what executions have made of it, in a metadata store."""

from __future__ import annotations

from typing import Any

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.types.artifact import Artifact
from tfx.types.standard_artifacts import Model


class ModelInStore:
    """A model that a driver finds."""

    def __init__(self, path: str) -> None:
        config = sqlite_metadata_connection_config(path)
        self.connection = Metadata(config)
        self._store = MetadataStore(config)
        self.model = self._put(Model())

    def make(self, kind: type[Artifact], **properties: int | str) -> int:
        """Adds an execution that reads the model and makes an artifact; returns the artifact's id."""
        made = kind()
        for name, value in properties.items():
            (made.set_int_custom_property if isinstance(value, int) else made.set_string_custom_property)(name, value)
        self._put(made)
        type_id = self._store.put_execution_type(mlmd.ExecutionType(name="maker"))
        (execution,) = self._store.put_executions([mlmd.Execution(type_id=type_id)])
        self._store.put_events(
            [
                mlmd.Event(artifact_id=one.id, execution_id=execution, type=type_of)
                for one, type_of in ((self.model, mlmd.Event.INPUT), (made, mlmd.Event.OUTPUT))
            ]
        )
        return int(made.id)

    def info(self, **exec_properties: Any) -> ExecutionInfo:
        """Returns what a driver is given."""
        return ExecutionInfo(input_dict={"model": [self.model]}, exec_properties=exec_properties)

    def _put(self, artifact: Artifact) -> Artifact:
        artifact.type_id = self._store.put_artifact_type(artifact.artifact_type)
        (artifact.id,) = self._store.put_artifacts([artifact.mlmd_artifact])
        return artifact


@pytest.fixture
def model_in_store(tmp_path):
    return ModelInStore(str(tmp_path / "metadata.sqlite"))
