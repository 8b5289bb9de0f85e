"""Logs in all formats, and what the component makes of them."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.types.standard_artifacts import Examples

from components.impression_log_example_gen.driver import Driver
from components.impression_log_example_gen.executor import Executor

SPEC_SOURCE = """
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
SPEC = FeatureSpec(
    "test",
    (
        IdFeature("item", 10), IdFeature("country", 10, dtype="string"), IdSequence("history", 10, max_length=3),
        IdSequence("tags", 10, max_length=3, dtype="string"), NumericFeature("price"),
    ),
    timestamp="time",
)
"""
TYPES = {
    "item": pa.int64(),
    "country": pa.binary(),
    "history": pa.list_(pa.int64()),
    "tags": pa.list_(pa.binary()),
    "price": pa.float64(),
    "label": pa.int64(),
    "time": pa.int64(),
    "key": pa.string(),
}
Row = dict[str, Any]


def _make_row(number: int, **replaced: Any) -> Row:
    row = {
        "item": number,
        "country": f"c{number}".encode(),
        "history": [number, 0, number],
        "tags": [b"a", f"t{number}".encode()],
        "price": number / 2,
        "label": number % 2,
        "time": number,
        **replaced,
    }
    return {name: value for name, value in row.items() if value is not None}


def _to_bytes(rows: list[Row], suffix: str) -> bytes:
    content = _WRITERS[suffix.removesuffix(".gz")](rows)
    return gzip.compress(content, 1) if suffix.endswith(".gz") else content


def _parquet(rows: list[Row]) -> bytes:
    names = [name for name in TYPES if any(name in row for row in rows)]
    sink = io.BytesIO()
    table = {name: pa.array([row.get(name) for row in rows], TYPES[name]) for name in names}
    pq.write_table(pa.table(table), sink, row_group_size=max(3, len(rows) // 20))
    return sink.getvalue()


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(_text, value))
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else "" if value is None else str(value)


def _csv(rows: list[Row]) -> bytes:
    names = [name for name in TYPES if any(name in row for row in rows)]
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_text(row.get(name)) for name in names] for row in rows)
    return sink.getvalue().encode(errors="surrogateescape")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _json(rows: list[Row]) -> bytes:
    lines = (json.dumps({name: _plain(value) for name, value in row.items()}, ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def _to_example(row: Row) -> bytes:
    """A row as a serialized tf.train.Example."""
    example = tf.train.Example()
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        values = [element.encode() if isinstance(element, str) else element for element in values]
        kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(values[0])] if values else None
        if kind:
            getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString()


def _tfrecord(rows: list[Row]) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            for row in rows:
                writer.write(_to_example(row))
        return pathlib.Path(file.name).read_bytes()


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json, ".tfrecord": _tfrecord}


def _expected(row: Row) -> Row:
    values = {name: value if isinstance(value, list) else [value] for name, value in row.items() if name != "key"}
    return {name: list(np.float32(value)) if name == "price" else value for name, value in values.items() if value}


@dataclasses.dataclass
class Ingested:
    """What came of a log: the Examples in their order, the quarantine's lines, the artifact's properties."""

    artifact: Examples
    train: list[Row]
    eval: list[Row]
    bad: list[dict[str, Any]]

    def get(self, name: str) -> Any:
        return json.loads(self.artifact.get_string_custom_property(name))

    @property
    def places(self) -> list[tuple[Any, ...]]:
        """File name, row, column and reason of each bad row."""
        return [(pathlib.Path(row["file"]).name, row["row"], row["column"], row["reason"]) for row in self.bad]


def _read_examples(file: pathlib.Path) -> list[Row]:
    rows = []
    for serialized in tf.data.TFRecordDataset(str(file), compression_type="GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        kinds = {name: value.WhichOneof("kind") for name, value in features.items()}
        rows.append({name: list(getattr(features[name], kind).value) for name, kind in kinds.items() if kind})
    return [{name: values for name, values in row.items() if values} for row in rows]


def _read_arrow(file: pathlib.Path) -> list[Row]:
    with pa.ipc.open_stream(file.open("rb")) as batches:
        rows = [row for batch in batches for row in batch.to_pylist()]
    return [{name: values for name, values in row.items() if values is not None} for row in rows]


@pytest.fixture(scope="session")
def make_row():
    """A good row, all of whose values tell its number: `make_row(5, item=None, label=2)`."""
    return _make_row


@pytest.fixture(scope="session")
def expected():
    """The values of the Example that a good row becomes."""
    return _expected


@pytest.fixture(scope="session")
def to_bytes():
    """A file's content: `to_bytes(rows, ".csv.gz")`. In the text formats bytes are what they are, not checked."""
    return _to_bytes


@pytest.fixture
def log(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of an impression log, not made yet."""
    return tmp_path / "log"


@pytest.fixture
def write(log):
    """Writes a file of the log: `write("day=2026-01-01/a.csv", rows)`, or bytes in the place of rows."""

    def write_file(name: str, rows: list[Row] | bytes) -> pathlib.Path:
        file = log / name
        file.parent.mkdir(parents=True, exist_ok=True)
        suffixes = "".join(pathlib.PurePath(file.name).suffixes)
        file.write_bytes(rows if isinstance(rows, bytes) else _to_bytes(rows, suffixes))
        return file

    return write_file


@pytest.fixture
def parameters(tmp_path, log, monkeypatch):
    """The component's parameters by default, but that any share of the rows may be bad."""
    (tmp_path / "spec_of_the_test.py").write_text(SPEC_SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return {
        "log_path": str(log),
        "features": "spec_of_the_test:SPEC",
        "eval_days": 1,
        "columns": "{}",
        "timestamp_unit": "s",
        "max_raw_length": 10_000,
        "max_bad_fraction": 1.0,
        "quarantine": str(tmp_path / "quarantine"),
    }


@pytest.fixture
def drive(parameters):
    """Runs the driver and returns the exec properties that it adds."""

    def run(**replaced: Any) -> dict[str, str]:
        info = ExecutionInfo(exec_properties={**parameters, **replaced})
        return {name: value.string_value for name, value in Driver(None).run(info).exec_properties.items()}

    return run


@pytest.fixture
def ingest(tmp_path, parameters, drive):
    """Runs driver and executor."""

    def run(**replaced: Any) -> Ingested:
        examples = Examples()
        examples.uri = str(tmp_path / "examples")
        pathlib.Path(examples.uri).mkdir(exist_ok=True)
        args = ["--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"]
        context = Executor.Context(
            beam_pipeline_args=[*args, "--sdk_container_image=unused"], tmp_dir=str(tmp_path / "tmp"), unique_id="1"
        )
        Executor(context).Do({}, {"examples": [examples]}, {**parameters, **drive(**replaced), **replaced})

        def read(folder: pathlib.Path, read_file: Callable[[pathlib.Path], list[Row]]) -> dict[str, list[Row]]:
            return {
                split: [row for shard in sorted((folder / f"Split-{split}").iterdir()) for row in read_file(shard)]
                for split in ("train", "eval")
            }

        splits = read(tmp_path / "examples", _read_examples)
        assert read(tmp_path / "examples/arrow", _read_arrow) == splits
        path = examples.get_string_custom_property("quarantine")
        bad = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()] if path else []
        return Ingested(examples, **splits, bad=bad)

    return run
