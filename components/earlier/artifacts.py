"""Which artifact of an earlier run a run compares with, or goes on from."""

from __future__ import annotations

from ml_metadata import MetadataStore
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.types.artifact import Artifact

from components.earlier.days import newest_day, origins
from components.earlier.present import last_present


class EarlierArtifactStrategy(ResolverStrategy):
    """Resolves the artifact of the newest of the days before that of the run's Examples; of several the latest.

    So a run that is repeated gets the same one again, and is cached, and an older day what was there before it. A day
    that is run once more, as its log was mended, does not take the place of those after it. One whose folder is gone is
    passed over.

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
        made_from = origins(store, [artifact.id for artifact in artifacts])
        days = {one: max(map(newest_day, found)) for one, found in made_from.items() if found}
        earlier = [artifact for artifact in artifacts if days.get(artifact.id, day) < day]
        latest = last_present(sorted(earlier, key=lambda artifact: (days[artifact.id], artifact.id)))
        return {"examples": [examples], key: latest}
