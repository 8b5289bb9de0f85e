"""The charts of the scores, from the curves in `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation_report import charts
from components.evaluation_report.charts import Spec, quantitative, tooltip


def curve_charts(curves: Mapping[str, Any]) -> dict[str, Spec]:
    """Returns the charts of the scores: `roc`, `precision_recall`, `calibration`, `scores`, `gain` and `lift`.

    Args:
        curves: The `Curves` of each model, as in `report.json`.
    """
    points = _rows(curves, "operating_points")
    made = {"calibration": _calibration(curves), "scores": _scores(curves)}
    if points:
        rates = {model: of_model["click_rate"] for model, of_model in curves.items()}
        made |= _operating_charts(points, next(iter(rates.values())))
    return made


def _rows(curves: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [{"model": model, **point} for model, of_model in curves.items() for point in of_model[name]]


def _operating_charts(points: list[dict[str, Any]], click_rate: float) -> dict[str, Spec]:
    share = {"domain": [0, 1]}
    tips = tooltip(
        ("model", "Model", ""),
        ("threshold", "Score at least", ".3~g"),
        ("impressions", "Impressions", ".1%"),
        ("recall", "Clicks found (recall)", ".1%"),
        ("precision", "Precision", ".1%"),
        ("false_positive_rate", "False positive rate", ".1%"),
        ("lift", "Lift", ".2f"),
    )
    color = charts.of_models(points)

    def line(x: Spec, y: Spec, order: str, *references: Spec) -> Spec:
        return charts.chart([*references, *charts.lines(x, y, color, tips, order=order)], points)

    recall = quantitative("recall", "clicks found (recall)", "%", **share)
    impressions = quantitative("impressions", "impressions, highest scores first", "%", **share)
    return {
        "roc": line(
            quantitative("false_positive_rate", "false positive rate", "%", **share),
            quantitative("recall", "true positive rate", "%", **share),
            "impressions",
            charts.reference([(0, 0), (1, 1)]),
        ),
        "precision_recall": line(
            recall,
            quantitative("precision", "precision", "~%", zero=True),
            "impressions",
            charts.reference([(0, click_rate), (1, click_rate)]),
        ),
        "gain": line(
            impressions,
            quantitative("recall", "clicks found", "%", **share),
            "impressions",
            charts.reference([(0, 0), (1, 1)]),
        ),
        "lift": line(
            impressions, quantitative("lift", "lift over random"), "impressions", charts.reference([(0, 1), (1, 1)])
        ),
    }


def _calibration(curves: Mapping[str, Any]) -> Spec:
    rows = _rows(curves, "calibration")
    ends = [row[end] for row in rows for end in ("predicted", "low", "high")] or [0, 1]
    domain = {"domain": [min(ends), max(ends)]}
    tips = tooltip(
        ("model", "Model", ""),
        ("predicted", "Predicted", ".2%"),
        ("observed", "Observed", ".2%"),
        ("low", "95% from", ".2%"),
        ("high", "to", ".2%"),
        ("impressions", "Impressions", ",.0f"),
    )
    layers = charts.interval(
        {"x": quantitative("predicted", "predicted click rate", "%", **domain)},
        {"y": quantitative("observed", "observed click rate", "%", **domain)},
        "low",
        "high",
        charts.of_models(rows),
        tips,
    )
    return charts.chart([charts.reference([(domain["domain"][0],) * 2, (domain["domain"][1],) * 2]), *layers], rows)


def _scores(curves: Mapping[str, Any]) -> Spec:
    classes = (("click", "clicks"), ("no click", "others"))
    bins = _rows(curves, "scores")
    totals = {
        (model, field): sum(row[field] for row in bins if row["model"] == model)
        for model in curves
        for _, field in classes
    }
    rows = [
        {
            **{name: row[name] for name in ("model", "low", "high")},
            "class": kind,
            "impressions": row[field],
            # Of the class: where few impressions are clicks, their number would be a line at the bottom.
            "share": row[field] / (totals[row["model"], field] or 1),
        }
        for row in bins
        for kind, field in classes
    ]
    tips = tooltip(
        ("model", "Model", ""),
        ("class", "Class", ""),
        ("low", "Score from", ".3~g"),
        ("high", "to", ".3~g"),
        ("impressions", "Impressions", ",.0f"),
    )
    color = {
        "field": "class",
        "type": "nominal",
        "scale": {"domain": ["click", "no click"], "range": ["var(--click)", "var(--other)"]},
    }
    x, y = quantitative("low", "score", ".2~g"), quantitative("share", "share of the class", "~%", zero=True)
    layers = charts.lines(x, y, color, tips, step=True)
    dashes = {"domain": ["candidate", "baseline"], "range": [[1, 0], [3, 3]]}
    dash = {"field": "model", "type": "nominal", "scale": dashes}
    layers[0]["encoding"]["strokeDash"] = dash if len(curves) > 1 else {"value": [1, 0]}
    return charts.chart(layers, rows)
