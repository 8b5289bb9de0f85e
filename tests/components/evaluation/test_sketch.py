from __future__ import annotations

import pickle

import numpy as np
import pytest

from components.evaluation import sketch
from components.evaluation.sketch import Sketch


def _rows(num_rows, seed=0, num_users=400):
    generator = np.random.default_rng(seed)
    users = generator.integers(0, 2**53, num_users)[generator.integers(0, num_users, num_rows)].astype(float)
    labels = generator.integers(0, 2, num_rows)
    candidate = np.clip(generator.normal(0.4 + 0.2 * labels, 0.2), 0.01, 0.99)
    baseline = np.clip(generator.normal(0.4 + 0.2 * labels, 0.3), 0.01, 0.99)
    return np.stack([users, labels, generator.random(num_rows), candidate, baseline], axis=1)


def _fill(rows, num_parts=1):
    """Adds the rows to sketches in parts, and merges these after a trip between workers."""
    parts = []
    for part in np.array_split(rows, num_parts):
        filled = Sketch(2)
        for rows in np.array_split(part, 9):
            filled.add(rows)
        parts.append(pickle.loads(pickle.dumps(filled)))
    merged = Sketch(2)
    for part in parts:
        merged.merge(part)
    return merged


def _metrics(measured):
    return np.concatenate([np.stack(list(model.values())) for model in measured.models])


@pytest.fixture
def small(monkeypatch):
    """Limits that a test reaches."""
    monkeypatch.setattr(sketch, "MAX_ROWS", 500)
    monkeypatch.setattr(sketch, "_CHUNK_ROWS", 64)


@pytest.mark.parametrize("num_parts", [1, 2, 7])
def test_order_and_merges_make_no_difference_below_and_above_the_limit(small, num_parts):
    for num_rows in (300, 900, 5000):
        rows = _rows(num_rows)
        whole = _fill(rows).measure()
        shuffled = np.random.default_rng(1).permutation(rows)
        parts = _fill(shuffled, num_parts).measure()
        np.testing.assert_allclose(_metrics(parts), _metrics(whole), rtol=1e-9)
        assert (parts.num_examples, parts.num_users) == (num_rows, whole.num_users)
        assert parts.num_gauc_users == whole.num_gauc_users


def test_above_the_limit_users_are_sampled_and_everything_else_counts_all(small, monkeypatch):
    rows = _rows(5000)
    sampled = _fill(rows, 3)
    assert sampled._num_kept <= 1000
    sampled = sampled.measure()
    monkeypatch.setattr(sketch, "MAX_ROWS", 10_000)
    everything = _fill(rows, 3).measure()
    assert 20 < sampled.num_users < 60
    assert everything.num_users == 400
    for model, (few, all_) in enumerate(zip(sampled.models, everything.models, strict=True)):
        for name in few:
            if name in ("gauc", "ndcg", "mrr"):
                assert few[name][0] != all_[name][0]
                assert few[name][0] == pytest.approx(all_[name][0], abs=0.1)
            else:
                np.testing.assert_allclose(
                    few[name], all_[name], atol=5e-3 if "error" in name else 1e-3, err_msg=f"{model} {name}"
                )
    # The sampled users have all of their impressions.
    limit = np.sort(np.unique(rows[:, 0]))[sampled.num_users]
    kept = _fill(rows[rows[:, 0] < limit]).measure()
    assert kept.models[0]["gauc"][0] == pytest.approx(sampled.models[0]["gauc"][0], rel=1e-9)


def test_impressions_without_a_user_count_for_all_but_the_metrics_by_user():
    rows = _rows(300)
    rows[::3, 0] = -1 - rows[::3, 0]
    measured = _fill(rows).measure()
    assert measured.num_examples == 300
    with_user = _fill(rows[rows[:, 0] >= 0]).measure()
    assert measured.models[0]["gauc"][0] == with_user.models[0]["gauc"][0]
    assert measured.models[0]["auc"][0] != with_user.models[0]["auc"][0]
    without = _fill(rows[rows[:, 0] < 0]).measure()
    assert "gauc" not in without.models[0]
    assert without.num_users == 0


def test_an_empty_sketch_has_no_metrics():
    measured = Sketch(1).measure()
    assert (measured.num_examples, measured.occupied.any()) == (0, False)
    assert np.isnan(measured.models[0]["auc"]).all()
