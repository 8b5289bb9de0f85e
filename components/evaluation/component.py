"""TFX's Evaluator, with the gates that failed in the metadata."""

from __future__ import annotations

from typing import Any

from tfx.components import Evaluator
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.types import artifact_utils
from tfx.types.standard_component_specs import EVALUATION_KEY

from components.evaluation.results import read_evaluation

FAILED_GATES = "failed_gates"  # the ModelEvaluation's property: a sentence for each, on lines of their own


class Executor(TfxExecutor):
    """Runs TFX's executor, which measures and blesses, and then says at the artifact why it did not."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 TFX calls it so
        """Runs the evaluation."""
        super().Do(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[EVALUATION_KEY])
        failed = [gate.sentence for gate in read_evaluation(artifact.uri).gates if not gate.passed]
        artifact.set_string_custom_property(FAILED_GATES, "\n".join(failed))


class GatedEvaluator(Evaluator):
    """TFX's Evaluator; see `components.evaluation.extractors` for what it does before slicing."""

    EXECUTOR_SPEC = BeamExecutorSpec(Executor)
