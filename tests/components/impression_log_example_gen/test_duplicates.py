from __future__ import annotations

import decimal
import io
import logging
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.impression_log_example_gen.duplicates import hash_keys
from components.impression_log_example_gen.log import LogError


def test_of_rows_with_the_same_key_the_first_good_one_of_the_log_stays(write, ingest, make_row, expected):
    rows = [make_row(number, key=key) for number, key in enumerate(["a", "b", "a", None, None, "c", "b", "d"])]
    rows[0] |= {"label": 5}  # so that the next one with its key is the first
    later = [make_row(20, key="d"), make_row(21, key="e"), make_row(22, key="e")]
    write("day=2026-01-01/a.parquet", rows[:4])
    write("day=2026-01-01/b.csv", rows[4:])
    write("day=2026-01-02/a.jsonl", later)
    ingested = ingest(key="key")
    assert ingested.places == [
        ("a.parquet", 1, "label", "label not 0 or 1"),
        ("b.csv", 4, "key", "duplicate impression"),
        ("a.jsonl", 1, "key", "duplicate impression"),
        ("a.jsonl", 3, "key", "duplicate impression"),
    ]
    assert ingested.train == [expected(row) for row in (rows[1:6] + rows[7:])]
    assert ingested.eval == [expected(later[1])]
    assert ingested.get("num_rows") == 11


@pytest.mark.parametrize("key", ["item", "country"])
def test_a_feature_may_be_the_key_and_a_key_is_the_same_in_every_format(key, write, ingest, make_row):
    for day in (1, 2):
        for suffix in (".parquet", ".csv", ".jsonl", ".tfrecord"):
            write(f"day=2026-01-0{day}/a{suffix}", [make_row(number) for number in range(day, day + 3)])
    ingested = ingest(key=key)
    assert [row["item"] for row in ingested.train + ingested.eval] == [[1], [2], [3], [4]]
    assert ingested.get("quarantined") == {"duplicate impression": 20}


def test_without_a_key_equal_rows_are_no_duplicates(write, ingest, make_row):
    for day in (1, 2):
        write(f"day=2026-01-0{day}/a.parquet", [make_row(1, key="a"), make_row(1, key="a")])
    assert ingest().bad == []


def test_many_rows_in_several_partitions_and_portions(write, ingest, make_row, monkeypatch):
    module = "components.impression_log_example_gen"
    monkeypatch.setattr(f"{module}.ingest._ROWS_PER_PARTITION", 2_000)
    monkeypatch.setattr(f"{module}.duplicates._BUFFERED_ROWS", 500)
    monkeypatch.setattr(f"{module}.readers.lines._BLOCK_BYTES", 10_000)
    keys = np.random.default_rng(1).integers(0, 3_000, 6_000).tolist()
    for day, suffix in enumerate((".parquet", ".csv", ".jsonl")):
        part = keys[2_000 * day : 2_000 * day + 2_000]
        write(
            f"day=2026-01-0{day + 1}/a{suffix}", [{"item": key, "label": 1, "time": 0, "key": str(key)} for key in part]
        )
    ingested = ingest(key="key")
    assert [row["item"][0] for row in ingested.train + ingested.eval] == list(dict.fromkeys(keys))
    assert ingested.get("num_rows") == 6_000


def test_rows_of_a_corrupt_file_have_no_duplicates(write, ingest, make_row, to_bytes, monkeypatch):
    # So that rows are read, and their keys written, before the damage is seen.
    monkeypatch.setattr("components.impression_log_example_gen.readers.lines._BLOCK_BYTES", 60)
    rows = [make_row(number, key=str(number)) for number in range(3)]
    write("day=2026-01-01/a.csv.gz", to_bytes(rows, ".csv.gz")[:-4])
    write("day=2026-01-02/a.csv", rows)
    write("day=2026-01-03/a.csv", [*rows, make_row(7, key="7")])
    ingested = ingest(key="key")
    assert [row["item"] for row in ingested.train] == [[0], [1], [2]]
    assert [row["item"] for row in ingested.eval] == [[7]]


def test_keys_are_told_apart_and_hashed_alike_whatever_their_type():
    def hashes(array):
        rows, found = hash_keys(pa.RecordBatch.from_arrays([array], ["key"]), "key")
        return dict(zip(rows.tolist(), map(tuple, found.tolist()), strict=True))

    texts = hashes(pa.array(["1", None, "2", "", "1"]))
    assert list(texts) == [0, 2, 4]
    assert texts[0] == texts[4]
    assert len(set(texts.values())) == 2
    assert hashes(pa.array([1, None, 2])) == {0: texts[0], 2: texts[2]}
    assert hashes(pa.array([[b"1"], [], [b"2", b"x"]])) == {0: texts[0], 2: texts[2]}
    assert hashes(pa.array(["1"]).dictionary_encode())[0] == texts[0]
    # As pandas writes integers with gaps.
    assert hashes(pa.array([1.0, None, 2.0, math.nan])) == {0: texts[0], 2: texts[2]}
    assert hashes(pa.array([1.0, math.nan], pa.float32())) == {0: texts[0]}


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (2.0**53, pa.float64(), "9007199254740992"),
        (2.0**24, pa.float32(), "16777216"),
        (0.5, pa.float64(), "0.5"),
        (math.inf, pa.float64(), "inf"),
    ],
)
def test_a_double_that_may_stand_for_several_integers_is_no_key(value, kind, told):
    batch = pa.RecordBatch.from_arrays([pa.array([1.0, value], kind)], ["key"])
    with pytest.raises(
        LogError, match=rf"^log\.key: {told} in key is a \w+, .*: write the key as an integer or as text$"
    ):
        hash_keys(batch, "key")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".tfrecord"])
def test_an_empty_key_is_none_in_every_format(suffix, write, ingest, make_row):
    for day in (1, 2):
        write(f"day=2026-01-0{day}/a{suffix}", [make_row(number, key="" if number else "a") for number in range(3)])
    ingested = ingest(key="key")
    assert ingested.get("quarantined") == {"duplicate impression": 1}
    assert [row["item"] for row in ingested.train + ingested.eval] == [[0], [1], [2], [1], [2]]


def test_a_key_that_no_row_has_is_an_error_and_one_that_some_have_is_told(write, ingest, make_row, caplog):
    for day in (1, 2):
        write(f"day=2026-01-0{day}/a.parquet", [make_row(number, key="a" if number else None) for number in range(3)])
    with pytest.raises(LogError, match=r"log\.key: none of the 6 good rows of the window has a value in a column kye"):
        ingest(key="kye")
    with caplog.at_level(logging.WARNING, logger="absl"):
        ingest(key="key")
    assert "2 of 6 rows have no key, and are taken for different impressions" in caplog.text


def test_a_duplicates_key_is_told_as_it_is(write, ingest, make_row):
    for day in (1, 2):
        write(f"day=2026-01-0{day}/a.tfrecord", [make_row(number, key=f"k-{day}") for number in range(2)])
    assert [row["value"] for row in ingest(key="key").bad] == ["k-1", "k-2"]


def test_a_corrupt_file_shifts_no_row_of_the_next_one(write, ingest, make_row, to_bytes):
    content = to_bytes([make_row(number, key=f"x{number}") for number in range(400)], ".parquet")
    last = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(19).column(0).data_page_offset
    write("day=2026-01-01/a.parquet", content[:last] + b"\xff" * 30 + content[last + 30 :])  # 380 rows can be read
    rows = [make_row(1000 + number, key=f"k{number}") for number in range(500)]
    rows[1]["key"] = "k0"
    write("day=2026-01-01/b.parquet", rows)
    write("day=2026-01-02/a.parquet", [make_row(7, key="7")])
    ingested = ingest(key="key")
    assert ingested.places[1:] == [("b.parquet", 2, "key", "duplicate impression")]
    assert [row["item"][0] for row in ingested.train] == [1000, *range(1002, 1500)]


def test_decimals_are_keys_and_what_has_no_text_is_none():
    def hashes(array):
        return hash_keys(pa.RecordBatch.from_arrays([array], ["key"]), "key")[1].tolist()

    assert hashes(pa.array([decimal.Decimal(5), decimal.Decimal(7)])) == hashes(pa.array([5, 7]))
    with pytest.raises(LogError, match=r"log\.key: values of key are of the type struct<.*>: name a column of ids"):
        hashes(pa.array([{"a": 1}]))
