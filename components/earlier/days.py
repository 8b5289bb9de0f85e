"""The days that an artifact comes from, by its lineage in the metadata store."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ml_metadata import MetadataStore
from ml_metadata.proto.metadata_store_pb2 import Artifact, Event

_DAYS = "days"  # the property of ImpressionLogExampleGen's Examples: JSON of the days by split


def days_of(examples: Artifact, split: str) -> list[str]:
    """Returns a split's days, oldest first, as YYYY-MM-DD."""
    return list(json.loads(examples.custom_properties[_DAYS].string_value)[split])


def newest_day(examples: Artifact) -> str:
    """Returns the newest day of all splits, as YYYY-MM-DD."""
    by_split: dict[str, list[str]] = json.loads(examples.custom_properties[_DAYS].string_value)
    return max(day for days in by_split.values() for day in days)


def origins(store: MetadataStore, artifact_ids: Iterable[int], executions: int = 1) -> dict[int, list[Artifact]]:
    """Returns for each artifact those of ImpressionLogExampleGen's Examples that it was made from.

    Args:
        store: The metadata store.
        artifact_ids: The artifacts.
        executions: How many executions are between: 1 where one that read the Examples made the artifact.
    """
    ancestors = {artifact: {artifact} for artifact in artifact_ids}
    for _ in range(executions):
        inputs = inputs_of(store, set().union(*ancestors.values()))
        ancestors = {
            artifact: set().union(*(inputs.get(one, ()) for one in found)) for artifact, found in ancestors.items()
        }
    records = store.get_artifacts_by_id(list(set().union(*ancestors.values())))
    examples = {record.id: record for record in records if _DAYS in record.custom_properties}
    return {
        artifact: [examples[one] for one in sorted(found & examples.keys())] for artifact, found in ancestors.items()
    }


def inputs_of(store: MetadataStore, artifact_ids: set[int]) -> dict[int, set[int]]:
    """Returns for each artifact the inputs of the execution that made it, in two queries however many there are."""
    if not artifact_ids:
        return {}
    made = [event for event in store.get_events_by_artifact_ids(list(artifact_ids)) if event.type == Event.OUTPUT]
    read: dict[int, set[int]] = {event.execution_id: set() for event in made}
    for event in store.get_events_by_execution_ids(list(read)) if read else ():
        if event.type == Event.INPUT:
            read[event.execution_id].add(event.artifact_id)
    inputs: dict[int, set[int]] = {}
    for event in made:
        inputs.setdefault(event.artifact_id, set()).update(read[event.execution_id])
    return inputs
