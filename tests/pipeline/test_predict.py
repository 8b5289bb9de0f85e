from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import text_format

from pipeline.predict import Counts, Model, ModelError, RequestError, load_model, parse_request, predict, read_batches
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.tfmd import make_schema, schema_text
from trainer.assets import SCHEMA_ASSET as EXPORTED_SCHEMA_ASSET

SPEC = FeatureSpec(
    name="tiny",
    features=(
        IdFeature("item", num_buckets=10),
        IdSequence("history", num_buckets=10, max_length=3),
        NumericFeature("price"),
        IdSequence("words", num_buckets=10, max_length=3, dtype="string"),
    ),
    timestamp="timestamp",
)
COLUMNS = {feature.name: feature for feature in make_schema(SPEC).feature if feature.name not in ("label", "timestamp")}


class Sum(tf.Module):
    """Its ctr is item + the ids of the history + price + the number of words, and `reject` is no word."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        types = {"item": tf.int64, "history": tf.int64, "price": tf.float32, "words": tf.string}
        features = tf.io.parse_example(examples, {name: tf.io.RaggedFeature(dtype) for name, dtype in types.items()})
        words = features["words"].values
        with tf.control_dependencies([tf.debugging.assert_none_equal(words, "reject", message="rejected")]):
            total = tf.cast(tf.reduce_sum(features["item"], axis=1), tf.float32)
        total += tf.cast(tf.reduce_sum(features["history"], axis=1), tf.float32)
        total += tf.reduce_sum(features["price"], axis=1) + tf.cast(features["words"].row_lengths(), tf.float32)
        return {"ctr": total[:, tf.newaxis]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def double(self, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"ctr": 2 * numbers}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def click(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"click": tf.strings.length(examples)}


def save(directory: Path, signatures: dict[str, str], schema: str = schema_text(SPEC)) -> Path:
    module = Sum()
    tf.saved_model.save(module, str(directory), {name: getattr(module, method) for name, method in signatures.items()})
    (directory / "assets.extra").mkdir()
    (directory / "assets.extra" / "schema.pbtxt").write_text(schema, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "1", {"serving_default": "serve"})


@pytest.fixture(scope="module")
def model(saved: Path) -> Model:
    return load_model(saved)


def answers(model: Model, lines: list[bytes], batch_size: int = 1024) -> tuple[list[Any], Counts]:
    output = io.StringIO()
    batches = [lines[start : start + batch_size] for start in range(0, len(lines), batch_size)]
    counts = predict(model, batches, output)
    return [json.loads(line) for line in output.getvalue().splitlines()], counts


REQUESTS = {
    "scalar": (b'{"item": 3}', 3.0),
    "list of one": (b'{"item": [3]}', 3.0),
    "list": (b'{"history": [1, 2, 3, 4]}', 10.0),
    "whole doubles, as pandas writes integers beside a gap": (b'{"item": 3.0, "history": [1.0, 2]}', 6.0),
    "whole number for a float": (b'{"price": 2}', 2.0),
    "float": (b'{"price": 0.1}', 0.1),
    "text": (b'{"words": ["a", "\xc3\xa9"]}', 2.0),
    "all": (b'{"item": 1, "history": 2, "price": 0.5, "words": "x"}', 4.5),
    "nothing": (b"{}", 0.0),
    "null": (b'{"item": null, "price": 1}', 1.0),
    "empty list": (b'{"history": [], "price": 1}', 1.0),
    "nulls in a list": (b'{"history": [null, 2, null], "words": [null], "price": 1}', 3.0),
    "unknown column": (b'{"colour": {"a": [null]}, "item": 3}', 3.0),
    "label and timestamp are no inputs": (b'{"label": "x", "timestamp": "y", "item": 3}', 3.0),
    "byte order mark": (b'\xef\xbb\xbf{"item": 3}', 3.0),
    "carriage return": (b'{"item": 3}\r\n', 3.0),
    "greatest int64": (b'{"item": 9223372036854775807}', 9.223372e18),
    "least int64": (b'{"item": -9223372036854775808}', -9.223372e18),
    "greatest float32": (b'{"price": 3.4028234663852886e38}', 3.4028235e38),
    "greatest float32 in its shortest form": (b'{"price": 3.4028235e38}', 3.4028235e38),
    "least float32 in its shortest form": (b'{"price": -3.4028235e38}', -3.4028235e38),
    "last that rounds to a float32": (b'{"price": 3.4028235677973362e38}', 3.4028235e38),
    "tiny": (b'{"price": 1e-9}', 1e-9),
}


@pytest.mark.parametrize(("line", "ctr"), REQUESTS.values(), ids=REQUESTS)
def test_a_line_is_scored(model: Model, line: bytes, ctr: float) -> None:
    assert answers(model, [line]) == ([{"ctr": ctr}], Counts(scored=1, failed=0))


BAD_REQUESTS = {
    "empty": (b"\n", "not JSON: Expecting value at column 1"),
    "syntax": (b'{"item": 3', "not JSON: Expecting ',' delimiter at column 11"),
    "not utf-8": (b'{"words": "\xff"}', "not JSON: 'utf-8' codec can't decode byte 0xff"),
    "NaN": (b'{"price": NaN}', "not JSON: NaN is not a JSON value"),
    "too deep": (b"[" * 100_000, "not JSON that can be read: nested too deeply"),
    "too many digits": (b'{"item": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
    "list": (b"[1]", "not a JSON object but [1]"),
    "null": (b"null", "not a JSON object but null"),
    "the log's own names": (b'{"reader": 1, "article": 2}', "it has none of the model's columns, which are item, "),
    "text for an int": (b'{"item": "3"}', 'item must be an int64 or a list of them, not "3"'),
    "fraction for an int": (b'{"item": 3.5}', "item must be an int64 or a list of them, not 3.5"),
    "double that is several ints": (b'{"item": 9007199254740992.0}', "item must be an int64 or a list of them, not 90"),
    "true for an int": (b'{"item": true}', "item must be an int64 or a list of them, not true"),
    "above int64": (b'{"item": 9223372036854775808}', "item must be an int64 or a list of them, not 92233720368547758"),
    "below int64": (
        b'{"item": -9223372036854775809}',
        "item must be an int64 or a list of them, not -9223372036854775",
    ),
    "list in a list": (b'{"history": [[1]]}', "history must be an int64 or a list of them, not [1]"),
    "object": (b'{"history": {"a": 1}}', 'history must be an int64 or a list of them, not {"a": 1}'),
    "text for a float": (b'{"price": "1"}', 'price must be a float32 or a list of them, not "1"'),
    "true for a float": (b'{"price": true}', "price must be a float32 or a list of them, not true"),
    "first that rounds to infinity": (
        b'{"price": 3.4028235677973366e38}',
        "price must be a float32 or a list of them, ",
    ),
    "whole number that rounds to infinity": (
        b'{"price": %d}' % (2**128 - 2**103 - 1),
        "price must be a float32 or a list of them, ",
    ),
    "above float32": (b'{"price": 3.5e38}', "price must be a float32 or a list of them, not 3.5e+38"),
    "above float64": (b'{"price": 1e999}', "price must be a float32 or a list of them, not Infinity"),
    "great whole number for a float": (b'{"price": 1' + b"0" * 400 + b"}", "price must be a float32 or a list of them"),
    "number for text": (b'{"words": 1}', "words must be text or a list of them, not 1"),
    "half a surrogate pair": (rb'{"words": "\ud800"}', r'words must be text or a list of them, not "\ud800"'),
    "two values where one can be": (b'{"item": [1, 2]}', "item has 2 values, at most 1 can be"),
    "rejected by the model": (
        b'{"words": "reject"}',
        "the model rejects it: Graph execution error: assertion failed: [rejected]",
    ),
}


@pytest.mark.parametrize(("line", "reason"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_line_has_its_reason_and_the_others_are_scored(model: Model, line: bytes, reason: str) -> None:
    (first, bad, last), counts = answers(model, [b'{"item": 1}', line, b'{"item": 2}'])
    assert (first, last, counts) == ({"ctr": 1.0}, {"ctr": 2.0}, Counts(scored=2, failed=1))
    assert list(bad) == ["error", "line"]
    assert bad["line"] == 2
    assert bad["error"].startswith(f"line 2: {reason}")
    assert len(bad["error"]) < 250


def test_an_answer_that_is_no_number_is_an_error() -> None:
    model = Model(COLUMNS, lambda examples: {"ctr": tf.constant([[float("nan")], [0.5]])})
    assert answers(model, [b"{}", b"{}"])[0] == [{"error": "line 1: the model's ctr is nan", "line": 1}, {"ctr": 0.5}]


@pytest.mark.parametrize("batch_size", [1, 3, 1024])
def test_answers_keep_the_order_of_the_lines(model: Model, batch_size: int) -> None:
    lines = [b"bad" if number % 4 == 3 else b'{"item": %d}' % number for number in range(1, 11)]
    found, counts = answers(model, lines, batch_size)
    assert [answer.get("ctr", answer.get("line")) for answer in found] == list(range(1, 11))
    assert [number for number, answer in enumerate(found, 1) if "error" in answer] == [3, 7]
    assert counts == Counts(scored=8, failed=2)


def test_lines_are_scored_in_batches_and_answered_as_they_come() -> None:
    sizes: list[int] = []

    def signature(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        sizes.append(len(examples))
        return {"ctr": tf.zeros([len(examples), 1])}

    written = io.BytesIO()
    answered: list[int] = []

    def batches() -> Any:
        for size in (3, 3, 1):
            answered.append(written.getvalue().count(b"\n"))
            yield [b"{}"] * size

    predict(Model(COLUMNS, signature), batches(), io.TextIOWrapper(written))
    assert sizes == [3, 3, 1]
    assert answered == [0, 3, 6]


@pytest.mark.parametrize(
    ("content", "batches"),
    {
        "nothing": (b"", []),
        "one line": (b"a\n", [[b"a"]]),
        "no end": (b"a\nbc", [[b"a"], [b"bc"]]),
        "an empty line": (b"a\n\nb\n", [[b"a", b""], [b"b"]]),
        "more than a batch": (b"a\nb\nc\nd\ne\n", [[b"a", b"b"], [b"c", b"d"], [b"e"]]),
    }.values(),
)
def test_lines_are_read_in_batches(content: bytes, batches: list[list[bytes]]) -> None:
    assert list(read_batches(io.BytesIO(content), batch_size=2)) == batches  # type: ignore[arg-type]


def test_a_line_is_answered_before_the_next_is_written() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as writer:
        batches = read_batches(stream)
        writer.write(b"first\nsec")
        assert next(batches) == [b"first"]
        writer.write(b"ond\nthird\n")
        assert next(batches) == [b"second", b"third"]
        writer.close()
        assert list(batches) == []


def test_of_a_line_without_end_only_so_much_is_kept(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setattr("pipeline.predict.MAX_LINE_BYTES", 100)
    monkeypatch.setattr("pipeline.predict._CHUNK_BYTES", 30)
    content = b"x" * 1000 + b'\n{"item": 1}\n'
    batches = list(read_batches(io.BytesIO(content)))  # type: ignore[arg-type]
    assert [len(line) for batch in batches for line in batch] == [101, 11]
    found, _ = answers(model, [line for batch in batches for line in batch])
    assert found == [{"error": "line 1: longer than 100 bytes", "line": 1}, {"ctr": 1.0}]


def test_a_batch_of_bad_lines_does_not_call_the_model() -> None:
    def signature(_: tf.Tensor) -> dict[str, tf.Tensor]:
        raise AssertionError("called")

    assert answers(Model(COLUMNS, signature), [b"bad", b"bad"])[1] == Counts(scored=0, failed=2)


def test_no_lines_no_answers(model: Model) -> None:
    assert answers(model, []) == ([], Counts(scored=0, failed=0))


def test_a_request_is_the_example_that_the_log_would_have_given() -> None:
    found = tf.train.Example.FromString(
        parse_request(b'{"item": 3, "history": [1, 2], "price": 1, "words": "\xc3\xa9"}', COLUMNS)
    )
    assert found == text_format.Parse(
        r"""features {
          feature { key: "item" value { int64_list { value: 3 } } }
          feature { key: "history" value { int64_list { value: [1, 2] } } }
          feature { key: "price" value { float_list { value: 1 } } }
          feature { key: "words" value { bytes_list { value: "\303\251" } } }
        }""",
        tf.train.Example(),
    )


def test_a_request_without_a_column_has_no_feature_for_it() -> None:
    assert parse_request(b'{"item": null}', COLUMNS) == b""
    assert parse_request(b'{"item": []}', COLUMNS) == b""  # which TensorFlow refuses where one value can be


def test_a_request_that_cannot_be_one_raises() -> None:
    with pytest.raises(RequestError, match=r"^not a JSON object but 3$"):
        parse_request(b"3", COLUMNS)


def test_only_what_a_request_holds_is_in_the_schema(model: Model) -> None:
    assert list(model.schema) == ["item", "history", "price", "words"]


def test_the_schema_is_where_the_trainer_puts_it(saved: Path) -> None:
    assert (saved / EXPORTED_SCHEMA_ASSET).is_file()


def damaged(saved: Path, tmp_path: Path, file: str, content: bytes | None) -> Path:
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    return copy


SCHEMA = "assets.extra/schema.pbtxt"
DAMAGES: dict[str, tuple[str, bytes | None, str]] = {
    "no model": ("saved_model.pb", None, r"copy is not a SavedModel: it has no saved_model\.pb$"),
    "garbled model": ("saved_model.pb", b"x", r"copy cannot be loaded: "),
    "no variables": ("variables/variables.index", b"x", r"copy cannot be loaded: "),
    "no schema": (SCHEMA, None, r"^the model lacks the schema of its requests: .*schema\.pbtxt: No such file or dir"),
    "garbled schema": (SCHEMA, b"x", r"schema\.pbtxt is not a TFMD schema: "),
    "binary schema": (SCHEMA, b"\xff", r"schema\.pbtxt is not a TFMD schema: "),
    "no serving": (SCHEMA, b'feature { name: "a" }', r"schema\.pbtxt has no feature in the environment SERVING$"),
}


@pytest.mark.parametrize(("file", "content", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_is_one_sentence(
    saved: Path, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        load_model(damaged(saved, tmp_path, file, content))
    assert "\n" not in str(raised.value)


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere is not a SavedModel: it has no saved_model\.pb$"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        pytest.param({"other": "serve"}, "has no signature serving_default with the output ctr$", id="none"),
        pytest.param(
            {"serving_default": "click"}, "has no signature serving_default with the output ctr$", id="output"
        ),
        pytest.param(
            {"serving_default": "double"}, "serving_default does not take serialized tf.Examples$", id="input"
        ),
    ],
)
def test_another_signature_is_one_sentence(tmp_path: Path, signatures: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(save(tmp_path / "1", signatures))


def test_a_feature_may_be_in_the_serving_environment_alone(tmp_path: Path) -> None:
    schema = """
    feature { name: "item" type: INT in_environment: "SERVING" }
    feature { name: "price" type: FLOAT }
    default_environment: "TRAINING"
    """
    assert list(load_model(save(tmp_path / "1", {"serving_default": "serve"}, schema)).schema) == ["item"]


def test_columns_that_no_line_has_are_told_with_the_names_that_the_model_does_not_know():
    model = Model(COLUMNS, lambda examples: {"ctr": tf.zeros([len(examples), 1])})
    lines = [b'{"itm": 3, "price": 1, "words": "a"}', b'{"price": 2, "label": 1}', b"no"]
    counts = predict(model, [lines[:1], lines[1:]], io.StringIO())
    assert (counts.scored, counts.failed) == (2, 1)
    assert counts.hint() == ("item, history: in none of the 3 lines; names that the model does not know: itm, label")
    assert predict(model, [[b'{"item": 3, "price": 1, "words": "a", "history": []}']], io.StringIO()).hint() == ""
