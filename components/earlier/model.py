"""Which model a warm start goes on from, and which one a new model is compared with."""

from __future__ import annotations

from ml_metadata import MetadataStore
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.types.artifact import Artifact

from components.earlier.days import days_of, examples_among, inputs_of
from components.model_pusher.versions import ROLLED_BACK


class EarlierModelStrategy(ResolverStrategy):
    """Resolves the latest blessed model whose training days end before those of the run's Examples.

    The latest blessed one would not do. Where a run is repeated, that is the model of the same days: it would learn
    them twice, and the Trainer's cache would never be right. Where an older day is run again, it is a model that has
    learned the days that it is then evaluated on.

    A model that a rollback has taken out of service is passed over.

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
        for model in sorted(input_dict["model"], key=lambda model: model.id, reverse=True):
            if model.id in blessings and not model.get_string_custom_property(ROLLED_BACK):
                # Transform's inputs, whose outputs are the Trainer's.
                origins = examples_among(store, inputs_of(store, inputs_of(store, [model.id])))
                learned = [day for found in origins for day in days_of(found, "train")]
                if learned and max(learned) < last_day:
                    return {"examples": [examples], "model": [model], "model_blessing": [blessings[model.id]]}
        return {"examples": [examples], "model": [], "model_blessing": []}


class BaselineStrategy(LatestBlessedModelStrategy):
    """Resolves the latest blessed model that no rollback has taken out of service.

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
        models = [model for model in input_dict["model"] if not model.get_string_custom_property(ROLLED_BACK)]
        resolved: dict[str, list[Artifact]] = super().resolve_artifacts(store, input_dict | {"model": models})
        return resolved
