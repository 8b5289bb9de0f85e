"""Criteo-shaped data sets of the speed benchmark: 26 ids, 13 numbers, a history of up to 20 ids that shares a table."""

from __future__ import annotations

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature

NUM_IDS = 26
NUM_NUMBERS = 13
MAX_LENGTH = 20


def make_spec(name: str, num_table_rows: int) -> FeatureSpec:
    """Returns the spec whose embedding table has about `num_table_rows` rows in all."""
    num_buckets = num_table_rows // NUM_IDS
    ids = tuple(IdFeature(f"id_{index}", num_buckets, table=f"id_{index}") for index in range(NUM_IDS))
    history = IdSequence("history", num_buckets, MAX_LENGTH, "mean", table="id_0")
    return FeatureSpec(name, (*ids, history, *(NumericFeature(f"number_{index}") for index in range(NUM_NUMBERS))))


ROWS_10K = make_spec("rows_10k", 10_000)
ROWS_4M = make_spec("rows_4m", 4_000_000)
ROWS_10M = make_spec("rows_10m", 10_000_000)
SIZES = {"10k": ROWS_10K, "4M": ROWS_4M, "10M": ROWS_10M}
