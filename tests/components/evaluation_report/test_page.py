from __future__ import annotations

import html.parser
import json
import time

import pytest

from components.evaluation_report.page import render, render_history, slice_label
from components.evaluation_report.report import make_report
from tests.components.evaluation_report import invented


def _report(num_slices=30, *, has_baseline=True, config=None, **evaluation):
    context = invented.context(has_baseline=has_baseline, config=config)
    made = make_report(invented.evaluation(num_slices, has_baseline=has_baseline, **evaluation), context)
    return json.loads(made.to_json())


class _Tags(html.parser.HTMLParser):
    """Counts the elements, and keeps the attributes that run or load something."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.suspects = {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.suspects += [(tag, *attr) for attr in attrs if attr[0].startswith("on") or attr[0] in ("src", "href")]


def test_a_thousand_slices_take_less_than_five_seconds_and_five_megabytes():
    report = make_report(invented.evaluation(1_000), invented.context())
    start, cpu_start = time.monotonic(), time.process_time()
    page = render(json.loads(report.to_json()))
    # Of the processor's time, where others keep it busy.
    assert min(time.monotonic() - start, time.process_time() - cpu_start) < 5
    assert len(page.encode()) < 5_000_000


def test_a_hostile_slice_adds_no_element_and_no_attribute(read_data):
    harmless, hostile = (render(_report(blessed=False, hostile=is_hostile)) for is_hostile in (False, True))
    assert _Tags(hostile).tags == _Tags(harmless).tags
    assert _Tags(hostile).suspects == _Tags(harmless).suspects
    assert {suspect[0] for suspect in _Tags(hostile).suspects} == {"a", "link"}
    assert invented.HOSTILE not in hostile
    assert read_data(hostile)["slices"][0]["label"] == f"genres = {invented.HOSTILE}"


def test_a_hostile_config_is_text():
    harmless, hostile = (render(_report(config={"name": name})) for name in ("shop", invented.HOSTILE))
    assert _Tags(hostile).tags == _Tags(harmless).tags


def test_the_verdict_names_each_failed_gate():
    report = _report(blessed=False)
    page = render(report)
    assert "Not blessed" in page
    (failed,) = (gate for gate in report["gates"] if not gate["passed"])
    assert f"<li>{failed['sentence']}</li>" in page
    assert "1 of 3 failed" in page
    blessed = render(_report())
    assert "Not blessed" not in blessed
    assert "2 of 2 gates passed" in blessed


def test_a_difference_is_better_only_where_its_whole_interval_is():
    report = _report()
    overall = report["slices"][0]
    overall["difference"] = {
        "auc": {"value": 0.02, "low": 0.01, "high": 0.03},
        "log_loss": {"value": 0.02, "low": 0.01, "high": 0.03},
        "normalized_entropy": {"value": -0.02, "low": -0.05, "high": 0.01},
        "calibration": {"value": 0.02, "low": 0.01, "high": 0.03},
    }
    page = render(report)
    words = (">▲ better", ">▼ worse", ">no clear difference")
    table = page.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = {row.partition(">")[2].partition("<")[0]: row for row in table.split('<th scope="row"')[1:]}
    said = {label: [word for word in words if word in row] for label, row in rows.items()}
    assert said["AUC"] == [words[0]]
    assert said["Log loss"] == [words[1]]
    assert said["Normalized entropy"] == [words[2]]
    assert said["Calibration"] == []


def test_without_a_baseline_there_is_no_comparison(read_data):
    page = render(_report(has_baseline=False))
    assert "no pushed model to compare with" in page
    assert "<th>Difference</th>" not in page
    assert "difference-chart" not in page.partition("</main>")[0]
    assert "dashed: the baseline" not in page
    assert "dashed: the baseline" in render(_report())
    plot = json.dumps(read_data(page)["slice_chart"])
    assert "baseline" not in plot
    assert '"field": "zero"' not in plot  # that line is the differences'


def test_numbers_that_are_not_finite_are_null_and_shown_as_missing():
    evaluation = invented.evaluation(3)
    evaluation.slices[1].candidate["auc"] = invented.Figure(float("nan"))
    made = make_report(evaluation, invented.context())
    report = json.loads(made.to_json())
    assert report["slices"][1]["candidate"]["auc"] == {"value": None, "low": None, "high": None}
    assert "NaN" not in render(report).partition("</main>")[0]


def test_what_it_was_trained_on_is_told():
    page = render(_report())
    for expected in ("90,641", "2026-11-01 to 2026-11-03", "<strong>12 bad rows</strong>", "9: negative id", "9.4%"):
        assert expected in page
    assert '<td class="worse">0.11 ✗</td>' in page  # the drift beyond its bound
    assert "learning_rate: 0.0005" in page
    assert "the best by AUC on the eval split. Cold start: there is no earlier blessed model.</p>" in page


@pytest.mark.parametrize(
    ("rate", "curves", "caption"),
    [
        (1.0, {"loss": {"training split", "eval split"}}, "Apart where the model learns by heart."),
        (0.5, {"loss": {"eval split"}, "training_loss": {"training split"}}, "not to be compared with the log loss"),
    ],
)
def test_the_loss_on_sampled_impressions_is_not_beside_that_of_the_eval_split(read_data, rate, curves, caption):
    page = render(_report(config={"training": {"negative_sampling_rate": rate}}))
    charts = read_data(page)["charts"]
    assert {
        name: {row["what"] for row in charts[name]["data"]["values"]}
        for name in ("loss", "training_loss")
        if name in charts
    } == curves
    captions = ("Apart where the model learns by heart.", "not to be compared with the log loss")
    assert [text for text in captions if text in page] == [caption]


def test_the_fields_stand_in_the_order_of_what_each_metric_loses_without_them(read_data):
    page = render(_report())
    assert '<a href="#fields">' in page
    charts = read_data(page)["charts"]
    order = {name: [row["field"] for row in charts[name]["data"]["values"]] for name in charts if "importance" in name}
    assert order == {
        "importance_auc": ["item_id", "user_id", "gender"],
        "importance_log_loss": ["user_id", "item_id", "gender"],
    }
    (first, *_) = charts["importance_auc"]["data"]["values"]
    assert (first["value"], first["low"], first["high"]) == pytest.approx((0.08, 0.076, 0.084))
    without = render(_report() | {"importance": None})
    assert "#fields" not in without
    assert "importance_auc" not in read_data(without)["charts"]


def test_a_model_without_epochs_or_anomalies_still_has_a_page():
    report = _report() | {"training": None}
    report["examples"] |= {"anomalies": ["train: age: <b>too old</b>"], "drift": [], "collisions": {}}
    page = render(report)
    assert "has left no figures of its epochs" in page
    assert "age: &lt;b&gt;too old&lt;/b&gt;" in page


def test_the_history_links_to_each_report(read_data):
    figure = {"value": 0.7, "low": 0.69, "high": 0.71}
    runs = [
        {"made_at": f"2026-11-0{day}T10:00:00+00:00", "run_id": f"run {day}", "state": state,
         "days": [f"2026-11-0{day}"],
         "failures": [invented.HOSTILE], "metrics": {"auc": figure}, "report": f"root/{day}/report.html"}
        for day, state in ((1, "pushed"), (2, "not blessed"))
    ]  # fmt: skip
    page = render_history("movielens", runs)
    assert [suspect[2] for suspect in _Tags(page).suspects] == ["data:,", "root/2/report.html", "root/1/report.html"]
    assert "Evaluations: 2; models pushed: 1. " in page
    assert ">2026-11-02<" in page
    assert [layer.get("encoding", {}).get("shape") for layer in read_data(page)["charts"]["auc"]["layer"]].count(
        None
    ) == 2


@pytest.mark.parametrize(
    ("key", "label"),
    [([], "all impressions"), ([["a", "1"]], "a = 1"), ([["a", "1"], ["b", "x"]], "a = 1, b = x")],
)
def test_slices_have_names(key, label):
    assert slice_label(key) == label
