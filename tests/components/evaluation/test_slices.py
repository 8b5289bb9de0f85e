from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_model_analysis.api.types import RaggedTensorValue, VarLenTensorValue
from tensorflow_model_analysis.slicer import slicer_lib

from components.evaluation.slices import column_values, find_slices

NUM_ROWS = 200


def _sparse(rows):
    pairs = [(row, place, value) for row, values in enumerate(rows) for place, value in enumerate(values)]
    indices = np.array([pair[:2] for pair in pairs], np.int64)
    values = np.array([pair[2] for pair in pairs], object)
    return tf.compat.v1.SparseTensorValue(indices, values, np.array([len(rows), 5]))


@pytest.fixture(scope="module")
def rows():
    """Of each column the values of each row: one, or several with repetitions, or none."""
    generator = np.random.default_rng(0)
    tags = [[b"x", b"y", b"<z>"][number] for number in generator.integers(0, 3, 5 * NUM_ROWS)]
    lengths = generator.integers(0, 4, NUM_ROWS)
    return {
        "age": [[int(age)] for age in generator.integers(0, 4, NUM_ROWS)],
        "tags": [tags[5 * row : 5 * row + length] for row, length in enumerate(lengths)],
        "band": [[str(band)] for band in generator.integers(0, 3, NUM_ROWS)],
    }


def test_the_slices_of_a_batch_are_those_that_tfma_finds_row_by_row(rows):
    columns = {
        "age": np.array(rows["age"]),
        "tags": _sparse(rows["tags"]),
        "band": np.array([band for (band,) in rows["band"]]),
    }
    crossings = [(), ("age",), ("tags",), ("tags", "age"), ("band", "tags", "age"), ("nowhere",)]
    found = list(find_slices({name: column_values(c) for name, c in columns.items()}, NUM_ROWS, crossings))
    expected = {}
    specs = [slicer_lib.SingleSliceSpec(columns=crossing) for crossing in crossings]
    for row in range(NUM_ROWS):
        features = {name: np.array(values[row]) for name, values in rows.items() if values[row]}
        for key in slicer_lib.get_slices_for_features_dicts([], features, specs):
            expected.setdefault(key, []).append(row)
    assert {key: sorted(members.tolist()) for key, members in found} == expected
    assert len(found) == len(expected) > 4 + 3 + 12 + 30


def test_a_batch_without_values_or_rows_has_no_slices():
    nothing = column_values(_sparse([[], []]))
    assert [key for key, _ in find_slices({"tags": nothing}, 2, [("tags",), ()])] == [()]
    empty = VarLenTensorValue(np.zeros(0, object), np.zeros((0, 2), np.int64), np.array([0, 0]))
    assert list(find_slices({"tags": column_values(empty)}, 0, [("tags",), ()])) == []


def test_a_value_that_a_row_has_twice_counts_once():
    values = column_values(_sparse([[b"x", b"x"], [b"x"]]))
    ((key, rows),) = find_slices({"tags": values}, 2, [("tags",)])
    assert (key, rows.tolist()) == ((("tags", "x"),), [0, 1])


def test_keys_are_in_the_order_of_the_columns_names():
    columns = {name: column_values(np.array([name.upper()])) for name in "abc"}
    keys = {key for order in itertools.permutations("abc") for key, _ in find_slices(columns, 1, [order])}
    assert keys == {(("a", "A"), ("b", "B"), ("c", "C"))}


@pytest.mark.parametrize(
    ("values", "missing"),
    [(np.array([7, -1, 7]), -1), (np.array([7.0, -np.inf, 7.0]), -np.inf), (np.array([b"7", b"", b"7"], object), b"")],
    ids=["int64", "float32", "string"],
)
def test_a_missing_value_is_in_no_slice(values, missing):
    ((key, rows),) = find_slices({"a": column_values(values, missing)}, 3, [("a",)])
    assert (key[0][0], float(key[0][1]), rows.tolist()) == ("a", 7.0, [0, 2])


def test_ragged_values_are_those_of_their_rows():
    ragged = RaggedTensorValue(np.array([5, 6, 5]), [np.array([0, 2, 2, 3])])
    found = {key[0][1]: rows.tolist() for key, rows in find_slices({"a": column_values(ragged)}, 3, [("a",)])}
    assert found == {5: [0, 2], 6: [0]}
