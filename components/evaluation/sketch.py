"""What is kept of a slice's impressions while they are read: a bounded number of rows, and histograms beyond it."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from components.evaluation import statistics
from components.evaluation.statistics import NUM_BINS, NUM_FOLDS, Array, Scores

MAX_ROWS = 2**18  # of the users that gauc, ndcg and mrr are computed from
MAX_EXACT_ROWS = 2**15  # up to here predictions are compared exactly, above in bins of their logit
MAX_SCORE_BINS = 200
_CHUNK_ROWS = 2**14
_USER, _LABEL, _WEIGHT, _PREDICTIONS = range(4)  # columns of a row; a prediction of each model


@dataclasses.dataclass(frozen=True)
class Measured:
    """The metrics of one slice.

    Attributes:
        models: For each model its metrics, [1 + NUM_FOLDS] each.
        score_bins: For each model its `statistics.score_bins`.
        occupied: Which folds have impressions, [NUM_FOLDS].
        num_examples: Number of impressions.
        num_users: Number of users, of whom these metrics know.
        num_gauc_users: How many of them gauc counts.
    """

    models: tuple[dict[str, Array], ...]
    score_bins: tuple[Array, ...]
    occupied: npt.NDArray[np.bool_]
    num_examples: int
    num_users: int
    num_gauc_users: int


class Sketch:
    """Impressions, of which all rows are kept up to `MAX_ROWS`.

    Above that the rows of the users with the smallest hashes stay, at most `MAX_ROWS` at the end (and up to twice that
    before): the same ones in
    whatever order the impressions come and are merged. gauc, ndcg and mrr are then those of this random sample of users
    (none are left where a single one has more rows than that); all other metrics come from histograms.
    """

    def __init__(self, num_models: int) -> None:
        self._width = _PREDICTIONS + num_models
        self._pending: list[Array] = []
        self._num_pending = 0
        self._chunks: list[Array] = []
        self._num_kept = 0
        self._num_examples = 0
        self._limit = np.inf  # rows whose user's hash is not below are not kept
        self._counts: list[Array] | None = None  # for each model [NUM_FOLDS, 2, NUM_BINS]
        self._moments: list[Array] = []  # for each model [NUM_FOLDS, len(MOMENTS)]

    def add(self, rows: Array) -> None:
        """Adds impressions.

        Args:
            rows: For each a hash of the user, in [0, 2^53), or -1 minus one of the impression where there is no user;
                the label; the weight; the prediction of each model: [n, 3 + num_models].
        """
        self._pending.append(rows)
        self._num_pending += len(rows)
        if self._num_pending >= _CHUNK_ROWS:
            self.compact()

    def compact(self) -> None:
        """Puts the rows that were added together."""
        if self._pending:
            rows = np.concatenate(self._pending)
            self._pending, self._num_pending = [], 0
            self._num_examples += len(rows)
            if self._counts is not None:
                self._count(rows)
            self._keep(rows)
            self._shrink()

    def merge(self, other: Sketch) -> None:
        """Adds another one's impressions, which it may lose."""
        self.compact()
        other.compact()
        if self._counts is None and other._counts is not None:
            self._count_kept()
        if self._counts is not None:
            if other._counts is None:
                other._count_kept()
            assert other._counts is not None
            self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
            self._moments = [mine + theirs for mine, theirs in zip(self._moments, other._moments, strict=True)]
        self._num_examples += other._num_examples
        if other._limit < self._limit:
            self._limit = other._limit
            kept, self._chunks, self._num_kept = self._chunks, [], 0
            for rows in kept:
                self._keep(rows)
        for rows in other._chunks:
            self._keep(rows)
        self._shrink()

    def measure(self) -> Measured:
        """Returns the metrics of the impressions that were added."""
        self.compact()
        if self._num_kept > MAX_ROWS:
            self._evict()
        rows = np.concatenate([np.zeros((0, self._width)), *self._chunks])
        folds, labels, weights = _folds(rows), rows[:, _LABEL], rows[:, _WEIGHT]
        users = rows[:, _USER] >= 0
        models, bins, num_users, num_gauc_users = [], [], 0, 0
        occupied = np.zeros(NUM_FOLDS, bool)
        for model in range(self._width - _PREDICTIONS):
            predictions = rows[:, _PREDICTIONS + model]
            if self._counts is None:
                exact = len(rows) <= MAX_EXACT_ROWS
                scores = statistics.count_scores(predictions, labels, weights, folds, exact)
                moments = statistics.sum_moments(predictions, labels, weights, folds)
            else:
                counts, moments = self._counts[model], self._moments[model]
                scores = Scores(statistics.BIN_PREDICTIONS, counts[:, 1], counts[:, 0])
            metrics = statistics.pooled_metrics(scores, moments)
            if users.any():
                columns = (rows[users, _USER], predictions[users], labels[users], weights[users], folds[users])
                per_user = statistics.user_metrics(*columns)
                metrics |= per_user.metrics
                num_users, num_gauc_users = per_user.num_users, per_user.num_gauc_users
            models.append(metrics)
            bins.append(statistics.score_bins(scores, min(MAX_SCORE_BINS, 1 + self._num_examples // 20)))
            occupied = moments[:, 0] > 0
        return Measured(tuple(models), tuple(bins), occupied, self._num_examples, num_users, num_gauc_users)

    def _keep(self, rows: Array) -> None:
        if self._limit < np.inf:
            rows = rows[_hashes(rows) < self._limit]
        self._chunks.append(rows)
        self._num_kept += len(rows)

    def _shrink(self) -> None:
        if self._num_kept > 2 * MAX_ROWS:
            self._evict()

    def _evict(self) -> None:
        """Leaves the rows of the users with the smallest hashes, at most `MAX_ROWS`."""
        if self._counts is None:
            self._count_kept()
        rows = np.concatenate(self._chunks)
        hashes = _hashes(rows)
        # The first user whose rows do not all fit is the first one to go.
        self._limit = min(self._limit, float(np.partition(hashes, MAX_ROWS)[MAX_ROWS]))
        self._chunks = [rows[hashes < self._limit]]
        self._num_kept = len(self._chunks[0])

    def _count_kept(self) -> None:
        num_models = self._width - _PREDICTIONS
        self._counts = [np.zeros((NUM_FOLDS, 2, NUM_BINS)) for _ in range(num_models)]
        self._moments = [np.zeros((NUM_FOLDS, len(statistics.MOMENTS))) for _ in range(num_models)]
        for rows in self._chunks:
            self._count(rows)

    def _count(self, rows: Array) -> None:
        assert self._counts is not None
        folds, labels, weights = _folds(rows), rows[:, _LABEL], rows[:, _WEIGHT]
        for model, counts in enumerate(self._counts):
            predictions = rows[:, _PREDICTIONS + model]
            bins = statistics.bin_predictions(predictions)
            counts += statistics.count_by_fold(bins, labels, weights, folds, NUM_BINS)
            self._moments[model] += statistics.sum_moments(predictions, labels, weights, folds)


def _hashes(rows: Array) -> Array:
    """Returns the hash of each row's user, or of the row itself where it has none."""
    users = rows[:, _USER]
    return np.where(users < 0, -1 - users, users)


def _folds(rows: Array) -> npt.NDArray[np.int64]:
    # The low digits, for the order of the high ones decides which users are kept.
    return _hashes(rows).astype(np.int64) % NUM_FOLDS
