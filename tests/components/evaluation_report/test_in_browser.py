"""The page in a real browser: what a person sees and does."""

from __future__ import annotations

import json

import pytest

from components.evaluation_report.page import render, render_history
from components.evaluation_report.report import make_report
from tests.components.evaluation_report import invented


def _write(folder, name, num_slices, **evaluation):
    has_baseline = evaluation.get("has_baseline", True)
    report = make_report(invented.evaluation(num_slices, **evaluation), invented.context(has_baseline=has_baseline))
    file = folder / f"{name}.html"
    file.write_text(render(json.loads(report.to_json())), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of a model that was not blessed, with 40 slices, one of them hostile."""
    return _write(tmp_path_factory.mktemp("pages"), "report", 40, blessed=False, hostile=True)


@pytest.fixture(scope="module")
def page(browser, file):
    return browser.open(file)


def _column(page, number):
    """The texts of a column of the table of slices, without the intervals."""
    cells = f"[...document.querySelectorAll('#slice-table tbody tr > :nth-child({number})')]"
    return page.evaluate(f"{cells}.map((cell) => cell.firstChild.textContent)")


def _numbers(page, number):
    return [float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in _column(page, number)]


def _settle(page, script):
    """Does something to the page's controls and waits until the plots have followed."""
    page.evaluate(f"document.querySelector('#slice-chart').replaceChildren(), {script}, 0")
    page.wait("document.querySelector('#slice-chart svg') !== null")


def _choose(page, control, value):
    place = f"document.querySelector('#{control}')"
    _settle(page, f"{place}.value = {json.dumps(value)}, {place}.dispatchEvent(new Event('input'))")


def test_it_renders_without_a_complaint_and_asks_the_network_for_nothing(page, file):
    assert page.complaints() == []
    assert page.requests() == [file.as_uri()]
    assert page.evaluate("document.querySelectorAll('.chart svg').length") == 14
    empty = "[...document.querySelectorAll('.chart svg')].filter((svg) => !svg.querySelector('path[d], line'))"
    assert page.evaluate(f"{empty}.length") == 0
    assert page.evaluate("document.querySelector('#verdict h1').textContent") == "\N{BALLOT X} Not blessed"


def test_a_hostile_slice_is_shown_and_does_nothing(page):
    _choose(page, "slice-text", "onerror")
    assert _column(page, 1) == [f"genres = {invented.HOSTILE}"]
    page.hover("#slice-chart .mark-symbol.role-mark path")
    page.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    assert invented.HOSTILE in page.evaluate("document.querySelector('#vg-tooltip-element').textContent")
    assert page.evaluate("document.querySelector('#vg-tooltip-element img, #vg-tooltip-element script')") is None
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert page.complaints() == []
    _choose(page, "slice-text", "")


def test_a_column_sorts_both_ways(page):
    page.click("[data-sort=examples]")
    descending = _numbers(page, 2)
    assert descending == sorted(descending, reverse=True)
    assert page.evaluate("document.querySelector('[data-sort=examples]').parentElement.ariaSort") == "descending"
    page.click("[data-sort=examples]")
    ascending = _numbers(page, 2)
    assert ascending == sorted(ascending)
    assert ascending[0] < descending[-1]
    page.click("[data-sort=candidate]")
    assert _numbers(page, 3) == sorted(_numbers(page, 3), reverse=True)


def test_the_worst_come_first(page):
    page.click("#slice-worst")
    ends = page.evaluate(
        "[...document.querySelectorAll('#slice-table tbody tr > :nth-child(5) small')].map((end) => end.textContent)"
    )
    best = [float(end.split(" to ")[1].replace("\N{MINUS SIGN}", "-")) for end in ends]
    assert best == sorted(best)
    assert len(best) == 25


def test_the_worst_come_first_where_no_interval_can_be_told(browser, tmp_path):
    few = browser.open(_write(tmp_path, "few", 20, has_intervals=False))
    found = _numbers(few, 3)
    assert found == sorted(found)
    assert found[0] < found[-1]
    _choose(few, "slice-metric", "calibration")
    distances = [abs(number - 1) for number in _numbers(few, 3)]
    assert distances == sorted(distances, reverse=True)


def test_slices_are_filtered_by_size_and_text_and_all_can_be_shown(page):
    _choose(page, "slice-examples", "100")
    assert min(_numbers(page, 2)) >= 100
    number = page.evaluate("document.querySelector('#slice-count').textContent")
    assert 0 < int(number.split()[2]) < 40
    _choose(page, "slice-examples", "0")
    _choose(page, "slice-text", "GENRE 1")
    assert sorted(_column(page, 1)) == sorted(f"genres = genre {n}" for n in (1, *range(10, 20)))
    _choose(page, "slice-text", "")
    assert len(_column(page, 1)) == 25
    page.click("#slice-more")
    assert len(_column(page, 1)) == 40


def test_the_plots_follow_the_metric(page):
    before = _numbers(page, 3)
    _choose(page, "slice-metric", "log_loss")
    assert page.evaluate("document.querySelector('#slice-title').textContent") == "Log loss by slice"
    assert page.evaluate("document.querySelector('[data-sort=candidate]').textContent") == "Log loss"
    assert _numbers(page, 3) != before
    _choose(page, "slice-metric", "auc")


def test_a_curve_has_tooltips(page):
    page.hover("[data-chart=roc] .mark-symbol.role-mark path:nth-child(100)")
    page.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    text = page.evaluate("document.querySelector('#vg-tooltip-element').innerText")
    assert "Precision" in text
    assert "candidate" in text or "baseline" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window_and_text_stands_out(browser, file, screenshots, width, scheme):
    page = browser.open(file, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
        for name in ("color", "backgroundColor")
    )
    assert _contrast(ink, paper) > 7
    assert (sum(ink) > sum(paper)) == (scheme == "dark")
    label = page.evaluate(
        "getComputedStyle(document.querySelector('[data-chart=roc] text')).fill.match(/\\d+/g).map(Number)"
    )
    assert _contrast(label, paper) > 4.5  # the chart's text has the page's colours
    page.screenshot(screenshots / f"report-{width}-{scheme}.png")


def test_tables_can_be_read_on_a_phone(browser, file):
    page = browser.open(file, width=390)
    names = "[...document.querySelectorAll('.scroll tbody th')].filter((name) => name.offsetWidth)"
    assert page.evaluate(f"{names}.length") == 5 + 25 + 2 + 2  # metrics, slices, collisions, drift
    assert page.evaluate(f"Math.min(...{names}.map((name) => name.offsetWidth))") >= 120
    head = "document.querySelector('.figures thead th:nth-child(4)')"
    assert page.evaluate(f"{head}.textContent") == "Difference"
    assert page.evaluate(f"{head}.getBoundingClientRect().right") <= 390
    # The slices' is reached by scrolling, and the names stay in sight.
    page.evaluate("document.querySelector('#slice-table').parentElement.scrollLeft = 1000, 0")
    left, right = (
        page.evaluate(
            f"document.querySelector('#slice-table tbody tr > :nth-child({number})').getBoundingClientRect().{end}"
        )
        for number, end in ((1, "left"), (5, "right"))
    )
    assert left >= 0
    assert right <= 390
    assert (
        page.evaluate("getComputedStyle(document.querySelector('#slice-table th')).backgroundColor")
        == "rgb(255, 255, 255)"
    )


def _contrast(one, other):
    """Contrast of two colours by WCAG 2."""

    def luminance(color):
        linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_it_prints(browser, file, screenshots):
    page = browser.open(file, scheme="dark")
    page.pdf(screenshots / "report.pdf")
    printed = (screenshots / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= printed.count(b"/Type /Page\n") <= 12


def test_a_first_model_and_a_thousand_slices_render(browser, tmp_path):
    first = browser.open(_write(tmp_path, "first", 5, has_baseline=False))
    assert first.complaints() == []
    assert len(_column(first, 1)) == 5
    many = browser.open(_write(tmp_path, "many", 1_000))
    assert many.complaints() == []
    assert len(_column(many, 1)) == 25


def test_a_single_epoch_is_seen(browser, tmp_path):
    report = json.loads(make_report(invented.evaluation(3), invented.context()).to_json())
    report["training"] |= {"epochs": report["training"]["epochs"][:1], "best_epoch": 1}
    file = tmp_path / "once.html"
    file.write_text(render(report), encoding="utf-8")
    page = browser.open(file)
    assert "1 epoch; epoch 1 was kept" in page.evaluate("document.querySelector('#training p').textContent")
    for chart, number in {"loss": 2, "auc": 1, "terms": 3}.items():
        points = f"[...document.querySelectorAll('[data-chart={chart}] .mark-symbol.role-mark path')]"
        assert page.evaluate(f"{points}.filter((point) => point.getAttribute('opacity') !== '0').length") == number
    labels = page.evaluate(
        "[...document.querySelectorAll('[data-chart=auc] .role-axis-label text')].map((x) => x.textContent)"
    )
    assert "0.66" in labels


@pytest.mark.parametrize("has_baseline", [True, False])
def test_crossed_slices_are_told_apart_in_the_plots(browser, tmp_path, has_baseline):
    report = json.loads(
        make_report(
            invented.evaluation(8, has_baseline=has_baseline), invented.context(has_baseline=has_baseline)
        ).to_json()
    )
    for part in report["slices"][1:]:
        part["slice"] = [["device", "web"], ["time_of_day", part["slice"][0][1]]]
    file = tmp_path / "crossed.html"
    file.write_text(render(report), encoding="utf-8")
    page = browser.open(file)
    for chart in ("slice-chart", "difference-chart") if has_baseline else ("slice-chart",):
        labels = f"[...document.querySelectorAll('#{chart} .role-axis-label text')].map((label) => label.textContent)"
        found = [label for label in page.evaluate(labels) if "device" in label]
        assert sorted(found) == [f"device = webtime_of_day = genre {n}" for n in range(8)]
    legends = page.evaluate("document.querySelectorAll('#slice-chart .role-legend-label text').length")
    assert legends == (2 if has_baseline else 0)


def _history(tmp_path, *made):
    """The file of a history: an evaluation for each moment and state."""
    runs = [
        {"made_at": f"{moment}:00+00:00", "run_id": f"run {number}", "state": state,
         "days": [moment[:10]], "failures": [],
         "metrics": {"auc": {"value": 0.7 + number / 100, "low": 0.69, "high": 0.8}}, "report": None}
        for number, (moment, state) in enumerate(made, start=1)
    ]  # fmt: skip
    file = tmp_path / "history.html"
    file.write_text(render_history("movielens", runs), encoding="utf-8")
    return file


def test_the_history_has_hours_up_to_24_and_its_legend_has_room_on_a_phone(browser, tmp_path):
    page = browser.open(
        _history(tmp_path, ("2026-11-01T11:25", "pushed"), ("2026-11-01T14:25", "not blessed")), width=390
    )
    labels = page.evaluate("[...document.querySelectorAll('.role-axis-label text')].map((label) => label.textContent)")
    assert "14:00" in labels
    legend = page.evaluate(
        "[...document.querySelectorAll('.role-legend-label text')].map((label) => "
        "[label.textContent, label.closest('svg').getBoundingClientRect().right - label.getBoundingClientRect().right])"
    )
    assert [text for text, _ in legend] == ["pushed", "rolled back", "blessed", "not blessed"]
    assert min(room for _, room in legend) >= 0


def test_the_history_renders(browser, tmp_path, screenshots):
    made = zip((1, 2, 3), ("pushed", "not blessed", "blessed"), strict=True)
    page = browser.open(_history(tmp_path, *((f"2026-11-0{day}T10:00", state) for day, state in made)))
    assert page.complaints() == []
    assert page.evaluate("document.querySelectorAll('.chart svg .mark-symbol.role-mark path').length") == 3
    page.screenshot(screenshots / "history.png")
