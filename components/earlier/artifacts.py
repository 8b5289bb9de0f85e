"""Which artifact of an earlier run a run compares with, or goes on from."""

from __future__ import annotations

from ml_metadata import MetadataStore
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.types.artifact import Artifact

from components.earlier.days import examples_among, inputs_of, newest_day


class EarlierArtifactStrategy(ResolverStrategy):
    """Resolves the latest artifact made from Examples whose newest day is before that of the run's Examples.

    So a run that is repeated gets the same one again, and is cached, and an older day what was there before it.

    Inputs: `examples`, the run's; under one other key all artifacts there are. Outputs: the same keys; the other one is
    empty where there is no such artifact.
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
        ((key, artifacts),) = [(key, found) for key, found in input_dict.items() if key != "examples"]
        day = newest_day(examples.mlmd_artifact)
        for artifact in sorted(artifacts, key=lambda found: found.id, reverse=True):
            days = [newest_day(found) for found in examples_among(store, inputs_of(store, [artifact.id]))]
            if days and max(days) < day:
                return {"examples": [examples], key: [artifact]}
        return {"examples": [examples], key: []}
