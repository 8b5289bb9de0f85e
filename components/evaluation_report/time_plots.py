"""The charts over epochs and over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluation_report import charts
from components.evaluation_report.charts import Spec, quantitative, tooltip
from components.evaluation_report.metrics import find_metric

_MOST_TICKS = 12


def training_charts(training: Mapping[str, Any], *, is_sampled: bool = False) -> dict[str, Spec]:
    """Returns the charts of a training's epochs: `loss`, `auc` and `terms`.

    Args:
        training: The `TrainingLog`, as in `report.json`.
        is_sampled: Whether impressions without a click were left out of the training. The click rate of what is left is
            another one, so that its loss cannot stand beside that of the eval split: it has a chart, `training_loss`.
    """
    trained, measured = {"loss": "training split"}, {"val_log_loss": "eval split"}
    groups = {
        **({"loss": measured, "training_loss": trained} if is_sampled else {"loss": trained | measured}),
        "auc": {"val_auc": "eval split"},
        "terms": {"val_linear": "linear", "val_fm": "FM", "val_deep": "deep"},
    }
    titles = {"loss": "log loss", "training_loss": "log loss", "auc": "AUC", "terms": "mean magnitude, in logits"}
    return {name: _epochs(training, group, titles[name]) for name, group in groups.items()}


def _epochs(training: Mapping[str, Any], figures: Mapping[str, str], title: str) -> Spec:
    rows = [
        {"epoch": number, "what": label, "value": epoch[name]}
        for number, epoch in enumerate(training["epochs"], start=1)
        for name, label in figures.items()
        if epoch.get(name) is not None
    ]
    colors = ["var(--candidate)", "var(--baseline)", "var(--muted)"]
    color: Spec = {"field": "what", "type": "nominal", "scale": {"domain": list(figures.values()), "range": colors}}
    if len(figures) == 1:
        color["legend"] = None
    x = quantitative("epoch", "epoch (dashed: the one that was kept)", "d")
    x["axis"]["tickMinStep"] = 1
    if len(training["epochs"]) <= _MOST_TICKS:  # where there are few, Vega repeats some
        x["axis"]["values"] = list(range(1, len(training["epochs"]) + 1))
    tips = tooltip(("what", "What", ""), ("epoch", "Epoch", "d"), ("value", "Value", ".4f"))
    best = {
        "data": {"values": [{"epoch": training["best_epoch"]}]},
        "mark": {"type": "rule", "stroke": "var(--muted)", "strokeDash": [4, 4]},
        "encoding": {"x": {"field": "epoch", "type": "quantitative"}},
    }
    lines = charts.lines(x, quantitative("value", title, ".6~g"), color, tips, dots=True)
    return charts.chart([best, *lines], rows, height=200)


def history_charts(runs: Sequence[Mapping[str, Any]]) -> dict[str, Spec]:
    """Returns a chart for each metric: its value, with the interval, over the runs.

    Args:
        runs: Each with `made_at`, `run_id`, `days` (those it was evaluated on), `state` (`pushed`, `rolled back`,
            `blessed` or `not blessed`) and `metrics`, the figures by the metric's name.
    """
    names = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    return {name: _over_runs(runs, name) for name in names}


def _over_runs(runs: Sequence[Mapping[str, Any]], name: str) -> Spec:
    rows = [
        {
            **{key: run[key] for key in ("made_at", "state")},
            "run": run["run_id"],
            "days": " to ".join(dict.fromkeys([*run["days"][:1], *run["days"][-1:]])),
            **run["metrics"][name],
        }
        for run in runs
        if name in run["metrics"]
    ]
    title = find_metric(name).label
    interval = (("low", "95% from", ".4f"), ("high", "to", ".4f"))
    tips = tooltip(
        ("run", "Run", ""), ("days", "Eval days", ""), ("state", "State", ""), ("value", title, ".4f"), *interval
    )
    domain = ["pushed", "rolled back", "blessed", "not blessed"]
    states = {"domain": domain, "range": ["var(--good)", "var(--muted)", "var(--candidate)", "var(--bad)"]}
    shapes = {"domain": domain, "range": ["diamond", "diamond", "circle", "cross"]}
    # UTC and 24 hours, as in the rest of the page.
    axis = {"title": "evaluated at, UTC", "format": {"hours": "%H:%M", "minutes": "%H:%M"}}
    position = {"x": {"field": "made_at", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}}
    value = {"y": quantitative("value", title)}
    # Two states in a row: four are wider than a phone.
    color = {"field": "state", "type": "nominal", "scale": states, "legend": {"columns": 2}}
    line = {"mark": {"type": "line", "stroke": "var(--muted)", "strokeWidth": 1}, "encoding": {**position, **value}}
    points = charts.interval(position, value, "low", "high", color, tips)
    points[1]["encoding"]["shape"] = {"field": "state", "type": "nominal", "scale": shapes}
    points[1]["mark"]["size"] = 90
    return charts.chart([line, *points], rows, height=220)
