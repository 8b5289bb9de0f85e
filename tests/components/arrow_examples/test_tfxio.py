from __future__ import annotations

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.components.util import tfxio_utils
from tfx.proto import example_gen_pb2
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder
from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

from components.arrow_examples.files import ArrowWriter, arrow_file, read_batches
from components.arrow_examples.tfxio import ArrowExamples, reading_arrow
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.tfmd import make_schema
from transform.preprocessing import pack_ids

SPEC = FeatureSpec(
    "s",
    (
        IdFeature("user", 10),
        IdFeature("city", 10, dtype="string"),
        IdSequence("history", 10, max_length=3),
        NumericFeature("price"),
    ),
)
SCHEMA = make_schema(SPEC)
COLUMNS = {
    "label": pa.array([[0], [1], [0], [1]], pa.large_list(pa.int64())),
    "price": pa.array([[0.5], None, [2.5], [3.5]], pa.large_list(pa.float32())),
    "history": pa.array([[1, 2], None, [3], [4, 5, 6, 7]], pa.large_list(pa.int64())),
    "city": pa.array([["Oslo"], ["Bergen"], None, [""]], pa.large_list(pa.large_binary())),
    "user": pa.array([[9], None, [7], [6]], pa.large_list(pa.int64())),
}


@pytest.fixture
def files(tmp_path):
    """Two files of Examples, of different rows, and those of their record batches."""
    rows = pa.RecordBatch.from_pydict(COLUMNS)
    written = []
    for number, part in enumerate((rows.slice(0, 3), rows.slice(2, 2))):
        file = tmp_path / f"Split-train/{number}.gz"
        file.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
            for example in RecordBatchToExamplesEncoder().encode(part):
                writer.write(example)
        (tmp_path / "arrow/Split-train").mkdir(parents=True, exist_ok=True)
        with ArrowWriter(arrow_file(str(file))) as beside:
            beside.write(part.slice(0, 1))
            beside.write(part.slice(1))
        written.append(file)
    return written


def _make(folder, schema=SCHEMA, **others):
    return tfxio_utils.make_tfxio(
        str(folder / "Split-train/*"), ["t"], example_gen_pb2.FORMAT_TF_EXAMPLE, schema=schema, **others
    )


def _rows(tfxio, folder, columns=None):
    """What a Beam source gives, in some order: of each row what is not null. `columns` are those of each batch."""
    found = folder / "found"
    found.mkdir(exist_ok=True)

    def keep(batch, folder=str(found)):
        import uuid

        with open(f"{folder}/{uuid.uuid4()}", "wb") as file:
            file.write(batch.schema.serialize().to_pybytes())
            file.write(batch.serialize().to_pybytes())

    runner = "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
    options = PipelineOptions([runner, "--sdk_container_image=unused"])
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | tfxio.BeamSource() | beam.Map(keep)
    rows = []
    for file in found.iterdir():
        with pa.ipc.open_stream(file.read_bytes()) as batches:
            assert columns is None or batches.schema.equals(columns)
            rows += [row for batch in batches for row in batch.to_pylist()]
        file.unlink()
    rows = [{name: row[name] for name in sorted(row) if row[name] is not None} for row in rows]
    return sorted(rows, key=str)


def test_what_is_read_is_what_tfx_reads(files, tmp_path):
    as_tfx = _make(tmp_path)
    assert type(as_tfx) is TFExampleRecord
    with reading_arrow():
        ours = _make(tmp_path)
    assert type(_make(tmp_path)) is TFExampleRecord
    assert type(ours) is ArrowExamples
    expected = _rows(as_tfx, tmp_path)
    assert len(expected) == 5
    some = ["price", "history"]
    expected_of_some = _rows(as_tfx.Project(some), tmp_path)
    for file in files:  # so that it cannot be these that are read
        file.write_bytes(b"")
    assert _rows(ours, tmp_path, as_tfx.ArrowSchema()) == expected
    assert _rows(ours.Project(some), tmp_path, as_tfx.Project(some).ArrowSchema()) == expected_of_some
    assert set().union(*expected_of_some) == set(some)


@pytest.mark.parametrize("max_rows", [1, 3, 4, 100])
def test_every_row_becomes_tensors_however_the_rows_are_cut(max_rows, tmp_path):
    file = str(tmp_path / "rows.arrow")
    with ArrowWriter(file) as writer:
        writer.write(pa.RecordBatch.from_pydict(COLUMNS))
    tfxio = _make(tmp_path)
    batches = list(read_batches(file, tfxio.ArrowSchema(), max_rows))
    assert [batch.num_rows for batch in batches] == {1: [1] * 4, 3: [3, 1], 4: [4], 100: [4]}[max_rows]
    tensors = [tfxio.TensorAdapter().ToBatchTensors(batch) for batch in batches]
    histories = tf.concat([of_batch["history"] for of_batch in tensors], axis=0)
    assert histories.to_list() == [[1, 2], [], [3], [4, 5, 6, 7]]
    packed = tf.concat([pack_ids(of_batch, SPEC) for of_batch in tensors], axis=0)
    whole = tfxio.TensorAdapter().ToBatchTensors(next(read_batches(file, tfxio.ArrowSchema(), 100)))
    np.testing.assert_array_equal(packed, pack_ids(whole, SPEC))
    cities = tf.concat([of_batch["city"] for of_batch in tensors], axis=0)
    assert cities.numpy().tolist() == [b"Oslo", b"Bergen", b"", b""]


def test_without_a_schema_a_batch_has_the_columns_that_have_values(files, tmp_path):
    with reading_arrow():
        ours = _make(tmp_path, schema=None)
    assert _rows(ours, tmp_path) == _rows(_make(tmp_path, schema=None), tmp_path)
    batch = next(read_batches(arrow_file(str(files[1])), None, 10))
    assert batch.schema.names == [name for name in COLUMNS if name != "city"]


@pytest.mark.parametrize("change", ["no file", "other columns"])
def test_the_tfrecords_are_read_where_there_is_nothing_else(change, files, tmp_path):
    with reading_arrow():
        ours = _make(tmp_path)
    beside = tmp_path / "arrow/Split-train/1.gz.arrow"
    beside.unlink()
    if change == "other columns":
        with ArrowWriter(str(beside)) as writer:
            writer.write(pa.RecordBatch.from_pydict({"user": pa.array([["1"]], pa.large_list(pa.large_binary()))}))
    assert _rows(ours, tmp_path) == _rows(_make(tmp_path), tmp_path)


def test_raw_records_are_those_of_the_tfrecords(files, tmp_path):
    with reading_arrow():
        ours = _make(tmp_path, raw_record_column_name="raw")
    (row, *_) = _rows(ours, tmp_path)
    assert tf.train.Example.FromString(row["raw"][0]).features.feature["label"].int64_list.value[:] in ([0], [1])
