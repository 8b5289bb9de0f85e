"""The page's charts as Vega-Lite, a grammar of graphics that is written in JSON: https://vega.github.io/vega-lite/.

Colours are the page's CSS variables, so that a chart turns dark with the page and black on white in print.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Spec: TypeAlias = dict[str, Any]
Rows: TypeAlias = Sequence[Mapping[str, Any]]

VEGA_LITE = "6.4"
PALETTE = {  # of the light page: for where there is no CSS
    "ink": "#1c2430",
    "muted": "#5b6675",
    "line": "#dfe3e8",
    "candidate": "#1f6feb",
    "baseline": "#c2570c",
    "click": "#1a7f4b",
    "other": "#8250df",
    "good": "#1a7f4b",
    "bad": "#c62828",
}

_TEXT = {"labelColor": "var(--muted)", "titleColor": "var(--muted)", "labelFontSize": 11, "titleFontSize": 11}
_CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "titleFontWeight": "normal",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelOverlap": True,
        "labelSeparation": 4,
        "tickCount": 6,
    },
    "legend": {**_TEXT, "title": None, "orient": "top", "symbolStrokeWidth": 2, "labelLimit": 0},
}
# Not `nearest`: Vega-Lite 6.4 loses the texts of its tooltips.
_HOVER = {"type": "point", "on": "pointerover", "clear": "pointerout"}
MODELS = {"domain": ["candidate", "baseline"], "range": ["var(--candidate)", "var(--baseline)"]}


def chart(layers: Sequence[Spec], rows: Rows | None, height: int = 260) -> Spec:
    """Returns layers over the same rows as one chart, as wide as where it stands.

    Args:
        layers: Each with its mark and encoding.
        rows: The rows; None for those that the page puts in.
        height: In pixels.
    """
    return {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE.split('.')[0]}.json",
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": _CONFIG,
        "data": {"values": list(rows or ())},
        "layer": list(layers),
    }


def quantitative(field: str, title: str, form: str = "", **scale: Any) -> Spec:
    """Returns the encoding of a number on an axis: its title, d3's number format, and properties of the scale."""
    zero = {} if "type" in scale else {"zero": False}  # a log scale has none
    return {
        "field": field,
        "type": "quantitative",
        "axis": {"title": title, **({"format": form} if form else {})},
        "scale": {"nice": False, **zero, **scale},
    }


def tooltip(*fields: tuple[str, str, str]) -> list[Spec]:
    """Returns what a tooltip shows: of each field its name, a title and d3's number format, empty for text."""
    return [
        {"field": field, "title": title, **({"type": "quantitative", "format": form} if form else {"type": "nominal"})}
        for field, title, form in fields
    ]


def of_models(rows: Rows) -> Spec:
    """Returns the colours of the candidate and the baseline; no legend where only one is in the rows."""
    several = len({row["model"] for row in rows}) > 1
    return {"field": "model", "type": "nominal", "scale": MODELS, **({} if several else {"legend": None})}


def lines(
    x: Spec, y: Spec, color: Spec, tips: list[Spec], *, order: str = "", step: bool = False, dots: bool = False
) -> list[Spec]:
    """Returns the layers of lines, with a point and its tooltip where the pointer is on them.

    Args:
        x: The encoding of the horizontal axis.
        y: That of the vertical axis.
        color: That of what tells the lines apart.
        tips: The tooltips.
        order: The field by whose order points are joined; else by `x`.
        step: Whether a line goes on at a point's height up to the next one.
        dots: Whether each point is seen, for lines that may have only one.
    """
    mark: Spec = {"type": "line", "strokeWidth": 2, **({"interpolate": "step-after"} if step else {})}
    if dots:
        mark["point"] = {"filled": True, "size": 40}
    encoding = {"x": x, "y": y, "color": color}
    return [
        {"mark": mark, "encoding": encoding | ({"order": {"field": order, "type": "quantitative"}} if order else {})},
        {
            "params": [{"name": "hover", "select": _HOVER}],
            "mark": {"type": "point", "filled": True, "size": 150},
            "encoding": encoding
            | {"tooltip": tips, "opacity": {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0}},
        },
    ]


def reference(points: Iterable[tuple[float, float]]) -> Spec:
    """Returns the layer of a dashed line through points, to compare with."""
    return {
        "data": {"values": [{"x": x, "y": y} for x, y in points]},
        "mark": {"type": "line", "stroke": "var(--muted)", "strokeDash": [4, 4], "strokeWidth": 1},
        "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "y", "type": "quantitative"}},
    }


def interval(
    position: Spec, value: Spec, low: str, high: str, color: Spec, tips: list[Spec], **other: Any
) -> list[Spec]:
    """Returns the layers of points with their intervals.

    Args:
        position: The encoding across the intervals, with its channel: {"y": ...}.
        value: The encoding along them, with its channel.
        low: Field of the intervals' lower ends.
        high: Of their upper ends.
        color: The colour's encoding.
        tips: The tooltip.
        other: Further channels.
    """
    ((channel, along),) = value.items()
    ends = {channel: along | {"field": low}, f"{channel}2": {"field": high}}
    return [
        {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": {**position, **ends, "color": color, **other}},
        {
            "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
            "encoding": {**position, **value, "color": color, "tooltip": tips, **other},
        },
    ]


def without_css(spec: Any) -> Any:
    """Returns the chart with the light page's colours, for where the page's CSS is not, such as in a notebook."""
    if isinstance(spec, Mapping):
        return {name: without_css(inner) for name, inner in spec.items()}
    if isinstance(spec, list | tuple):
        return [without_css(inner) for inner in spec]
    if isinstance(spec, str) and spec.startswith("var(--"):
        return PALETTE[spec.removeprefix("var(--").removesuffix(")")]
    return spec
