"""TFX's executors, but that they read record batches where these are there."""

from __future__ import annotations

from typing import Any

from tfx.components.statistics_gen import executor as statistics_gen
from tfx.components.transform import executor as transform

from components.arrow_examples.tfxio import reading_arrow


class StatisticsExecutor(statistics_gen.Executor):
    """StatisticsGen's."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        """See TFX's StatisticsGen."""
        with reading_arrow():
            super().Do(input_dict, output_dict, exec_properties)


class TransformExecutor(transform.Executor):
    """Transform's."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        """See TFX's Transform."""
        with reading_arrow():
            super().Do(input_dict, output_dict, exec_properties)
