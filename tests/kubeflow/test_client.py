"""`ctr kubeflow submit` and `schedule` against a server that answers as KFP's does."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
import time
import urllib.parse

import kfp_server_api
import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.cli_kubeflow import load
from pipeline.config import PipelineConfig, config_to_json

TOKEN = "letmein"
API = "/apis/v2beta1"
PARAMETERS = {
    "as_of": {"parameterType": "STRING"},
    "max_epochs": {"parameterType": "NUMBER_INTEGER"},
    "train_days": {"parameterType": "STRING"},  # which may be null
    "min_auc": {"parameterType": "NUMBER_DOUBLE"},
    "xla": {"parameterType": "BOOLEAN"},
}
KEYS = ("log.as_of", "training.max_epochs", "log.train_days", "evaluation.min_auc", "model.xla")
ARGUMENTS = ["--config", config_to_json(PipelineConfig())] + [
    word for key in KEYS for word in ("--set", f"{key}={{{{$.inputs.parameters['{key.rpartition('.')[2]}']}}}}")
]


def _as(model, content):
    """Reads JSON strictly as one of the published models."""
    response = type("Response", (), {"data": json.dumps(content)})()
    read = kfp_server_api.ApiClient().deserialize(response, model)
    known = set(getattr(kfp_server_api, model).attribute_map.values())
    assert set(content) <= known, set(content) - known
    return read


class KfpStub(http.server.ThreadingHTTPServer):
    """The part of KFP's REST API that is used, in memory.

    Attributes:
        refusals: What to answer a call with instead, by method and path: a status, seconds to be silent for, or a list
            of such things, one for each call.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pipelines, self.versions, self.experiments = [], [], []
        self.runs, self.recurring, self.recurring_states, self.uploads, self.refusals = [], [], [], [], {}
        self.states = [["RUNNING", {"Trainer": "RUNNING"}], ["SUCCEEDED", {"Trainer": "SUCCEEDED"}]]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def _answer(self, method):
        url = urllib.parse.urlsplit(self.path)
        query = {key: value[0] for key, value in urllib.parse.parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        refusal = self.server.refusals.get((method, url.path.removeprefix(API)))
        if isinstance(refusal, list):
            refusal = refusal.pop(0) if refusal else None
        if isinstance(refusal, float):
            time.sleep(refusal)
            refusal = 504
        if self.headers.get("Authorization") not in (TOKEN, f"Bearer {TOKEN}"):
            refusal = 401
        if refusal:
            return self._send(refusal, {"error_message": f"refused with {refusal}", "error_details": "..."})
        return self._send(200, self._reply(method, url.path.removeprefix(API), query, body))

    def _reply(self, method, path, query, body):
        server = self.server
        wanted = None
        if "filter" in query:
            (predicate,) = json.loads(query["filter"])["predicates"]
            assert (predicate["operation"], predicate["key"]) == (1, "display_name")
            wanted = predicate["stringValue"]

        def matching(items):
            return [item for item in items if wanted is None or item["display_name"] == wanted]

        match method, path.strip("/").split("/"):
            case "GET", ["pipelines"]:
                of_namespace = [one for one in server.pipelines if one["namespace"] == query.get("namespace", "")]
                return {"pipelines": matching(of_namespace)}
            case "POST", ["pipelines", "upload"]:
                server.uploads.append(body)
                added = {"display_name": query["name"], "namespace": query.get("namespace", "")}
                if added in [{key: one[key] for key in added} for one in server.pipelines]:
                    raise AssertionError(f"409: there is {added} already")
                server.pipelines.append(added | {"pipeline_id": "p1"})
                return server.pipelines[-1]
            case "GET", ["pipelines", "p1", "versions"]:
                return {"pipeline_versions": matching(server.versions)}
            case "POST", ["pipelines", "upload_version"]:
                assert query["pipelineid"] == "p1"
                server.uploads.append(body)
                version = {"pipeline_id": "p1", "display_name": query["name"]}
                server.versions.append(version | {"pipeline_version_id": f"v{len(server.versions) + 1}"})
                return server.versions[-1]
            case "GET", ["experiments"]:
                return {"experiments": matching(server.experiments)}
            case "POST", ["experiments"]:
                _as("V2beta1Experiment", json.loads(body))
                server.experiments.append({**json.loads(body), "experiment_id": f"e{len(server.experiments) + 1}"})
                return server.experiments[-1]
            case "POST", ["runs"]:
                server.runs.append(_as("V2beta1Run", json.loads(body)))
                return {"run_id": "r1", "state": "PENDING"}
            case "POST", ["recurringruns"]:
                server.recurring.append(_as("V2beta1RecurringRun", json.loads(body)))
                added = {"recurring_run_id": f"rr{len(server.recurring)}", "status": "ENABLED"}
                server.recurring_states.append(json.loads(body) | added)
                return server.recurring_states[-1]
            case "GET", ["recurringruns"]:
                found = [run for run in server.recurring_states if run["experiment_id"] == query["experiment_id"]]
                start = int(query.get("page_token", 0))  # a page has one, so that there are several
                token = {"next_page_token": str(start + 1)} if start + 1 < len(found) else {}
                return {"recurringRuns": found[start : start + 1]} | token
            case "POST", ["recurringruns", run]:
                id_, _, action = run.partition(":")
                assert action == "disable"
                (found,) = [each for each in server.recurring_states if each["recurring_run_id"] == id_]
                found["status"] = "DISABLED"
                return {}
            case "GET", ["runs", "r1"]:
                state, tasks = server.states.pop(0) if len(server.states) > 1 else server.states[0]
                details = [{"display_name": name, "state": task} for name, task in tasks.items()]
                run = {"run_id": "r1", "state": state, "run_details": {"task_details": details}}
                return run | ({"error": {"message": "OOMKilled"}} if state == "FAILED" else {})
        raise AssertionError(f"no such call: {method} {path}")

    def _send(self, status, content):
        reply = json.dumps(content).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that has given up
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)


@pytest.fixture
def kfp_stub():
    server = KfpStub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def package(tmp_path):
    ir = {"pipelineInfo": {"name": "movielens"}, "root": {"inputDefinitions": {"parameters": PARAMETERS}}}
    executors = {"exec-trainer": {"container": {"image": "ctr:1", "args": ["--node", "Trainer", *ARGUMENTS]}}}
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        yaml.safe_dump(ir | {"deploymentSpec": {"executors": executors}, "components": {}, "schemaVersion": "2.1.0"})
    )
    return file


@pytest.fixture
def ctr_kubeflow(kfp_stub, package, monkeypatch):
    monkeypatch.setenv("KFP_HOST", kfp_stub.url)
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    client = load("client")
    wait = client.Server.wait
    monkeypatch.setattr(client.Server, "wait", lambda *arguments: wait(*arguments, poll_seconds=0.01))

    def run(command, *arguments):
        return CliRunner().invoke(main, ["kubeflow", command, str(package), *arguments])

    return run


def test_submit_uploads_starts_and_waits(ctr_kubeflow, kfp_stub):
    result = ctr_kubeflow("submit", "--wait", "--as-of", "2026-11-24", "--param", "max_epochs=2")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"run r1: {kfp_stub.url}/#/runs/details/r1"
    assert [line.split() for line in lines[1:]] == [["Trainer", "running"], ["Trainer", "succeeded"], ["succeeded"]]
    (run,) = kfp_stub.runs
    assert run.runtime_config.parameters == {"as_of": "2026-11-24", "max_epochs": 2}
    assert (run.pipeline_version_reference.pipeline_id, run.pipeline_version_reference.pipeline_version_id) == (
        "p1",
        "v1",
    )
    assert (run.experiment_id, run.service_account) == ("e1", None)
    assert b"pipelineInfo" in kfp_stub.uploads[-1]


def test_a_namespaces_pipeline_is_found_again(ctr_kubeflow, kfp_stub, monkeypatch):
    monkeypatch.setenv("KFP_NAMESPACE", "shop")
    for _ in range(2):
        result = ctr_kubeflow("submit")
        assert result.exit_code == 0, result.output
    assert [pipeline["namespace"] for pipeline in kfp_stub.pipelines] == ["shop"]
    assert len(kfp_stub.versions) == 1


def test_a_wait_outlives_a_server_that_is_away_for_a_while_and_no_more(ctr_kubeflow, kfp_stub):
    kfp_stub.refusals["GET", "/runs/r1"] = [None, 503, 502, 503]
    result = ctr_kubeflow("submit", "--wait")
    assert (result.exit_code, result.output.splitlines()[-1].split()) == (0, ["succeeded"])
    kfp_stub.refusals["GET", "/runs/r1"] = 503
    result = ctr_kubeflow("submit", "--wait")
    assert result.exit_code == 1
    assert "asking for the run failed: " in result.output


def test_the_same_package_is_uploaded_once_and_a_changed_one_is_a_new_version(ctr_kubeflow, kfp_stub, package):
    for _ in range(2):
        assert ctr_kubeflow("submit").exit_code == 0
    assert len(kfp_stub.versions) == 1
    package.write_text(package.read_text() + "# changed\n")
    assert ctr_kubeflow("submit").exit_code == 0
    assert [run.pipeline_version_reference.pipeline_version_id for run in kfp_stub.runs] == ["v1", "v1", "v2"]
    assert len(kfp_stub.pipelines) == len(kfp_stub.experiments) == 1


def test_schedule_makes_a_recurring_run_without_catch_up_and_one_at_a_time(ctr_kubeflow, kfp_stub):
    result = ctr_kubeflow("schedule", "--cron", "0 30 3 * * *")
    assert result.exit_code == 0, result.output
    (recurring,) = kfp_stub.recurring
    assert recurring.trigger.cron_schedule.cron == "0 30 3 * * *"
    assert (recurring.no_catchup, recurring.max_concurrency, recurring.mode) == (True, "1", "ENABLE")


def _recurring_states(kfp_stub):
    return {each["recurring_run_id"]: each["status"] for each in kfp_stub.recurring_states}


def test_a_new_schedule_takes_the_place_of_the_pipelines_others_in_the_experiment(ctr_kubeflow, kfp_stub, package):
    schedule = ("schedule", "--cron", "0 30 3 * * *")
    assert "disabled" not in ctr_kubeflow(*schedule).output
    assert "disabled" not in ctr_kubeflow(*schedule, "--experiment", "weekly").output
    other = {"pipeline_version_reference": {"pipeline_id": "p2"}, "experiment_id": "e1", "status": "ENABLED"}
    kfp_stub.recurring_states.append(other | {"recurring_run_id": "another's"})
    package.write_text(package.read_text() + "# changed\n")
    result = ctr_kubeflow(*schedule)
    assert result.output.splitlines() == ["recurring run rr3: 0 30 3 * * *", "disabled, as it takes their place: rr1"]
    states = {"rr1": "DISABLED", "rr2": "ENABLED", "another's": "ENABLED", "rr3": "ENABLED"}
    assert _recurring_states(kfp_stub) == states


def test_a_schedule_that_cannot_be_disabled_is_named_and_is_when_it_is_tried_again(ctr_kubeflow, kfp_stub):
    schedule = ("schedule", "--cron", "0 30 3 * * *")
    ctr_kubeflow(*schedule)
    kfp_stub.refusals["POST", "/recurringruns/rr1:disable"] = 500
    result = ctr_kubeflow(*schedule)
    assert result.exit_code == 1
    assert "recurring run rr2 is there, but disabling rr1, which would run beside it, failed: " in result.output
    kfp_stub.refusals.clear()
    assert "disabled, as it takes their place: rr1, rr2\n" in ctr_kubeflow(*schedule).output
    assert _recurring_states(kfp_stub) == {"rr1": "DISABLED", "rr2": "DISABLED", "rr3": "ENABLED"}


def test_a_schedule_that_cannot_be_made_leaves_the_one_before(ctr_kubeflow, kfp_stub):
    schedule = ("schedule", "--cron", "0 30 3 * * *")
    ctr_kubeflow(*schedule)
    kfp_stub.refusals["POST", "/recurringruns"] = 500
    assert "scheduling failed: " in ctr_kubeflow(*schedule).output
    assert _recurring_states(kfp_stub) == {"rr1": "ENABLED"}


def test_runs_have_the_service_account_of_the_environment(ctr_kubeflow, kfp_stub, monkeypatch):
    monkeypatch.setenv("KFP_SERVICE_ACCOUNT", "ctr-pipeline")
    assert ctr_kubeflow("submit").exit_code == 0
    assert ctr_kubeflow("schedule", "--cron", "0 30 3 * * *").exit_code == 0
    assert [run.service_account for run in kfp_stub.runs + kfp_stub.recurring] == ["ctr-pipeline"] * 2


REFUSALS = {
    "401": ("GET", "/pipelines", 401, "looking for the pipeline failed: .* says 401: refused with 401; is KFP_TOKEN"),
    "404": ("POST", "/runs", 404, "starting the run failed: .* says 404: refused with 404"),
    "409": ("POST", "/pipelines/upload_version", 409, "uploading the version failed: .* says 409: refused with 409"),
    "500": ("POST", "/experiments", 500, "looking for the experiment failed: .* says 500: refused with 500"),
}


@pytest.mark.parametrize(("method", "path", "status", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_names_the_call_and_what_the_server_said(method, path, status, message, ctr_kubeflow, kfp_stub):
    kfp_stub.refusals[method, path] = status
    result = ctr_kubeflow("submit")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert re.search(message, result.output), result.output
    assert kfp_stub.runs == []


def test_a_wrong_token_is_named(ctr_kubeflow, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "wrong")
    result = ctr_kubeflow("submit")
    assert (result.exit_code, "says 401" in result.output, "wrong" in result.output) == (1, True, False)


def test_a_silent_server_is_given_up(kfp_stub, package):
    client = load("client")
    kfp_stub.refusals["GET", "/pipelines"] = 5.0
    server = client.Server({"KFP_HOST": kfp_stub.url, "KFP_TOKEN": TOKEN}, timeout=0.2)
    start = time.monotonic()
    with pytest.raises(client.KubeflowError, match=r"looking for the pipeline failed: http://127.0.0.1:.*imed out"):
        server.upload(package)
    assert time.monotonic() - start < 4


def test_a_server_that_is_not_there_is_named(package):
    client = load("client")
    with pytest.raises(client.KubeflowError, match=r"failed: http://127.0.0.1:9: "):
        client.Server({"KFP_HOST": "http://127.0.0.1:9"}).upload(package)


def test_a_failed_run_is_an_error_with_the_task_and_the_link(ctr_kubeflow, kfp_stub):
    kfp_stub.states = [["FAILED", {"Trainer": "FAILED", "root": "FAILED"}]]
    result = ctr_kubeflow("submit", "--wait")
    assert result.exit_code == 1
    assert "the run has failed Trainer: OOMKilled" in result.output
    assert "/#/runs/details/r1" in result.output.splitlines()[-1]


def test_a_run_that_does_not_end_is_left_alone(ctr_kubeflow, kfp_stub):
    kfp_stub.states = [["RUNNING", {}]]
    result = ctr_kubeflow("submit", "--wait", "--timeout", "0")
    assert result.exit_code == 1
    assert "the run has not ended within 0 s" in result.output


MISTAKES = {
    "no host": ("submit", (), {"KFP_HOST": None}, "no server: set KFP_HOST"),
    "no such CA file": ("submit", (), {"KFP_CA_FILE": "/nowhere.pem"}, "KFP_CA_FILE: there is no file /nowhere.pem"),
    "unknown parameter": ("submit", ("--param", "epochs=2"), {}, "no parameter epochs; it has as_of, max_epochs"),
    "no number": ("submit", ("--param", "max_epochs=two"), {}, 'training.max_epochs must be a whole number, not "two"'),
    "no number for a text": (
        "submit",
        ("--param", "train_days=x"),
        {},
        'log.train_days must be a whole number, not "x"',
    ),
    "null for what is never null": (
        "submit",
        ("--param", "min_auc="),
        {},
        "evaluation.min_auc must be a number, not null",
    ),
    "out of range, twice": (
        "submit",
        ("--param", "max_epochs=-1", "--param", "train_days=0"),
        {},
        "ctr: log.train_days must be greater than 0, not 0\n     training.max_epochs must be greater than 0, not -1\n",
    ),
    "neither true nor false": (
        "schedule",
        ("--cron", "0 30 3 * * *", "--param", "xla=1"),
        {},
        "model.xla must be true or false, not 1",
    ),
    "true in another way than KFP's": ("submit", ("--param", "xla=True"), {}, "xla is a BOOLEAN, and 'True' is none"),
    "five fields": ("schedule", ("--cron", "30 3 * * *"), {}, "write six fields"),
}


@pytest.mark.parametrize(("command", "arguments", "variables", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(command, arguments, variables, message, ctr_kubeflow, monkeypatch, kfp_stub):
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    result = ctr_kubeflow(command, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert kfp_stub.uploads == []


@pytest.mark.parametrize("arguments", [("--as-of", "2026-11-31"), ("--param", "as_of=yesterday")])
def test_a_day_that_there_is_not_is_not_sent(arguments, ctr_kubeflow, kfp_stub):
    result = ctr_kubeflow("submit", *arguments)
    assert result.exit_code == 2
    assert f"as_of: there is no day {arguments[1].removeprefix('as_of=')}; write YYYY-MM-DD" in result.output
    assert kfp_stub.uploads == []


NO_PACKAGES = {
    "a config": ("name: shop", "it has no pipelineInfo and root"),
    "empty": ("", "it has no pipelineInfo and root"),
    "broken": ("foo: [", "while parsing a flow node"),
    "binary": ("\0", "special characters are not allowed"),
    "text": ("# README", "it has no pipelineInfo and root"),
    "text for a part": ("root: {}\npipelineInfo: a", "it has no pipelineInfo and root"),
    "another's": ("root: 1\npipelineInfo: {name: a}", "it has no pipelineInfo and root"),
}


@pytest.mark.parametrize("command", ["submit", "schedule"])
@pytest.mark.parametrize(("content", "why"), NO_PACKAGES.values(), ids=NO_PACKAGES)
def test_a_file_that_is_no_package_is_named(content, why, command, ctr_kubeflow, package, kfp_stub):
    package.write_text(content)
    result = ctr_kubeflow(command, *(("--cron", "0 30 3 * * *") if command == "schedule" else ()))
    assert result.exit_code == 1
    assert f"ctr: {package} is no package: " in result.output
    assert why in result.output
    assert "make one with ctr kubeflow compile" in result.output
    assert kfp_stub.uploads == []


def test_a_value_has_the_type_that_the_package_says(package):
    texts = {"as_of": "2026-11-24", "max_epochs": "2", "train_days": "7", "min_auc": "1", "xla": "true"}
    values = load("client").read_parameters(package, texts)
    assert values == {"as_of": "2026-11-24", "max_epochs": 2, "train_days": "7", "min_auc": 1.0, "xla": True}
    assert isinstance(values["min_auc"], float)
    assert load("client").read_parameters(package, {"as_of": "", "train_days": ""}) == {"as_of": "", "train_days": ""}


def test_tls_is_verified(package, tmp_path):
    client = load("client")
    server = client.Server({"KFP_HOST": "https://127.0.0.1:9", "KFP_TOKEN": TOKEN})
    configuration = server._client._run_api.api_client.configuration
    assert configuration.verify_ssl is True
