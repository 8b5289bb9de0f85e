from __future__ import annotations

import json

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from components.impression_log_example_gen.columns import find_columns
from components.impression_log_example_gen.executor import Executor, write_shards
from components.impression_log_example_gen.log import LogError, choose_window
from components.impression_log_example_gen.shards import plan_shards
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.notebook import NOTEBOOK

SPEC = FeatureSpec(
    "test",
    (
        IdFeature("item", 10),
        IdFeature("country", 10, dtype="string"),
        IdSequence("history", 10, max_length=3),
        IdSequence("tags", 10, max_length=3, dtype="string"),
        NumericFeature("price"),
    ),
    timestamp="time",
)
COLUMNS = find_columns(SPEC)
ROWS = {
    "item": pa.array([5, None, -1]),
    "country": pa.array(["DE", None, ""]),
    "history": pa.array([[3, 1, 2], [], None], pa.list_(pa.int64())),
    "tags": pa.array([["a", None, "b"], [None], None], pa.list_(pa.string())),
    "price": pa.array([0.5, None, float("nan")]),
    "label": pa.array([1, 0, 1]),
    "time": pa.array([10, 20, 30]),
    "unnamed": pa.array([1, 2, 3]),
}
VALUES = {
    "item": [[5], [], [-1]],
    "country": [[b"DE"], [], [b""]],
    "history": [[3, 1, 2], [], []],
    "tags": [[b"a", b"b"], [], []],
    "price": [[0.5], [], [float("nan")]],
    "label": [[1], [0], [1]],
    "time": [[10], [20], [30]],
}


def _make_beam_pipeline():
    # By its full name: Beam 2.77's DirectRunner would try to download Prism.
    return beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner")


def _write_log(folder, rows, day="2026-01-01", **options):
    partition = folder / f"day={day}"
    partition.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), partition / "part-0.parquet", **options)


def _ingest(tmp_path):
    """Runs the window of tmp_path/log through Beam and returns the examples of each split, in order."""
    shards = plan_shards(choose_window(tmp_path / "log", 1, None), COLUMNS)
    write_shards(_make_beam_pipeline, shards, COLUMNS, str(tmp_path / "out"))
    return {split: [v for s in shards if s.split == split for v in _read(tmp_path, s)] for split in ("train", "eval")}


def _read(tmp_path, shard):
    file = str(tmp_path / "out" / shard.split / shard.file_name)
    for serialized in tf.data.TFRecordDataset(file, compression_type="GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        yield {
            name: [] if value.WhichOneof("kind") is None else list(getattr(value, value.WhichOneof("kind")).value)
            for name, value in features.items()
        }


@pytest.fixture
def log(tmp_path):
    """A log whose training day has the three rows, or the columns given, and whose eval day has the three rows."""

    def write(**replaced):
        rows = {name: column for name, column in {**ROWS, **replaced}.items() if column is not None}
        _write_log(tmp_path / "log", rows)
        _write_log(tmp_path / "log", ROWS, day="2026-01-02")
        return tmp_path

    return write


def test_rows_become_examples_with_the_specs_columns(log):
    splits = _ingest(log())
    for examples in splits.values():
        assert len(examples) == 3
        assert {name for example in examples for name in example} == set(VALUES)
        for name, expected in VALUES.items():
            for example, values in zip(examples, expected, strict=True):
                np.testing.assert_array_equal(example.get(name, []), values, err_msg=name)


TYPES = {
    "small and unsigned integers": ({"item": pa.array([5, None, 7], pa.uint8())}, "item", [[5], [], [7]]),
    "booleans": ({"label": pa.array([True, False, True])}, "label", [[1], [0], [1]]),
    "integers as numbers": ({"price": pa.array([1, None, 3])}, "price", [[1.0], [], [3.0]]),
    "doubles": ({"price": pa.array([0.1, 2.0, 3.0])}, "price", [[np.float32(0.1)], [2.0], [3.0]]),
    "dictionary strings": (
        {"country": pa.array(["DE", None, "DE"]).dictionary_encode()},
        "country",
        [[b"DE"], [], [b"DE"]],
    ),
    "large strings": ({"country": pa.array(["DE", None, "FR"], pa.large_string())}, "country", [[b"DE"], [], [b"FR"]]),
    "large lists": (
        {"history": pa.array([[1], None, [2, 3]], pa.large_list(pa.int32()))},
        "history",
        [[1], [], [2, 3]],
    ),
    "nothing but nulls": ({"country": pa.nulls(3)}, "country", [[], [], []]),
    "a column that is not there": ({"item": None}, "item", [[], [], []]),
}


@pytest.mark.parametrize(("replaced", "name", "expected"), TYPES.values(), ids=TYPES.keys())
def test_types_that_convert_are_taken(log, replaced, name, expected):
    examples = _ingest(log(**replaced))["train"]
    assert [example.get(name, []) for example in examples] == expected


ERRORS = {
    "strings for integers": (
        {"item": pa.array(["a", "b", "c"])},
        "part-0.parquet: column item is string, but the feature spec says int64 or a list of it",
    ),
    "floats for integers": ({"history": pa.array([[1.5], [], []])}, "column history is list<.*double>, but .* int64"),
    "integers for strings": (
        {"country": pa.array([1, 2, 3])},
        "column country is int64, but the feature spec says string",
    ),
    "too large an integer": ({"item": pa.array([1, 2, 2**63], pa.uint64())}, "a value in rows 0 to 2 does not fit"),
    "no label": ({"label": None}, "has no column label, the label: write it"),
    "a list of labels": (
        {"label": pa.array([[1], [0], [1]])},
        "column label is list<.*>, but the feature spec says int64:",
    ),
    "a label of 2": ({"label": pa.array([0, 2, 1])}, r"row 1 \(the first is 0\) has label label = 2, must be 0 or 1"),
    "a null label": ({"label": pa.array([0, 1, None])}, "row 2 .* has label label = None, must be 0 or 1"),
}


@pytest.mark.parametrize(("replaced", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_what_does_not_fit_is_one_sentence_that_names_the_place(log, replaced, message):
    with pytest.raises(LogError, match=message) as raised:
        _ingest(log(**replaced))
    assert "day=2026-01-01/part-0.parquet" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bad_label_is_counted_across_row_groups(tmp_path):
    rows = {
        **{name: pa.concat_arrays([column] * 2) for name, column in ROWS.items()},
        "label": pa.array([0, 0, 0, 0, 5, 0]),
    }
    _write_log(tmp_path / "log", rows, row_group_size=2)
    _write_log(tmp_path / "log", ROWS, day="2026-01-02")
    with pytest.raises(LogError, match=r"row 4 \(the first is 0\)"):
        _ingest(tmp_path)


def test_a_split_of_many_rows_has_several_shards_which_hold_it_in_order(tmp_path):
    rows = {name: column.take(pa.array([0] * 5000)) for name, column in ROWS.items()}
    _write_log(tmp_path / "log", {**rows, "time": pa.array(range(5000))}, row_group_size=700)
    _write_log(tmp_path / "log", {**rows, "time": pa.array(range(5000, 10000))}, day="2026-01-02", row_group_size=1500)
    _write_log(tmp_path / "log", ROWS, day="2026-01-03")
    splits = _ingest(tmp_path)
    assert [example["time"] for example in splits["train"]] == [[number] for number in range(10000)]
    assert len(list((tmp_path / "out/train").glob("data_tfrecord-*-of-00004.gz"))) == 4
    assert len(list((tmp_path / "out/eval").iterdir())) == 1


def _do(tmp_path, **exec_properties):
    """Runs the executor on tmp_path/log, whose days are 2026-01-01 and 2026-01-02, and returns its artifact."""
    examples = Examples()
    examples.uri = str(tmp_path / "examples")
    (tmp_path / "examples").mkdir(exist_ok=True)
    context = Executor.Context(tmp_dir=str(tmp_path / "tmp"), unique_id="1")
    days = json.dumps({"train": ["2026-01-01"], "eval": ["2026-01-02"]})
    properties = {"log_path": str(tmp_path / "log"), "features": "schemas.notebook:NOTEBOOK", "days": days}
    Executor(context).Do({}, {"examples": [examples]}, {**properties, "input_fingerprint": "f", **exec_properties})
    return examples


def _files(tmp_path):
    return {str(file.relative_to(tmp_path / "examples")) for file in (tmp_path / "examples").rglob("*")}


NOTEBOOK_ROWS = {"seq": [[1], [2]], "target": [3, 4], "label": [0, 1]}
NOTEBOOK_FILES = {
    "Split-train", "Split-train/data_tfrecord-00000-of-00001.gz",
    "Split-eval", "Split-eval/data_tfrecord-00000-of-00001.gz",
}  # fmt: skip


def test_artifact_tells_readers_what_it_holds(tmp_path):
    _write_log(tmp_path / "log", NOTEBOOK_ROWS)
    _write_log(tmp_path / "log", {name: values[:1] for name, values in NOTEBOOK_ROWS.items()}, day="2026-01-02")
    examples = _do(tmp_path)
    assert _files(tmp_path) == NOTEBOOK_FILES
    assert artifact_utils.decode_split_names(examples.split_names) == ["train", "eval"]
    assert examples.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    assert examples.get_string_custom_property("file_format") == "tfrecords_gzip"
    assert json.loads(examples.get_string_custom_property("num_examples")) == {"train": 2, "eval": 1}
    assert json.loads(examples.get_string_custom_property("days")) == {"train": ["2026-01-01"], "eval": ["2026-01-02"]}
    assert examples.get_string_custom_property("input_fingerprint") == "f"


def test_a_failure_leaves_nothing_in_the_artifacts_folder(tmp_path):
    _write_log(tmp_path / "log", NOTEBOOK_ROWS)
    _write_log(tmp_path / "log", {**NOTEBOOK_ROWS, "label": [1, None]}, day="2026-01-02")
    message = r"row 1 .* has label label = None, must be 0 or 1: correct it, or remove the row$"
    with pytest.raises(LogError, match=message):
        _do(tmp_path)
    assert _files(tmp_path) == set()


def test_what_a_killed_attempt_left_is_replaced(tmp_path):
    for day in ("2026-01-01", "2026-01-02"):
        _write_log(tmp_path / "log", NOTEBOOK_ROWS, day=day)
    (tmp_path / "examples/Split-train").mkdir(parents=True)
    (tmp_path / "examples/Split-train/data_tfrecord-00000-of-00009.gz").write_text("half")
    _do(tmp_path)
    assert _files(tmp_path) == NOTEBOOK_FILES


def test_the_first_of_several_problems_is_told(tmp_path):
    for day in ("2026-01-01", "2026-01-02"):
        _write_log(tmp_path / "log", {**NOTEBOOK_ROWS, "label": [7, 8]}, day=day)
    with pytest.raises(LogError, match=r"day=2026-01-01/part-0.parquet: row 0 .* has label label = 7"):
        _do(tmp_path)


def test_a_file_whose_rows_are_corrupt_is_named(tmp_path):
    for day in ("2026-01-01", "2026-01-02"):
        _write_log(tmp_path / "log", {"target": list(range(1000)), "label": [0] * 1000}, day=day, compression="gzip")
    file = tmp_path / "log/day=2026-01-02/part-0.parquet"
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)  # after the magic bytes: the first pages; the footer stays whole
    file.write_bytes(content)
    with pytest.raises(LogError, match=r"day=2026-01-02/part-0.parquet is not a readable Parquet file: write it again"):
        _do(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path):
    for day in ("2026-01-01", "2026-01-02"):
        _write_log(tmp_path / "log", NOTEBOOK_ROWS, day=day)
    columns = find_columns(NOTEBOOK)
    shards = plan_shards(choose_window(tmp_path / "log", 1, None), columns)
    _write_log(tmp_path / "log", {name: values[:1] for name, values in NOTEBOOK_ROWS.items()})
    with pytest.raises(LogError, match=r"day=2026-01-01/part-0.parquet has changed while it was read: run again"):
        write_shards(_make_beam_pipeline, shards, columns, str(tmp_path / "out"))
