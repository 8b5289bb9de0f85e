"""Scores impressions, one JSON object a line, with an exported model. Needs TensorFlow, not TFX."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas.errors import one_line
from schemas.tfmd import SCHEMA_ASSET, SERVING, features_in
from schemas.whole import as_integer

MAX_LINE_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 18
_NAMED = 10  # columns, in an error
_INT64 = range(-(2**63), 2**63)
# The greatest float64 that rounds to a finite float32: that one's shortest decimal, 3.4028235e38, is above it itself.
_MAX_FLOAT32 = math.nextafter(2.0**128 - 2.0**103, 0.0)


class ModelError(ValueError):
    """A model that cannot be used; the message is one sentence."""


class RequestError(ValueError):
    """An impression that cannot be scored; the message says why."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A SavedModel.

    Attributes:
        schema: The columns of a request by their names.
        signature: Serialized tf.Examples, string [batch] -> `ctr` float32 [batch, 1].
    """

    schema: Mapping[str, schema_pb2.Feature]
    signature: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Counts:
    """What came of the lines.

    Attributes:
        scored: Number of lines with a ctr.
        failed: Number of lines with an error.
        absent: The model's columns that no line had.
        unknown: Names that lines had and the model has not, up to `_NAMED`.
    """

    scored: int
    failed: int
    absent: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    unknown: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def hint(self) -> str:
        """Returns what may be wrong with the lines' names, in a sentence; empty where every column was there once."""
        if not self.scored or not self.absent:
            return ""
        unknown = f"; names that the model does not know: {', '.join(self.unknown)}" if self.unknown else ""
        return f"{some_of(list(self.absent))}: in none of the {self.scored + self.failed:,} lines{unknown}"


def load_model(directory: pathlib.Path) -> Model:
    """Loads a model.

    Args:
        directory: A SavedModel with its TFMD schema in `assets.extra/schema.pbtxt`.

    Raises:
        ModelError: There is none, or it lacks something.
    """
    if not (directory / "saved_model.pb").is_file():
        raise ModelError(f"{directory} is not a SavedModel: it has no saved_model.pb")
    schema = _read_schema(directory / SCHEMA_ASSET)
    try:
        saved_model = tf.saved_model.load(str(directory))
    except Exception as error:  # TensorFlow and protobuf have no common base for what a damaged file raises
        raise ModelError(f"{directory} cannot be loaded: {_one_line(error)}") from error
    signature = saved_model.signatures.get("serving_default")
    if signature is None or list(signature.structured_outputs) != ["ctr"]:
        raise ModelError(f"{directory} has no signature serving_default with the output ctr")
    _, inputs = signature.structured_input_signature
    if [spec.dtype for spec in inputs.values()] != [tf.string]:
        raise ModelError(f"{directory}: signature serving_default does not take serialized tf.Examples")
    (name,) = inputs
    # The signature is a weak reference into the SavedModel, which this closure keeps.
    return Model(schema, lambda examples: saved_model.signatures["serving_default"](**{name: examples}))


def read_batches(stream: io.BufferedIOBase, batch_size: int = 1024) -> Iterator[list[bytes]]:
    """Yields a stream's lines as they come, some together: never more than `batch_size`, and those that are there.

    It waits for a first line only, so that who writes one and waits for its answer gets it. Of a line that is longer
    than `MAX_LINE_BYTES` one byte more than that is kept, so that memory is bounded.

    Args:
        stream: Lines; the last one may lack its end.
        batch_size: The greatest number of lines to score together.
    """
    pending = bytearray()
    while chunk := stream.read1(_CHUNK_BYTES):  # what is there, without waiting for more
        first, *lines = chunk.split(b"\n")
        pending += first[: MAX_LINE_BYTES + 1 - len(pending)]
        if lines:
            ended = [bytes(pending), *lines[:-1]]
            pending = bytearray(lines[-1])
            for start in range(0, len(ended), batch_size):
                yield ended[start : start + batch_size]
    if pending:
        yield [bytes(pending)]


def predict(model: Model, batches: Iterable[Sequence[bytes]], output: TextIO) -> Counts:
    """Scores lines; for each writes, in order, `{"ctr": 0.5}` or `{"error": "line 7: why", "line": 7}`.

    Args:
        model: The model.
        batches: Lines to be scored together; each a JSON object. Columns that the model does not know are ignored where
            there are others; null is a missing value.
        output: Where to write the answers; those of a batch are there before the next one is asked for.
    """
    scored = failed = 0
    absent, unknown = set(model.schema), set[str]()
    for batch in batches:
        first = scored + failed + 1
        names: set[str] = set()
        for number, answer in enumerate(_score(model, batch, names), start=first):
            if isinstance(answer, str):
                failed += 1
                output.write(json.dumps({"error": f"line {number}: {answer}", "line": number}) + "\n")
            else:
                scored += 1
                output.write(json.dumps({"ctr": answer}) + "\n")
        output.flush()
        absent -= names
        unknown.update(sorted(names.difference(model.schema))[: _NAMED - len(unknown)])
    return Counts(
        scored, failed, tuple(name for name in model.schema if name in absent), tuple(sorted(unknown)[:_NAMED])
    )


def _score(model: Model, lines: Sequence[bytes], names: set[str]) -> list[float | str]:
    """Returns the ctr of each line, or why it has none; adds the names that lines have to `names`."""
    answers: list[float | str] = []
    examples: dict[int, bytes] = {}
    for index, line in enumerate(lines):
        answers.append("")
        try:
            examples[index] = parse_request(line, model.schema, names)
        except RequestError as error:
            answers[index] = str(error)
    for index, answer in zip(examples, _call(model, list(examples.values())), strict=True):
        answers[index] = answer
    return answers


def _call(model: Model, examples: list[bytes]) -> Iterator[float | str]:
    if not examples:
        return
    try:
        ctrs = model.signature(tf.constant(examples))["ctr"].numpy()  # [batch, 1]
    except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter: TensorFlow cannot print the former
        if len(examples) == 1:
            yield f"the model rejects it: {_one_line(error)}"
            return
        for example in examples:  # one bad example fails its whole batch
            yield from _call(model, [example])
        return
    for ctr in ctrs[:, 0]:
        # float32's shortest decimal: as a float64 it would show digits that are not its own.
        yield float(str(ctr)) if math.isfinite(ctr) else f"the model's ctr is {ctr}"


def parse_request(line: bytes, schema: Mapping[str, schema_pb2.Feature], names: set[str] | None = None) -> bytes:
    """Returns a line as a serialized tf.Example.

    Args:
        line: A JSON object: column -> value, list of values, or null.
        schema: The columns of a request by their names.
        names: Gets the line's names.

    Raises:
        RequestError: The line is not a JSON object, has columns but none of the model's, or a value does not fit its
            column.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RequestError(f"longer than {MAX_LINE_BYTES:,} bytes")
    try:
        request = json.loads(line.decode("utf-8-sig"), parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise RequestError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RequestError("not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestError(f"not a JSON object but {_show(request)}")
    if names is not None:
        names.update(request)
    if request and request.keys().isdisjoint(schema):
        raise RequestError(f"it has none of the model's columns, which are {some_of(list(schema))}")
    example = tf.train.Example()
    for name, feature in schema.items():
        value = request.get(name)
        # Nulls within a list are left out of it, as the ingestion does.
        values = [item for item in (value if isinstance(value, list) else [value]) if item is not None]
        if values:  # TensorFlow takes an empty list for a wrong number of values
            _fill(example.features.feature[name], feature, values)
    return bytes(example.SerializeToString())


def some_of(names: list[str]) -> str:
    """Returns the first of some names, and how many more there are, in words."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _fill(target: tf.train.Feature, feature: schema_pb2.Feature, values: list[Any]) -> None:
    most = feature.value_count.max
    if most and len(values) > most:
        raise RequestError(f"{feature.name} has {len(values)} values, at most {most} can be")
    if feature.type == schema_pb2.FeatureType.INT:
        values = list(map(as_integer, values))
        _check(feature.name, values, "an int64", lambda value: type(value) is int and value in _INT64)
        target.int64_list.value.extend(values)
    elif feature.type == schema_pb2.FeatureType.FLOAT:
        _check(feature.name, values, "a float32", lambda value: type(value) in (int, float) and _fits_float32(value))
        target.float_list.value.extend(values)
    else:
        _check(feature.name, values, "text", lambda value: isinstance(value, str) and _is_unicode(value))
        target.bytes_list.value.extend(value.encode() for value in values)


def _check(name: str, values: list[Any], wanted: str, fits: Callable[[Any], bool]) -> None:
    for value in values:
        if not fits(value):
            raise RequestError(f"{name} must be {wanted} or a list of them, not {_show(value)}")


def _fits_float32(value: float) -> bool:
    return abs(value) <= _MAX_FLOAT32


def _is_unicode(text: str) -> bool:
    """Returns whether text can be written in UTF-8: JSON can hold half a surrogate pair."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _read_schema(file: pathlib.Path) -> dict[str, schema_pb2.Feature]:
    try:
        schema = text_format.Parse(file.read_text(encoding="utf-8"), schema_pb2.Schema())
    except OSError as error:
        raise ModelError(f"the model lacks the schema of its requests: {file}: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not a TFMD schema: {_one_line(error)}") from None
    features = features_in(schema, SERVING)
    if not features:
        raise ModelError(f"{file} has no feature in the environment {SERVING}")
    return features


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


def _show(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
