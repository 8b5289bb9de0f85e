"""The two fields of the notebook that the model comes from: a sequence of ids and a target id, in ten buckets each.

Its feature columns hash an id's decimal digits.
"""

from __future__ import annotations

from schemas.features import FeatureSpec, IdSequence

# Both are sequences there, with a table of their own each, pooled by sum.
NOTEBOOK = FeatureSpec(
    name="notebook",
    features=(
        IdSequence("seq", num_buckets=10, max_length=3, pooling="sum", hashing="digits"),
        IdSequence("target", num_buckets=10, max_length=1, pooling="sum", hashing="digits"),
    ),
)
