"""Which statistics a run's are compared with."""

from __future__ import annotations

from ml_metadata import MetadataStore
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.types.artifact import Artifact

from components.earlier.days import examples_among, inputs_of, newest_day


class EarlierStatisticsStrategy(ResolverStrategy):
    """Resolves the latest statistics of Examples whose newest day is before that of the run's Examples.

    So a run that is repeated is compared with the same one again, and an older day with what was there before it.

    Inputs: `examples`, the run's; `statistics`, all there are. Outputs: the same keys; `statistics` is empty where
    there are none.
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
        day = newest_day(examples.mlmd_artifact)
        for statistics in sorted(input_dict["statistics"], key=lambda found: found.id, reverse=True):
            days = [newest_day(found) for found in examples_among(store, inputs_of(store, [statistics.id]))]
            if days and max(days) < day:
                return {"examples": [examples], "statistics": [statistics]}
        return {"examples": [examples], "statistics": []}
