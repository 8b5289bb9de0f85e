"""A model that passes, and copies of it that are broken in one way each."""

from __future__ import annotations

import base64
import dataclasses
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from pipeline.config import ServingCheckConfig
from tests.small_model import make_rows, to_example

SETTINGS = dataclasses.asdict(ServingCheckConfig()) | {
    "max_p50_ms": 1e3,
    "max_p99_ms": 1e4,
}  # other work may go on here
Break = Callable[[Callable[[], dict[str, tf.Tensor]], dict[str, tf.Tensor]], dict[str, tf.Tensor]]


@pytest.fixture(scope="session")
def examples() -> list[bytes]:
    return [to_example(row) for row in make_rows(80)]


@pytest.fixture(scope="session")
def ctrs(small_model: pathlib.Path, examples: list[bytes]) -> list[float]:
    serve = tf.saved_model.load(str(small_model)).signatures["serving_default"]
    return [float(ctr) for ctr in serve(examples=tf.constant(examples))["ctr"].numpy()[:, 0]]


@pytest.fixture
def break_model(small_model: pathlib.Path, tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Returns a function that writes a copy of the good model, with other functions for some signatures.

    Each is called with a function that asks the good model, and the inputs; None leaves the signature out.
    """

    def write(**changes: Break | None) -> pathlib.Path:
        module = tf.Module()
        module.good = tf.saved_model.load(str(small_model))
        functions = {}
        for name, signature in module.good.signatures.items():
            change = changes.get(name, lambda ask, _: ask())
            if change is not None:
                functions[name] = _wrap(signature, change)
        target = tmp_path / "broken"
        tf.saved_model.save(module, str(target), functions)
        shutil.copytree(small_model / "assets.extra", target / "assets.extra")
        return target

    return write


def _wrap(signature: Any, change: Break) -> Any:
    specs = signature.structured_input_signature[1]

    @tf.function(input_signature=[tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()])
    def wrapped(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        named = dict(zip(specs, inputs, strict=True))
        return change(lambda: signature(**named), named)

    return wrapped


@pytest.fixture
def job(small_model: pathlib.Path, tmp_path: pathlib.Path, examples: list[bytes], ctrs: list[float]) -> dict[str, Any]:
    """What `check.py` is given for the good model."""
    with tf.io.TFRecordWriter(str(tmp_path / "examples")) as writer:
        for example in examples:
            writer.write(example)
    value = base64.b64encode(tf.make_tensor_proto([examples[0]]).SerializeToString()).decode()
    return {
        "model": str(small_model),
        "examples": str(tmp_path / "examples"),
        "predictions": ctrs,
        "warmup": [{"signature": "serving_default", "inputs": {"examples": value}}],
        "limits": dict(SETTINGS),
    }
