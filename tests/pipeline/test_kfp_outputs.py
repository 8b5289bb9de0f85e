from __future__ import annotations

import json
import math
from types import SimpleNamespace

import kfp.dsl
import pytest
from tfx.types.standard_artifacts import ModelEvaluation, String

from pipeline import kfp_outputs
from pipeline.node import NodeResult


def _executor_input(folder, **artifacts):
    return {
        "outputs": {
            "outputFile": str(folder / "out/executor_output.json"),
            "artifacts": {
                name: {"artifacts": [{"name": name, "uri": uri, "metadata": {}}]} for name, uri in artifacts.items()
            },
        }
    }


def _artifact(kind, uri):
    artifact = kind()
    artifact.uri = str(uri)
    return artifact


def test_metrics_are_the_finite_overall_ones_and_the_verdict(tmp_path, monkeypatch):
    figures = {name: SimpleNamespace(value=value) for name, value in {"auc": 0.75, "gauc": math.nan}.items()}
    evaluation = SimpleNamespace(overall=SimpleNamespace(candidate=figures), blessed=True)
    monkeypatch.setattr(kfp_outputs, "read_evaluation", {str(tmp_path): evaluation}.__getitem__)
    result = NodeResult(False, {"evaluation": [_artifact(ModelEvaluation, tmp_path)]})
    kfp_outputs.write_outputs(_executor_input(tmp_path, metrics="minio://bucket/metrics"), result)
    written = json.loads((tmp_path / "out/executor_output.json").read_text())
    assert written["artifacts"]["metrics"]["artifacts"] == [
        {"name": "metrics", "uri": "minio://bucket/metrics", "metadata": {"auc": 0.75, "blessed": 1.0}}
    ]


def test_a_report_that_failed_is_a_page_that_says_why(tmp_path):
    kfp_outputs.write_outputs(_executor_input(tmp_path, report=str(tmp_path / "page")), None, "no <font>")
    assert (tmp_path / "page").read_text() == "<p>There is no report: no &lt;font&gt;</p>\n"


def test_the_report_is_copied_to_where_kfp_collects_it(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.html").write_text("<html>")
    result = NodeResult(True, {"report": [_artifact(String, tmp_path / "report")]})
    kfp_outputs.write_outputs(_executor_input(tmp_path, report=str(tmp_path / "kfp/report")), result)
    assert (tmp_path / "kfp/report").read_text() == "<html>"


@pytest.mark.parametrize("scheme", ["gs", "s3", "minio"])
def test_an_object_stores_uri_has_the_local_path_that_kfp_has_for_it(scheme):
    uri = f"{scheme}://bucket/a/b"
    assert kfp_outputs._local_path({"uri": uri}) == kfp.dsl.Artifact(uri=uri).path
