from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from components.evaluation.results import ScoreHistogram
from components.evaluation_report.curves import make_curves


def _drawn(seed=1, num=4_000):
    generator = np.random.default_rng(seed)
    labels = generator.random(num) < 0.2
    return labels, 1 / (1 + np.exp(-generator.normal(-2 + labels, 1)))


def _histogram(labels, scores, edges):
    clicks, others = (np.histogram(scores[labels == label], edges)[0] for label in (True, False))
    sums = np.histogram(scores, edges, weights=scores)[0]
    return ScoreHistogram(*(tuple(map(float, values)) for values in (edges, clicks, others, sums)))


@pytest.fixture(scope="module")
def drawn():
    """Labels, scores and their curves, from a histogram with 200 bins of equally many impressions."""
    labels, scores = _drawn()
    edges = np.concatenate([[0], np.quantile(scores, np.linspace(0, 1, 201)[1:-1]), [1]])
    return labels, scores, make_curves(_histogram(labels, scores, edges))


def test_the_areas_under_the_curves_are_those_of_scikit_learn(drawn):
    labels, scores, curves = drawn
    points = curves.operating_points
    roc = metrics.auc([p.false_positive_rate for p in points], [p.recall for p in points])
    assert roc == pytest.approx(metrics.roc_auc_score(labels, scores), abs=2e-3)
    precision = metrics.auc([p.recall for p in points], [p.precision for p in points])
    assert precision == pytest.approx(metrics.average_precision_score(labels, scores), abs=2e-2)
    assert curves.click_rate == pytest.approx(labels.mean())


def test_an_operating_point_is_what_its_threshold_gives(drawn):
    labels, scores, curves = drawn
    point = curves.operating_points[len(curves.operating_points) // 3]
    called = scores >= point.threshold
    assert point.recall == pytest.approx(called[labels].mean())
    assert point.false_positive_rate == pytest.approx(called[~labels].mean())
    assert point.precision == pytest.approx(labels[called].mean())
    assert point.impressions == pytest.approx(called.mean())
    assert point.lift == pytest.approx(labels[called].mean() / labels.mean())


def test_curves_begin_with_nothing_and_end_with_all(drawn):
    first, *_, last = drawn[2].operating_points
    assert (first.recall, first.false_positive_rate, first.impressions) == (0, 0, 0)
    assert (last.recall, last.false_positive_rate, last.impressions) == pytest.approx((1, 1, 1))
    assert last.lift == pytest.approx(1)
    assert len(drawn[2].operating_points) <= 202


def test_calibration_bins_hold_equally_many_and_are_right_where_the_scores_are(drawn):
    labels, scores, curves = drawn
    assert [part.impressions for part in curves.calibration] == pytest.approx([len(labels) / 20] * 20, rel=0.02)
    predicted, observed = (
        sum(getattr(part, name) * part.impressions for part in curves.calibration) for name in ("predicted", "observed")
    )
    assert (predicted, observed) == pytest.approx((scores.sum(), labels.sum()))


def test_the_interval_of_a_share_is_wilsons():
    (part,) = make_curves(ScoreHistogram((0.0, 1.0), (8.0,), (2.0,), (7.0,))).calibration
    # Of 8 in 10: Newcombe, Statistics in Medicine 17, 1998.
    assert (part.predicted, part.observed) == pytest.approx((0.7, 0.8))
    assert (part.low, part.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_score_bins_keep_every_impression_and_where_it_is(drawn):
    labels, scores, curves = drawn
    assert sum(part.clicks for part in curves.scores) == pytest.approx(labels.sum())
    assert sum(part.others for part in curves.scores) == pytest.approx((~labels).sum())
    middle = sum((part.low + part.high) / 2 * (part.clicks + part.others) for part in curves.scores) / len(labels)
    assert middle == pytest.approx(scores.mean(), abs=5e-3)


@pytest.mark.parametrize(("clicks", "others"), [(5.0, 0.0), (0.0, 5.0)], ids=["clicks", "no clicks"])
def test_one_class_has_no_operating_points(clicks, others):
    curves = make_curves(ScoreHistogram((0.0, 0.5, 1.0), (clicks, 0.0), (others, 0.0), (1.0, 0.0)))
    assert curves.operating_points == ()
    assert len(curves.calibration) == 1
    assert sum(part.clicks + part.others for part in curves.scores) == pytest.approx(5)


def test_no_impressions_have_no_curves():
    curves = make_curves(ScoreHistogram((0.0, 1.0), (0.0,), (0.0,), (0.0,)))
    assert (curves.operating_points, curves.calibration, curves.scores, curves.click_rate) == ((), (), (), 0)
