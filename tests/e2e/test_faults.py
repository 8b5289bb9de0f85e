"""Runs that are killed, two at once, or on a full disk: what was there stays, and the next run ends the work."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from tests.e2e import killed

SETTINGS = {
    "name": "faults",
    "log.path": "log",
    "log.eval_days": 1,
    "training.max_epochs": 3,
    "training.batch_size": 100,
    "training.learning_rate": 0.005,
    "evaluation.max_auc_drop": 0.05,
    "evaluation.min_calibration": 0.8,
}


def _words(**changes):
    return [word for key, value in (SETTINGS | changes).items() for word in ("--set", f"{key}={value}")]


def _weights(saved_model):
    """Returns the variables of a SavedModel by name."""
    reader = tf.train.load_checkpoint(str(saved_model / "variables" / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith("_CHECKPOINTABLE")]
    return {name: reader.get_tensor(name) for name in names}


def _artifacts(home):
    """Opens the metadata store and returns its LIVE artifacts."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(home / "metadata.sqlite")
    artifacts = metadata_store.MetadataStore(config).get_artifacts()
    return [artifact for artifact in artifacts if artifact.state == metadata_store_pb2.Artifact.LIVE]


def _versions(home):
    serving = home / "serving"
    return sorted(path for path in serving.iterdir() if path.name.isdecimal()) if serving.exists() else []


@pytest.fixture(scope="module")
def undisturbed(ctr, workplace):
    """Weights of the model that a run pushes that nothing disturbs."""
    process = ctr("run", *_words(name="undisturbed"))
    assert process.returncode == 0, process.stdout + process.stderr
    (version,) = _versions(workplace / "runs/undisturbed")
    return _weights(version)


@pytest.fixture(scope="module")
def killed_everywhere(workplace):
    """One pipeline, run again and again, each time killed at a later point; returns what each run had printed."""
    outputs = {}
    for point in killed.POINTS:
        process = subprocess.run(
            [sys.executable, killed.__file__, point, "run", *_words()],
            cwd=workplace, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert process.returncode == -signal.SIGKILL, process.stdout + process.stderr
        outputs[point] = process.stdout
        assert _versions(workplace / "runs/faults") == []
        assert all(pathlib.Path(artifact.uri).exists() for artifact in _artifacts(workplace / "runs/faults"))
        assert not (workplace / "runs/faults/summary.json").exists()
    return outputs


def test_each_kill_hits_its_component_and_what_was_done_before_is_not_done_again(killed_everywhere):
    done = []
    for point, output in killed_everywhere.items():
        finished = [line.split()[1] for line in output.splitlines() if line.startswith("✓")]
        assert point.partition(",")[0] not in finished
        assert finished[: len(done)] == done
        cached = [line.split()[1] for line in output.splitlines() if line.startswith("✓") and "cached" in line]
        assert set(done) - {"EarlierStatistics", "LatestBlessedModel", "Evaluator", "EvaluationReport"} <= set(cached)
        done = finished
    assert {"Trainer", "Evaluator"} <= set(done)


def test_a_training_that_was_killed_goes_on_from_its_last_epoch(killed_everywhere):
    trained = [[line.split()[1] for line in output.splitlines() if line.startswith("    epoch ")] for point, output in
               killed_everywhere.items() if point.startswith("Trainer")]  # fmt: skip
    assert trained == [["1/3:", "2/3:"], ["3/3:"]]


@pytest.fixture(scope="module")
def two_at_once(killed_everywhere, workplace, ctr):
    """Runs the pipeline that was killed everywhere, and a second time while that goes on."""
    command = [pathlib.Path(sys.executable).with_name("ctr"), "run", *_words()]
    with subprocess.Popen(command, cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        deadline = time.monotonic() + 60
        # A run that was killed has left its own id there.
        while f'"pid": {first.pid},' not in (workplace / "runs/faults/lock").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = ctr("run", *_words())
        output = first.communicate(timeout=300)[0]
    assert first.returncode == 0, output
    return first.pid, second


def test_of_two_runs_at_once_one_runs_and_the_other_says_who_does(two_at_once):
    pid, second = two_at_once
    assert second.returncode == 1
    assert f"ctr: the pipeline faults is in use by process {pid} on " in second.stderr
    assert "`ctr run --set name=faults" in second.stderr


def test_after_all_kills_the_model_is_that_of_an_undisturbed_run(two_at_once, undisturbed, workplace):
    home = workplace / "runs/faults"
    (version,) = _versions(home)
    assert [path.name for path in (home / "serving").iterdir()] == [version.name]
    weights = _weights(version)
    assert weights.keys() == undisturbed.keys()
    for name, expected in undisturbed.items():
        np.testing.assert_array_equal(weights[name], expected, err_msg=name)
    summary = json.loads((home / "summary.json").read_text())
    assert summary["blessed"]
    assert summary["pushed_model"] == str(version)


def test_nothing_is_left_of_the_runs_that_were_killed(two_at_once, workplace):
    home = workplace / "runs/faults"
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(home / "metadata.sqlite")
    executions = metadata_store.MetadataStore(config).get_executions()
    states = [execution.last_known_state for execution in executions]
    assert states.count(metadata_store_pb2.Execution.FAILED) == len(killed.POINTS)
    assert metadata_store_pb2.Execution.RUNNING not in states
    live = {artifact.uri for artifact in _artifacts(home)}
    outputs = [path for path in (home / "root").glob("*/*/*") if path.name.isdecimal()]  # component/output/execution
    assert outputs
    assert {str(path) for path in outputs} <= live


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 GB: a run's checkpoints and models take a few hundred MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system can only be mounted by root, as CI is: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_named_and_what_was_there_stays(two_at_once, workplace, small_disk, ctr):
    home = small_disk / "faults"
    shutil.copytree(workplace / "runs/faults", home)
    before, num_artifacts = _weights(_versions(home)[0]), len(_artifacts(home))
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - 600_000))
    settings = _words(**{"runs_dir": small_disk, "training.seed": 7})
    process = ctr("run", *settings)
    assert process.returncode == 1, process.stdout
    assert "No space left on device" in process.stderr, process.stderr
    assert len(_versions(home)) == 1
    np.testing.assert_equal(_weights(_versions(home)[0]), before)
    assert len(_artifacts(home)) >= num_artifacts
    earlier = json.loads((home / "summary.json").read_text())
    assert earlier["blessed"]

    (small_disk / "ballast").unlink()
    process = ctr("run", *settings)
    assert process.returncode == 0, process.stdout + process.stderr
    later = json.loads((home / "summary.json").read_text())
    assert later["run_id"] > earlier["run_id"]
    assert later["baseline"] is not None
