from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import cli
from pipeline.config import load_config
from pipeline.history import ReportError, read_history, read_metrics

Event, Execution = mlmd.Event, mlmd.Execution


class _Runs:
    """Writes runs into a metadata store as TFX does, and their reports as EvaluationReport does."""

    def __init__(self, folder):
        self.folder = folder / "runs/movielens"
        self.folder.mkdir(parents=True)
        connection = mlmd.ConnectionConfig()
        connection.sqlite.filename_uri = str(self.folder / "metadata.sqlite")
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = MetadataStore(connection)

    def artifact(self, kind, **properties):
        made = mlmd.Artifact(type_id=self.store.put_artifact_type(mlmd.ArtifactType(name=kind)))
        made.uri = str(self.folder / f"root/{kind}/{len(self.store.get_artifacts()) + 1}")
        for name, value in properties.items():
            setattr(made.custom_properties[name], "int_value" if isinstance(value, int) else "string_value", value)
        (made.id,) = self.store.put_artifacts([made])
        return made

    def execute(self, node, run, inputs, outputs, state=Execution.COMPLETE):
        execution = Execution(
            type_id=self.store.put_execution_type(mlmd.ExecutionType(name=node)), last_known_state=state
        )
        events = [Event(artifact_id=artifact.id, type=Event.INPUT) for artifact in inputs]
        events += [Event(artifact_id=artifact.id, type=Event.OUTPUT) for artifact in outputs]
        kind = self.store.put_context_type(mlmd.ContextType(name="pipeline_run"))
        self.store.put_execution(
            execution, [(None, event) for event in events], [mlmd.Context(type_id=kind, name=run)],
            reuse_context_if_already_exist=True,
        )  # fmt: skip

    def run(self, name, auc, *, blessed, pushed, report=True, days=("2026-11-02",)):
        model = self.artifact("Model")
        examples = self.artifact("Examples", days=json.dumps({"train": ["2026-11-01"], "eval": list(days)}))
        evaluation = self.artifact("ModelEvaluation")
        blessing = self.artifact("ModelBlessing", blessed=blessed, current_model_id=model.id)
        self.execute("Evaluator", name, [examples, model], [evaluation, blessing])
        if report:
            made = self.artifact("EvaluationReport")
            self.execute("EvaluationReport", name, [evaluation], [made])
            self.write(made.uri, auc, blessed=blessed)
        self.execute("Pusher", name, [blessing], [self.artifact("PushedModel", pushed=pushed)])
        return evaluation, blessing

    def write(self, uri, auc, *, blessed):
        figure = {"value": auc, "low": auc - 0.01, "high": auc + 0.01}
        gates = [{"sentence": "auc is low", "passed": bool(blessed)}, {"sentence": "all is well", "passed": True}]
        figures = {
            "pipeline": "movielens", "made_at": "2026-11-24T20:00:00+00:00", "blessed": bool(blessed), "gates": gates,
            "baseline": None,
            "slices": [{"slice": [], "candidate": {"auc": figure}, "baseline": None, "difference": None}],
        }  # fmt: skip
        folder = self.folder.parent.parent / uri
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(figures))
        (folder / "report.html").write_text(f"<p>{auc}</p>")


@pytest.fixture
def runs(tmp_path):
    return _Runs(tmp_path)


@pytest.fixture
def config(tmp_path):
    return load_config(None, [f"runs_dir={tmp_path / 'runs'}"])


@pytest.fixture
def ctr(tmp_path):
    """Runs `ctr report` on the runs."""
    file = tmp_path / "config.yaml"
    file.write_text(f"runs_dir: {tmp_path / 'runs'}")
    return lambda *words: CliRunner().invoke(cli.main, ["report", "--config", str(file), *words])


def _three(runs):
    runs.run("first", 0.70, blessed=1, pushed=1)
    runs.run("second", 0.68, blessed=0, pushed=0)
    runs.run("third", 0.71, blessed=1, pushed=0)


def test_each_evaluation_has_its_run_its_state_and_its_figures(runs, config):
    _three(runs)
    found = read_history(config)
    assert [(run.run_id, run.state) for run in found] == [
        ("first", "pushed"),
        ("second", "not blessed"),
        ("third", "blessed"),
    ]
    assert [read_metrics(run)[0]["auc"]["value"] for run in found] == [0.70, 0.68, 0.71]
    assert [read_metrics(run)[1] for run in found] == [(), ("auc is low",), ()]
    assert [run.page.name for run in found] == ["report.html"] * 3
    assert found[0].made_at.endswith("+00:00")


def test_an_evaluation_has_its_days_and_a_model_that_was_taken_back_is_not_in_service(runs, config):
    _, blessing = runs.run("first", 0.7, blessed=1, pushed=1, days=("2026-11-02", "2026-11-03"))
    runs.run("second", 0.7, blessed=1, pushed=1)
    (model,) = runs.store.get_artifacts_by_id([blessing.custom_properties["current_model_id"].int_value])
    model.custom_properties["rolled_back"].string_value = "2026-11-04T10:00:00+00:00"
    runs.store.put_artifacts([model])
    assert [(run.state, run.days) for run in read_history(config)] == [
        ("rolled back", ("2026-11-02", "2026-11-03")),
        ("pushed", ("2026-11-02",)),
    ]


def test_what_was_taken_from_the_cache_or_failed_is_no_evaluation_of_its_own(runs, config):
    evaluation, blessing = runs.run("first", 0.7, blessed=1, pushed=1)
    runs.execute("Evaluator", "second", [], [evaluation, blessing], Execution.CACHED)
    runs.execute("Evaluator", "third", [], [runs.artifact("ModelEvaluation")], Execution.FAILED)
    assert [run.run_id for run in read_history(config)] == ["first"]


def test_an_evaluation_without_a_report_is_there_without_figures(runs, config):
    runs.run("first", 0.7, blessed=1, pushed=1, report=False)
    (run,) = read_history(config)
    assert (run.state, run.page, read_metrics(run)) == ("pushed", None, ({}, ()))


def test_no_runs_are_an_error_that_says_what_to_do(tmp_path, config):
    with pytest.raises(ReportError, match=r"no runs: there is no .*metadata.sqlite; run `ctr run`"):
        read_history(config)
    runs = _Runs(tmp_path)
    with pytest.raises(ReportError, match="no evaluation yet"):
        read_history(config)
    (runs.folder / "metadata.sqlite").write_text("")
    with pytest.raises(ReportError, match="no runs: there is no"):
        read_history(config)


@pytest.mark.parametrize("words", [(), ("--history",)])
def test_a_damaged_metadata_store_is_one_line_that_names_it(runs, ctr, words):
    (runs.folder / "metadata.sqlite").write_text("nonsense" * 1000)
    result = ctr(*words)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert f"the metadata store {runs.folder}/metadata.sqlite is damaged (file is not a database)" in result.output


def test_ctr_report_shows_the_newest_and_writes_its_page(runs, ctr, tmp_path):
    _three(runs)
    result = ctr("--out", str(tmp_path / "out/page.html"))
    assert result.exit_code == 0, result.output
    assert "blessed" in result.output
    assert "0.7100 ±0.0100\n" in result.output
    assert (tmp_path / "out/page.html").read_text() == "<p>0.71</p>"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["page.html"]


def test_ctr_report_names_what_failed(runs, ctr):
    runs.run("first", 0.68, blessed=0, pushed=0)
    output = ctr().output
    assert "not blessed" in output
    assert "auc is low" in output
    assert "all is well" not in output
    assert "report.html" in output.replace("\n", "")


def test_ctr_report_prints_the_figures_for_machines(runs, ctr):
    _three(runs)
    assert json.loads(ctr("--json").output)["slices"][0]["candidate"]["auc"]["value"] == 0.71
    assert [run["state"] for run in json.loads(ctr("--history", "--json").output)] == [
        "pushed",
        "not blessed",
        "blessed",
    ]


def test_the_history_for_machines_and_its_page_can_be_had_at_once(runs, ctr, tmp_path):
    _three(runs)
    assert len(json.loads(ctr("--history", "--json", "--out", str(tmp_path / "all.html")).output)) == 3
    assert "<a href=" in (tmp_path / "all.html").read_text()
    assert not (tmp_path / "runs/movielens/history.html").exists()


@pytest.mark.parametrize("words", [(), ("--history",)])
def test_a_page_that_cannot_be_written_is_an_error_that_names_it(words, runs, ctr, tmp_path):
    _three(runs)
    (folder := tmp_path / "out").mkdir()
    before = sorted(tmp_path.iterdir())
    result = ctr(*words, "--out", str(folder))
    assert (result.exit_code, result.output.count("Traceback")) == (1, 0)
    assert f"cannot write {folder}: Is a directory" in result.output.replace("\n", "")
    assert sorted(tmp_path.iterdir()) == before


def test_ctr_report_says_where_the_newest_evaluation_has_no_report(runs, ctr):
    runs.run("first", 0.7, blessed=1, pushed=1)
    runs.run("second", 0.9, blessed=1, pushed=1, report=False)
    result = ctr()
    assert "0.7000" in result.output
    assert "has none; this is that of" in result.output


def test_ctr_report_without_any_report_says_what_to_do(runs, ctr):
    runs.run("first", 0.7, blessed=1, pushed=1, report=False)
    result = ctr()
    assert result.exit_code == 1
    assert "no evaluation has a report yet; `ctr run` makes one" in result.output


def test_the_history_is_a_page_with_links_that_lead_to_the_reports(runs, ctr, tmp_path):
    _three(runs)
    result = ctr("--history")
    assert result.output.startswith("3 evaluations, 1 of them pushed")
    page = tmp_path / "runs/movielens/history.html"
    links = [part.partition('"')[0] for part in page.read_text().split('<a href="')[1:]]
    assert [(page.parent / link).read_text() for link in links] == ["<p>0.71</p>", "<p>0.68</p>", "<p>0.7</p>"]
