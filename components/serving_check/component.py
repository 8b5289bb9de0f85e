"""ServingCheck: an InfraBlessing for a model that can be served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model, Schema

from components.serving_check.driver import Driver
from components.serving_check.executor import Executor


class ServingCheckSpec(ComponentSpec):
    """Parameters, inputs and output of `ServingCheck`, which explains them."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "settings": ExecutionParameter(type=str),
        "eval_config": ExecutionParameter(type=str),
        "source_fingerprint": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "model": ChannelParameter(type=Model),
        "examples": ChannelParameter(type=Examples),
        "schema": ChannelParameter(type=Schema),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {"blessing": ChannelParameter(type=InfraBlessing)}


class ServingCheck(BaseComponent):
    """Proves, in a process with nothing but TensorFlow, that a model can be served.

    It depends on nothing of the Evaluator, so that a model is checked once, however often it is compared; one that has
    failed is checked again by the next run.

    Output `blessing`: see `Executor.Do`. A model that fails does not stop the run: it is not pushed.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        *,
        model: BaseChannel,
        examples: BaseChannel,
        schema: BaseChannel,
        settings: Mapping[str, Any],
        eval_config: config_pb2.EvalConfig,
        source_fingerprint: str,
    ) -> None:
        """Makes the component.

        Args:
            model: The Trainer's output, type Model.
            examples: Raw impressions, type Examples; the split `eval` is sampled.
            schema: Their schema, type Schema.
            settings: The fields of `pipeline.config.ServingCheckConfig`.
            eval_config: The Evaluator's. Only how it reads a model is used, so that new gates are no new check.
            source_fingerprint: A digest of the check's code, for the cache's key.
        """
        reading = config_pb2.EvalConfig(model_specs=eval_config.model_specs)
        super().__init__(
            spec=ServingCheckSpec(
                model=model,
                examples=examples,
                schema=schema,
                settings=json.dumps(settings, sort_keys=True),
                eval_config=json_format.MessageToJson(reading, preserving_proto_field_name=True),
                source_fingerprint=source_fingerprint,
                blessing=Channel(type=InfraBlessing),
            )
        )
