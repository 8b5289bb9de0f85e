from __future__ import annotations

import logging

import pytest
import tensorflow as tf
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.proto.orchestration import pipeline_pb2
from tfx.proto.orchestration.local_deployment_config_pb2 import LocalDeploymentConfig

from pipeline.local import ProgressHandler
from pipeline.node import NodeResult
from pipeline.runner import ReportingRunner, one_line_cause


def _raised(make):
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def _wrapped():
    try:
        raise ValueError("day=2026-01-01/a.parquet, row 3: label is 7, must be 0 or 1")
    except ValueError as error:
        raise RuntimeError("the launcher failed") from error


def _beams():
    raise RuntimeError("ValueError: no such column [while running 'Write']")


def _key_error():
    raise KeyError("item")


def _lines():
    raise ValueError("\ntwo anomalies\ntrain: gender: unexpected\n")


def _full():
    raise RuntimeError("Error when executing query: database or disk is full query: UPDATE `Execution` SET ...")


def _tensorflows():
    @tf.function
    def seventh(x):
        return tf.gather(x, [7])

    try:
        seventh(tf.constant([1.0, 2.0]))
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f'the transformation failed: "{error}". Batch: ...') from None


CAUSES = {
    "what TensorFlow says after where it was": (
        _tensorflows,
        'the transformation failed: "Graph execution error: indices[0] = 7 is not in [0, 2)',
    ),
    "a full disk, whoever meets it": (_full, "No space left on device: the metadata store could not be written"),
    "the innermost": (_wrapped, "day=2026-01-01/a.parquet, row 3: label is 7, must be 0 or 1"),
    "without Beam's step": (_beams, "RuntimeError: ValueError: no such column"),
    "with the class where the message alone says little": (_key_error, "KeyError: 'item'"),
    "the first line": (_lines, "two anomalies"),
}


@pytest.mark.parametrize(("make", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_cause_in_one_line(make, cause):
    assert one_line_cause(_raised(make)) == cause


def test_a_job_elsewhere_is_asked_for_its_own_words():
    def launch(_, node):
        told = "Traceback (most recent call last):\n  ...\nValueError: features 'shop:V1': No module named 'shop' "
        logging.getLogger().error("%s[while running 'Analyze/A']\n\nMore", told)
        raise RuntimeError("Pipeline job-1 failed in state FAILED: Error running pipeline.")

    runner = ReportingRunner(lambda event: None)
    logging.getLogger().addHandler(runner.job_errors)
    pipeline = pipeline_pb2.Pipeline()
    pipeline.nodes.add().pipeline_node.node_info.id = "Transform"
    try:
        with pytest.raises(RuntimeError) as raised:
            runner._run_node(pipeline, "Transform", launch, lambda event: None)
    finally:
        logging.getLogger().removeHandler(runner.job_errors)
    assert one_line_cause(raised.value, runner.job_errors.last) == "features 'shop:V1': No module named 'shop'"
    assert one_line_cause(ValueError("no"), runner.job_errors.last) == "no"


def test_the_trainings_log_lines_are_the_running_components_progress():
    events = []
    runner = ReportingRunner(events.append)
    runner.running = "Trainer"
    record = logging.LogRecord("trainer.train", logging.INFO, "", 0, "epoch %d/%d", (1, 2), None)
    ProgressHandler(runner, events.append).handle(record)
    assert events == [{"event": "progress", "component": "Trainer", "text": "epoch 1/2"}]


def _nodes(folder, *names):
    pipeline, deployment = pipeline_pb2.Pipeline(), LocalDeploymentConfig()
    store = sqlite_metadata_connection_config(str(folder / "metadata.sqlite"))
    deployment.metadata_connection_config.database_connection_config.CopyFrom(store)
    pipeline.deployment_config.Pack(deployment)
    for name in names:
        pipeline.nodes.add().pipeline_node.node_info.id = name
    return pipeline


def test_a_run_goes_on_without_its_report_and_says_so(tmp_path):
    def launch(_, node):
        if node == "EvaluationReport":
            raise ValueError("no space left")
        return NodeResult(cached=False, outputs={})

    events = []
    runner = ReportingRunner(events.append)
    runner.run(_nodes(tmp_path, "Evaluator", "EvaluationReport", "Pusher"), launch)
    assert list(runner.results) == ["Evaluator", "Pusher"]
    assert runner.problems == {"EvaluationReport": "no space left"}
    assert {"event": "skipped", "component": "EvaluationReport", "cause": "no space left"} in events


def test_a_run_does_not_go_on_without_another_node(tmp_path):
    def launch(_, node):
        raise ValueError(node)

    runner = ReportingRunner(print)

    with pytest.raises(ValueError, match="Evaluator"):
        runner.run(_nodes(tmp_path, "Evaluator", "Pusher"), launch)
    assert runner.problems == {}


def test_a_run_that_goes_on_tells_only_what_has_not_been_told(tmp_path):
    events, launched = [], []

    def launch(_, node):
        launched.append(node)
        return NodeResult(cached=True, outputs={})

    runner = ReportingRunner(events.append, "a run", num_told=1)
    runner.run(_nodes(tmp_path, "Trainer", "Evaluator"), launch)
    assert launched == list(runner.results) == ["Trainer", "Evaluator"]
    assert [event["component"] for event in events] == ["Evaluator", "Evaluator"]
    assert runner.run_id == "a run"
