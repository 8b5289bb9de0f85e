"""ModelPusher: TFX's Pusher, which pushes a version whole or not at all and keeps only so many."""

from __future__ import annotations

from tfx.components import Pusher
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.proto import pusher_pb2
from tfx.types.channel import BaseChannel

from components.model_pusher.driver import Driver
from components.model_pusher.executor import Executor


class ModelPusher(Pusher):
    """Makes a model the newest version in the serving folder, if all that was to bless it has.

    It is cached only as long as the serving folder's newest version is the one that it was.

    Output `pushed_model`, type PushedModel: see `Executor.Do`.
    """

    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        *,
        model: BaseChannel,
        model_blessing: BaseChannel,
        serving: str,
        keep_versions: int | None,
        infra_blessing: BaseChannel | None = None,
    ) -> None:
        """Makes the component.

        Args:
            model: The Trainer's output, type Model.
            model_blessing: The Evaluator's output, type ModelBlessing.
            serving: The serving folder.
            keep_versions: How many of the newest versions stay there; None for all.
            infra_blessing: Of type InfraBlessing; None where no such check is made.
        """
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=serving)
            ),
            custom_config={"keep_versions": keep_versions},
        )
