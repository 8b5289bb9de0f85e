"""Metrics of click-through rates over impressions that are split into folds, each with its leave-one-fold-out values.

Every metric is a vector [1 + NUM_FOLDS]: over all impressions, then without each fold. From it come the interval of the
delete-a-group jackknife, and, as both models are measured on the same folds, that of the paired difference (Kott, "The
delete-a-group jackknife", Journal of Official Statistics 17, 2001). Impressions of one user are in one fold, so that
what they have in common does not make the intervals too narrow.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

NUM_FOLDS = 20
NUM_CALIBRATION_GROUPS = 20
TOP_K = 10  # of ndcg
_EPSILON = 1e-7  # Keras' and TFMA's, where a log loss clips predictions

Array: TypeAlias = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its standard error.

    Attributes:
        value: The value over all impressions.
        standard_error: NaN where it cannot be told, as with less than two folds that have impressions.
        degrees_of_freedom: Those of Student's t.
    """

    value: float
    standard_error: float
    degrees_of_freedom: int


@dataclasses.dataclass(frozen=True)
class Scores:
    """One model's predictions, each distinct one (or bin of them) once.

    Attributes:
        predictions: Predicted ctr, ascending, [n].
        positives: Weight of the clicks with that prediction, [NUM_FOLDS, n].
        negatives: Weight of the other impressions, [NUM_FOLDS, n].
    """

    predictions: Array
    positives: Array
    negatives: Array


def estimate(values: Array, occupied: npt.NDArray[np.bool_]) -> Estimate:
    """Returns the delete-a-group jackknife's estimate.

    Args:
        values: [1 + NUM_FOLDS].
        occupied: Which folds have impressions, [NUM_FOLDS].
    """
    without = values[1:][occupied]
    groups = len(without)
    if groups < 2 or not np.isfinite(without).all():
        return Estimate(float(values[0]), math.nan, max(1, groups - 1))
    variance = (groups - 1) / groups * np.square(without - without.mean()).sum()
    return Estimate(float(values[0]), math.sqrt(variance), groups - 1)


def leave_one_out(by_fold: Array) -> Array:
    """Returns sums over all folds and without each: [NUM_FOLDS, ...] -> [1 + NUM_FOLDS, ...]."""
    total = by_fold.sum(axis=0, keepdims=True)
    return np.concatenate([total, np.maximum(total - by_fold, 0.0)])


def sum_by_fold(folds: npt.NDArray[np.int64], values: Array) -> Array:
    """Returns the sum of each fold's values, [NUM_FOLDS]."""
    return np.bincount(folds, weights=values, minlength=NUM_FOLDS).astype(np.float64)


def count_scores(
    predictions: Array, labels: Array, weights: Array, folds: npt.NDArray[np.int64], exact: bool = True
) -> Scores:
    """Groups impressions by their prediction; not exact: by bins of it, see `bin_predictions`. All [n]."""
    if exact:
        distinct, index = np.unique(predictions, return_inverse=True)
    else:
        distinct, index = BIN_PREDICTIONS, bin_predictions(predictions)
    counts = count_by_fold(index, labels, weights, folds, len(distinct))
    return Scores(distinct, counts[:, 1], counts[:, 0])


def count_by_fold(
    index: npt.NDArray[np.int64], labels: Array, weights: Array, folds: npt.NDArray[np.int64], size: int
) -> Array:
    """Returns the weight of each fold's impressions by label and index: [n] each -> [NUM_FOLDS, 2, size]."""
    flat = (folds * 2 + labels.astype(np.int64)) * size + index
    return np.bincount(flat, weights=weights, minlength=NUM_FOLDS * 2 * size).reshape(NUM_FOLDS, 2, size)


# Equal steps of the logit: a bin's width is 0.4% of the odds, wherever the predictions are.
_BINS_PER_UNIT, _MAX_LOGIT = 256, 12
NUM_BINS = 2 * _MAX_LOGIT * _BINS_PER_UNIT
BIN_PREDICTIONS: Array = 1 / (1 + np.exp(-((np.arange(NUM_BINS) + 0.5) / _BINS_PER_UNIT - _MAX_LOGIT)))


def bin_predictions(predictions: Array) -> npt.NDArray[np.int64]:
    """Returns the bin of each predicted ctr, in [0, NUM_BINS)."""
    clipped = np.clip(predictions, _EPSILON, 1 - _EPSILON)
    logits = np.log(clipped) - np.log1p(-clipped)
    return np.clip(((logits + _MAX_LOGIT) * _BINS_PER_UNIT).astype(np.int64), 0, NUM_BINS - 1)


MOMENTS = ("weight", "clicks", "predictions", "log_loss")


def sum_moments(predictions: Array, labels: Array, weights: Array, folds: npt.NDArray[np.int64]) -> Array:
    """Returns the sums over each fold that `pooled_metrics` takes: [n] each -> [NUM_FOLDS, len(MOMENTS)]."""
    clipped = np.clip(predictions, _EPSILON, 1 - _EPSILON)
    log_loss = -np.where(labels > 0, np.log(clipped), np.log1p(-clipped))
    terms = (np.ones_like(labels), labels, predictions, log_loss)
    return np.stack([sum_by_fold(folds, weights * term) for term in terms], axis=1)


def pooled_metrics(scores: Scores, moments: Array) -> dict[str, Array]:
    """Returns the metrics that take all impressions together, each [1 + NUM_FOLDS]; NaN where one is not defined.

    Args:
        scores: Predictions of one model.
        moments: `sum_moments`' of the same impressions.
    """
    weight, clicks, predictions, log_loss = leave_one_out(moments).T
    positives, negatives = leave_one_out(scores.positives), leave_one_out(scores.negatives)  # [1 + folds, n]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_label = clicks / weight
        entropy = -(mean_label * np.log(mean_label) + (1 - mean_label) * np.log1p(-mean_label))
        is_defined = np.where(np.isfinite(predictions), 1.0, np.nan)  # a ctr that is NaN has no rank
        return {
            "auc": _auc(positives, negatives) * is_defined,
            "auc_pr": _average_precision(positives, negatives) * is_defined,
            "log_loss": log_loss / weight,
            "normalized_entropy": np.where(entropy > 0, log_loss / weight / entropy, np.nan),
            "calibration": predictions / np.where(clicks > 0, clicks, np.nan),
            "expected_calibration_error": _calibration_error(scores) / weight * is_defined,
            "mean_label": mean_label,
            "mean_prediction": predictions / weight,
        }


def _auc(positives: Array, negatives: Array) -> Array:
    """Returns P(a click's prediction > another's) + P(equal) / 2: [..., n] -> [...]."""
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    return (positives * below).sum(axis=-1) / (positives.sum(axis=-1) * negatives.sum(axis=-1))


def _average_precision(positives: Array, negatives: Array) -> Array:
    """Returns sum_i (recall_i - recall_(i-1)) * precision_i over falling thresholds: [..., n] -> [...]."""
    hits = np.cumsum(positives[..., ::-1], axis=-1)
    shown = np.cumsum((positives + negatives)[..., ::-1], axis=-1)
    precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
    return (positives[..., ::-1] * precision).sum(axis=-1) / positives.sum(axis=-1)


def _calibration_error(scores: Scores) -> Array:
    """Returns the weighted sum of |prediction - label| over groups of equal weight, [1 + NUM_FOLDS].

    Impressions with the same prediction stay together, in the group in which their middle is. The folds left out leave
    the groups as they are. (Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language
    processing models", EMNLP 2015: groups of equal width would put all of a low ctr into one.)
    """
    groups = weight_groups(scores, NUM_CALIBRATION_GROUPS)
    differences = (scores.positives + scores.negatives) * scores.predictions - scores.positives  # [folds, n]
    sums = np.stack([np.bincount(groups, row, minlength=NUM_CALIBRATION_GROUPS) for row in differences])
    total = sums.sum(axis=0, keepdims=True)
    return np.abs(np.concatenate([total, total - sums])).sum(axis=1)


def weight_groups(scores: Scores, num_groups: int) -> npt.NDArray[np.int64]:
    """Returns for each prediction the number of its group among `num_groups` of about equal weight, [n]."""
    weight = (scores.positives + scores.negatives).sum(axis=0)
    middle = np.cumsum(weight) - weight / 2
    return np.minimum((num_groups * middle / max(weight.sum(), 1e-300)).astype(np.int64), num_groups - 1)


@dataclasses.dataclass(frozen=True)
class Users:
    """What per-user metrics came to.

    Attributes:
        metrics: gauc, ndcg and mrr, each [1 + NUM_FOLDS].
        num_users: Number of users.
        num_gauc_users: Those with both a click and an impression without one.
    """

    metrics: dict[str, Array]
    num_users: int
    num_gauc_users: int


def user_metrics(
    users: Array, predictions: Array, labels: Array, weights: Array, folds: npt.NDArray[np.int64]
) -> Users:
    """Returns the metrics of a ranking within each user; impressions that weigh nothing are left out.

    - gauc: mean AUC of the users that have both classes, a user weighing as much as its impressions; the others are
      skipped and counted. (Zhu et al., "Optimized cost per click in Taobao display advertising", KDD 2017, weigh with
      impressions or clicks. Some public codes count skipped users as 0.5 or weigh all users the same: not comparable.)
    - ndcg: of the first `TOP_K`, a click gaining 1; equal predictions share their places' discounts, as with
      scikit-learn.
    - mrr: one over the rank of the first click; among equal predictions that rank is the expected one.

    ndcg and mrr are means over the users with a click, who weigh as much as their mean impression.

    Args:
        users: An id of the user, [n].
        predictions: Predicted ctr, [n].
        labels: 0 and 1, [n].
        weights: Weight of the impression, [n].
        folds: Fold of the user, [n].
    """
    kept = weights > 0
    users, predictions, labels, weights, folds = (
        column[kept] for column in (users, predictions, labels, weights, folds)
    )
    order = np.lexsort((-predictions, users))
    users, predictions, labels, weights = users[order], predictions[order], labels[order], weights[order]
    new_user = np.diff(users, prepend=np.nan) != 0
    starts = np.flatnonzero(new_user)  # of users
    ties = np.flatnonzero(new_user | (np.diff(predictions, prepend=np.nan) != 0))  # starts of equal predictions
    if not len(starts):
        return Users({name: np.full(1 + NUM_FOLDS, np.nan) for name in ("gauc", "ndcg", "mrr")}, 0, 0)
    tie_user = np.cumsum(new_user)[ties] - 1  # the user's number, [ties]
    num_users = len(starts)

    def per_tie(values: Array) -> Array:
        return np.add.reduceat(values, ties)

    def per_user(values: Array) -> Array:
        return np.bincount(tie_user, weights=values, minlength=num_users)

    size, clicks = per_tie(np.ones_like(labels)), per_tie(labels)
    positive, negative = per_tie(weights * labels), per_tie(weights * (1 - labels))
    user_positive, user_negative, user_clicks = per_user(positive), per_user(negative), per_user(clicks)
    user_weight, user_size = user_positive + user_negative, per_user(size)

    # The weight of the user's non-clicks that are predicted lower.
    upto = np.cumsum(negative) - np.concatenate([[0.0], np.cumsum(user_negative)])[tie_user]
    below = user_negative[tie_user] - upto
    both = (user_positive > 0) & (user_negative > 0)
    auc = per_user(positive * (below + negative / 2)) / np.where(both, user_positive * user_negative, 1)

    rank = ties - starts[tie_user]  # how many are better, [ties]
    longest = int(user_size.max())
    discounts = np.where(np.arange(longest) < TOP_K, 1 / np.log2(np.arange(longest) + 2.0), 0)
    gains = np.concatenate([[0.0], np.cumsum(discounts)])  # of the first i places
    dcg = per_user(clicks / size * (gains[rank + size.astype(np.int64)] - gains[rank]))
    clicked = user_clicks > 0
    ndcg = dcg / np.where(clicked, gains[user_clicks.astype(np.int64)], 1)

    with_click = np.flatnonzero(clicks > 0)
    first = with_click[np.unique(tie_user[with_click], return_index=True)[1]]  # each user's best click, [clicked]
    reciprocal = np.zeros(num_users)
    reciprocal[tie_user[first]] = 1 / (rank[first] + (size[first] + 1) / (clicks[first] + 1))

    user_folds = folds[order][starts]

    def mean(values: Array, weight: Array) -> Array:
        numerator = leave_one_out(sum_by_fold(user_folds, values * weight))
        denominator = leave_one_out(sum_by_fold(user_folds, weight))
        return numerator / np.where(denominator > 0, denominator, np.nan)

    each = clicked * user_weight / user_size
    metrics = {"gauc": mean(auc, both * user_weight), "ndcg": mean(ndcg, each), "mrr": mean(reciprocal, each)}
    return Users(metrics, num_users, int(both.sum()))


def score_bins(scores: Scores, num_bins: int) -> Any:
    """Returns the limits, clicks, other impressions and summed predictions of bins of about equal weight.

    Args:
        scores: Predictions of one model.
        num_bins: The most bins there may be.

    Returns:
        [4, bins + 1] float64; all but the limits end with 0.
    """
    groups = weight_groups(scores, num_bins)
    _, groups = np.unique(groups, return_inverse=True)
    positives, negatives = scores.positives.sum(axis=0), scores.negatives.sum(axis=0)
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    limits = (scores.predictions[first[1:]] + scores.predictions[first[1:] - 1]) / 2
    sums = [
        np.bincount(groups, v, minlength=1)
        for v in (positives, negatives, (positives + negatives) * scores.predictions)
    ]
    return np.stack([np.concatenate([[0.0], limits, [1.0]]), *(np.append(column, 0.0) for column in sums)])
