"""TFX's Transform executor, but that each day of the training split is a data set of its own to the analyzers.

TensorFlow Transform keeps what its analyzers have found by data set, and TFX makes one of each split of each artifact,
known by its path. In a window that moves by a day each day, with a new artifact for each, nothing would ever be found
again. See ADR 23.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

from absl import logging
from tensorflow_transform.beam.analyzer_cache import DatasetKey
from tfx.components.transform import executor as tfx_transform
from tfx.dsl.io import fileio

from components.arrow_examples.tfxio import reading_arrow

_NAME = re.compile(r"data_tfrecord-(?P<day>[0-9-]{10})-[0-9]+-of-[0-9]+-(?P<digest>[0-9a-f]{64})\.gz")


class Executor(tfx_transform.Executor):
    """TFX's, with `ByDay` in the place of its processor, which it makes by itself."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        """See TFX's Transform.

        Args:
            input_dict: Its `examples` have files of one day each, as ImpressionLogExampleGen's `by_day` makes them.
            output_dict: As TFX's.
            exec_properties: As TFX's.

        Raises:
            ValueError: A file of the training split is not of one day.
        """
        its_own = tfx_transform.TransformProcessor
        tfx_transform.TransformProcessor = ByDay
        try:
            with reading_arrow():
                super().Do(input_dict, output_dict, exec_properties)
        finally:
            tfx_transform.TransformProcessor = its_own


class ByDay(tfx_transform.TransformProcessor):
    """TFX's processor, but that it analyzes a data set a day."""

    def _MakeDatasetList(
        self,
        file_patterns: Sequence[str],
        file_formats: Sequence[Any],
        data_format: int,
        data_view_uri: str | None,
        can_process_jointly: bool,
        stats_output_paths: Sequence[str] | None = None,
        materialize_output_paths: Sequence[str] | None = None,
    ) -> list[Any]:
        keys: dict[str, DatasetKey] = {}
        if not stats_output_paths and not materialize_output_paths:  # what is analyzed, not what is transformed
            formats = dict(zip(file_patterns, file_formats, strict=True))
            keys = {found: key for pattern in file_patterns for found, key in _split_by_day(pattern).items()}
            file_patterns = list(keys)
            file_formats = [formats[os.path.join(os.path.dirname(pattern), "*")] for pattern in keys]
        datasets = super()._MakeDatasetList(
            file_patterns,
            file_formats,
            data_format,
            data_view_uri,
            can_process_jointly,
            stats_output_paths,
            materialize_output_paths,
        )
        for dataset in datasets:
            dataset.dataset_key = keys.get(dataset.file_pattern, dataset.dataset_key)
        # TFX takes the last ones as those that come again in later runs.
        datasets.sort(key=lambda dataset: dataset.dataset_key)
        for index, dataset in enumerate(datasets):
            dataset.index = index
        return list(datasets)

    def _JoinUncachedDatasets(
        self, analyze_data_list: list[Any], optimized_analyze_data_dict: dict[DatasetKey, Any], *args: Any
    ) -> Any:
        """Leaves out what is known: TFX would read it nevertheless, as it materializes, and drop what it has read."""
        datasets, found = super()._JoinUncachedDatasets(analyze_data_list, optimized_analyze_data_dict, *args)
        unknown = [dataset for dataset in datasets if found[dataset.dataset_key] is not None]
        logging.info("analyzing %d data set(s), %d known", len(unknown), len(datasets) - len(unknown))
        return unknown, found

    @classmethod
    def _EnableIncrementalCache(cls) -> bool:
        """Keeps what was found of up to 200 days, fewer with more than ten analyzers; the rest is one data set."""
        return True


def _split_by_day(pattern: str) -> dict[str, DatasetKey]:
    """Returns a pattern for the files of each day, with a key of the day and of what is in the files.

    Args:
        pattern: For all files of a folder.
    """
    folder = os.path.dirname(pattern)
    digests: dict[str, list[str]] = {}
    for path in sorted(fileio.glob(pattern)):
        found = _NAME.fullmatch(os.path.basename(path))
        if not found:
            raise ValueError(
                f"{path} is not of one day, and so nothing that is found in it is of use tomorrow: the analyzer cache "
                "needs a log with a day=YYYY-MM-DD folder for each day"
            )
        digests.setdefault(found["day"], []).append(found["digest"])
    return {
        os.path.join(folder, f"data_tfrecord-{day}-*"): DatasetKey(
            f"{day}-{hashlib.sha256(''.join(found).encode()).hexdigest()}"
        )
        for day, found in digests.items()
    }
