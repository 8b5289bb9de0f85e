"""Each check, on a good model and on one that is broken in the way that it is there to find."""

from __future__ import annotations

import types
from typing import Any

import pytest
import tensorflow as tf

from components.serving_check import check


def _run(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    reports: list[list[dict[str, Any]]] = []
    check.run(job, lambda report: reports.append([dict(entry) for entry in report]))
    return {entry["check"]: entry for entry in reports[-1]}


def _failures(report: dict[str, dict[str, Any]]) -> dict[str, str]:
    # Here, in the tests' own process, everything can be imported: `test_isolated.py` has that check.
    return {name: entry["text"] for name, entry in report.items() if not entry["ok"] and name != "alone"}


def test_a_good_model_passes_every_check(job):
    report = _run(job)
    assert _failures(report) == {}
    assert list(report) == ["alone", "size", "loads", "answers", *check.CHECKS]
    assert report["transform_features"]["text"] == "ids, label, numbers"
    assert all(entry["seconds"] >= 0 for entry in report.values())


@pytest.mark.parametrize("lacking", [1, 80], ids=["the first impression", "all"])
def test_an_impression_that_lacks_a_number_fails_no_check(job, lacking, monkeypatch):
    examples = [
        tf.train.Example.FromString(record) for record in tf.data.TFRecordDataset(job["examples"]).as_numpy_iterator()
    ]
    numbers = [name for name, feature in examples[0].features.feature.items() if feature.HasField("float_list")]
    assert numbers
    for example in examples[:lacking]:
        for name in numbers:
            example.features.feature.pop(name, None)
    with tf.io.TFRecordWriter(job["examples"]) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    monkeypatch.setattr(check, "CHECKS", {"hostile requests": check.CHECKS["hostile requests"]})
    assert _failures(_run(job)) == {}


def _nan(ask, _):
    return {"ctr": ask()["ctr"] * float("nan")}


def _logit(ask, _):
    return {"ctr": 10 * ask()["ctr"]}


def _depends_on_batch(ask, inputs):
    ctr = ask()["ctr"]
    return {"ctr": ctr * (1 - 0.01 * tf.math.sigmoid(tf.cast(tf.shape(ctr)[0], tf.float32)))}


def _one_too_few(ask, _):
    return {"ctr": ask()["ctr"][1:]}


def _no_columns(ask, _):
    return {"ctr": ask()["ctr"][:, 0]}


def _two_columns(ask, _):
    return {"ctr": tf.repeat(ask()["ctr"], 2, axis=1)}


def _other(ask, _):
    return {"ctr": 0.99 * ask()["ctr"]}


def _lenient(ask, inputs):
    """Answers whatever it is sent."""
    return {"ctr": tf.cast(tf.strings.to_hash_bucket_fast(inputs["examples"], 100), tf.float32)[:, tf.newaxis] / 100}


def _stateful_row(ask, inputs):
    features = ask()
    return features | {"numbers": features["numbers"] + tf.cast(tf.shape(features["numbers"])[0], tf.float32)}


def _nan_numbers(ask, inputs):
    features = ask()
    return features | {"numbers": features["numbers"] * float("nan")}


def _unchecked_nan(ask, inputs):
    """An impression without features has no ctr."""
    is_empty = tf.strings.length(inputs["examples"]) == 0
    return {"ctr": tf.where(is_empty[:, tf.newaxis], float("nan"), ask()["ctr"])}


BROKEN = {
    "NaN": ({"serving_default": _nan}, "ctr in [0, 1]", "80 of 80 ctrs are not in"),
    "above 1": ({"serving_default": _logit}, "ctr in [0, 1]", "ctrs are not in"),
    "rows lost": ({"serving_default": _one_too_few}, "answers", "gives (79, 1) for 80 examples, must be (80, 1)"),
    "no columns": ({"serving_default": _no_columns}, "answers", "gives (80,) for 80 examples, must be (80, 1)"),
    "two columns": ({"serving_default": _two_columns}, "answers", "gives (80, 2) for 80 examples, must be (80, 1)"),
    "depends on the batch": ({"serving_default": _depends_on_batch}, "same in any batch", "what else is in a batch"),
    "predict differs": ({"predict": _other}, "same from dense features", "predict, one by one gives"),
    "the Evaluator saw others": ({"serving_default": _other}, "same as the Evaluator", "Evaluator gives"),
    "answers malformed bytes": ({"serving_default": _lenient}, "hostile requests", "must be InvalidArgument"),
    "NaN for a hostile request": ({"serving_default": _unchecked_nan}, "hostile requests", "is not in [0, 1]"),
    "transform: batch": ({"transform_features": _stateful_row}, "transform_features", "another numbers"),
    "transform: NaN": ({"transform_features": _nan_numbers}, "transform_features", "not finite"),
    "no predict": ({"predict": None}, "loads", "has no signature predict"),
}


@pytest.mark.parametrize(("changes", "name", "text"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_fails_the_check_that_is_for_it(job, break_model, monkeypatch, changes, name, text):
    monkeypatch.setattr(check, "CHECKS", {name: check.CHECKS[name]} if name in check.CHECKS else {})  # for speed
    failures = _failures(_run(job | {"model": str(break_model(**changes))}))
    assert text in failures[name]


def test_a_file_that_is_no_model_does_not_load(job, tmp_path):
    (tmp_path / "nothing").mkdir()
    report = _run(job | {"model": str(tmp_path / "nothing")})
    assert list(report)[-1] == "loads"
    assert "OSError" in _failures(report)["loads"]


@pytest.mark.parametrize(
    ("limit", "name", "text"),
    [("max_p50_ms", "latency", "ms is above serving_check.max_p50_ms"),
     ("max_p99_ms", "latency", "ms is above serving_check.max_p99_ms"),
     ("max_size_mb", "size", "MB is above serving_check.max_size_mb")],
)  # fmt: skip
def test_a_limit_that_is_passed_fails(job, limit, name, text):
    failures = _failures(_run(job | {"limits": job["limits"] | {limit: 1e-6}}))
    assert list(failures) == [name]
    assert text in failures[name]


@pytest.mark.parametrize(
    ("warmup", "text"),
    [([], "has no warm-up requests"), ([{"signature": "serving_default", "inputs": {}}], "the warm-up request for")],
)
def test_warm_up_requests_must_be_there_and_be_answered(job, warmup, text):
    failures = _failures(_run(job | {"warmup": warmup}))
    assert list(failures) == ["warm-up requests"]
    assert text in failures["warm-up requests"]


def test_the_predict_signature_is_asked_what_a_client_would_send():
    specs = {
        "item": tf.TensorSpec([None], tf.int64),
        "price": tf.TensorSpec([None], tf.float32),
        "tags": tf.TensorSpec([None, None], tf.string),
        "tags_length": tf.TensorSpec([None], tf.int64),
    }
    example = tf.train.Example()
    example.features.feature["item"].int64_list.value.append(7)
    example.features.feature["tags"].bytes_list.value.extend([b"a", b"b"])
    dense = check.to_dense([example.SerializeToString(), b""], specs)
    assert dense["item"].numpy().tolist() == [7, -1]
    assert all(dense["price"].numpy() != dense["price"].numpy())
    assert dense["tags"].numpy().tolist() == [[b"a", b"b"], [b"", b""]]
    assert dense["tags_length"].numpy().tolist() == [2, 0]


def test_a_feature_that_is_called_as_a_sequences_length_would_be_is_one_of_its_own():
    inputs = {
        "title": tf.TensorSpec([None], tf.int64),
        "title_length": tf.TensorSpec([None], tf.float32),
        "seen": tf.TensorSpec([None, None], tf.int64),
        "seen_length": tf.TensorSpec([None], tf.int64),
    }
    served = types.SimpleNamespace(inputs=inputs, session_call=print, predict=print, transform=print)  # not called
    names = [name for name, _ in check.hostile_requests(served, b"")]
    assert "valid: without title_length" in names
    assert "valid: without seen_length" not in names
    assert "valid: predict, no padding for seen" in names
    assert "valid: predict, no padding for title" not in names
