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


def examples_among(store: MetadataStore, artifact_ids: Iterable[int]) -> list[Artifact]:
    """Returns those of the artifacts that ImpressionLogExampleGen has made."""
    return [record for record in store.get_artifacts_by_id(list(artifact_ids)) if _DAYS in record.custom_properties]


def inputs_of(store: MetadataStore, artifact_ids: Iterable[int]) -> list[int]:
    """Returns the ids of the inputs of the executions that made artifacts."""
    made_by = {
        event.execution_id
        for event in store.get_events_by_artifact_ids(list(artifact_ids))
        if event.type == Event.OUTPUT
    }
    return sorted(
        {event.artifact_id for event in store.get_events_by_execution_ids(list(made_by)) if event.type == Event.INPUT}
    )
