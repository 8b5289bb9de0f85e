"""The checks themselves: a script that needs TensorFlow alone. It is run by `isolated.py`, and imports nothing of ours.

    check.py JOB

JOB is a JSON file, `executor.py` writes it: `model` (a SavedModel), `examples` (a TFRecord file of raw serialized
tf.Examples), `predictions` (what the Evaluator's own code made of them), `warmup` (requests: a signature and its inputs
as TensorProtos in base64), `limits` and `report`, the JSON file to write: a list of the checks in their order.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

SIGNATURES = ("serving_default", "predict", "transform_features")
_REFUSED = ("pipeline", "components", "transform", "trainer", "schemas", "tfx", "tensorflow_transform")
_BATCH = 64
_HUGE = 100_000  # ids of a sequence

Ctrs: TypeAlias = npt.NDArray[Any]  # float32 [batch, 1]


class CheckError(Exception):
    """A check that fails; the message names the figure and the remedy."""


class Served:
    """A SavedModel, loaded in the two ways in which models are served.

    Attributes:
        signatures: Each signature's function by its name, as `tf.saved_model.load` gives it.
        session_call: `serving_default` in a TF1 session, as TF Serving runs it: serialized examples -> ctr.
    """

    def __init__(self, directory: str) -> None:
        self._model = tf.saved_model.load(directory)
        self.signatures = self._model.signatures
        missing = [name for name in SIGNATURES if name not in self.signatures]
        if missing:
            raise CheckError(f"the model has no signature {', '.join(missing)}: export it with trainer.export")
        graph = tf.Graph()
        with graph.as_default():
            session = tf.compat.v1.Session()
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], directory)
            signature = loaded.signature_def["serving_default"]
            (examples,) = signature.inputs.values()
            self._run = session.make_callable(signature.outputs["ctr"].name, [examples.name])

    def serve(self, examples: Sequence[bytes]) -> Ctrs:
        """Returns the ctr of serialized examples, float32 [batch, 1]."""
        # By name: TensorFlow's message for positional ones cannot print bytes that are no text.
        return self.signatures["serving_default"](examples=tf.constant(list(examples), tf.string))["ctr"].numpy()

    def session_call(self, examples: Sequence[bytes]) -> Ctrs:
        """Returns the same from the session."""
        return self._run(np.array(examples, dtype=object))

    def predict(self, inputs: dict[str, tf.Tensor]) -> Ctrs:
        """Returns the ctr of dense features."""
        return self.signatures["predict"](**inputs)["ctr"].numpy()

    def transform(self, examples: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
        """Returns the transformed features of serialized examples, [batch, any] each."""
        outputs = self.signatures["transform_features"](examples=tf.constant(list(examples), tf.string))
        return {name: values.numpy() for name, values in outputs.items()}

    @property
    def inputs(self) -> dict[str, tf.TensorSpec]:
        """The inputs of `predict` by their names."""
        return dict(self.signatures["predict"].structured_input_signature[1])


def to_dense(examples: Sequence[bytes], inputs: dict[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Returns serialized tf.Examples as the inputs of `predict`: what a client would send for the same impressions."""
    features = [tf.train.Example.FromString(example).features.feature for example in examples]
    dense: dict[str, tf.Tensor] = {}
    for name, spec in inputs.items():
        if _is_sequence(spec):
            rows = [_values(feature, name) for feature in features]
            dense[f"{name}_length"] = tf.constant([len(row) for row in rows], tf.int64)
            width = max(map(len, rows), default=0)
            padding = "" if spec.dtype == tf.string else 0
            padded = [row + [padding] * (width - len(row)) for row in rows]
            dense[name] = tf.reshape(tf.constant(padded, spec.dtype), [len(rows), width])
        elif name not in dense:
            missing = {tf.string: "", tf.int64: -1, tf.float32: float("nan")}[spec.dtype]
            values = [(_values(feature, name) or [missing])[0] for feature in features]
            dense[name] = tf.constant(values, spec.dtype)
    return dense


def _values(features: Any, name: str) -> list[Any]:
    if name not in features:
        return []
    kind = features[name].WhichOneof("kind")
    return list(getattr(features[name], kind).value) if kind else []


def check_alone(job: dict[str, Any]) -> str:
    """Nothing of this project can be imported here."""
    found = []
    for name in _REFUSED:
        try:
            if importlib.util.find_spec(name):
                found.append(name)
        except ModuleNotFoundError:
            pass
    if found:
        raise CheckError(f"{', '.join(found)} can be imported, so that the check would prove nothing: run isolated.py")
    return "TensorFlow alone"


def check_size(job: dict[str, Any]) -> str:
    """The model's files are not too large."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(job["model"]) for name in names]
    size_mb = sum(map(os.path.getsize, files)) / 1e6
    _limit("max_size_mb", size_mb, job, "MB", "take fewer buckets or a smaller embedding_dim")
    return f"{size_mb:.1f} MB"


def check_loading(job: dict[str, Any], served: list[Served]) -> str:
    """The model loads."""
    start = time.monotonic()
    served.append(Served(job["model"]))
    return f"{time.monotonic() - start:.1f} s"


def check_answers(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: list[Ctrs]) -> str:
    """The sample is answered with a ctr for each example; puts the answer into `ctrs`."""
    answer, wanted = served.serve(examples), (len(examples), 1)
    if answer.shape != wanted:
        raise CheckError(f"serving_default gives {answer.shape} for {len(examples)} examples, must be {wanted}")
    ctrs.append(answer)
    return f"{len(examples)} examples"


def check_replay(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """The sample's ctrs are finite and in [0, 1]."""
    bad = [row for row, ctr in enumerate(ctrs[:, 0]) if not 0 <= ctr <= 1]  # NaN is not
    if bad:
        shown = ", ".join(f"{ctrs[row, 0]}" for row in bad[:3])
        raise CheckError(
            f"{len(bad)} of {len(examples)} ctrs are not in [0, 1]: {shown}; look for weights that are "
            "not finite and for numbers that overflow"
        )
    return f"{len(examples)} examples, ctr {ctrs.min():.4f} to {ctrs.max():.4f}"


def check_transform(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """`transform_features` answers with a row for each example, the same one by one and in a batch."""
    features = served.transform(examples)
    single = [served.transform([example]) for example in examples[:_BATCH]]
    for name, values in features.items():
        if values.shape[0] != len(examples) or not np.all(np.isfinite(values)):
            raise CheckError(f"transform_features gives {name} of shape {values.shape} or a value that is not finite")
        alone = np.concatenate([row[name] for row in single])
        limit = job["limits"]["max_difference"]
        if alone.shape != values[:_BATCH].shape or not np.allclose(alone, values[:_BATCH], rtol=limit, atol=limit):
            raise CheckError(f"transform_features gives another {name} for an example alone than in a batch")
    return f"{', '.join(sorted(features))}"


def check_batches(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """One by one and in batches an example has the same ctr."""
    single = np.concatenate([served.serve([example]) for example in examples])
    batches = [served.serve(examples[start : start + _BATCH]) for start in range(0, len(examples), _BATCH)]
    return _equal(job, {"one by one": single, f"batches of {_BATCH}": np.concatenate(batches)}, ctrs)


def check_session(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """A TF1 session, which is what TF Serving runs, gives the same."""
    return _equal(job, {"TF1 session": served.session_call(examples)}, ctrs)


def check_predict(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """The signature `predict` gives for dense features what `serving_default` gives for the examples."""
    single = [served.predict(to_dense([example], served.inputs)) for example in examples[:_BATCH]]
    _equal(job, {"predict, one by one": np.concatenate(single)}, ctrs[:_BATCH])
    return _equal(job, {"predict": served.predict(to_dense(examples, served.inputs))}, ctrs)


def check_evaluator(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """The Evaluator has judged the ctrs that are served."""
    return _equal(job, {"Evaluator": np.array(job["predictions"], np.float32)[:, np.newaxis]}, ctrs)


def check_hostile(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """A request that nobody should send gets an answer or an error of its own, and the model goes on."""
    counts = {"answered": 0, "refused": 0}
    for name, call in hostile_requests(served, _complete(examples)):
        try:
            answer = call()
            counts["answered"] += 1
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
            # The latter is TensorFlow's Python, which cannot print an InvalidArgument's message that quotes such bytes.
            counts["refused"] += 1
            if name.startswith("valid"):
                raise CheckError(f"{name}: the model refuses a request that it has to answer") from None
        except Exception as error:
            raise CheckError(f"{name}: {type(error).__name__} instead of InvalidArgument: {error}") from error
        else:
            if name.startswith("malformed"):
                raise CheckError(f"{name}: answered with {_short(answer)}, must be InvalidArgument")
            if not np.all((answer >= 0) & (answer <= 1)):
                raise CheckError(f"{name}: ctr {_short(answer)} is not in [0, 1]")
        after = served.serve(examples[:1])
        if not abs(after - ctrs[:1]).max() <= job["limits"]["max_difference"]:
            raise CheckError(f"{name}: the requests after it get another ctr than before")
    return f"{counts['answered']} answered, {counts['refused']} refused"


def _short(answer: Any) -> str:
    return str(answer.tolist() if isinstance(answer, np.ndarray) else answer)[:100]


def hostile_requests(served: Served, example: bytes) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yields requests: a name, and what sends it. `valid` ones must be answered, `malformed` refused, `odd` either."""
    inputs = served.inputs
    for name, examples in [
        ("valid: empty batch", []),
        ("valid: no features", [b""]),
        ("malformed: text", [b"not an example"]),
        ("malformed: not UTF-8", [b"\xff\xfenot an example"]),
        # TensorFlow's parser takes some of these for a shorter example, by where in it the cut happens to be.
        *((f"odd: cut off after {eighth}/8", [example[: len(example) * eighth // 8]]) for eighth in range(1, 8)),
        ("malformed: one bad example among good ones", [example, b"\x0a\xff", example]),
        *_changed_examples(example, inputs),
    ]:
        yield name, functools.partial(served.session_call, examples)
    empty = {name: tf.zeros([0] * spec.shape.rank, spec.dtype) for name, spec in inputs.items()}
    yield "valid: predict, empty batch", functools.partial(served.predict, empty)
    yield "malformed: transform_features", functools.partial(served.transform, [b"not an example"])
    dense = to_dense([example], inputs)
    two = to_dense([example, example], inputs)
    for name in inputs:
        changed = two | {name: dense[name]}
        if len(inputs) > 1:
            yield f"malformed: predict, one {name} for two impressions", functools.partial(served.predict, changed)
        if not _is_sequence(inputs[name]):
            continue
        length = f"{name}_length"
        without = {name: dense[name][:, :0], length: tf.constant([0], tf.int64)}
        yield f"valid: predict, no padding for {name}", functools.partial(served.predict, dense | without)
        for wrong in (-1, 2**40):
            changed = dense | {length: tf.constant([wrong], tf.int64)}
            yield f"odd: predict, {length} {wrong}", functools.partial(served.predict, changed)


def _is_sequence(spec: tf.TensorSpec) -> bool:
    """Returns whether an input `x` has `x_length` beside it; beside any other that is a feature of its own."""
    return bool(spec.shape.rank == 2)


def _complete(examples: Sequence[bytes]) -> bytes:
    """Returns the first example, with what it lacks from others: what a number is in the log its values tell."""
    complete = tf.train.Example.FromString(examples[0])
    for example in examples[1:]:
        for name, feature in tf.train.Example.FromString(example).features.feature.items():
            if feature.WhichOneof("kind") and not complete.features.feature[name].WhichOneof("kind"):
                complete.features.feature[name].CopyFrom(feature)
    return bytes(complete.SerializeToString())


def _changed_examples(example: bytes, inputs: dict[str, tf.TensorSpec]) -> Iterator[tuple[str, list[bytes]]]:
    """Yields an example with each of its features missing, odd, huge and of a wrong type."""
    for name, spec in inputs.items():
        if name in {f"{other}_length" for other, of in inputs.items() if _is_sequence(of)}:
            continue
        yield f"valid: without {name}", [_with(example, name, [])]
        yield f"valid: odd {name}", [_with(example, name, _odd(spec))]
        # A number that no example has may be an int64 or a float32 in them.
        is_known = tf.train.Example.FromString(example).features.feature[name].WhichOneof("kind")
        if _is_sequence(spec):
            yield f"valid: {_HUGE:,} values of {name}", [_with(example, name, _odd(spec) * _HUGE)]
        elif is_known or not spec.dtype.is_floating:
            yield f"malformed: two values of {name}", [_with(example, name, _odd(spec) * 2)]
        yield f"malformed: wrong type of {name}", [_with(example, name, [b"x"] if spec.dtype != tf.string else [1])]


def _odd(spec: tf.TensorSpec) -> list[Any]:
    """Returns a value that no training has seen."""
    if spec.dtype == tf.string:
        return [b"\xff\x00never seen"]
    return [2**63 - 1] if spec.dtype == tf.int64 else [float("nan")]


def _with(example: bytes, name: str, values: list[Any]) -> bytes:
    """Returns an example with other values for one feature, which it then lacks where there are none."""
    changed = tf.train.Example.FromString(example)
    was = changed.features.feature[name].WhichOneof("kind")
    del changed.features.feature[name]
    if values and isinstance(values[0], bytes):
        changed.features.feature[name].bytes_list.value.extend(values)
    elif values and isinstance(values[0], int):
        changed.features.feature[name].int64_list.value.extend(values)
    elif values and was == "int64_list":  # a number that is whole in the log: `predict` takes it as a float32
        changed.features.feature[name].int64_list.value.extend([-(2**63)] * len(values))
    elif values and was:
        changed.features.feature[name].float_list.value.extend(values)
    return bytes(changed.SerializeToString())


def check_warmup(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """The model answers its own warm-up requests: TF Serving does not start with a model that fails on them."""
    for request in job["warmup"]:
        inputs = {
            name: tf.constant(tf.make_ndarray(tensor_pb2.TensorProto.FromString(base64.b64decode(value))))
            for name, value in request["inputs"].items()
        }
        try:
            served.signatures[request["signature"]](**inputs)
        except Exception as error:
            raise CheckError(f"the warm-up request for {request['signature']} fails: {error}") from error
    if not job["warmup"]:
        raise CheckError("the model has no warm-up requests: its first requests would be slow; export it again")
    return f"{len(job['warmup'])} requests"


def check_latency(job: dict[str, Any], served: Served, examples: list[bytes], ctrs: Ctrs) -> str:
    """One example in a TF1 session is answered fast enough."""
    for example in examples[:20]:
        served.session_call([example])
    milliseconds = []
    for number in range(max(200, len(examples))):
        start = time.perf_counter()
        served.session_call([examples[number % len(examples)]])
        milliseconds.append(1000 * (time.perf_counter() - start))
    p50, p99 = (float(np.percentile(milliseconds, percent)) for percent in (50, 99))
    remedy = "take a smaller tower or shorter sequences, check on an idle machine, or raise the limit"
    _limit("max_p50_ms", p50, job, "ms", remedy)
    _limit("max_p99_ms", p99, job, "ms", remedy)
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def _limit(name: str, value: float, job: dict[str, Any], unit: str, remedy: str) -> None:
    limit = job["limits"][name]
    if value > limit:
        raise CheckError(f"{value:.4g} {unit} is above serving_check.{name}, {limit:g} {unit}: {remedy}")


def _equal(job: dict[str, Any], others: dict[str, Ctrs], ctrs: Ctrs) -> str:
    greatest = 0.0
    for name, other in others.items():
        if other.shape != ctrs.shape:
            raise CheckError(f"{name} gives {other.shape}, serving_default {ctrs.shape}")
        difference = float(np.abs(other - ctrs).max(initial=0.0))
        limit = job["limits"]["max_difference"]
        if not difference <= limit:
            row = int(np.abs(other - ctrs)[:, 0].argmax())
            raise CheckError(
                f"{name} gives {other[row, 0]:.8g} for example {row}, serving_default {ctrs[row, 0]:.8g}: "
                f"{difference:.3g} is above serving_check.max_difference, {limit:g}; the graph depends on what else is "
                "in a batch, or the two paths do not compute the same"
            )
        greatest = max(greatest, difference)
    return f"greatest difference {greatest:.3g}"


CHECKS = {
    "ctr in [0, 1]": check_replay,
    "transform_features": check_transform,
    "same in any batch": check_batches,
    "same in a TF1 session": check_session,
    "same from dense features": check_predict,
    "same as the Evaluator": check_evaluator,
    "hostile requests": check_hostile,
    "warm-up requests": check_warmup,
    "latency": check_latency,
}


def run(job: dict[str, Any], write: Callable[[list[dict[str, Any]]], None]) -> None:
    """Runs the checks in their order.

    Args:
        job: See above.
        write: Called with the report before each check, where the one that runs now has `ok` None, and at the end: so a
            crash is that check's.
    """
    report: list[dict[str, Any]] = []

    def attempt(name: str, check: Callable[..., str], *arguments: Any) -> bool:
        report.append({"check": name, "ok": None, "text": "the process ended"})
        write(report)
        start = time.monotonic()
        try:
            ok, text = True, check(job, *arguments)
        except CheckError as error:
            ok, text = False, str(error)
        except Exception as error:
            ok, text = False, f"{type(error).__name__}: {error}"
        report[-1] = {"check": name, "ok": ok, "text": text, "seconds": round(time.monotonic() - start, 3)}
        write(report)
        return ok

    served: list[Served] = []
    attempt("alone", check_alone)
    attempt("size", check_size)
    if not attempt("loads", check_loading, served):
        return
    examples = [record.numpy() for record in tf.data.TFRecordDataset(job["examples"])]
    ctrs: list[Ctrs] = []
    if not attempt("answers", check_answers, served[0], examples, ctrs):
        return
    for name, check in CHECKS.items():
        attempt(name, check, served[0], examples, ctrs[0])


if __name__ == "__main__":

    def _write(report: list[dict[str, Any]]) -> None:
        with open(_job["report"], "w", encoding="utf-8") as output:
            json.dump(report, output, indent=2)

    with open(sys.argv[1], encoding="utf-8") as file:
        _job = json.load(file)
    run(_job, _write)
