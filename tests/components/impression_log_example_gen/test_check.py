from __future__ import annotations

import dataclasses
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest

from components.impression_log_example_gen.check import check
from components.impression_log_example_gen.columns import Column, find_columns
from schemas.features import FeatureSpec, IdFeature, IdSequence, Label, NumericFeature

TEXTS = pa.array(["a", None, "b", "a"])
INDEXES = pa.array([0, None, 1, 1], pa.int8())
DICTIONARY = pa.array(["x", None])


def test_columns_of_a_spec():
    spec = FeatureSpec(
        name="tiny",
        features=(
            IdFeature("city", num_buckets=2, dtype="string"),
            IdSequence("seen", num_buckets=2, max_length=2),
            NumericFeature("price"),
        ),
        label=Label("clicked"),
        timestamp="at",
    )
    sources = {"city": "town", "clicked": "click"}
    found = find_columns(
        spec, sources, max_raw_length=5, timestamp_unit="ms", is_timestamp_required=True, gives_day=True
    )
    assert found == tuple(
        dataclasses.replace(column, max_raw_length=5)
        for column in (
            Column("city", "string", "town", is_id=True),
            Column("seen", "int64", is_id=True, is_list=True),
            Column("price", "float32"),
            Column("clicked", "int64", "click", is_label=True),
            Column("at", "int64", per_second=1000, is_required=True, gives_day=True),
        )
    )


def _check(array, column, *, is_text=False):
    """Returns the values of a column's rows, and the position and reason of the bad ones."""
    batch = pa.RecordBatch.from_arrays([array], [column.source])
    checked = check(batch, np.arange(len(array)), (column,), is_text=is_text)
    assert {row: bad.number for row, bad in checked.bad.items()} == {row: row for row in checked.bad}
    return checked.lists.column(0), {row: bad.reason for row, bad in checked.bad.items()}


@pytest.mark.parametrize(
    ("array", "dtype", "expected"),
    [
        pytest.param(pa.array([1, None, 2**40]), "int64", [[1], None, [2**40]], id="int64"),
        pytest.param(pa.array([-1, None], pa.int8()), "int64", [[-1], None], id="int8"),
        pytest.param(pa.array([2**32 - 1], pa.uint32()), "int64", [[2**32 - 1]], id="uint32"),
        pytest.param(pa.array([5], pa.uint64()), "int64", [[5]], id="uint64"),
        pytest.param(pa.array([True, None, False]), "int64", [[1], None, [0]], id="bool"),
        pytest.param(pa.array([208.0, None, -3.0]), "int64", [[208], None, [-3]], id="ints-of-pandas-with-a-gap"),
        pytest.param(pa.array([1.5, None]), "float32", [[1.5], None], id="float64"),
        pytest.param(pa.array([1.5, None], pa.float32()), "float32", [[1.5], None], id="float32"),
        pytest.param(pa.array([2**24 + 1, None]), "float32", [[2.0**24], None], id="int64-rounded-to-float32"),
        pytest.param(pa.array([decimal.Decimal("0.25"), None]), "float32", [[0.25], None], id="decimal"),
        pytest.param(TEXTS, "string", [[b"a"], None, [b"b"], [b"a"]], id="string"),
        pytest.param(TEXTS.cast(pa.large_string()), "string", [[b"a"], None, [b"b"], [b"a"]], id="large-string"),
        pytest.param(
            pa.array([b"\xc3\xa4", b"", None]), "string", [["ä".encode()], [b""], None], id="binary-and-empty"
        ),
        pytest.param(TEXTS.dictionary_encode(), "string", [[b"a"], None, [b"b"], [b"a"]], id="dictionary"),
        pytest.param(
            pa.DictionaryArray.from_arrays(INDEXES, DICTIONARY),
            "string",
            [[b"x"], None, None, None],
            id="null-in-the-dictionary",
        ),
        pytest.param(pa.array([7, 8]).dictionary_encode(), "int64", [[7], [8]], id="dictionary-of-ints"),
        pytest.param(pa.nulls(2), "float32", [None, None], id="nulls-without-a-type"),
        pytest.param(pa.array([[1, 2], None, [], [3]]), "int64", [[1, 2], None, None, [3]], id="list"),
        pytest.param(pa.array([[None, 1, None, 2], [None], [3]]), "int64", [[1, 2], None, [3]], id="nulls-in-lists"),
        pytest.param(
            pa.array([["a"], None, ["b", None]], pa.large_list(pa.large_string())),
            "string",
            [[b"a"], None, [b"b"]],
            id="large-list-of-large-string",
        ),
        pytest.param(
            pa.ListArray.from_arrays([0, 1, 1, 4], TEXTS.dictionary_encode()),
            "string",
            [[b"a"], None, [b"b", b"a"]],
            id="list-of-dictionary",
        ),
        pytest.param(
            pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)), "int64", [[1, 2], None, [3, 4]], id="fixed-size"
        ),
        pytest.param(pa.array([[], None], pa.list_(pa.null())), "int64", [None, None], id="lists-without-a-type"),
    ],
)
def test_values(array, dtype, expected):
    column = Column("x", dtype, is_list=True)
    lists, bad = _check(array, column)
    assert lists.type.value_type == {"int64": pa.int64(), "float32": pa.float32(), "string": pa.large_binary()}[dtype]
    assert (lists.to_pylist(), bad) == (expected, {})
    lists, bad = _check(array.slice(1), column)
    assert (lists.to_pylist(), bad) == (expected[1:], {})


def test_only_the_wanted_columns_in_the_wanted_order():
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["b", "other", "a"])
    columns = (Column("a", "int64"), Column("absent", "string"), Column("c", "int64", source="b"))
    assert check(batch, np.arange(1), columns).lists.to_pydict() == {"a": [[3]], "absent": [None], "c": [[1]]}


def test_no_rows():
    lists, bad = _check(pa.array([], pa.int64()), Column("x", "int64", is_id=True, is_label=True))
    assert (len(lists), bad) == (0, {})


TYPED = {
    "text for int64": ("int64", pa.array(["1", None]), {0: "wrong type"}),
    "fraction for int64": ("int64", pa.array([None, 1.0, 1.5, -0.5]), {2: "wrong type", 3: "wrong type"}),
    "double that may be two integers": ("int64", pa.array([2.0**53, 2.0**53 - 1]), {0: "wrong type"}),
    "NaN for int64": ("int64", pa.array([math.nan, math.inf, 1.0]), {0: "NaN or Inf", 1: "NaN or Inf"}),
    "float32 for int64": ("int64", pa.array([1.0], pa.float32()), {0: "wrong type"}),
    "text for float32": ("float32", pa.array(["1"]), {0: "wrong type"}),
    "bool for float32": ("float32", pa.array([True]), {0: "wrong type"}),
    "int for text": ("string", pa.array([1, None]), {0: "wrong type"}),
    "timestamp for int64": ("int64", pa.array([0], pa.timestamp("us")), {0: "wrong type"}),
    "texts for int64": ("int64", pa.array([[], ["1"], ["2"]]), {1: "wrong type", 2: "wrong type"}),
    "nested": ("int64", pa.array([[[1]], None]), {0: "wrong type"}),
    "dictionary of texts": ("int64", pa.array(["a"]).dictionary_encode(), {0: "wrong type"}),
    "over int64": ("int64", pa.array([1, 2**63], pa.uint64()), {1: "over int64"}),
    "over int64 in a list": ("int64", pa.array([[1], [2, 2**64 - 1, 3]], pa.list_(pa.uint64())), {1: "over int64"}),
}


@pytest.mark.parametrize(("dtype", "array", "expected"), TYPED.values(), ids=TYPED.keys())
def test_what_does_not_convert_is_bad(dtype, array, expected):
    _, bad = _check(array, Column("x", dtype))
    assert bad == expected


LABELS = {
    "good": (pa.array([0, 1, 1]), {}),
    "bool": (pa.array([True, False]), {}),
    "uint8": (pa.array([0, 1], pa.uint8()), {}),
    "dictionary": (pa.array([0, 1]).dictionary_encode(), {}),
    "a list of one": (pa.array([[0], [1]]), {}),
    "two": (pa.array([0, 2, -1]), {1: "label not 0 or 1", 2: "label not 0 or 1"}),
    "null": (pa.array([1, 0, None]), {2: "missing label"}),
    "null without a type": (pa.nulls(1), {0: "missing label"}),
    "too large": (pa.array(np.array([2**64 - 1, 1], np.uint64)), {0: "over int64"}),
    "lists": (pa.array([[], [0, 1], [1], [3, 3]]), {0: "missing label", 1: "wrong type", 3: "label not 0 or 1"}),
}


@pytest.mark.parametrize(("array", "expected"), LABELS.values(), ids=LABELS.keys())
def test_labels(array, expected):
    _, bad = _check(array, Column("label", "int64", is_label=True))
    assert bad == expected


def test_weights():
    spec = FeatureSpec("tiny", (NumericFeature("price"),), weight="w")
    *_, column = find_columns(spec)
    lists, bad = _check(pa.array([1.5, None, -0.5, 0.0, math.nan]), column)
    assert bad == {1: "missing weight", 2: "negative weight", 4: "NaN or Inf"}
    assert lists.take([0, 3]).to_pylist() == [[1.5], [0.0]]
    assert _check(pa.array(["-1", "2"]), column, is_text=True)[1] == {0: "negative weight"}


@pytest.mark.parametrize(
    ("column", "kind", "reason"),
    [
        (Column("w", "float32", is_weight=True), pa.float64(), "missing weight"),
        (Column("time", "int64", per_second=1, is_required=True), pa.int64(), "missing timestamp"),
    ],
    ids=["weight", "timestamp"],
)
def test_a_few_rows_without_a_value_are_bad_rows_and_not_a_column_that_is_gone(column, kind, reason):
    assert _check(pa.nulls(1, kind), column)[1] == {0: reason}
    assert _check(pa.nulls(5_000, kind), column)[1] == {}
    assert _check(pa.nulls(1), column)[1] == {}  # there is no such column


def test_a_timestamp_may_be_missing_where_it_is_not_required():
    array = pa.array([None, 5])
    assert _check(array, Column("time", "int64", per_second=1))[1] == {}
    assert _check(array, Column("time", "int64", per_second=1, is_required=True))[1] == {0: "missing timestamp"}


@pytest.mark.parametrize("column", [Column("x", "int64"), Column("x", "int64", is_id=True)], ids=["number", "id"])
def test_several_values_are_bad_where_there_may_be_one(column):
    lists, bad = _check(pa.array([[1], [], [1, 2], None, [3]]), column)
    assert bad == {2: "wrong type"}
    assert lists.take([0, 1, 3, 4]).to_pylist() == [[1], None, None, [3]]


def test_negative_ids_are_bad_and_negative_numbers_are_not():
    array = pa.array([[1, -1], [2], [-3, -4]])
    assert _check(array, Column("x", "int64", is_id=True, is_list=True))[1] == {0: "negative id", 2: "negative id"}
    assert _check(array, Column("x", "int64", is_list=True))[1] == {}


TEXTS_TO_PARSE = {
    "int64": ("int64", ["7", None, "-7", "007", "0x1F"], [[7], None, [-7], [7], [31]], {}),
    "int64 of pandas with a gap": (
        "int64",
        ["208.0", None, "-7.00", "1764000000000000.0"],
        [[208], None, [-7], [1764000000000000]],
        {},
    ),
    "not int64": ("int64", ["1.5", "abc", " 5", "+5", "1.0e1", "9007199254740993.0", "8"], None,
                  dict.fromkeys(range(6), "wrong type")),
    "beyond int64": ("int64", [str(2**63 - 1), str(2**63), str(-(2**63)), "-9" + "0" * 19], None,
                     {1: "over int64", 3: "over int64"}),
    "float32": ("float32", ["0.5", "-1e3", None, "7"], [[0.5], [-1000.0], None, [7.0]], {}),
    "not float32": ("float32", ["0,5", "nan", "1e400", "-inf", "1"], None,
                    {0: "wrong type", 1: "NaN or Inf", 2: "NaN or Inf", 3: "NaN or Inf"}),
    "string": ("string", ["a", "1|2", None], [[b"a"], [b"1|2"], None], {}),
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "texts", "expected", "bad"), TEXTS_TO_PARSE.values(), ids=TEXTS_TO_PARSE.keys())
def test_text_is_parsed(dtype, texts, expected, bad):
    lists, found = _check(pa.array(texts), Column("x", dtype), is_text=True)
    assert found == bad
    if expected:
        assert lists.to_pylist() == expected


def test_the_values_beside_a_bad_one_are_parsed():
    lists, bad = _check(pa.array(["1|2", "x|3", "4", None]), Column("x", "int64", is_list=True), is_text=True)
    assert bad == {1: "wrong type"}
    assert [value for row, value in enumerate(lists.to_pylist()) if row != 1] == [[1, 2], [4], None]


TIMES = {
    "seconds": (pa.array([-1, 86_400, None]), 1, [[-1], [86_400], None]),
    "milliseconds": (pa.array([-1, 86_400_999]), 1_000, [[-1], [86_400]]),
    "Arrow's": (pa.array([86_400_999], pa.timestamp("ms")), 1, [[86_400]]),
    "Arrow's before 1970": (pa.array([-500, -86_400_500], pa.timestamp("ms")), 1, [[-1], [-86_401]]),
    "doubles, as pandas has them": (pa.array([86_400_999.0, None]), 1_000, [[86_400], None]),
    "Arrow's with a zone": (pa.array([86_400_999_999], pa.timestamp("us", "Europe/Berlin")), 1_000, [[86_400]]),
}


@pytest.mark.parametrize(("array", "per_second", "expected"), TIMES.values(), ids=TIMES.keys())
def test_timestamps_become_seconds(array, per_second, expected):
    lists, bad = _check(array, Column("time", "int64", per_second=per_second))
    assert (lists.to_pylist(), bad) == (expected, {})


def test_a_required_timestamp_is_named_before_what_else_is_wrong():
    columns = (
        Column("item", "int64", is_id=True),
        Column("time", "int64", per_second=1, is_required=True, gives_day=True),
    )
    batch = pa.RecordBatch.from_arrays([pa.array([-1, -1]), pa.array([None, 5])], ["item", "time"])
    bad = check(batch, np.array([7, 8]), columns).bad
    assert [(row.number, row.column, row.reason) for row in bad.values()] == [
        (7, "time", "missing timestamp"), (8, "item", "negative id"),
    ]  # fmt: skip


def test_what_a_bad_value_is_can_be_read():
    values = [b"\xff" * 300, b"good"]
    batch = pa.RecordBatch.from_arrays([pa.array(values)], ["x"])
    (row,) = check(batch, np.arange(2), (Column("x", "string"),)).bad.values()
    assert '"value": "\ufffd' in row.to_json("a.csv")
    assert len(row.to_json("a.csv")) < 300
