"""Which columns are wanted of a log. Like `log`, it imports nothing heavy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from schemas.features import FeatureSpec, IdFeature, IdSequence

TimestampUnit = Literal["s", "ms", "us"]
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column to take from the log.

    Attributes:
        name: Its name in the feature spec, and in the Examples.
        dtype: "int64", "float32" or "string"; None for a key, which is any of these but float.
        source: Its name in the log.
        is_id: Whether an integer must not be negative.
        is_list: Whether it is a sequence: in CSV its values are separated by `|`.
        is_label: Whether it is the label, which every row must have.
        is_weight: Whether it is the weight, which every row must have, and which must not be negative.
        is_required: Whether it is the timestamp, and every row must have it.
        gives_day: Whether it is the timestamp, and says which day a row is of: in a log without folders of days.
        per_second: By what it is divided: the timestamp's units in a second. 0 for columns that are no timestamp.
        max_raw_length: How many values a row may have.
    """

    name: str
    dtype: str | None
    source: str = ""
    is_id: bool = False
    is_list: bool = False
    is_label: bool = False
    is_weight: bool = False
    is_required: bool = False
    gives_day: bool = False
    per_second: int = 0
    max_raw_length: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.name)


def find_timestamp(spec: FeatureSpec, sources: Mapping[str, str], timestamp_unit: TimestampUnit) -> Column | None:
    """Returns the timestamp as a column that gives the day, None if the spec names none; see `find_columns`."""
    columns = find_columns(spec, sources, timestamp_unit=timestamp_unit, gives_day=True)
    return next((column for column in columns if column.gives_day), None)


def find_columns(
    spec: FeatureSpec,
    sources: Mapping[str, str] | None = None,
    *,
    max_raw_length: int = 10_000,
    timestamp_unit: TimestampUnit = "s",
    is_timestamp_required: bool = False,
    gives_day: bool = False,
) -> tuple[Column, ...]:
    """Returns the columns of a spec: the features, the label, the timestamp and the weight if it has them.

    Args:
        spec: The data set.
        sources: The log's names of columns that have another one there than in the spec.
        max_raw_length: How many values a row of any column may have.
        timestamp_unit: What the log's timestamp counts.
        is_timestamp_required: Whether a row without the timestamp that others have is bad.
        gives_day: Whether the timestamp says which day a row is of, and so a row without it is bad.
    """
    columns = [
        Column(
            feature.name,
            feature.dtype,
            is_id=isinstance(feature, IdFeature | IdSequence),
            is_list=isinstance(feature, IdSequence),
        )
        for feature in spec.features
    ]
    columns.append(Column(spec.label.name, "int64", is_label=True))
    if spec.timestamp:
        per_second = PER_SECOND[timestamp_unit]
        columns.append(
            Column(
                spec.timestamp, "int64", is_required=is_timestamp_required, gives_day=gives_day, per_second=per_second
            )
        )
    if spec.weight:
        columns.append(Column(spec.weight, "float32", is_weight=True))
    named = sources or {}
    return tuple(
        dataclasses.replace(column, source=named.get(column.name, column.name), max_raw_length=max_raw_length)
        for column in columns
    )
