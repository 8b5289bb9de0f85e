"""A whole run through a Beam job server, with the workers in processes of their own.

Flink and Spark are driven in the same way. The job server is the one that comes with Beam's Python SDK, and, where the
environment variable BEAM_JOB_SERVER_JAR names the file of Beam's job server for Flink or Spark, that one too, with
`java` from the PATH; JAVA_TOOL_OPTIONS is where its own flags go.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

CTR = pathlib.Path(sys.executable).with_name("ctr")
JAR = os.environ.get("BEAM_JOB_SERVER_JAR")
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]


def _free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def _server(command, port, folder, name):
    """Runs a server in an empty folder of its own, from when it listens; its output is in `name`.log."""
    home = folder / name
    home.mkdir()
    # Beam's worker pool starts whichever `python` the PATH has.
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PATH": path}
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("localhost", port)):
                break
            assert process.poll() is None, (folder / f"{name}.log").read_text()
            assert time.monotonic() < deadline, f"{name} does not listen"
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # Beam's job server may wait for a connection's end
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _job_server(kind, port, folder):
    if kind == "portable":
        module = "apache_beam.runners.portability.local_job_service_main"
        return [sys.executable, "-m", module, "--port", port, "--staging_dir", folder / "artifacts"]
    ports = ["--job-port", port, "--artifact-port", 0, "--expansion-port", 0]
    return ["java", "-jar", JAR, *ports, "--artifacts-dir", folder / "artifacts"]


@pytest.fixture(scope="module")
def log(tmp_path_factory, write_log):
    """A log of 4,000 impressions with a key, which two have in common, and one that has no label."""
    folder = tmp_path_factory.mktemp("portable") / "log"
    write_log(folder, DAYS, 1000)
    for number, file in enumerate(sorted(folder.glob("*/*.parquet"))):
        table = pq.ParquetFile(file).read()
        keys, labels = list(range(1000 * number, 1000 * (number + 1))), table["label"].to_pylist()
        if number == 1:
            keys[500], labels[700] = 3, None
        table = table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels, pa.int64()))
        pq.write_table(table.append_column("impression_id", pa.array(keys)), file)
    return folder


KINDS = ["portable", "flink", "spark"]


@pytest.fixture(scope="module", params=KINDS)
def run(request, log, tmp_path_factory):
    """The run's folder, the finished process, and what the worker pool has said."""
    kind = request.param
    if kind != "portable" and kind not in pathlib.Path(JAR or "").name:
        pytest.skip(
            f"BEAM_JOB_SERVER_JAR names no job server of {kind}: this runs where it does, with a file such as "
            f"beam-runners-{kind}-...-job-server-....jar; see docs/beam.md"
        )
    folder = tmp_path_factory.mktemp(kind)
    job_port, pool_port = _free_port(), _free_port()
    pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", "--service_port", pool_port]
    settings = {
        "log.path": log,
        "log.eval_days": 1,
        "log.key": "impression_id",
        "training.max_epochs": 3,
        "training.batch_size": 100,
        "training.learning_rate": 0.005,
        "transform.analyzer_cache": "true",
        "evaluation.min_calibration": 0.8,
        "evaluation.min_slice_examples": 100,
        "beam.runner": kind,
        "beam.job_endpoint": f"localhost:{job_port}",
        "beam.worker_pool": f"localhost:{pool_port}",
        "beam.shared_folder": tmp_path_factory.getbasetemp(),
    }
    (folder / "artifacts").mkdir()
    (folder / "home").mkdir()
    with (
        _server(_job_server(kind, job_port, folder), job_port, folder, "job-server"),
        _server(pool, pool_port, folder, "worker-pool"),
    ):
        process = subprocess.run(
            [CTR, "run", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))],
            cwd=folder / "home",
            capture_output=True,
            text=True,
            timeout=1800,
        )
    return folder, process


def test_it_ends_in_a_pushed_model(run):
    folder, process = run
    assert process.returncode == 0, process.stdout + process.stderr
    summary = json.loads((folder / "home/runs/movielens/summary.json").read_text())
    assert summary["examples"] == {"train": 2998, "eval": 1000}
    assert (summary["rows"], summary["quarantined"]) == (4000, {"duplicate impression": 1, "missing label": 1})
    assert 0.55 < summary["metrics"]["auc"] < 1
    assert summary["blessed"], summary["not_blessed_because"]
    model = tf.saved_model.load(summary["pushed_model"])
    assert model.signatures["serving_default"](tf.constant([b""]))["ctr"].shape == (1, 1)


def test_the_quarantine_has_the_bad_rows_and_their_reasons(run):
    (file,) = (run[0] / "home/runs/movielens/quarantine").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert collections.Counter(line["reason"] for line in lines) == {"duplicate impression": 1, "missing label": 1}


def test_every_beam_step_ran_in_workers_of_the_pool(run):
    log = (run[0] / "worker-pool.log").read_text()
    # Ingestion: keys, duplicates, Examples; StatisticsGen; Transform; Evaluator: the training split's ids, metrics.
    assert log.count("Starting worker with command") >= 7
    assert not list((run[0] / "worker-pool").iterdir())  # they have written where they were told to, not where they are
