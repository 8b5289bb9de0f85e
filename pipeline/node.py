"""Runs one node of the pipeline with TFX's own launcher: for `ctr run`, and as the command of every container.

    python -m pipeline.node --node Trainer --run-id ID --config JSON --metadata grpc://HOST:PORT [--set KEY=VALUE ...]

Every container of a run builds the same pipeline from the same config, and takes its node of it. A second attempt of a
node in the same run is safe: a node that has succeeded is not run again, and what a failed or killed one has left is
removed first. Only two attempts at the same time are not.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import absl.logging
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.dsl.io import fileio
from tfx.orchestration.local import runner_utils
from tfx.orchestration.metadata import ConnectionConfigType, Metadata
from tfx.orchestration.portable import outputs_utils, runtime_parameter_utils
from tfx.orchestration.portable.base_executor_operator import BaseExecutorOperator
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.orchestration.portable.launcher import Launcher
from tfx.orchestration.portable.mlmd import context_lib, execution_lib
from tfx.proto.orchestration import pipeline_pb2
from tfx.proto.orchestration.executable_spec_pb2 import BeamExecutableSpec, PythonClassExecutableSpec
from tfx.proto.orchestration.execution_result_pb2 import ExecutorOutput
from tfx.types.artifact import Artifact

from pipeline.config import PipelineConfig, config_from_json, with_overrides

# A run goes on where one of these has failed, and says so: no other component needs what it makes. See ADR 0014.
OPTIONAL_NODES = frozenset({"EvaluationReport"})

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class NodeResult:
    """What one node's execution left in the metadata store.

    Attributes:
        cached: Whether an earlier execution's outputs were taken.
        outputs: The output artifacts by their key.
    """

    cached: bool
    outputs: Mapping[str, Sequence[Artifact]]


class NotCachedError(BaseException):
    """A node that is not in the cache was launched with `only_cached`.

    What its executor would have found is left as it is, for an attempt that may run it: as no Exception, this passes
    through TFX's launcher as the end of the process would.
    """


class _Launcher(Launcher):
    """TFX's launcher, but that an executor finds its output folders empty."""

    def _run_executor(self, execution_info: ExecutionInfo) -> ExecutorOutput:
        # A metadata store that is newer than the folders, or was restored, gives ids that it does not know as taken.
        outputs = itertools.chain(*execution_info.output_dict.values())
        _remove((one.uri for one in outputs if not one.is_external), "no execution that the metadata store knows")
        return super()._run_executor(execution_info)


class _NoExecutor(BaseExecutorOperator):
    """In the place of TFX's operators, which import the executor."""

    SUPPORTED_EXECUTOR_SPEC_TYPE: ClassVar[list[type]] = [BeamExecutableSpec, PythonClassExecutableSpec]
    SUPPORTED_PLATFORM_CONFIG_TYPE: ClassVar[list[type]] = []

    def run_executor(self, execution_info: ExecutionInfo) -> ExecutorOutput:
        raise NotCachedError(execution_info.pipeline_node.node_info.id)


def launch_node(pipeline: pipeline_pb2.Pipeline, node_id: str, *, only_cached: bool = False) -> NodeResult:
    """Runs one node: resolves its inputs, asks the cache, runs its executor, publishes its outputs.

    Args:
        pipeline: The compiled pipeline, with its run id set.
        node_id: The node's id.
        only_cached: Whether to run no executor.

    Raises:
        NotCachedError: With `only_cached`, an executor would have to run.
        RuntimeError: The node's inputs are not there, so that it did not run.
        Exception: Whatever its executor raises.
    """
    (node,) = (node.pipeline_node for node in pipeline.nodes if node.pipeline_node.node_info.id == node_id)
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    store = _connection(pipeline)
    with Metadata(store) as metadata:
        for earlier in _earlier_attempts(metadata, node):
            if execution_lib.is_execution_successful(earlier):
                _LOGGER.info("%s has succeeded in an earlier attempt", node_id)
                return _read_result(metadata, earlier)
            _remove_outputs(pipeline, node, earlier.id)
    execution = _Launcher(
        pipeline_node=node,
        mlmd_connection=Metadata(store),
        pipeline_info=pipeline.pipeline_info,
        pipeline_runtime_spec=pipeline.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
        custom_executor_operators=dict.fromkeys(_NoExecutor.SUPPORTED_EXECUTOR_SPEC_TYPE, _NoExecutor)
        if only_cached
        else None,
    ).launch()
    if execution is None or execution.execution_id is None:
        raise RuntimeError(f"{node_id} did not run: an input is missing from the metadata store")
    with Metadata(store) as metadata:
        (record,) = metadata.store.get_executions_by_id([execution.execution_id])
        if not execution_lib.is_execution_successful(record):
            raise RuntimeError(f"{node_id} did not run: its inputs could not be resolved")
        return _read_result(metadata, record)


def uses_beam(pipeline: pipeline_pb2.Pipeline, node_id: str) -> bool:
    """Returns whether a node's executor runs on Beam."""
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    executor = runner_utils.extract_executor_spec(deployment, node_id)
    return isinstance(executor, BeamExecutableSpec)


def clear_away(pipeline: pipeline_pb2.Pipeline) -> None:
    """Marks what a killed run has left running as failed, and removes what it has half written.

    Nothing reads that; but nobody else would ever remove it. Call it where no other run of the pipeline is at work.

    Args:
        pipeline: The compiled pipeline, with any run id set.
    """
    with Metadata(_connection(pipeline)) as metadata:
        for node in (entry.pipeline_node for entry in pipeline.nodes):
            for execution in metadata.store.get_executions_by_type(node.node_info.type.name):
                if execution_lib.is_execution_active(execution):
                    _remove_outputs(pipeline, node, execution.id)
                    execution.last_known_state = metadata_store_pb2.Execution.FAILED
                    metadata.store.put_executions([execution])


def _connection(pipeline: pipeline_pb2.Pipeline) -> ConnectionConfigType:
    connection = runner_utils.extract_local_deployment_config(pipeline).metadata_connection_config
    return getattr(connection, connection.WhichOneof("connection_config"))


def _earlier_attempts(metadata: Metadata, node: pipeline_pb2.PipelineNode) -> list[metadata_store_pb2.Execution]:
    """Returns the node's executions in this run.

    TFX's launcher goes on with such an execution, and does nothing where it has succeeded. Its resolvers do not: they
    would add another one, perhaps with another model, and the nodes after them would find both.
    """
    contexts = context_lib.prepare_contexts(metadata, node.contexts)
    return list(execution_lib.get_executions_associated_with_all_contexts(metadata, contexts))


def _remove_outputs(pipeline: pipeline_pb2.Pipeline, node: pipeline_pb2.PipelineNode, execution_id: int) -> None:
    """Removes what an attempt that did not succeed has written: the next one writes to the same folders."""
    resolver = outputs_utils.OutputsResolver(node, pipeline.pipeline_info, pipeline.runtime_spec)
    written = [os.path.dirname(resolver.get_executor_output_uri(execution_id))]
    for artifacts in resolver.generate_output_artifacts(execution_id).values():
        written += [artifact.uri for artifact in artifacts if not artifact.is_external]
    _remove(written, "an attempt that did not end well")


def _remove(paths: Iterable[str], origin: str) -> None:
    for path in paths:
        if fileio.exists(path):
            _LOGGER.info("removing %s, which is from %s", path, origin)
            (fileio.rmtree if fileio.isdir(path) else fileio.remove)(path)


def _read_result(metadata: Metadata, execution: metadata_store_pb2.Execution) -> NodeResult:
    outputs = execution_lib.get_output_artifacts(metadata, execution.id)
    return NodeResult(execution.last_known_state == metadata_store_pb2.Execution.CACHED, outputs)


def compile_for_run(config: PipelineConfig, run_id: str, store: ConnectionConfigType) -> pipeline_pb2.Pipeline:
    """Returns the compiled pipeline of one run.

    Args:
        config: The pipeline's settings.
        run_id: The run's id, the same for all its nodes.
        store: Where the metadata is.
    """
    from tfx.dsl.compiler.compiler import Compiler

    from pipeline.pipeline import create_pipeline

    pipeline = create_pipeline(config)
    pipeline.metadata_connection_config = store
    compiled = Compiler().compile(pipeline)
    runtime_parameter_utils.substitute_runtime_parameter(compiled, {PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    return compiled


def main(arguments: Sequence[str] | None = None) -> None:
    """The container's process.

    Args:
        arguments: The command line; by default this process's.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", required=True, help="the node's id")
    parser.add_argument("--run-id", required=True, help="the run's id, the same for all its nodes")
    parser.add_argument("--config", required=True, help="the pipeline's settings, in JSON")
    parser.add_argument("--metadata", required=True, help="the metadata store; see pipeline/metadata_store.py")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="KEY=VALUE, in the config's place")
    parser.add_argument("--executor-input", help="JSON that says where KFP wants the node's outputs")
    options = parser.parse_args(arguments)

    from pipeline.beam_check import folders_of_workers
    from pipeline.environment import training_environment
    from pipeline.kfp_outputs import write_outputs
    from pipeline.metadata_store import connect
    from pipeline.preflight import check_beam

    # Early enough for TensorFlow; what the C library has to know stands in the image.
    os.environ.update(training_environment() | dict(os.environ))
    # As a container's first process, Python would not end by SIGTERM, only by the SIGKILL that follows.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    absl.logging.set_verbosity(absl.logging.INFO)
    logging.getLogger().setLevel(logging.INFO)
    config = with_overrides(config_from_json(options.config), options.overrides)
    result, problem = None, ""
    try:
        compiled = compile_for_run(config, options.run_id, connect(options.metadata))
        if uses_beam(compiled, options.node):
            check_beam(config.beam, folders_of_workers(config))
        result = launch_node(compiled, options.node)
        _LOGGER.info("%s: %s", options.node, "taken from the cache" if result.cached else "done")
    except Exception as error:
        if options.node not in OPTIONAL_NODES:
            raise
        _LOGGER.exception("the run goes on without %s", options.node)
        problem = str(error)
    if options.executor_input:
        write_outputs(json.loads(options.executor_input), result, problem)


if __name__ == "__main__":
    main()
