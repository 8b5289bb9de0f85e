from __future__ import annotations

import pathlib
import shutil

import nbclient
import nbformat
import pytest

from pipeline.config import EvaluationConfig
from tests.components.evaluation import impressions as drawn

NOTEBOOK = pathlib.Path(__file__).parents[2] / "notebooks" / "inspect_evaluation.ipynb"


def _evaluate(folder, config, baselines):
    """Fills the folder of a pipeline with an evaluation for each number, some with a baseline."""
    home = folder / "root" / "Evaluator" / "evaluation"
    home.mkdir(parents=True)
    for number, has_baseline in baselines.items():
        impressions = drawn.draw_impressions(800, seed=number)
        made, _ = drawn.evaluate(impressions, config, folder / f"run{number}", has_baseline=has_baseline)
        shutil.copytree(made.uri, home / str(number))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a pipeline with two evaluations, the second with a baseline."""
    folder = tmp_path_factory.mktemp("runs")
    config = EvaluationConfig(slices=(("genre",), ("time_of_day",)), min_auc=0.99)
    _evaluate(folder, config, {9: False, 10: True})  # 10 is newer than 9, which its text is not
    return folder


def _run(runs):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (folder,) = (cell for cell in notebook.cells if cell.source.startswith("RUNS = "))
    folder.source = f"RUNS = {str(runs)!r}"
    # In the repository, where its packages are.
    resources = {"metadata": {"path": str(NOTEBOOK.parents[1])}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_the_notebook_shows_metrics_slices_and_plots_and_compares_two_runs(runs):
    outputs = _run(runs)
    assert not [output for output in outputs if output.output_type == "error"]
    told = [output.get("data", {}) for output in outputs]
    text = "\n".join(output.get("text", "") for output in outputs) + "\n".join(
        data.get("text/plain", "") for data in told
    )
    assert str(runs / "root/Evaluator/evaluation/10") in text
    assert "7 slices; validated: False" in text
    assert "must be at least 0.99" in text
    tables = [data["text/html"] for data in told if "text/html" in data]
    for words in ("difference", "genre = &lt;b&gt;0&lt;/b&gt;", "change"):
        assert any(words in shown for shown in tables), words
    pictures = [data["image/svg+xml"] for data in told if "image/svg+xml" in data]
    assert len(pictures) == 4 + 2
    assert all(picture.startswith("<svg") for picture in pictures)


def test_the_notebook_runs_on_evaluations_without_slices_and_baseline(tmp_path):
    _evaluate(tmp_path, EvaluationConfig(), {1: False, 2: False})
    outputs = _run(tmp_path)
    assert not [output for output in outputs if output.output_type == "error"]
    text = "".join(output.get("text", "") for output in outputs)
    assert "1 slices; validated: True" in text
    assert "There is no slice with an interval to draw" in text
    pictures = [output for output in outputs if "image/svg+xml" in output.get("data", {})]
    assert len(pictures) == 4  # the curves


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
