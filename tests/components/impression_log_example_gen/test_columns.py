from __future__ import annotations

import decimal
import math
import pathlib

import numpy as np
import pyarrow as pa
import pytest

from components.impression_log_example_gen.columns import (
    Column,
    check_schema,
    find_bad_label,
    find_columns,
    to_lists,
)
from components.impression_log_example_gen.log import LogError
from schemas.features import FeatureSpec, IdFeature, IdSequence, Label, NumericFeature

LABEL = Column("label", "int64", is_label=True)
FILE = pathlib.Path("log/day=2026-01-01/a.parquet")
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
    assert find_columns(spec) == (
        Column("city", "string"),
        Column("seen", "int64"),
        Column("price", "float32"),
        Column("clicked", "int64", is_label=True),
        Column("at", "int64"),
    )


@pytest.mark.parametrize(
    ("array", "dtype", "expected"),
    [
        pytest.param(pa.array([1, None, 2**40]), "int64", [[1], None, [2**40]], id="int64"),
        pytest.param(pa.array([-1, None], pa.int8()), "int64", [[-1], None], id="int8"),
        pytest.param(pa.array([2**32 - 1], pa.uint32()), "int64", [[2**32 - 1]], id="uint32"),
        pytest.param(pa.array([5], pa.uint64()), "int64", [[5]], id="uint64"),
        pytest.param(pa.array([True, None, False]), "int64", [[1], None, [0]], id="bool"),
        pytest.param(pa.array([1.5, None]), "float32", [[1.5], None], id="float64"),
        pytest.param(pa.array([1.5, None], pa.float32()), "float32", [[1.5], None], id="float32"),
        pytest.param(pa.array([2**24 + 1, None]), "float32", [[2.0**24], None], id="int64-rounded-to-float32"),
        pytest.param(pa.array([decimal.Decimal("0.25"), None]), "float32", [[0.25], None], id="decimal"),
        pytest.param(TEXTS, "string", [[b"a"], None, [b"b"], [b"a"]], id="string"),
        pytest.param(TEXTS.cast(pa.large_string()), "string", [[b"a"], None, [b"b"], [b"a"]], id="large-string"),
        pytest.param(pa.array([b"\xff", b"", None]), "string", [[b"\xff"], [b""], None], id="binary-and-empty-string"),
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
    column = Column("x", dtype)
    batch = pa.RecordBatch.from_arrays([array], ["x"])
    check_schema(batch.schema, (column,), FILE)
    lists = to_lists(batch, (column,))
    assert lists.column(0).type.value_type == {"int64": pa.int64(), "float32": pa.float32()}.get(
        dtype, pa.large_binary()
    )
    assert lists.column(0).to_pylist() == expected
    assert to_lists(batch.slice(1), (column,)).column(0).to_pylist() == expected[1:]


def test_nan_stays():
    batch = pa.RecordBatch.from_arrays([pa.array([math.nan, None])], ["x"])
    (value,), missing = to_lists(batch, (Column("x", "float32"),)).column(0).to_pylist()
    assert math.isnan(value)
    assert missing is None


def test_only_the_wanted_columns_in_the_wanted_order():
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["b", "other", "a"])
    lists = to_lists(batch, (Column("a", "int64"), Column("absent", "string"), Column("b", "int64")))
    assert lists.to_pydict() == {"a": [[3]], "absent": [None], "b": [[1]]}


def test_no_rows():
    batch = pa.RecordBatch.from_arrays([pa.array([], pa.int64())], ["x"])
    assert to_lists(batch, (Column("x", "int64"),)).num_rows == 0


@pytest.mark.parametrize(
    ("found", "dtype", "sentence"),
    [
        pytest.param(pa.string(), "int64", "is string, but the feature spec says int64 or a list of it", id="text"),
        pytest.param(pa.float64(), "int64", "is double, but the feature spec says int64 or a list", id="float-for-int"),
        pytest.param(
            pa.string(), "float32", "is string, but the feature spec says float32 or a list", id="text-for-float"
        ),
        pytest.param(pa.int64(), "string", "is int64, but the feature spec says string or a list", id="int-for-text"),
        pytest.param(
            pa.timestamp("us"), "int64", r"is timestamp\[us\], but the feature spec says int64", id="timestamp"
        ),
        pytest.param(pa.list_(pa.string()), "int64", "is list<.*string>, but the feature spec says int64", id="list"),
        pytest.param(
            pa.list_(pa.list_(pa.int64())), "int64", "is list<.*list<.*but the feature spec says", id="nested"
        ),
        pytest.param(
            pa.dictionary(pa.int8(), pa.string()), "int64", "is dictionary<.*but the feature", id="dictionary"
        ),
    ],
)
def test_wrong_type(found, dtype, sentence):
    with pytest.raises(LogError, match=f"^{FILE}: column x {sentence}.*: write the column so, or correct the spec$"):
        check_schema(pa.schema([("x", found)]), (Column("x", dtype),), FILE)


def test_an_absent_feature_is_for_the_schema_gate_but_the_label_must_be_there():
    check_schema(pa.schema([("label", pa.int64())]), (Column("x", "int64"), LABEL), FILE)
    with pytest.raises(
        LogError, match=f"^{FILE} has no column label, the label: write it, or correct the feature spec$"
    ):
        check_schema(pa.schema([("x", pa.int64())]), (Column("x", "int64"), LABEL), FILE)


@pytest.mark.parametrize("found", [pa.list_(pa.int64()), pa.float64(), pa.string()], ids=str)
def test_wrong_type_of_the_label(found):
    with pytest.raises(LogError, match=r"column label is .*, but the feature spec says int64: write"):
        check_schema(pa.schema([("label", found)]), (LABEL,), FILE)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(pa.array([0, 1, 1]), None, id="good"),
        pytest.param(pa.array([True, False]), None, id="bool"),
        pytest.param(pa.array([0, 1], pa.uint8()), None, id="uint8"),
        pytest.param(pa.array([0, 1]).dictionary_encode(), None, id="dictionary"),
        pytest.param(pa.array([], pa.int64()), None, id="no-rows"),
        pytest.param(pa.array([0, 2, -1]), (1, 2), id="two"),
        pytest.param(pa.array([1, 0, None]), (2, None), id="null"),
        pytest.param(pa.nulls(1), (0, None), id="null-without-a-type"),
        pytest.param(pa.array(np.array([2**64 - 1], np.uint64)), (0, 2**64 - 1), id="too-large"),
    ],
)
def test_first_bad_label(labels, expected):
    batch = pa.RecordBatch.from_arrays([labels], ["label"])
    assert find_bad_label(batch, "label") == expected
