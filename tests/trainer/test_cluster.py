from __future__ import annotations

import json

import pytest

from trainer.cluster import Cluster, WorkersError, read_cluster
from trainer.worker import main

TWO = ["a:2222", "b:2222"]


def _config(cluster, job="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}, "environment": "cloud"})


CLUSTERS = {
    "not set": (None, None),
    "empty": ("", None),
    "one worker": (_config({"worker": ["a:2222"]}), None),
    "the first worker": (_config({"worker": TWO}), Cluster(("a:2222", "b:2222"), 0)),
    "the second worker": (_config({"worker": TWO}, index=1), Cluster(("a:2222", "b:2222"), 1)),
    "a chief": (_config({"chief": ["c:1"], "worker": TWO}, "chief"), Cluster(("c:1", "a:2222", "b:2222"), 0)),
    "a chief's worker": (_config({"chief": ["c:1"], "worker": TWO}, index=1), Cluster(("c:1", "a:2222", "b:2222"), 2)),
}


@pytest.mark.parametrize(("text", "cluster"), CLUSTERS.values(), ids=CLUSTERS.keys())
def test_reads_the_cluster(text, cluster):
    assert read_cluster(text) == cluster


BROKEN = {
    "not JSON": ("worker:2", r"TF_CONFIG is not JSON \(Expecting value.*\): worker:2"),
    "a list": ("[1]", r"TF_CONFIG has no object `cluster`: \[1\]"),
    "a cluster of text": ('{"cluster": "a:1"}', "TF_CONFIG has no object `cluster`"),
    "no cluster": ("{}", "TF_CONFIG has no list `cluster.worker`"),
    "no workers": (_config({"chief": ["a:1"]}, "chief"), "TF_CONFIG has no list `cluster.worker`"),
    "workers of text": (_config({"worker": "a:1"}), "`cluster.worker` is 'a:1', which is no list of host:port"),
    "two types": (_config({"worker": TWO}, ["worker"]), r"`task.type` is \['worker'\]: it must be chief or worker"),
    "no port": (_config({"worker": ["a:2222", "b"]}), "`cluster.worker` has 'b', which is no host:port"),
    "a number": (_config({"worker": [7]}), "`cluster.worker` has 7, which is no host:port"),
    "two chiefs": (_config({"chief": TWO, "worker": TWO}, "chief"), "2 chiefs in `cluster.chief`: one is the most"),
    "an evaluator": (_config({"worker": TWO}, "evaluator"), "`task.type` is 'evaluator': it must be chief or worker"),
    "no task": (json.dumps({"cluster": {"worker": TWO}}), "`task.type` is None: it must be chief or worker"),
    "too great an index": (_config({"worker": TWO}, index=2), "`task.index` is 2: `cluster.worker` has 2 addresses"),
    "a negative index": (_config({"worker": TWO}, index=-1), "`task.index` is -1: `cluster.worker` has 2"),
    "an index of text": (_config({"worker": TWO}, index="0"), "`task.index` is '0'"),
    "parameter servers": (_config({"worker": TWO, "ps": ["p:1"]}), "parameter servers, `cluster.ps`: leave them out"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_config_is_named(text, message):
    with pytest.raises(WorkersError, match=message):
        read_cluster(text)


NOT_WORKERS = {
    "alone": (None, "TF_CONFIG names no other process: set it"),
    "the chief": (_config({"worker": TWO}), "TF_CONFIG makes this process the chief"),
    "broken": ("{", "TF_CONFIG is not JSON"),
}


@pytest.mark.parametrize(("text", "message"), NOT_WORKERS.values(), ids=NOT_WORKERS.keys())
def test_a_helping_worker_says_in_a_line_why_it_cannot_help(text, message, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
