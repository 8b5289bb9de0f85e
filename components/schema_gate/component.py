"""SchemaGate: the schema, but only for examples without anomalies."""

from __future__ import annotations

from typing import ClassVar

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import ExampleAnomalies, Schema

from components.schema_gate.executor import Executor


class SchemaGateSpec(ComponentSpec):
    """Parameters, inputs and output of `SchemaGate`, which explains them."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {"source_fingerprint": ExecutionParameter(type=str)}
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "anomalies": ChannelParameter(type=ExampleAnomalies),
        "candidate": ChannelParameter(type=Schema),  # TFX wants other names for inputs than for outputs
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {"schema": ChannelParameter(type=Schema)}


class SchemaGate(BaseComponent):
    """Stops the run if ExampleValidator has found an anomaly in any split; else passes the schema on.

    Let Transform, and what else comes after, take its schema from here: nothing downstream can then run on examples
    that failed, in whatever order a runner takes the nodes.

    Output `schema`: a copy of the input `schema`.
    """

    SPEC_CLASS = SchemaGateSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, *, anomalies: BaseChannel, schema: BaseChannel, source_fingerprint: str) -> None:
        """Makes the component.

        Args:
            anomalies: ExampleValidator's output, type ExampleAnomalies.
            schema: The schema that it validated against, type Schema.
            source_fingerprint: A digest of the gate's code, for the cache's key.
        """
        super().__init__(
            spec=SchemaGateSpec(
                anomalies=anomalies,
                candidate=schema,
                source_fingerprint=source_fingerprint,
                schema=Channel(type=Schema),
            )
        )
