"""EvaluationReport: an evaluation -> a page by which a person can judge the model."""

from __future__ import annotations

from typing import ClassVar

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.artifact import Artifact
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics, Model, ModelEvaluation

from components.drift_gate.component import DriftReport
from components.evaluation_report.executor import Executor


class Report(Artifact):
    """The files `report.html`, for people, and `report.json`, the same figures for machines; these names are fixed."""

    TYPE_NAME = "EvaluationReport"


class EvaluationReportSpec(ComponentSpec):
    """Parameters, inputs and output of `EvaluationReport`, which explains them."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "features": ExecutionParameter(type=str),
        "config": ExecutionParameter(type=str),
        "source_fingerprint": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "evaluation": ChannelParameter(type=ModelEvaluation),
        "model": ChannelParameter(type=Model),
        "baseline_model": ChannelParameter(type=Model, optional=True),
        "examples": ChannelParameter(type=Examples),
        "statistics": ChannelParameter(type=ExampleStatistics),
        "anomalies": ChannelParameter(type=ExampleAnomalies),
        "drift": ChannelParameter(type=DriftReport),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {"report": ChannelParameter(type=Report)}


class EvaluationReport(BaseComponent):
    """Writes the report on an evaluation, whether the model was blessed or not.

    Nothing depends on its output: a report that fails keeps no model from being pushed. See ADR 0014.

    Output `report`: see `Report`.
    """

    SPEC_CLASS = EvaluationReportSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        evaluation: BaseChannel,
        model: BaseChannel,
        examples: BaseChannel,
        statistics: BaseChannel,
        anomalies: BaseChannel,
        drift: BaseChannel,
        features: str,
        config: str,
        source_fingerprint: str,
        baseline_model: BaseChannel | None = None,
    ) -> None:
        """Makes the component.

        Args:
            evaluation: The Evaluator's output, type ModelEvaluation, with the verdict.
            model: The model that was evaluated, type Model.
            examples: What it was trained and evaluated on, type Examples, from ImpressionLogExampleGen.
            statistics: Those of the examples, type ExampleStatistics.
            anomalies: Those of the examples, type ExampleAnomalies.
            drift: How far the examples have moved, type DriftReport.
            features: The feature spec, as `package.module:NAME`.
            config: The pipeline's settings as JSON, to be shown.
            source_fingerprint: A digest of the report's code, for the cache's key.
            baseline_model: The model that it was compared with, type Model.
        """
        super().__init__(
            spec=EvaluationReportSpec(
                evaluation=evaluation,
                model=model,
                baseline_model=baseline_model,
                examples=examples,
                statistics=statistics,
                anomalies=anomalies,
                drift=drift,
                features=features,
                config=config,
                source_fingerprint=source_fingerprint,
                report=Channel(type=Report),
            )
        )
