"""The charts of the slices and of the fields, each a row with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluation_report import charts
from components.evaluation_report.charts import Spec, quantitative, tooltip

ROW_HEIGHT, LINE_HEIGHT, AXES_HEIGHT = 26, 14, 80  # in pixels; the last with the legend

_ZERO: Spec = {
    "data": {"values": [{"zero": 0}]},
    "mark": {"type": "rule", "stroke": "var(--muted)"},
    "encoding": {"x": {"field": "zero", "type": "quantitative"}},
}
_LINES = r"split(datum.label, '\n')"
_SLICE_AXIS = {
    "title": None,
    "labelLimit": 170,
    "labelExpr": _LINES,
    "labelLineHeight": LINE_HEIGHT,
    "labelOffset": {"expr": f"-{LINE_HEIGHT / 2} * (length({_LINES}) - 1)"},  # Vega puts the first line at the row
    "grid": False,
    "domain": False,
    "ticks": False,
}


def slice_chart(models: Sequence[str]) -> Spec:
    """Returns the plot of a metric against the slices, each with its interval; the page puts the rows in.

    Args:
        models: What is beside each other: `candidate` and, where there is one, `baseline`; or their `difference`.

    A row has `label`, `lines` (the label with a line for each column), `model`, `examples`, `value`, `low`, `high` and
    `overall`, the metric of all impressions.
    """
    tips = tooltip(
        ("label", "Slice", ""),
        ("model", "Model", ""),
        ("examples", "Examples", ",.0f"),
        ("value", "Value", ".4f"),
        ("low", "95% from", ".4f"),
        ("high", "to", ".4f"),
    )
    position: Spec = {"y": {"field": "lines", "type": "nominal", "sort": None, "axis": _SLICE_AXIS}}
    colors = {"range": ["var(--candidate)", "var(--baseline)"][: len(models)]}
    color: Spec = {"field": "model", "type": "nominal", "scale": {"domain": list(models)} | colors}
    if len(models) == 1:
        color["legend"] = None
    overall = {
        "transform": [{"aggregate": [{"op": "mean", "field": "overall", "as": "overall"}], "groupby": ["model"]}],
        "mark": {"type": "rule", "strokeDash": [4, 4], "opacity": 0.7},
        "encoding": {"x": quantitative("overall", "", nice=True), "color": color},
    }
    value = {"x": quantitative("value", "dashed: all impressions", nice=True)}
    offset = {"field": "model", "type": "nominal", "scale": {"domain": list(models)}}
    layers = charts.interval(position, value, "low", "high", color, tips, yOffset=offset)
    layers += [_ZERO] if "difference" in models else []
    return charts.chart([overall, *layers], None)


def size_chart() -> Spec:
    """Returns the plot of a metric against the slices' sizes; the page puts the rows in, see `slice_chart`."""
    tips = tooltip(("label", "Slice", ""), ("examples", "Examples", ",.0f"), ("value", "Value", ".4f"))
    x = quantitative("examples", "examples (log scale)", "~s", type="log")
    encoding = {"x": x, "y": quantitative("value", ""), "tooltip": tips}
    overall = {
        "transform": [{"aggregate": [{"op": "mean", "field": "overall", "as": "overall"}]}],
        "mark": {"type": "rule", "strokeDash": [4, 4], "stroke": "var(--muted)"},
        "encoding": {"y": {"field": "overall", "type": "quantitative"}},
    }
    dots = {"type": "point", "filled": True, "size": 40, "opacity": 0.6, "color": "var(--candidate)"}
    return charts.chart([overall, {"mark": dots, "encoding": encoding}], None)


def importance_charts(fields: Sequence[Mapping[str, Any]]) -> dict[str, Spec]:
    """Returns the plots of the permutation importance, by AUC and by log loss, the greatest first.

    Args:
        fields: See `importance.Importance`.
    """
    return {
        "importance_auc": _importance_chart(fields, "auc", "AUC lost"),
        "importance_log_loss": _importance_chart(fields, "log_loss", "log loss added"),
    }


def _importance_chart(fields: Sequence[Mapping[str, Any]], metric: str, title: str) -> Spec:
    found = sorted(((field["field"], field[metric]) for field in fields), key=lambda pair: -pair[1]["value"])
    rows = [
        {"field": name, "low": lost["value"] - 2 * lost["spread"], "high": lost["value"] + 2 * lost["spread"]} | lost
        for name, lost in found
    ]
    tips = tooltip(("field", "Field", ""), ("value", title, "+.4f"), ("spread", "standard deviation", ".4f"))
    position: Spec = {"y": {"field": "field", "type": "nominal", "sort": None, "axis": _SLICE_AXIS}}
    value = {"x": quantitative("value", title, zero=True, nice=True)}
    layers = charts.interval(position, value, "low", "high", {"value": "var(--candidate)"}, tips)
    return charts.chart([_ZERO, *layers], rows, height=ROW_HEIGHT * len(rows) + AXES_HEIGHT)
