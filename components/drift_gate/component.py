"""DriftGate: how far the examples have moved, and the end of the run where that is too far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

import pydantic
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.artifact import Artifact
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import ExampleStatistics

from components.drift_gate.bounds import DriftBounds
from components.drift_gate.executor import Executor


class DriftReport(Artifact):
    """`drift.json`: a list of objects, one a distance, with the attributes of `Movement` and `is_beyond`."""

    TYPE_NAME = "DriftReport"


class DriftGateSpec(ComponentSpec):
    """Parameters, inputs and output of `DriftGate`, which explains them."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "bounds": ExecutionParameter(type=str),
        "source_fingerprint": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "statistics": ChannelParameter(type=ExampleStatistics),
        "earlier_statistics": ChannelParameter(type=ExampleStatistics, optional=True),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {"drift": ChannelParameter(type=DriftReport)}


class DriftGate(BaseComponent):
    """Measures each feature's drift since the previous run and its skew from training to eval.

    Where a feature that blocks is beyond its bound, the component fails; let what costs time come after it
    (`add_upstream_node`). Nothing takes its output as input, so that a change of a bound trains nothing anew.

    Output `drift`: type DriftReport.
    """

    SPEC_CLASS = DriftGateSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        statistics: BaseChannel,
        earlier_statistics: BaseChannel,
        bounds: Mapping[str, DriftBounds],
        source_fingerprint: str,
    ) -> None:
        """Makes the component.

        Args:
            statistics: StatisticsGen's output, type ExampleStatistics, of the splits train and eval.
            earlier_statistics: The same of the previous run; may turn out empty.
            bounds: The bounds of each feature to measure.
            source_fingerprint: A digest of the gate's code, for the cache's key.
        """
        adapter = pydantic.TypeAdapter(dict[str, DriftBounds])
        super().__init__(
            spec=DriftGateSpec(
                statistics=statistics,
                earlier_statistics=earlier_statistics,
                bounds=json.dumps(adapter.dump_python(dict(bounds))),
                source_fingerprint=source_fingerprint,
                drift=Channel(type=DriftReport),
            )
        )
