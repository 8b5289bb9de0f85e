from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from components.evaluation import statistics
from components.evaluation.statistics import NUM_FOLDS


def _draw(seed, decimals, weighted, num_rows=2000, num_users=60):
    """Impressions with many ties; of the last users' some are of one class, and some users have one impression."""
    generator = np.random.default_rng(seed)
    users = np.concatenate([generator.integers(0, num_users, num_rows), np.arange(num_users, num_users + 20)])
    labels = (generator.random(len(users)) < 0.3).astype(float)
    labels[users % 10 == 0] = 0
    labels[users % 10 == 1] = 1
    weights = generator.choice([0.0, 0.5, 2.0], len(users)) if weighted else np.ones(len(users))
    predictions = np.clip(generator.normal(0.4 + 0.2 * labels, 0.2).round(decimals), 0.01, 0.99)
    return users.astype(float), predictions, labels, weights


CASES = [(seed, decimals, weighted) for seed in range(2) for decimals in (1, 9) for weighted in (False, True)]


def _pooled(predictions, labels, weights, folds, exact=True):
    scores = statistics.count_scores(predictions, labels, weights, folds, exact)
    return statistics.pooled_metrics(scores, statistics.sum_moments(predictions, labels, weights, folds))


def _plain_calibration_error(predictions, labels, weights):
    total = sum(weights)
    sums = [0.0] * statistics.NUM_CALIBRATION_GROUPS
    before = 0.0
    for value in sorted(set(predictions)):
        equal = predictions == value
        weight = weights[equal].sum()
        group = min(int(len(sums) * (before + weight / 2) / total), len(sums) - 1)
        sums[group] += (weights[equal] * (value - labels[equal])).sum()
        before += weight
    return sum(map(abs, sums)) / total


@pytest.mark.parametrize(("seed", "decimals", "weighted"), CASES)
def test_pooled_metrics_are_those_of_scikit_learn_with_and_without_a_fold(seed, decimals, weighted):
    users, predictions, labels, weights = _draw(seed, decimals, weighted)
    folds = users.astype(np.int64) % NUM_FOLDS
    found = _pooled(predictions, labels, weights, folds)
    for index, rows in ((0, folds >= 0), (4, folds != 3)):
        p, y, w = predictions[rows], labels[rows], weights[rows]
        rate = np.average(y, weights=w)
        log_loss = sklearn.metrics.log_loss(y, p, sample_weight=w)
        expected = {
            "auc": sklearn.metrics.roc_auc_score(y, p, sample_weight=w),
            "auc_pr": sklearn.metrics.average_precision_score(y, p, sample_weight=w),
            "log_loss": log_loss,
            "normalized_entropy": log_loss / sklearn.metrics.log_loss(y, np.full(len(y), rate), sample_weight=w),
            "calibration": (w * p).sum() / (w * y).sum(),
            "mean_label": rate,
            "mean_prediction": np.average(p, weights=w),
        }
        assert {name: found[name][index] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert found["expected_calibration_error"][0] == pytest.approx(
        _plain_calibration_error(predictions, labels, weights), rel=1e-9
    )


def test_bins_of_the_logit_change_nothing_that_shows():
    generator = np.random.default_rng(0)
    logits = generator.normal(-3.5, 1, 40_000)
    labels = (generator.random(40_000) < 1 / (1 + np.exp(-logits))).astype(float)
    predictions, weights = 1 / (1 + np.exp(-logits)), generator.random(40_000)
    folds = generator.integers(0, NUM_FOLDS, 40_000)
    exact, binned = (_pooled(predictions, labels, weights, folds, exact) for exact in (True, False))
    tolerances = {"auc_pr": 5e-4, "expected_calibration_error": 5e-4}  # these depend on where single impressions go
    for name in exact:
        np.testing.assert_allclose(binned[name], exact[name], atol=tolerances.get(name, 2e-5), err_msg=name)


def test_a_constant_prediction_has_auc_one_half_and_normalized_entropy_one():
    labels = np.array([0.0, 1, 0, 0])
    found = _pooled(np.full(4, 0.25), labels, np.ones(4), np.arange(4))
    expected = {"auc": 0.5, "auc_pr": 0.25, "normalized_entropy": 1, "calibration": 1, "expected_calibration_error": 0}
    assert {name: found[name][0] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_where_a_prediction_is_no_number_nothing_is_defined_but_the_labels_mean(exact):
    labels, predictions = np.array([0.0, 1, 1, 0]), np.array([0.1, 0.9, np.nan, 0.2])
    found = _pooled(predictions, labels, np.ones(4), np.arange(4), exact)
    assert {name for name, values in found.items() if np.isfinite(values[0])} == {"mean_label"}


def test_one_class_has_no_auc_and_no_entropy():
    found = _pooled(np.array([0.1, 0.2]), np.zeros(2), np.ones(2), np.arange(2))
    names = ("auc", "normalized_entropy", "calibration")
    assert all(np.isnan(found[name][0]) for name in names)
    assert found["log_loss"][0] == pytest.approx(-np.log([0.9, 0.8]).mean())


def _plain_user_metrics(users, predictions, labels, weights):
    kept = weights > 0
    users, predictions, labels, weights = (column[kept] for column in (users, predictions, labels, weights))
    auc, ndcg, mrr = [], [], []  # pairs of value and weight
    for user in np.unique(users):
        p, y, w = (column[users == user] for column in (predictions, labels, weights))
        if 0 < y.sum() < len(y):
            auc.append((sklearn.metrics.roc_auc_score(y, p, sample_weight=w), w.sum()))
        if y.sum():
            gain = sklearn.metrics.ndcg_score([y], [p], k=10) if len(y) > 1 else 1.0
            ndcg.append((gain, w.mean()))
            best = p[y > 0].max()
            equal, clicks = (p == best).sum(), y[p == best].sum()
            mrr.append((1 / ((p > best).sum() + (equal + 1) / (clicks + 1)), w.mean()))
    means = [_mean(pairs) for pairs in (auc, ndcg, mrr)]
    return dict(zip(("gauc", "ndcg", "mrr"), means, strict=True)), len(np.unique(users)), len(auc)


def _mean(pairs):
    values, weights = zip(*pairs, strict=True)
    return np.average(values, weights=weights)


@pytest.mark.parametrize(("seed", "decimals", "weighted"), CASES)
def test_user_metrics_are_those_of_each_user_with_scikit_learn(seed, decimals, weighted):
    users, predictions, labels, weights = _draw(seed, decimals, weighted)
    folds = users.astype(np.int64) % NUM_FOLDS
    found = statistics.user_metrics(users, predictions, labels, weights, folds)
    expected, num_users, num_gauc_users = _plain_user_metrics(users, predictions, labels, weights)
    assert {name: values[0] for name, values in found.metrics.items()} == pytest.approx(expected, rel=1e-9)
    assert (found.num_users, found.num_gauc_users) == (num_users, num_gauc_users)
    assert num_gauc_users < num_users - 10
    rows = folds != 3
    expected, *_ = _plain_user_metrics(users[rows], predictions[rows], labels[rows], weights[rows])
    assert {name: values[4] for name, values in found.metrics.items()} == pytest.approx(expected, rel=1e-9)


def test_users_of_one_class_have_no_gauc():
    columns = (np.array([1.0, 1, 2]), np.array([0.1, 0.2, 0.3]), np.array([1.0, 1, 0]), np.ones(3), np.array([1, 1, 2]))
    found = statistics.user_metrics(*columns)
    assert np.isnan(found.metrics["gauc"]).all()
    assert (found.num_users, found.num_gauc_users) == (2, 0)
    assert (found.metrics["ndcg"][0], found.metrics["mrr"][0]) == (1, pytest.approx(1))


def test_the_interval_covers_the_truth_as_often_as_it_says_and_is_wider_for_users_that_differ():
    generator = np.random.default_rng(0)

    def standard_errors(spread):
        """The mean of 40 users' 10 labels, drawn 200 times: its error, and the error that is told."""
        means, told = [], []
        for _ in range(200):
            rates = 0.5 + spread * (generator.random(40) - 0.5)
            users = np.repeat(np.arange(40), 10)
            labels = (generator.random(400) < rates[users]).astype(float)
            found = _pooled(np.full(400, 0.5), labels, np.ones(400), users % NUM_FOLDS)
            told.append(statistics.estimate(found["mean_label"], np.ones(NUM_FOLDS, bool)).standard_error)
            means.append(found["mean_label"][0])
        return np.std(means), np.sqrt(np.mean(np.square(told)))

    for spread in (0.0, 1.0):
        actual, told = standard_errors(spread)
        assert told == pytest.approx(actual, rel=0.15)
    assert actual > 1.3 * 0.5 / np.sqrt(400)


def test_the_difference_of_equal_models_is_zero_without_doubt_and_that_of_one_fold_is_unknown():
    values = np.random.default_rng(0).random(1 + NUM_FOLDS)
    everything = np.ones(NUM_FOLDS, bool)
    assert statistics.estimate(values - values, everything) == statistics.Estimate(0, 0, NUM_FOLDS - 1)
    assert np.isnan(statistics.estimate(values, np.arange(NUM_FOLDS) == 3).standard_error)
    two = statistics.estimate(np.array([0.5, 0.4, 0.6, *[0.5] * (NUM_FOLDS - 2)]), np.arange(NUM_FOLDS) < 2)
    assert (two.standard_error, two.degrees_of_freedom) == (pytest.approx(0.1), 1)


@pytest.mark.parametrize("num_bins", [1, 7, 100])
def test_score_bins_hold_about_equal_weights_and_lose_nothing(num_bins):
    _, predictions, labels, weights = _draw(0, 9, True)
    scores = statistics.count_scores(predictions, labels, weights, np.zeros(len(labels), np.int64))
    edges, positives, negatives, sums = statistics.score_bins(scores, num_bins)
    assert (edges[0], edges[-1]) == (0, 1)
    assert 0.9 * num_bins <= len(edges) - 1 <= num_bins
    assert (np.diff(edges) > 0).all()
    num_bins = len(edges) - 1
    index = np.searchsorted(edges, predictions, side="right") - 1
    np.testing.assert_allclose(np.bincount(index, weights * labels, minlength=num_bins), positives[:-1])
    np.testing.assert_allclose(np.bincount(index, weights * (1 - labels), minlength=num_bins), negatives[:-1])
    np.testing.assert_allclose(np.bincount(index, weights * predictions, minlength=num_bins), sums[:-1])
    total = positives[:-1] + negatives[:-1]
    np.testing.assert_allclose(np.median(total), total.mean(), rtol=0.1)
