from __future__ import annotations

import numpy as np

from benchmarks.quality_data import DESCRIBED, Rows, recbole_permutation
from schemas.movielens import MOVIELENS


def test_permutation_is_torchs():
    # torch.manual_seed(0); torch.randperm(10)
    np.testing.assert_array_equal(recbole_permutation(10, seed=0), [4, 1, 7, 5, 3, 9, 0, 8, 6, 2])
    np.testing.assert_array_equal(np.sort(recbole_permutation(1000, seed=2020)), np.arange(1000))


def test_described_lacks_what_was_known_before():
    missing = [feature.name for feature in MOVIELENS.features if feature not in DESCRIBED.features]
    assert missing == [
        "skipped",
        *(f"{of}_{name}" for of in ("user", "item", "genre") for name in ("impressions", "click_share")),
    ]


def test_rows_follow_each_other():
    first, second = (Rows(np.full([2, 3], n), np.full([2, 1], n), np.full([2], n)) for n in (1, 2))
    np.testing.assert_array_equal(first.followed_by(second)[[0, 3]].labels, [1, 2])
    assert len(first.followed_by(second)) == 4
