"""What an evaluation found, as the Evaluator wrote it: figures, slices, gates.

The names of the metrics, the same in `summary.json`:

| name | what it is |
|---|---|
| auc, auc_pr | area under the ROC curve; average precision (as scikit-learn defines them) |
| log_loss | mean binary cross entropy, in nats |
| normalized_entropy | log loss over that of always predicting the mean label |
| calibration | sum of predictions over sum of labels |
| expected_calibration_error | mean distance of prediction and label over 20 groups of equally many impressions |
| mean_label, mean_prediction | means |
| gauc | mean AUC within a user, weighted by impressions; only where the spec has a `group_key` |
| ndcg, mrr | means over users with a click; only where the spec has a `group_key` |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

Slice: TypeAlias = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number and what is known about it.

    Attributes:
        value: The number itself; NaN where it is not defined, such as the AUC of one class.
        low: Lower limit of its 95% interval; None where none can be told.
        high: Upper limit; None together with `low`.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class SliceEvaluation:
    """The impressions of one slice.

    Attributes:
        slice: Pairs of a column, or of a derived one, and its value as it is in the log: hostile text, to be escaped
            wherever it is shown. () is all impressions.
        num_examples: How many impressions it has, whatever their weights.
        candidate: The candidate's metrics, by name.
        baseline: The baseline's, None in a run without one.
        difference: Candidate minus baseline on the same impressions, None in a run without a baseline. Its interval is
            that of the paired difference, which is narrower than the two intervals suggest.
        num_users: Users by whom gauc, ndcg and mrr are grouped, 0 without a `group_key`.
        num_gauc_users: Those of them with both a click and none, the only ones that gauc counts.
    """

    slice: Slice
    num_examples: int
    candidate: Mapping[str, Figure]
    baseline: Mapping[str, Figure] | None = None
    difference: Mapping[str, Figure] | None = None
    num_users: int = 0
    num_gauc_users: int = 0


@dataclasses.dataclass(frozen=True)
class Gate:
    """One condition of the blessing, checked on one slice.

    Attributes:
        metric: Name of the metric.
        slice: The slice, () for all impressions.
        kind: "value": the candidate's own figure is bounded. "change": its difference to the baseline is.
        figure: What is bounded: the candidate's metric, or candidate minus baseline.
        bound: The bound.
        passed: Whether it holds.
        sentence: What was required and found, with figure, bound and slice, for people. It has slice values: escape it.
    """

    metric: str
    slice: Slice
    kind: Literal["value", "change"]
    figure: Figure
    bound: float
    passed: bool
    sentence: str


@dataclasses.dataclass(frozen=True)
class ScoreHistogram:
    """Weighted counts of impressions by predicted ctr; ROC, precision-recall, calibration and gain follow from it.

    The bins hold about equally many impressions each, so their widths differ: a density is count / width.

    Attributes:
        edges: Limits of the bins, ascending, [num_bins + 1]; the first is 0, the last 1.
        positives: Weight of the clicks in each bin, [num_bins].
        negatives: Weight of the other impressions in each bin, [num_bins].
        predictions: Sum of weight * predicted ctr in each bin, [num_bins]; over the bin's weight it is the mean.
    """

    edges: tuple[float, ...]
    positives: tuple[float, ...]
    negatives: tuple[float, ...]
    predictions: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        slices: All impressions first, then the slices in the order of their names.
        gates: All gates that were checked, failed ones first.
        blessed: Whether all of them hold.
        candidate_scores: The candidate's histogram over all impressions.
        baseline_scores: The baseline's, None in a run without one.
    """

    slices: tuple[SliceEvaluation, ...]
    gates: tuple[Gate, ...]
    blessed: bool
    candidate_scores: ScoreHistogram
    baseline_scores: ScoreHistogram | None = None

    @property
    def overall(self) -> SliceEvaluation:
        """All impressions."""
        return self.slices[0]


def read_evaluation(evaluation_uri: str) -> Evaluation:
    """Reads what the Evaluator wrote.

    Args:
        evaluation_uri: Folder of the ModelEvaluation artifact.

    Raises:
        FileNotFoundError: There is no evaluation in the folder.
    """
    raise NotImplementedError(evaluation_uri)
