"""Launches one node of a compiled pipeline with TFX's own launcher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.local import runner_utils
from tfx.orchestration.metadata import Metadata
from tfx.orchestration.portable.launcher import Launcher
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.proto.orchestration import pipeline_pb2
from tfx.types.artifact import Artifact


@dataclasses.dataclass(frozen=True)
class NodeResult:
    """What one node's execution left in the metadata store.

    Attributes:
        cached: Whether an earlier execution's outputs were taken.
        outputs: The output artifacts by their key.
    """

    cached: bool
    outputs: Mapping[str, Sequence[Artifact]]


def launch_node(pipeline: pipeline_pb2.Pipeline, node_id: str) -> NodeResult:
    """Runs one node: resolves its inputs, asks the cache, runs its executor, publishes its outputs.

    Args:
        pipeline: The compiled pipeline, with its run id set.
        node_id: The node's id.

    Raises:
        RuntimeError: The node's inputs are not there, so that it did not run.
        Exception: Whatever its executor raises.
    """
    (node,) = (node.pipeline_node for node in pipeline.nodes if node.pipeline_node.node_info.id == node_id)
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    connection = deployment.metadata_connection_config
    store = getattr(connection, connection.WhichOneof("connection_config"))
    execution = Launcher(
        pipeline_node=node,
        mlmd_connection=Metadata(store),
        pipeline_info=pipeline.pipeline_info,
        pipeline_runtime_spec=pipeline.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
    ).launch()
    if execution is None or execution.execution_id is None:
        raise RuntimeError(f"{node_id} did not run: an input is missing from the metadata store")
    with Metadata(store) as metadata:
        (record,) = metadata.store.get_executions_by_id([execution.execution_id])
        if not execution_lib.is_execution_successful(record):
            raise RuntimeError(f"{node_id} did not run: its inputs could not be resolved")
        outputs = execution_lib.get_output_artifacts(metadata, execution.execution_id)
    return NodeResult(record.last_known_state == metadata_store_pb2.Execution.CACHED, outputs)
