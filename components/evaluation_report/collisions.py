"""How many ids share their buckets with others, told from the statistics of the training split.

A hash does not know how frequent an id is, so with `d` distinct ids in `m` buckets an id, and therefore an impression's
id too, is expected to share its bucket with another one with probability `1 - (1 - 1/m)^(d - 1)`. The statistics count
the distinct ids and name the most frequent ones, as far as their sketch knows these. They are hashed here as Transform
hashes them, and only the rest is expected, over the rest's uniform hashes. With

- `t` distinct ids of which only the number is known,
- `c(k) = w(k) / m^num_hashes`, the chance of an unknown id to get the buckets `k`: `w` is 1, and 2 for two different
  buckets, because what two hashes give is a sum, which is the same for (x, y) and (y, x),
- `s`, the chance of two unknown ids to get the same: `1 / m`, and `(2 - 1/m) / m^2` with two hashes,

the probability to collide is

- of a known id that shares its buckets `k` with a known one: 1; of another known one: `1 - (1 - c(k))^t`;
- of an unknown id: `1 - (1 - sum_k c(k)) (1 - s)^(t - 1)`, the sum over the buckets that known ids have.

If all ids are known nothing is expected, and the figures are exact: `t` is 0. They are those of the hash, not of the
model: ids that are in the eval split alone are not counted, and of a sequence also those that its `max_length` cuts off
are.

Fields that share a table collide with each other's ids. How many distinct ids they have together the statistics do not
tell beyond the known ones; at least as many as the field that has most, which is what is taken. That is right where the
fields hold the same ids, which is what one shares a table for, and too few where they do not.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.dsl.io import fileio

from schemas.features import FeatureSpec, Hashing, IdField, NumericFeature
from schemas.hashing import hash_ids

_NOT_UTF8 = "__BYTES_VALUE__"  # TFDV's name for each id that is not UTF-8
# TFDV's Misra-Gries sketch. With more distinct ids than it has counters a count is too high, by up to one part in so
# many of all occurrences: an id is known if that is not more than a tenth of its count.
_COUNTERS, _TIMES_ERROR = 1024, 10


@dataclasses.dataclass(frozen=True)
class IdCounts:
    """What the statistics tell of a field's ids.

    Attributes:
        num_ids: Number of distinct ids; above 16,384 an estimate, whose standard error is a hundredth.
        num_occurrences: Number of ids in all impressions.
        known: The most frequent ids, text or int64, and how often each occurs.
    """

    num_ids: int
    num_occurrences: int
    known: Mapping[str | int, int]


@dataclasses.dataclass(frozen=True)
class Collisions:
    """What becomes of one field's ids.

    Attributes:
        ids: Number of distinct ids in the training split.
        buckets: Number of buckets.
        colliding_ids: Share of the ids that are the same to the model as another id, in [0, 1].
        colliding_impressions: Share of the ids' occurrences that are one of these, in [0, 1].
        exact: Whether all ids were hashed; otherwise the shares are expected values.
    """

    ids: int
    buckets: int
    colliding_ids: float
    colliding_impressions: float
    exact: bool


def read_statistics(path: str) -> statistics_pb2.DatasetFeatureStatistics:
    """Reads the statistics of one split.

    Args:
        path: StatisticsGen's `FeatureStats.pb`.
    """
    with fileio.open(path, "rb") as file:
        (statistics,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read()).datasets
    return statistics


def find_collisions(spec: FeatureSpec, statistics: statistics_pb2.DatasetFeatureStatistics) -> dict[str, Collisions]:
    """Returns the collisions of each hashed field, in field order.

    A field is left out where the statistics do not count its ids: those of a curated schema that does not call an int64
    id categorical.

    Args:
        spec: The data set.
        statistics: Those of the training split.
    """
    counts = _id_counts(spec, statistics)
    numbers = {feature.name for feature in spec.features if isinstance(feature, NumericFeature)}
    fields = [field for field in spec.id_fields if field.name not in numbers and field.name in counts]
    tables: dict[tuple[int, int], list[IdField]] = {}
    for field in fields:  # the sum of two rows is no row of one hash
        tables.setdefault((field.row_offset, field.num_hashes), []).append(field)
    found: dict[str, Collisions] = {}
    for (_, num_hashes), sharing in tables.items():
        first = sharing[0]
        known = [counts[field.name] for field in sharing]
        of_table = count_collisions(known, first.num_buckets, num_hashes, first.hashing)
        found.update(zip((field.name for field in sharing), of_table, strict=True))
    return {field.name: found[field.name] for field in fields}


def count_collisions(
    fields: Sequence[IdCounts], num_buckets: int, num_hashes: int = 1, hashing: Hashing = "bytes"
) -> list[Collisions]:
    """Returns the collisions of each of the fields that share a table; for the formulas see the module.

    Args:
        fields: The ids of each field.
        num_buckets: Number of the table's buckets.
        num_hashes: How many hashes an id has.
        hashing: What of an id is hashed.
    """
    known = list(dict.fromkeys(itertools.chain.from_iterable(field.known for field in fields)))
    keys = _bucket_keys(known, num_buckets, num_hashes, hashing)
    num_holders = collections.Counter(keys.values())
    # Of one or two buckets there are as many orders as there are different ones.
    chance = {key: len(set(key)) / num_buckets**num_hashes for key in num_holders}
    same = 1 / num_buckets if num_hashes == 1 else (2 - 1 / num_buckets) / num_buckets**2
    num_unknown = max(0, max(field.num_ids for field in fields) - len(known))
    collides = {id_: 1.0 if num_holders[key] > 1 else 1 - (1 - chance[key]) ** num_unknown for id_, key in keys.items()}
    unknown_collides = 1 - (1 - sum(chance.values())) * (1 - same) ** max(0, num_unknown - 1)

    def of_field(field: IdCounts) -> Collisions:
        rest = field.num_ids - len(field.known)
        rest_occurrences = field.num_occurrences - sum(field.known.values())
        ids = sum(collides[id_] for id_ in field.known) + rest * unknown_collides
        occurrences = sum(count * collides[id_] for id_, count in field.known.items())
        occurrences += rest_occurrences * unknown_collides
        return Collisions(
            ids=field.num_ids,
            buckets=num_buckets,
            colliding_ids=ids / max(1, field.num_ids),
            colliding_impressions=occurrences / max(1, field.num_occurrences),
            exact=not rest and not num_unknown,
        )

    return [of_field(field) for field in fields]


def describe(name: str, found: Collisions) -> str:
    """Returns one field's collisions as a sentence for the log."""
    return (
        f"{name}: {found.ids:,} ids in {found.buckets:,} buckets, {found.colliding_ids:.2%} of the ids and "
        f"{found.colliding_impressions:.2%} of their impressions share a bucket"
        f"{'' if found.exact else ' (expected)'}"
    )


def _id_counts(spec: FeatureSpec, statistics: statistics_pb2.DatasetFeatureStatistics) -> dict[str, IdCounts]:
    """Returns the ids of each categorical feature, by its name."""
    integers = {feature.name for feature in spec.features if feature.dtype == "int64"}
    counts = {}
    for feature in statistics.features:
        if feature.WhichOneof("stats") != "string_stats":
            continue
        strings = feature.string_stats
        name = feature.path.step[0] if feature.HasField("path") else feature.name
        num_occurrences = strings.common_stats.tot_num_values
        least = _TIMES_ERROR * num_occurrences / _COUNTERS if strings.unique > _COUNTERS else 0
        known: dict[str | int, int] = {
            int(bucket.label) if name in integers else bucket.label: round(bucket.sample_count)
            for bucket in strings.rank_histogram.buckets
            if bucket.label != _NOT_UTF8 and bucket.sample_count >= least
        }
        num_empty = known.pop("", None)  # no id, see transform/preprocessing.py
        counts[name] = IdCounts(
            num_ids=strings.unique - (num_empty is not None),
            num_occurrences=num_occurrences - (num_empty or 0),
            known=known,
        )
    return counts


def _bucket_keys(
    ids: Sequence[str | int], num_buckets: int, num_hashes: int, hashing: Hashing
) -> dict[str | int, tuple[int, ...]]:
    """Returns the buckets of each id, in ascending order: that of the hashes makes no difference to a sum."""
    if not ids:
        return {}
    raw = tf.constant(list(ids), tf.int64 if isinstance(ids[0], int) else tf.string)
    buckets = [hash_ids(raw, num_buckets, number, hashing).numpy().tolist() for number in range(num_hashes)]
    return {id_: tuple(sorted(key)) for id_, key in zip(ids, zip(*buckets, strict=True), strict=True)}
