"""One run for each day of the log, oldest first."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib

from components.impression_log_example_gen.columns import find_timestamp
from components.impression_log_example_gen.log import LogError
from components.impression_log_example_gen.window import choose_window
from pipeline.config import PipelineConfig
from schemas.features import load_spec


def find_runs(config: PipelineConfig, first: datetime.date, last: datetime.date) -> list[PipelineConfig]:
    """Returns the config of each day's run: the same one, as of each day that has rows and days before it to train on.

    Args:
        config: The pipeline's settings.
        first: The first day.
        last: The last day.

    Raises:
        LogError: The log cannot be used, or has no rows on any of the days.
    """
    path = pathlib.Path(config.log.path)
    timestamp = find_timestamp(load_spec(config.features), config.log.columns, config.log.timestamp_unit)
    window = choose_window(path, eval_days=1, train_days=None, as_of=last, timestamp=timestamp)
    # A day with too few before it has nothing to be trained on.
    days = [day for day in (window.train.days + window.eval.days)[config.log.eval_days :] if day >= first]
    if not days:
        raise LogError(
            f"the impression log {path} has no rows of the days from {first} to {last}, or none of days before them to "
            "train on: name other days"
        )
    return [dataclasses.replace(config, log=dataclasses.replace(config.log, as_of=day.isoformat())) for day in days]
