"""The Criteo display advertising logs: 13 integer features I1..I13, 26 hexadecimal ids C1..C26."""

from __future__ import annotations

from schemas.features import FeatureSpec, IdFeature, NumericFeature

CRITEO = FeatureSpec(
    name="criteo",
    features=(
        *(NumericFeature(f"I{number}", normalization="log1p_z_score", dtype="int64") for number in range(1, 14)),
        *(IdFeature(f"C{number}", num_buckets=100_000, dtype="string") for number in range(1, 27)),
    ),
)
