"""`report.json` -> one HTML file that needs no network.

Slice values come from logs, so whoever writes a log could put markup into them. They stay text: Jinja escapes what goes
into HTML, its `tojson` what goes into a script element, page.js only makes text nodes of it, and Vega's tooltips escape
it. Should one of these fail, the page's Content-Security-Policy runs no script but the two that it names by their hash,
and loads nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import vl_convert
import yaml

from components.evaluation_report.charts import VEGA_LITE
from components.evaluation_report.curve_plots import curve_charts
from components.evaluation_report.metrics import find_metric
from components.evaluation_report.slice_plots import (
    AXES_HEIGHT,
    LINE_HEIGHT,
    ROW_HEIGHT,
    importance_charts,
    size_chart,
    slice_chart,
)
from components.evaluation_report.time_plots import history_charts, training_charts

ALL = "all impressions"
_MISSING, _MINUS, _TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
_KINDS = {"value": "", "change": ", against the baseline"}
_SECTIONS = ("metrics", "curves", "slices", "fields", "training", "examples")


def render(report: Mapping[str, Any]) -> str:
    """Returns the page.

    Args:
        report: The content of `report.json`, see `components.evaluation_report.report`.
    """
    (overall,) = (part for part in report["slices"] if not part["slice"])
    rows = list(_metric_rows(overall))
    slices = [_slice_row(part) for part in report["slices"] if part["slice"]]
    charts = curve_charts(report["curves"])
    if report["training"]:
        settings = report["config"].get("training", {})
        charts |= training_charts(report["training"], is_sampled=settings.get("negative_sampling_rate", 1) < 1)
    if report["importance"]:
        charts |= importance_charts(report["importance"]["fields"])
    page_data = {
        "charts": charts,
        "slice_chart": slice_chart(("candidate", "baseline") if report["baseline"] else ("candidate",)),
        "difference_chart": slice_chart(("difference",)),
        "size_chart": size_chart(),
        "metrics": [dataclasses.asdict(row["metric"]) for row in rows],
        "overall": {model: overall[model] for model in ("candidate", "baseline", "difference")},
        "has_baseline": bool(report["baseline"]),
        "row_height": ROW_HEIGHT,
        "line_height": LINE_HEIGHT,
        "axes_height": AXES_HEIGHT,
        "slices": slices,
    }
    gates = [
        gate | {"slice": slice_label(gate["slice"]), "label": find_metric(gate["metric"]).label + _KINDS[gate["kind"]]}
        for gate in report["gates"]
    ]
    return _page(
        "report.html.j2",
        page_data,
        report=report,
        overall=overall,
        metrics=rows,
        gates=sorted(gates, key=lambda gate: gate["passed"]),
        failed=[gate for gate in gates if not gate["passed"]],
        has_intervals=any(row["candidate"]["low"] is not None for row in rows),
        sections=[section for section in _SECTIONS if section != "fields" or report["importance"]],
    )


def render_history(pipeline: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page of all evaluations.

    Args:
        pipeline: The pipeline's name.
        runs: The evaluations, oldest first; see `time_plots.history_charts`. Each also has `failures`, the sentences of
            the gates that failed, and `report`, the address of its own page or None.
    """
    made_at = datetime.datetime.now(datetime.timezone.utc).isoformat()
    page_data = {"charts": history_charts(runs)}
    return _page("history.html.j2", page_data, pipeline=pipeline, runs=runs, made_at=made_at)


def slice_label(key: Sequence[Sequence[str]]) -> str:
    """Returns a slice's name for people, such as `gender = F, genres = Drama`.

    Args:
        key: Its columns and values; empty for all impressions.
    """
    return ", ".join(f"{column} = {value}" for column, value in key) or ALL


def _slice_row(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": slice_label(part["slice"]),
        "lines": [slice_label([pair]) for pair in part["slice"]],
        "columns": f" {_TIMES} ".join(column for column, _ in part["slice"]),
        **{name: part[name] for name in ("num_examples", "candidate", "baseline", "difference")},
    }


def _metric_rows(overall: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, candidate in overall["candidate"].items():
        metric, difference = find_metric(name), (overall["difference"] or {}).get(name)
        yield {
            "metric": metric,
            "candidate": candidate,
            "baseline": (overall["baseline"] or {}).get(name),
            "difference": difference,
            "verdict": _compare(metric.better, difference),
        }


def _compare(better: str | None, difference: Mapping[str, Any] | None) -> str:
    """Returns `better`, `worse` or `unclear`; nothing where the difference has no interval or no direction."""
    if not difference or difference["low"] is None or better not in ("higher", "lower"):
        return ""
    if difference["low"] <= 0 <= difference["high"]:
        return "unclear"
    return "better" if (difference["low"] > 0) == (better == "higher") else "worse"


def _page(template: str, page_data: Mapping[str, Any], **values: Any) -> str:
    environment = _environment()
    # As in a script element: there is no other "</script" in the two than inside a string or a regular expression.
    scripts = {"vega": _vega(), "js": _source("page.js")}
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts.values()]
    return environment.get_template(template).render(
        **values, **scripts, css=_source("page.css"), script_hashes=hashes, page_data=page_data
    )


@functools.cache
def _vega() -> str:
    """Returns Vega, Vega-Lite and vega-embed as one script: some seconds of work, once a process."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return bundle.replace("</script", "<\\/script")


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("components.evaluation_report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,.0f}",
        "days": _days,
        "decimal": lambda value: _MISSING if value is None else _minus(f"{value:.4f}"),
        "metric": lambda name: find_metric(name).label,
        "moment": lambda text: f"{datetime.datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC",
        "percent": lambda share: f"{share:.1%}",
        "plain": lambda value: _MISSING if value is None else _minus(f"{value:.4g}"),
        "signed": lambda value: _MISSING if value is None else _minus(f"{value:+.4f}"),
        "yaml": lambda tree: yaml.safe_dump(tree, sort_keys=False, allow_unicode=True),
    }
    return environment


def _days(days: Sequence[str]) -> str:
    if not days:
        return "none"
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}, {len(days)} days with rows"


def _minus(text: str) -> str:
    return text.replace("-", _MINUS)  # as wide as a digit
