"""Invented evaluations, from scores that are drawn."""

from __future__ import annotations

import dataclasses

import numpy as np

from components.drift_gate.measure import Movement
from components.evaluation.results import Evaluation, Figure, Gate, ScoreHistogram, SliceEvaluation
from components.evaluation_report.collisions import Collisions
from components.evaluation_report.importance import FieldImportance, Importance, Lost
from components.evaluation_report.report import Context, Examples, Split
from schemas.training_log import TrainingLog

HOSTILE = """</script><script>window.hacked = 1</script>"><img src=x onerror="window.hacked = 2">'`{{ 7 * 7 }}"""


def histogram(seed, separation, num=20_000, bins=200):
    """Scores of `num` impressions, 30% of them clicks."""
    generator = np.random.default_rng(seed)
    labels = generator.random(num) < 0.3
    logits = generator.normal(-1 + separation * labels, 1)
    scores = 1 / (1 + np.exp(-logits))
    edges = np.quantile(scores, np.linspace(0, 1, bins + 1))
    edges[0], edges[-1] = 0, 1
    clicks, others = (np.histogram(scores[labels == label], edges)[0] for label in (True, False))
    sums = np.histogram(scores, edges, weights=scores)[0]
    return ScoreHistogram(*(tuple(map(float, values)) for values in (edges, clicks, others, sums)))


def evaluation(num_slices=30, *, blessed=True, has_baseline=True, has_intervals=True, hostile=False, seed=1):
    """An evaluation with slices by genre; the first has a hostile name where that is wanted."""
    generator = np.random.default_rng(seed)
    names = [HOSTILE if hostile and n == 0 else f"genre {n}" for n in range(num_slices)]
    slices = [_slice((), 20_000, generator, has_baseline)]
    slices += [_slice((("genres", n),), int(10 ** generator.uniform(1, 4)), generator, has_baseline) for n in names]
    if not has_intervals:
        slices = [_without_intervals(one) for one in slices]
    gates = [_gate("auc", (), "value", 0.72, 0.6, True), _gate("calibration", (), "value", 1.02, 1.1, True)]
    if not blessed:
        gates.append(_gate("auc", (("genres", names[0]),), "change", -0.031, -0.01, False))
    return Evaluation(
        slices=tuple(slices),
        gates=tuple(gates),
        blessed=blessed,
        candidate_scores=histogram(seed, 1.2),
        baseline_scores=histogram(seed + 1, 1.0) if has_baseline else None,
    )


def context(*, has_baseline=True, config=None):
    """What is known of an invented model."""
    epochs = tuple(
        {"loss": 0.7 - 0.03 * n, "val_log_loss": 0.65 - 0.02 * n + 0.003 * n**2}
        | {"val_auc": 0.66 + 0.02 * n - 0.002 * n**2}
        | {"val_linear": 0.2 + 0.05 * n, "val_fm": 0.1 + 0.02 * n, "val_deep": 0.3 + 0.04 * n}
        for n in range(6)
    )
    return Context(
        pipeline="movielens",
        run_id="2026-11-24T20:00:00+00:00",
        made_at="2026-11-24T20:02:00+00:00",
        model="runs/movielens/root/Trainer/model/9",
        baseline="runs/movielens/root/Trainer/model/1" if has_baseline else None,
        evaluation="runs/movielens/root/Evaluator/evaluation/10",
        examples=Examples(
            splits=(
                Split("train", ("2026-11-01", "2026-11-02", "2026-11-03"), 90_641),
                Split("eval", ("2026-11-04",), 9_359),
            ),
            rows=100_012,
            quarantined={"negative id": 9, "label missing or not 0 or 1": 3},
            quarantine="runs/movielens/quarantine/2026-11-04-0a1b2c3d.jsonl",
            anomalies=(),
            drift=(
                Movement("gender", "drift", "L-infinity", 0.012, 0.05, "warn"),
                Movement("item_id", "skew", "L-infinity", 0.11, 0.05, "warn", HOSTILE),
            ),
            collisions={
                "user_id": Collisions(943, 10_000, 0.094, 0.078, True),
                "item_id": Collisions(1_682, 20_000, 0.083, 0.093, True),
            },
        ),
        training=TrainingLog("val_auc", 6, epochs, "cold start: there is no earlier blessed model"),
        config=config or {"name": "movielens", "training": {"learning_rate": 0.0005}},
        versions={"tfx": "1.16.0", "tensorflow": "2.16.2"},
        importance=Importance(
            9_359,
            3,
            0.72,
            0.61,
            (
                FieldImportance("item_id", Lost(0.08, 0.002), Lost(0.05, 0.001)),
                FieldImportance("user_id", Lost(0.03, 0.001), Lost(0.06, 0.001)),
                FieldImportance("gender", Lost(-0.0001, 0.0003), Lost(0.0, 0.0002)),
            ),
        ),
    )


def _slice(key, num_examples, generator, has_baseline):
    wide = 1 / np.sqrt(num_examples)

    def figure(value, half):
        return Figure(float(value), float(value - half), float(value + half))

    means = {"auc": 0.72, "log_loss": 0.61, "normalized_entropy": 0.9, "calibration": 1.01, "gauc": 0.66}
    candidate = {name: figure(generator.normal(mean, wide / 2), wide) for name, mean in means.items()}
    if not has_baseline:
        return SliceEvaluation(key, num_examples, candidate)
    baseline = {name: figure(of.value - generator.normal(0.004, wide / 4), wide) for name, of in candidate.items()}
    difference = {name: figure(of.value - baseline[name].value, wide / 2) for name, of in candidate.items()}
    return SliceEvaluation(key, num_examples, candidate, baseline, difference)


def _without_intervals(found):
    figures = {
        model: {name: Figure(figure.value) for name, figure in (getattr(found, model) or {}).items()} or None
        for model in ("candidate", "baseline", "difference")
    }
    return dataclasses.replace(found, **figures)


def _gate(metric, key, kind, value, bound, passed):
    where = f" on {key[0][0]} = {key[0][1]}" if key else ""
    sentence = f"{metric}{where} is {value:.4f}, and the bound is {bound:g}"
    return Gate(metric, key, kind, Figure(value, value - 0.01, value + 0.01), bound, passed, sentence)
