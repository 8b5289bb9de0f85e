"""The commands of the compiled package's containers, each in a process of its own, in the order of the package."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest
import yaml
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.metadata import mysql_metadata_connection_config

from pipeline.cli_kubeflow import load
from pipeline.config import load_config

State = metadata_store_pb2.Execution
PASSWORD = "a secret"
SETTINGS = (
    "name=containers",
    "log.path=log",
    "log.eval_days=1",
    "kubeflow.pvc=null",
    "training.batch_size=100",
    "training.learning_rate=0.005",
    "evaluation.max_auc_drop=0.05",
)


class Package:
    """A compiled package, and what runs its containers' commands as KFP does."""

    def __init__(self, root, metadata, **environment):
        self.root = root
        self._environment = {
            **os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", **environment
        }  # fmt: skip
        settings = [*SETTINGS, f"kubeflow.root={root}", f"kubeflow.metadata={metadata}"]
        load("compile").compile_package(load_config(None, settings), "unused", root / "pipeline.yaml")
        self.ir = next(yaml.safe_load_all((root / "pipeline.yaml").read_text()))
        self.outputs = root / "kfp"

    def order(self):
        """Returns the tasks' names, each after those that it depends on."""
        waiting = {name: set(task.get("dependentTasks", [])) for name, task in self.ir["root"]["dag"]["tasks"].items()}
        order = []
        while waiting:
            ready = sorted(name for name, upstream in waiting.items() if upstream <= set(order))
            order += ready
            waiting = {name: upstream for name, upstream in waiting.items() if name not in ready}
        return order

    def nodes(self):
        return [task["taskInfo"]["name"] for task in self.ir["root"]["dag"]["tasks"].values()]

    def command(self, task, run_id, **parameters):
        defaults = {name: p["defaultValue"] for name, p in self.ir["root"]["inputDefinitions"]["parameters"].items()}
        component = self.ir["components"][f"comp-{task}"]
        folder = self.outputs / run_id / task
        executor_input = {
            "outputs": {
                "outputFile": str(folder / "executor_output.json"),
                "artifacts": {
                    name: {"artifacts": [{"name": name, "uri": str(folder / name), "metadata": {}}]}
                    for name in component.get("outputDefinitions", {}).get("artifacts", {})
                },
            }
        }
        container = self.ir["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        words = [*container["command"], *container["args"]]
        values = {"{{$.pipeline_job_uuid}}": run_id, "{{$}}": json.dumps(executor_input)}
        for name, value in (defaults | parameters).items():
            # kfp writes whole numbers as doubles; KFP's backend gives them out by their type.
            is_whole = isinstance(value, float) and value.is_integer()
            values[f"{{{{$.inputs.parameters['{name}']}}}}"] = str(int(value)) if is_whole else str(value)
        for placeholder, value in values.items():
            words = [word.replace(placeholder, value) for word in words]
        assert not [word for word in words if "{{" in word]
        return words

    def start(self, task, run_id, **parameters):
        log = (self.root / f"{run_id}-{task}.log").open("ab")
        return subprocess.Popen(
            self.command(task, run_id, **parameters), cwd=self.root, env=self._environment, stdout=log, stderr=log
        )

    def run(self, task, run_id, **parameters):
        """Runs one task, and returns its seconds."""
        start = time.monotonic()
        status = self.start(task, run_id, **parameters).wait(600)
        assert status == 0, (self.root / f"{run_id}-{task}.log").read_text()[-3000:]
        return time.monotonic() - start

    def metrics(self, run_id):
        output = json.loads((self.outputs / run_id / "evaluator" / "executor_output.json").read_text())
        (artifact,) = output["artifacts"]["metrics"]["artifacts"]
        return artifact["metadata"]

    def served(self):
        return sorted((self.root / "runs/containers/serving").glob("*/saved_model.pb"))


def _states(connection, run_id):
    """Returns the state of each node's executions in one run."""
    store = metadata_store.MetadataStore(connection)
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    states = {}
    for execution in store.get_executions_by_context(context.id):
        (node,) = (c.name for c in store.get_contexts_by_execution(execution.id) if c.name.startswith("containers."))
        states.setdefault(node.removeprefix("containers."), []).append(execution.last_known_state)
    return states


def _sqlite(path):
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    return config


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory):
    """A server, or None where there is none."""
    server = MariaDb(tmp_path_factory.mktemp("mariadb")) if shutil.which("mariadbd") else None
    yield server
    if server:
        server.kill()


@pytest.fixture(scope="module")
def started(tmp_path_factory, write_log, mariadb):
    """The two tests' runs at the same time: each node is slow to import, and keeps one core busy."""
    roots = {name: tmp_path_factory.mktemp(name) for name in ("sqlite", "mysql")}
    for root in roots.values():
        write_log(root / "log", [f"2026-01-0{day}" for day in range(1, 5)], 1000)
    on_sqlite = Package(roots["sqlite"], f"sqlite://{roots['sqlite']}/metadata.sqlite")
    on_mysql = mariadb and Package(
        roots["mysql"], f"mysql://ctr@127.0.0.1:{mariadb.port}/metadata", METADATA_PASSWORD=PASSWORD
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sqlite = pool.submit(_two_runs, on_sqlite)
        yield sqlite, mariadb and pool.submit(_one_run_and_a_killed_server, on_mysql, mariadb)


def test_two_runs_on_one_sqlite_store(started):
    package = started[0].result()
    database = package.root / "metadata.sqlite"
    metrics = package.metrics("first")
    assert metrics["auc"] > 0.55
    assert metrics["blessed"] == 1.0
    assert "<svg" in (package.outputs / "first/evaluation-report/report").read_text()
    # One execution of the Trainer, too, although its first attempt was killed: the second one has gone on with it.
    assert _states(_sqlite(database), "first") == {node: [State.COMPLETE] for node in package.nodes()}
    trainer = package.root / "runs/containers/root/Trainer"
    assert [len(list((trainer / output).iterdir())) for output in ("model", "model_run")] == [1, 1]
    assert "which is from an attempt that did not end well" in (package.root / "first-trainer.log").read_text()

    repeated = ("EarlierStatistics", "LatestBlessedModel", "Evaluator", "EvaluationReport", "Pusher")
    assert _states(_sqlite(database), "second") == {
        node: [State.COMPLETE if node in repeated else State.CACHED] for node in package.nodes()
    }
    evaluations = (package.root / "runs/containers/root/Evaluator/evaluation").iterdir()
    _, second = sorted(evaluations, key=lambda folder: int(folder.name))
    locations = json.loads((second / "eval_config.json").read_text())["modelLocations"]
    assert locations["baseline"] == locations["candidate"]
    assert package.metrics("second") == pytest.approx(metrics)
    assert package.served()


def _two_runs(package):
    parameters = {"max_epochs": 2, "as_of": "2026-01-03"}
    for task in package.order():
        if task == "trainer":
            _kill_while_it_trains(package, "first", parameters)
        package.run(task, "first", **parameters)
    assert len(package.served()) == 1
    for task in package.order():
        package.run(task, "second", **parameters)
    # A second attempt at what has succeeded: TFX's resolver would add a second baseline.
    package.run("latest-blessed-model", "second", **parameters)
    return package


def _kill_while_it_trains(package, run_id, parameters):
    process = package.start("trainer", run_id, **parameters)
    log = package.root / f"{run_id}-trainer.log"
    try:
        deadline = time.monotonic() + 300
        while "epoch 1/2" not in log.read_text() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert "epoch 1/2" in log.read_text()
    assert process.returncode == -9


class MariaDb:
    """Debian's MariaDB server on a free port of the loopback interface, with a folder of its own."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # As root it would have to be told so; as any other user it may not be told.
        self._user = ["--user=root"] if os.geteuid() == 0 else []
        self._folder = folder
        install = ["mariadb-install-db", f"--datadir={folder}/data", "--auth-root-authentication-method=normal"]
        subprocess.run([*install, *self._user], check=True, capture_output=True, timeout=120)
        self.start()
        self._execute(f"CREATE USER 'ctr'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO 'ctr'@'%'")

    def start(self):
        folder = self._folder
        self._process = subprocess.Popen(
            [
                "mariadbd",
                "--no-defaults",
                f"--datadir={folder}/data",
                f"--socket={folder}/socket",
                *self._user,
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                f"--pid-file={folder}/pid",
                "--skip-name-resolve",
            ],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("ab"),
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._execute("SELECT 1")
            except subprocess.CalledProcessError:
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                assert self._process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.1)

    def kill(self):
        self._process.kill()
        assert self._process.wait(30) == -9

    def _execute(self, sql):
        return subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={self._folder}/socket", "-uroot", "-e", sql],
            check=True,
            capture_output=True,
            timeout=30,
        )


def test_a_run_on_mysql_whose_server_is_killed_between_two_nodes(started):
    if started[1] is None:
        pytest.skip("no MariaDB here: apt-get install mariadb-server, as .ci/run does")
    package, states = started[1].result()
    assert states == {node: [State.COMPLETE] for node in package.nodes()}
    assert len(package.served()) == 1
    assert package.metrics("run")["blessed"] == 1.0
    assert PASSWORD not in (package.root / "pipeline.yaml").read_text()
    assert list(package.root.rglob("*.sqlite")) == []


def _one_run_and_a_killed_server(package, server):
    for task in package.order():
        if task == "transform":
            server.kill()
            server.start()
        package.run(task, "run", max_epochs=1)
    store = mysql_metadata_connection_config("127.0.0.1", server.port, "metadata", "ctr", PASSWORD)
    return package, _states(store, "run")
