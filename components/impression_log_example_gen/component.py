"""ImpressionLogExampleGen: the newest days of an impression log -> Examples."""

from __future__ import annotations

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
        "source_fingerprint": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {"examples": ChannelParameter(type=Examples)}


class ImpressionLogExampleGen(BaseBeamComponent):
    """Writes the newest days of a log of Parquet files as tf.train.Examples, in the splits `train` and `eval`.

    Columns that the feature spec does not name are ignored. It is cached by the contents of the files in the window:
    with nothing new there a run takes the earlier Examples, with a new day or a changed file it does not.

    Output `examples`: gzip TFRecord files; the shards of a split in their order are its rows in the order of the log.
    """

    SPEC_CLASS = ImpressionLogExampleGenSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self, *, log_path: str, features: str, eval_days: int, train_days: int | None, source_fingerprint: str
    ) -> None:
        """Makes the component.

        Args:
            log_path: Folder with a `day=YYYY-MM-DD/` folder of `*.parquet` files for each day.
            features: The feature spec, as `package.module:NAME`.
            eval_days: How many of the newest days that have rows are the eval split.
            train_days: How many of the days before them are the training split; all if None.
            source_fingerprint: A digest of the code that reads the log. Not read by the component: it is part of the
                cache's key, so that a change of the code is not answered with the old code's Examples.
        """
        super().__init__(
            spec=ImpressionLogExampleGenSpec(
                log_path=log_path,
                features=features,
                eval_days=eval_days,
                train_days=train_days,
                source_fingerprint=source_fingerprint,
                examples=Channel(type=Examples),
            )
        )
