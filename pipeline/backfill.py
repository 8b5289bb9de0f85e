"""One run for each day of the log, oldest first."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from collections.abc import Iterator

from components.impression_log_example_gen.columns import find_columns
from components.impression_log_example_gen.log import LogError, find_days, is_partitioned
from pipeline.config import PipelineConfig
from schemas.features import load_spec


def find_runs(config: PipelineConfig, first: datetime.date, last: datetime.date) -> list[PipelineConfig]:
    """Returns the config of each day's run: the same one, as of each day that has rows.

    Args:
        config: The pipeline's settings.
        first: The first day.
        last: The last day.

    Raises:
        LogError: The log cannot be used, or has no rows on any of the days.
    """
    path = pathlib.Path(config.log.path)
    days = [day for day in _days(config, path) if first <= day <= last]
    if not days:
        raise LogError(f"the impression log {path} has no rows of the days from {first} to {last}: name other days")
    return [
        dataclasses.replace(config, log=dataclasses.replace(config.log, as_of=day.isoformat())) for day in sorted(days)
    ]


def _days(config: PipelineConfig, path: pathlib.Path) -> Iterator[datetime.date]:
    if is_partitioned(path):
        from components.impression_log_example_gen.readers.read import has_rows

        yield from (day.day for day in find_days(path) if any(map(has_rows, day.files)))
        return
    from components.impression_log_example_gen.flat import find_days_by_timestamp

    columns = find_columns(
        load_spec(config.features),
        config.log.columns,
        max_raw_length=config.log.max_raw_length,
        timestamp_unit=config.log.timestamp_unit,
        is_timestamp_required=True,
    )
    timestamp = next((column for column in columns if column.is_required), None)
    yield from (day.day for day in find_days_by_timestamp(path, timestamp)[0])
