"""ImpressionLogExampleGen: the newest days of an impression log -> Examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.types.channel import Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Examples

from components.impression_log_example_gen.driver import Driver
from components.impression_log_example_gen.executor import Executor


class ImpressionLogExampleGenSpec(ComponentSpec):
    """Parameters and output of `ImpressionLogExampleGen`, which explains them."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "log_path": ExecutionParameter(type=str),
        "features": ExecutionParameter(type=str),
        "eval_days": ExecutionParameter(type=int),
        "train_days": ExecutionParameter(type=int, optional=True),
        "as_of": ExecutionParameter(type=str, optional=True),
        "key": ExecutionParameter(type=str, optional=True),
        "columns": ExecutionParameter(type=str),
        "timestamp_unit": ExecutionParameter(type=str),
        "max_raw_length": ExecutionParameter(type=int),
        "max_bad_fraction": ExecutionParameter(type=float),
        "by_day": ExecutionParameter(type=int),
        "quarantine": ExecutionParameter(type=str),
        "source_fingerprint": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {"examples": ChannelParameter(type=Examples)}


class ImpressionLogExampleGen(BaseBeamComponent):
    """Writes the newest days of a log as tf.train.Examples, in the splits `train` and `eval`, and puts bad rows aside.

    Columns that the feature spec does not name are ignored. It is cached by the contents of the files in the window:
    with nothing new there a run takes the earlier Examples, with a new day, a late or a changed file it does not. Every
    row of the window becomes an Example or is in the quarantine.

    Output `examples`: gzip TFRecord files; the shards of a split in their order are its rows in the order of the log.
    """

    SPEC_CLASS = ImpressionLogExampleGenSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        *,
        log_path: str,
        features: str,
        eval_days: int,
        quarantine: str,
        source_fingerprint: str,
        train_days: int | None = None,
        as_of: str | None = None,
        key: str | None = None,
        columns: Mapping[str, str] | None = None,
        timestamp_unit: str = "s",
        max_raw_length: int = 10_000,
        max_bad_fraction: float = 0.01,
        by_day: bool = False,
    ) -> None:
        """Makes the component.

        Args:
            log_path: The log: Parquet, CSV, JSON lines or TFRecord files, gzip or not, in a `day=YYYY-MM-DD/` folder
                for each day, or in one folder with a timestamp column.
            features: The feature spec, as `package.module:NAME`.
            eval_days: How many of the newest days that have rows are the eval split.
            quarantine: The folder for the files of bad rows; not in the artifact, so that it outlives a failed run.
            source_fingerprint: A digest of the code that reads the log. Not read by the component: it is part of the
                cache's key, so that a change of the code is not answered with the old code's Examples.
            train_days: How many of the days before them are the training split; all if None.
            as_of: The newest day to use, YYYY-MM-DD; by default the newest that has rows.
            key: The log's column that tells one impression from another: of rows with the same, all but the first are
                bad. By default no two rows are the same impression.
            columns: The log's names of the spec's columns that are named otherwise there.
            timestamp_unit: What the timestamp counts since 1970-01-01 UTC: "s", "ms" or "us". Examples have seconds.
            max_raw_length: How many values a list may have.
            max_bad_fraction: Which share of the rows may be bad, in [0, 1].
            by_day: Whether each file of a partitioned log's Examples has rows of one day only: its name has
                the day, and a digest of the values of all rows that were read together.
        """
        super().__init__(
            spec=ImpressionLogExampleGenSpec(
                log_path=log_path,
                features=features,
                eval_days=eval_days,
                train_days=train_days,
                as_of=as_of,
                key=key,
                columns=json.dumps(dict(columns or {}), sort_keys=True),
                timestamp_unit=timestamp_unit,
                max_raw_length=max_raw_length,
                max_bad_fraction=float(max_bad_fraction),
                by_day=int(by_day),
                quarantine=quarantine,
                source_fingerprint=source_fingerprint,
                examples=Channel(type=Examples),
            )
        )
