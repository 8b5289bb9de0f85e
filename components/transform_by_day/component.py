"""TransformByDay: TFX's Transform, with its analyzer cache by the day."""

from __future__ import annotations

from tfx.components import Transform
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec

from components.transform_by_day.executor import Executor


class TransformByDay(Transform):
    """TFX's Transform for Examples whose files have rows of one day each: what the analyzers found of a day is kept.

    Give it as `analyzer_cache` what an earlier run has left as `updated_analyzer_cache`: then the analysis reads only
    the days that this one has not seen as they are now. The result is that of an analysis of all rows.
    """

    EXECUTOR_SPEC = BeamExecutorSpec(Executor)
