"""MovieLens-100K as an impression log: did the user rate the movie 4 or 5?"""

from __future__ import annotations

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature

# A hundred buckets an id, so that 1% of the ids share one: which ids share one moved the AUC by 0.005.
_NUM_ITEM_BUCKETS = 200_000


def _counts(of: str) -> tuple[NumericFeature, NumericFeature]:
    """What was counted before the impression, see `pipeline/movielens_context.py`."""
    return (
        NumericFeature(f"{of}_impressions", "log1p_z_score", dtype="int64", minimum=0),
        NumericFeature(f"{of}_click_share", minimum=0, maximum=1),
    )


MOVIELENS = FeatureSpec(
    name="movielens",
    features=(
        IdFeature("user_id", num_buckets=100_000, min_presence=1.0),
        IdFeature("item_id", num_buckets=_NUM_ITEM_BUCKETS, table="item", min_presence=1.0),
        IdSequence("history", num_buckets=_NUM_ITEM_BUCKETS, max_length=20, table="item"),
        IdSequence("skipped", num_buckets=_NUM_ITEM_BUCKETS, max_length=20),  # its own table: it speaks against
        NumericFeature("age", dtype="int64", minimum=1, maximum=120, min_presence=1.0),
        IdFeature("gender", num_buckets=16, dtype="string", domain=("F", "M"), min_presence=1.0),
        IdFeature("occupation", num_buckets=1_000, dtype="string", min_presence=1.0),
        IdSequence("genres", num_buckets=1_000, max_length=6, dtype="string"),
        NumericFeature("release_year", dtype="int64", minimum=1888, maximum=2100, min_presence=0.9),
        *_counts("user"),
        *_counts("item"),
        *_counts("genre"),
    ),
    group_key="user_id",
    timestamp="timestamp",
)
