from __future__ import annotations

import contextlib
import gzip
import os
import pathlib

import pytest
import tensorflow as tf

from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.log import LogError
from components.impression_log_example_gen.quarantine import estimate_rows
from components.impression_log_example_gen.readers import tfrecord  # noqa: F401  which `_as_nobody` may not import
from components.impression_log_example_gen.readers.read import count_rows, has_rows, read_rows


@pytest.fixture
def rows(make_row):
    return [make_row(number) for number in range(400)]


def _flip(content, position):
    changed = bytearray(content)
    changed[position] ^= 0xFF
    return bytes(changed)


DAMAGES = {
    "Parquet without its end": (".parquet", lambda content: content[:-20]),
    "Parquet with a damaged page": (".parquet", lambda content: content[:4] + bytes(300) + content[304:]),
    "no Parquet at all": (".parquet", lambda content: b"hello"),
    "Parquet in gzip without its end": (".parquet.gz", lambda content: content[:-20]),
    "gzip without its end": (".csv.gz", lambda content: content[: len(content) * 2 // 3]),
    "gzip without its checksum": (".csv.gz", lambda content: content[:-8]),
    "gzip with a wrong checksum": (".jsonl.gz", lambda content: _flip(content, -6)),
    "no gzip at all": (".csv.gz", lambda content: gzip.decompress(content)),
    "TFRecord without its end": (".tfrecord", lambda content: content[:-7]),
    "TFRecord with a wrong checksum": (".tfrecord", lambda content: _flip(content, len(content) // 2)),
    "TFRecord in gzip without its end": (".tfrecord.gz", lambda content: content[:-20]),
    "CSV whose header is not UTF-8": (".csv", lambda content: b"\xff" + content),
    "CSV with a column twice": (".csv", lambda content: b"item," + content.replace(b"\n", b"\n1,")[:-2]),
}


@pytest.mark.parametrize(("suffix", "damage"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_corrupt_file_is_named_and_counts_as_all_its_rows(suffix, damage, write, ingest, rows, to_bytes, expected):
    content = to_bytes(rows, suffix)
    write(f"day=2026-01-01/a{suffix}", content)
    bad = write(f"day=2026-01-01/b{suffix}", damage(content))
    write(f"day=2026-01-01/c{suffix}", content)
    write("day=2026-01-02/a.csv", rows[:1])
    ingested = ingest()
    assert ingested.train == [expected(row) for row in rows + rows]
    (line,) = ingested.bad
    assert (line["file"], line["row"], line["column"], line["reason"]) == (str(bad), None, None, "corrupt file")
    assert line["value"]
    # As many as it had, where that is known, else as its size tells.
    by_size = max(1, 400 * bad.stat().st_size / len(content))
    assert line["rows"] == 400 or line["rows"] == pytest.approx(by_size, rel=0.15)
    assert ingested.get("quarantined") == {"corrupt file": line["rows"]}
    assert ingested.get("num_rows") == 801 + line["rows"]


def test_a_corrupt_file_that_lies_in_several_portions_is_out_of_all(write, ingest, make_row):
    rows = [make_row(number) for number in range(4000)]
    file = write("day=2026-01-01/a.parquet", rows)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    write("day=2026-01-01/b.parquet", bytes(content))
    write("day=2026-01-02/a.csv", rows[:1])
    ingested = ingest()
    assert [row["item"] for row in ingested.train] == [[number] for number in range(4000)]
    assert [(pathlib.Path(row["file"]).name, row["rows"]) for row in ingested.bad] == [("b.parquet", 4000)]


def _read(file):
    return list(read_rows(file, (Column("item", "int64"),)))


@pytest.mark.parametrize("use", [_read, has_rows])
def test_a_full_disk_is_an_error_of_the_run_and_no_corrupt_file(use, write, rows, monkeypatch):
    file = write("day=2026-01-01/a.parquet.gz", rows)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: SIM115
    monkeypatch.setattr("tempfile.tempdir", "/full")
    with pytest.raises(
        LogError, match=r"a\.parquet\.gz could not be read \(No space .*\): make room in /full, and run"
    ):
        use(file)


@contextlib.contextmanager
def _as_nobody():
    user = os.geteuid()
    if not user:  # root reads what nobody may
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("use", "suffix"),
    [(use, suffix) for use in (_read, has_rows) for suffix in (".parquet", ".parquet.gz", ".csv", ".tfrecord")]
    + [(count_rows, ".parquet")],
)
def test_a_file_that_the_run_may_not_read_is_no_corrupt_file(use, suffix, write, rows):
    file = write(f"day=2026-01-01/a{suffix}", rows)
    file.chmod(0)
    with (
        _as_nobody(),
        pytest.raises(LogError, match=rf"a{suffix} could not be read \(Permission denied\): let the run's user"),
    ):
        use(file)


def test_a_page_that_the_disk_does_not_give_is_no_corrupt_file(write, rows, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")  # as Arrow does

    monkeypatch.setattr("components.impression_log_example_gen.readers.parquet._read_groups", fail)
    with pytest.raises(
        LogError, match=r"a\.parquet could not be read \(Input/output error\): mend that, and run again"
    ):
        _read(write("day=2026-01-01/a.parquet", rows))


def test_what_tensorflow_cannot_read_for_another_reason_is_no_corrupt_file(write, rows, monkeypatch):
    def fail(_):
        raise tf.errors.UnknownError(None, None, "a.tfrecord; Input/output error")  # as it does

    monkeypatch.setattr(tf.data, "TFRecordDataset", fail)
    with pytest.raises(tf.errors.UnknownError, match=r"a\.tfrecord; Input/output error"):
        _read(write("day=2026-01-01/a.tfrecord", rows))


def test_a_corrupt_files_rows_are_estimated():
    a, b, c, d = (pathlib.Path(name) for name in ("a.csv", "b.csv", "c.csv.gz", "d.csv"))
    sizes = {a: 1000, b: 500, c: 40, d: 100}
    assert estimate_rows({b: 7}, {a: 100, c: 1}, sizes) == {b: 50}
    assert estimate_rows({b: 70}, {a: 100}, sizes) == {b: 70}
    assert estimate_rows({c: 0}, {a: 100}, sizes) == {c: 4}
    assert estimate_rows({b: 0, c: 0}, {}, sizes) == {b: 1, c: 1}
