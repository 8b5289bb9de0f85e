"""TensorFlow Serving in a container: asked through its REST interface.

Its image cannot be had everywhere, so `docker` is a program here that starts `tests/model_server.py` for the container.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from components.serving_check.docker import check_in_docker

SERVER = pathlib.Path(__file__).parents[2] / "model_server.py"
DOCKER = """#!/bin/bash
cd "$(dirname "$0")"
echo "$*" >> calls
case $1 in
  info) exit "$(cat info 2>/dev/null || echo 0)" ;;
  run)
    [[ ${!#} == missing ]] && { echo "Unable to find image 'missing' locally" >&2; exit 125; }
    for argument; do [[ $argument == *:ro ]] && volume=$argument; done
    TF_CPP_MIN_LOG_LEVEL=3 nohup PYTHON SERVER "${volume%:/models*}" PORT >server.log 2>&1 &
    echo $! > pid; echo container ;;
  port) echo 127.0.0.1:PORT ;;
  rm) kill "$(cat pid)" ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """The folder of the program, where its calls are written down."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "bin"
    folder.mkdir()
    text = DOCKER.replace("PYTHON", sys.executable).replace("SERVER", str(SERVER)).replace("PORT", str(port))
    (folder / "docker").write_text(text)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield folder
    if (folder / "pid").is_file():
        subprocess.run(["kill", f"-{signal.SIGKILL.value}", (folder / "pid").read_text().strip()], check=False)


def _check(small_model, examples, predictions, image="tensorflow/serving:1", timeout_seconds=120.0):
    return check_in_docker(
        str(small_model), examples, predictions, image, max_difference=1e-5, timeout_seconds=timeout_seconds
    )


def test_the_same_ctrs_pass_and_others_do_not(docker, small_model, examples, ctrs):
    report = _check(small_model, examples, ctrs)
    assert report["ok"], report
    assert report["text"].startswith("tensorflow/serving:1, greatest difference ")
    calls = (docker / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["info", "run", "port", "rm"]
    assert f"-v {small_model}:/models/model/1:ro -e MODEL_NAME=model tensorflow/serving:1" in calls[1]

    report = _check(small_model, examples[:2], [ctrs[0], ctrs[1] + 0.01])
    assert not report["ok"]
    assert "a ctr differs by 0.01" in report["text"]


def test_an_image_that_cannot_be_had_is_a_failure(docker, small_model, examples, ctrs):
    report = _check(small_model, examples, ctrs, image="missing")
    assert (report["ok"], report["text"]) == (
        False,
        "missing: docker run: Unable to find image 'missing' locally",
    )


def test_a_server_that_does_not_start_is_a_failure_and_is_removed(docker, tmp_path, examples, ctrs):
    report = _check(tmp_path / "nothing", examples, ctrs, timeout_seconds=1)
    assert not report["ok"]
    assert "the model is not in service after 1 s" in report["text"]
    assert (docker / "calls").read_text().splitlines()[-1].startswith("rm ")


def test_without_an_engine_it_is_left_out_and_says_so(docker, small_model, examples, ctrs):
    (docker / "info").write_text("1")
    report = _check(small_model, examples, ctrs)
    assert (report["ok"], report["text"]) == (True, "left out: no Docker engine here to run tensorflow/serving:1")
