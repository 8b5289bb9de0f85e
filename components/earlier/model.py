"""Which model a warm start goes on from, and which one a new model is compared with."""

from __future__ import annotations

from ml_metadata import MetadataStore
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.types.artifact import Artifact

from components.earlier.days import days_of, inputs_of, origins
from components.earlier.present import last_present
from components.model_pusher import ROLLED_BACK


class EarlierModelStrategy(ResolverStrategy):
    """Resolves the blessed model of the newest training days that end before those of the run's Examples.

    The latest blessed one would not do. Where a run is repeated, that is the model of the same days: it would learn
    them twice, and the Trainer's cache would never be right. Where an older day is run again, it is a model that has
    learned the days that it is then evaluated on. Of several models of one day the latest is meant.

    A model that a rollback has taken out of service, or whose folder is gone, is passed over.

    Inputs: `examples`, the run's; `model` and `model_blessing`, all there are. Outputs: the same keys; `model` and
    `model_blessing` are empty where there is no such model.
    """

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[Artifact]]
    ) -> dict[str, list[Artifact]]:
        """See the class.

        Args:
            store: The metadata store.
            input_dict: The inputs.
        """
        (examples,) = input_dict["examples"]
        last_day = days_of(examples.mlmd_artifact, "train")[-1]
        blessings = {
            blessing.get_int_custom_property("current_model_id"): blessing
            for blessing in input_dict["model_blessing"]
            if blessing.get_int_custom_property("blessed")
        }
        models = {
            model.id: model
            for model in input_dict["model"]
            if model.id in blessings and not model.get_string_custom_property(ROLLED_BACK)
        }
        learned = {  # the Trainer's inputs are Transform's outputs
            model: max(day for one in found for day in days_of(one, "train"))
            for model, found in origins(store, models, executions=2).items()
            if found
        }
        earlier = [model for model, day in learned.items() if day < last_day]
        latest = last_present([models[model] for model in sorted(earlier, key=lambda model: (learned[model], model))])
        return {
            "examples": [examples],
            "model": latest,
            "model_blessing": [blessings[model.id] for model in latest],
        }


class BaselineStrategy(LatestBlessedModelStrategy):
    """Resolves the model that was pushed last, that no rollback has taken out of service, and whose folder is there.

    Not the latest blessed one: where the serving check stops a model, or a run is killed before its Pusher, nobody has
    been served that one.

    Inputs and outputs: `model` and `model_blessing`; the outputs are empty where there is no such model.
    """

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[Artifact]]
    ) -> dict[str, list[Artifact]]:
        """See the class.

        Args:
            store: The metadata store.
            input_dict: The inputs.
        """
        attempts = store.get_artifacts_by_type("PushedModel")
        pushes = {pushed.id for pushed in attempts if pushed.custom_properties["pushed"].int_value}
        last_push: dict[int, int] = {}  # a model may be pushed again, where an older day is run again
        for push, inputs in sorted(inputs_of(store, pushes).items()):
            last_push |= dict.fromkeys(inputs, push)
        models = [
            model
            for model in input_dict["model"]
            if model.id in last_push and not model.get_string_custom_property(ROLLED_BACK)
        ]
        models.sort(key=lambda model: (last_push[model.id], model.id))
        latest = last_present(models)
        resolved: dict[str, list[Artifact]] = super().resolve_artifacts(store, input_dict | {"model": latest})
        return resolved
