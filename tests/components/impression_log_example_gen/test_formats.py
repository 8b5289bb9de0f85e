from __future__ import annotations

import json

import pytest
import tensorflow as tf

FORMATS = [suffix + packed for suffix in (".parquet", ".csv", ".jsonl", ".tfrecord") for packed in ("", ".gz")]
LINE_OF_THE_FIRST_ROW = {".csv": 2}  # a header comes before


@pytest.fixture
def write_days(write, make_row):
    """Writes a training day of the rows in a format, and an eval day of one good row."""

    def write_both(rows, suffix):
        write(f"day=2026-01-01/part{suffix}", rows)
        write("day=2026-01-02/part.parquet", [make_row(99)])

    return write_both


@pytest.mark.parametrize("suffix", FORMATS)
def test_good_rows_of_every_format_become_examples_in_their_order(suffix, write_days, ingest, make_row, expected):
    rows = [make_row(number) for number in range(20)]
    rows[3] = make_row(3, item=None, country=None, history=None, tags=None, price=None)
    write_days(rows, suffix)
    ingested = ingest()
    assert ingested.train == [expected(row) for row in rows]
    assert ingested.eval == [expected(make_row(99))]
    assert ingested.bad == []
    assert ingested.get("num_examples") == {"train": 20, "eval": 1}
    assert ingested.get("num_rows") == 21
    assert ingested.get("quarantined") == {}
    assert ingested.artifact.get_string_custom_property("quarantine") == ""


# What is wrong, the column that is named, the reason, and the formats that can hold it.
ANY = (".parquet", ".csv", ".jsonl", ".tfrecord")
BAD = {
    "label of 2": ({"label": 2}, "label", "label not 0 or 1", ANY),
    "label of -1": ({"label": -1}, "label", "label not 0 or 1", ANY),
    "no label": ({"label": None}, "label", "missing label", ANY),
    "no timestamp": ({"time": None}, "time", "missing timestamp", ANY),
    "label as text": ({"label": b"yes"}, "label", "wrong type", (".csv", ".jsonl", ".tfrecord")),
    "two labels": ({"label": [0, 1]}, "label", "wrong type", (".csv", ".jsonl", ".tfrecord")),
    "negative id": ({"item": -1}, "item", "negative id", ANY),
    "negative id in a list": ({"history": [5, -7]}, "history", "negative id", ANY),
    "id over int64": ({"item": 2**63}, "item", "over int64", (".csv", ".jsonl")),
    "id in a list over int64": ({"history": [1, 2**70]}, "history", "over int64", (".csv", ".jsonl")),
    "id below int64": ({"item": -(2**63) - 1}, "item", "negative id", (".csv",)),
    "text for an id": ({"item": b"abc"}, "item", "wrong type", (".csv", ".jsonl", ".tfrecord")),
    "float for an id": ({"item": 1.5}, "item", "wrong type", (".csv", ".jsonl", ".tfrecord")),
    "empty element of a list": ({"history": [1, b"", 2]}, "history", "wrong type", (".csv", ".jsonl")),
    "text for a number": ({"price": b"dear"}, "price", "wrong type", (".csv", ".jsonl", ".tfrecord")),
    "number for a text": ({"country": 5}, "country", "wrong type", (".jsonl", ".tfrecord")),
    "NaN": ({"price": float("nan")}, "price", "NaN or Inf", ANY),
    "infinity": ({"price": float("-inf")}, "price", "NaN or Inf", ANY),
    "over float32": ({"price": 1e39}, "price", "NaN or Inf", (".parquet", ".csv", ".jsonl")),
    "over float64": ({"price": 10**400}, "price", "NaN or Inf", (".csv", ".jsonl")),
    "invalid UTF-8": ({"country": b"x\xff"}, "country", "invalid UTF-8", ANY),
    "invalid UTF-8 in a list": ({"tags": [b"a", b"\xc3"]}, "tags", "invalid UTF-8", ANY),
    "too long a list": ({"history": list(range(9))}, "history", "longer than max_raw_length", ANY),
    "the first of two": ({"item": -1, "label": 3}, "item", "negative id", ANY),
}


@pytest.mark.parametrize("suffix", ANY)
def test_bad_rows_are_quarantined_with_their_place_and_reason(suffix, write_days, ingest, make_row, expected):
    cases = [(replaced, column, reason) for replaced, column, reason, suffixes in BAD.values() if suffix in suffixes]
    rows = []
    for replaced, _, _ in cases:
        rows += [make_row(len(rows)), make_row(len(rows) + 1, **replaced)]
    write_days(rows, suffix)
    ingested = ingest(max_raw_length=8)
    first = LINE_OF_THE_FIRST_ROW.get(suffix, 1)
    assert ingested.places == [
        (f"part{suffix}", first + 2 * index + 1, column, reason) for index, (_, column, reason) in enumerate(cases)
    ]
    assert ingested.train == [expected(row) for row in rows[::2]]
    assert sum(ingested.get("quarantined").values()) == len(cases)
    assert ingested.get("num_rows") == len(rows) + 1


UNPARSABLE = {
    "CSV": (
        ".csv",
        b'item,label\n1,0\n2\n\n3,1,4\n"5,1\n"6","1"\n7,0\r8,1\n9,0\r\n\r\n10,1\xff\xff,\n11,1',
        [1, 6, 9, 11],
        [(3, None), (5, None), (6, None), (8, None), (11, None)],
    ),
    "CSV with a quote that swallows": (
        ".csv",
        b'item,country,label\n1,a,0\n2,"b,1\n3,c,0\n4,d",1\n5,"e ""f"", g",1\n',
        [1, 3, 4, 5],
        [(3, None)],
    ),
    "CSV with a byte order mark": (".csv", b"\xef\xbb\xbfitem,label\n1,0\n2\n", [1], [(3, None)]),
    "JSON": (
        ".jsonl",
        b'{"item": 1, "label": 0}\n{"item": 2, "lab\n\n{"item": 3, "label": 1}{"item": 4, "label": 1}\n'
        b'{"item": 5,\n"label": 1}\n[6, 1]\n7\n{"item": 8, "label": 1, "more": {"a": [1]}}\r\n{"item": 9, "label": 1}',
        [1, 8, 9],
        [(2, None), (4, None), (5, None), (6, None), (7, None), (8, None)],
    ),
    "JSON with two objects on a line": (
        ".jsonl",
        b'{"item": 1, "label": 0}\n{"item": 2, "label": 0}{"item": 3, "label": 0}\n',
        [1],
        [(2, None)],
    ),
    "JSON with two objects on a line and one on two": (
        ".jsonl",
        b'{"item": 1, "label": 0}\n{"item": 2, "label": 0}{"item": 3, "label": 0}\n{"item": 4,\n"label": 0}\n',
        [1],
        [(2, None), (3, None), (4, None)],
    ),
    "JSON of which the first line is bad": (
        ".json",
        b'oops\n{"item": [1], "label": true}\n{"item": 2, "label": 0}\n',
        [1, 2],
        [(1, None)],
    ),
    "JSON of pandas, with a gap in the integers": (
        ".jsonl",
        b'{"item": 1.0, "label": 1.0}\n{"item": 2.0, "label": 0.0}\n{"item": 3, "label": 0.5}\n'
        b'{"item": 4.5, "label": 1}\n{"item": 1e300, "label": 1}\n{"item": 6.0, "label": 1}\n',
        [1, 2, 6],
        [(3, "label"), (4, "item"), (5, "item")],
    ),
    "JSON whose first line is nested deeply": (
        ".jsonl",
        b'{"item": 1, "label": 0, "more": ' + b"[" * 3_000 + b"]" * 3_000 + b'}\n{"item": 2, "label": 0}\n',
        [2],
        [(1, None)],
    ),
    "JSON of several types": (
        ".jsonl",
        b'{"item": 1, "label": true}\n{"item": [2], "label": 1, "price": 1}\n{"item": "3", "label": 1}\n'
        b'{"item": 4.5, "label": 1}\n{"item": 5, "label": 1, "price": true}\n{"item": 6, "label": 0, "price": NaN}\n',
        [1, 2],
        [(3, "item"), (4, "item"), (5, "price"), (6, "price")],
    ),
}


@pytest.mark.parametrize(("suffix", "content", "items", "bad"), UNPARSABLE.values(), ids=UNPARSABLE.keys())
def test_a_bad_line_is_a_bad_row_and_not_a_bad_file(suffix, content, items, bad, write_days, ingest):
    # A row of JSON without a timestamp is a bad row: its columns are known by the spec, be they in the file or not.
    write_days(content.replace(b'"label": ', b'"time": 0, "label": '), suffix)
    ingested = ingest()
    assert [row["item"] for row in ingested.train] == [[item] for item in items]
    assert sorted(place[1:3] for place in ingested.places) == bad
    assert ingested.get("num_rows") == len(items) + len(bad) + 1


def test_a_record_that_is_no_example_is_a_bad_row(write_days, write, ingest, make_row, tmp_path):
    file = tmp_path / "records"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in (b"\x01\x02junk", tf.train.Example().SerializeToString()):
            writer.write(record)
    write_days(file.read_bytes(), ".tfrecord")
    write("day=2026-01-01/more.parquet", [make_row(1)])
    assert ingest().places == [
        ("part.tfrecord", 1, None, "unparsable line"),
        ("part.tfrecord", 2, "label", "missing label"),
    ]


def test_formats_may_be_mixed_and_rows_keep_the_order_of_the_files_names(write, ingest, make_row, expected):
    rows = [make_row(number) for number in range(3 * len(FORMATS))]
    for index, suffix in enumerate(FORMATS):
        write(f"day=2026-01-01/{index}{suffix}", rows[3 * index : 3 * index + 3])
    write("day=2026-01-02/part.csv", [make_row(99)])
    ingested = ingest()
    assert ingested.train == [expected(row) for row in rows]


@pytest.mark.parametrize("suffix", ANY)
def test_one_column_of_the_log_may_be_two_of_the_spec(suffix, write_days, ingest, make_row, expected):
    rows = [make_row(number, price=None) for number in range(5)]
    rows[2]["country"] = b"x\xff"
    write_days(rows, suffix)
    ingested = ingest(columns=json.dumps({"price": "item"}))
    assert [(column, reason) for _, _, column, reason in ingested.places] == [("country", "invalid UTF-8")]
    assert ingested.train == [expected(row | {"price": row["item"]}) for row in (*rows[:2], *rows[3:])]


def test_columns_may_have_other_names_in_the_log(write, ingest):
    write("day=2026-01-01/a.csv", b"n,clicked,item\n5,1,x\n6,2,y\n")
    write("day=2026-01-02/a.jsonl", b'{"n": 7, "clicked": 0, "label": 5, "time": 9}\n')
    ingested = ingest(columns=json.dumps({"item": "n", "label": "clicked"}))
    assert (ingested.train, ingested.eval) == (
        [{"item": [5], "label": [1]}],
        [{"item": [7], "label": [0], "time": [9]}],
    )
    assert ingested.places == [("a.csv", 3, "clicked", "label not 0 or 1")]


def test_rows_are_numbered_across_blocks_and_batches(write_days, ingest, make_row, monkeypatch):
    monkeypatch.setattr("components.impression_log_example_gen.readers.lines._BLOCK_BYTES", 100)
    monkeypatch.setattr("components.impression_log_example_gen.readers.parquet._BATCH_ROWS", 2)
    monkeypatch.setattr("components.impression_log_example_gen.readers.tfrecord._BATCH_ROWS", 3)
    rows = [make_row(number, label=2 if number % 7 == 3 else 1) for number in range(30)]
    bad = [number + 1 for number in range(30) if number % 7 == 3]
    for suffix in ANY:
        write_days(rows, suffix)
    places = ingest().places
    for suffix in ANY:
        numbers = [number for name, number, *_ in places if name == f"part{suffix}"]
        assert numbers == [number + (suffix == ".csv") for number in bad]
