"""TFX's StatisticsGen and Transform, which read the record batches that ImpressionLogExampleGen leaves them."""

from __future__ import annotations

from tfx.components import StatisticsGen, Transform
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec

from components.arrow_examples.executor import StatisticsExecutor, TransformExecutor


class ArrowStatisticsGen(StatisticsGen):
    """TFX's StatisticsGen; the statistics are the same."""

    EXECUTOR_SPEC = BeamExecutorSpec(StatisticsExecutor)


class ArrowTransform(Transform):
    """TFX's Transform; what it writes is the same."""

    EXECUTOR_SPEC = BeamExecutorSpec(TransformExecutor)
