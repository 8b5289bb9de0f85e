"""The process of its own: what it cannot import, and what becomes of a model that takes it down."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from components.serving_check import executor, isolated
from tests.components.serving_check.conftest import SETTINGS

FOLDER = pathlib.Path(executor.__file__).parent


@pytest.mark.parametrize("package", isolated.REFUSED)
def test_no_package_of_this_project_can_be_imported(tmp_path, package):
    """Not even where this project lies beside TensorFlow, or is in PYTHONPATH or the current folder."""
    script = tmp_path / "script.py"
    script.write_text(f"import {package}")
    project = str(FOLDER.parents[1])
    site_packages = str(pathlib.Path(tf.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", FOLDER / "isolated.py", script, "job", site_packages, project],
        cwd=project,
        env=os.environ | {"PYTHONPATH": project},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"ModuleNotFoundError: {package} is not there where a model is served" in done.stderr


def test_a_good_model_passes_there_with_nothing_else_on_the_path(small_model, examples, ctrs):
    report = executor.run_check(str(small_model), examples, ctrs, SETTINGS)
    assert [entry for entry in report if not entry["ok"]] == []
    assert report[0]["check"] == "alone"


def test_a_model_that_ends_the_process_fails_at_the_check_that_asked(break_model, examples, ctrs):
    def crash(ask, inputs):
        """Malformed bytes end the process."""
        is_bad = tf.reduce_any(inputs["examples"] == b"not an example")
        with tf.control_dependencies([tf.cond(is_bad, _abort, lambda: tf.constant(0))]):
            return {"ctr": tf.identity(ask()["ctr"])}

    def _abort():
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the end")]):
            return tf.constant(1)

    report = executor.run_check(str(break_model(serving_default=crash)), examples[:8], ctrs[:8], SETTINGS)
    assert report[-1]["check"] == "hostile requests"
    assert not report[-1]["ok"]
    assert report[-1]["text"].startswith("the process was killed by SIG")
    assert all(entry["ok"] for entry in report[:-1])


def test_a_process_that_takes_too_long_is_ended(small_model, examples, ctrs):
    report = executor.run_check(str(small_model), examples, ctrs, SETTINGS | {"timeout_seconds": 0.1})
    assert [entry["check"] for entry in report] == ["start"]
    assert report[0]["text"].startswith("no end after serving_check.timeout_seconds, 0.1 s")
