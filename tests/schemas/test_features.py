from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from schemas.criteo import CRITEO
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature, load_spec
from schemas.movielens import MOVIELENS
from schemas.notebook import NOTEBOOK

BAD_FEATURES = {
    "no buckets": (lambda: IdFeature("a", num_buckets=0), "a: num_buckets is 0, must be positive"),
    "no whole number of buckets": (lambda: IdFeature("a", 1e3), "a: num_buckets is 1000.0, must be an integer"),
    "no whole number of quantiles": (
        lambda: NumericFeature("a", "quantile_buckets", num_buckets=4.0),
        "a: num_buckets is 4.0, must be an integer",
    ),
    "no whole length": (lambda: IdSequence("a", 10, 2.5), "a: max_length is 2.5, must be an integer"),
    "a text for a domain": (
        lambda: IdFeature("a", 10, dtype="string", domain=("de")),
        r"a: domain is 'de', must be a tuple of texts, such as \('a',\)",
    ),
    "unknown dtype": (lambda: IdFeature("a", 10, dtype="int32"), "a: dtype is 'int32', must be one of int64, string"),
    "domain of an integer": (lambda: IdFeature("a", 10, domain=("x",)), "a: a domain needs dtype string, not int64"),
    "presence above one": (
        lambda: IdFeature("a", 10, min_presence=1.5),
        r"a: min_presence is 1.5, must be in \[0, 1\]",
    ),
    "no name": (lambda: IdFeature("", 10), "a feature has no name"),
    "three hashes": (lambda: IdFeature("a", 10, num_hashes=3), "a: num_hashes is 3, must be 1 or 2"),
    "target of a sum": (lambda: IdSequence("a", 10, 5, target="b"), "a: target goes with pooling target_attention"),
    "attention without a target": (
        lambda: FeatureSpec("s", (IdFeature("b", 9), IdSequence("a", 10, 5, "target_attention"))),
        "a: target_attention needs the name of an id feature as target; there are b",
    ),
    "attention to what is not there": (
        lambda: FeatureSpec("s", (IdFeature("b", 9), IdSequence("a", 10, 5, "target_attention", target="c"))),
        "a: target_attention needs the name of an id feature as target, and c is none; there are b",
    ),
    "weight named as a feature": (
        lambda: FeatureSpec("s", (IdFeature("a", 9),), weight="a"),
        "s: column a is named more than once",
    ),
    "no length": (lambda: IdSequence("a", 10, max_length=0), "a: max_length is 0, must be positive"),
    "unknown pooling": (lambda: IdSequence("a", 10, 5, pooling="max"), "a: pooling is 'max', must be one of sum, mean"),
    "unknown normalization": (lambda: NumericFeature("a", "minmax"), "a: normalization is 'minmax', must be one of"),
    "one quantile": (
        lambda: NumericFeature("a", "quantile_buckets", num_buckets=1),
        "a: num_buckets is 1, must be at least 2",
    ),
    "buckets of a z-score": (lambda: NumericFeature("a", num_buckets=3), "num_buckets goes with .* quantile_buckets"),
    "empty range": (lambda: NumericFeature("a", minimum=2, maximum=1), "a: minimum 2 is above maximum 1"),
    "maximum beyond int64": (
        lambda: NumericFeature("a", dtype="int64", maximum=2.0**63),
        r"a: maximum 9.2\d*e\+18 is not in the range of an int64, \[-2\^63, 2\^63 - 1\]",
    ),
    "minimum beyond int64": (
        lambda: NumericFeature("a", dtype="int64", minimum=-1e19),
        r"a: minimum -1e\+19 is not in the range of an int64",
    ),
    "no whole number": (
        lambda: NumericFeature("a", dtype="int64", minimum=1.2, maximum=1.8),
        "a: there is no whole number from minimum 1.2 to maximum 1.8",
    ),
    "name of no signature's input": (
        lambda: FeatureSpec("s", (IdFeature("pa\u00eds", 10),)),
        r"s: the column name 'pa\u00eds' is not one that .*: ASCII letters, .* log\.columns says what",
    ),
    "a name with _ first": (
        lambda: FeatureSpec("s", (IdFeature("_a", 10),)),
        "column name '_a' is not .* a letter first",
    ),
    "self": (lambda: FeatureSpec("s", (IdFeature("self", 10),)), "column name 'self' is not .* and not self or"),
    "the input of serving_default": (
        lambda: FeatureSpec("s", (NumericFeature("examples"),)),
        "column name 'examples' is not .* and not self or examples;",
    ),
    "a domain of numbers": (
        lambda: IdFeature("a", 9, dtype="string", domain=(1, 2)),
        r"a: domain is \(1, 2\), must be a",
    ),
    "a domain without an order": (
        lambda: IdFeature("a", 9, dtype="string", domain={"x"}),
        "a: domain is {'x'}, must be a",
    ),
    "no whole number of hashes": (
        lambda: IdFeature("a", 9, num_hashes=2.0),
        "a: num_hashes is 2.0, must be an integer",
    ),
    "a presence in text": (lambda: NumericFeature("a", min_presence="1"), "a: min_presence is '1', must be a number"),
    "a bound in text": (lambda: NumericFeature("a", minimum="0"), "a: minimum is '0', must be a number"),
    "names that differ in case": (
        lambda: FeatureSpec("s", (NumericFeature("price"), NumericFeature("Price"))),
        "s: Price and price differ in upper and lower case only",
    ),
    "column twice": (
        lambda: FeatureSpec("s", (IdFeature("a", 10), NumericFeature("a"))),
        "s: column a is named more than once",
    ),
    "label as feature": (lambda: FeatureSpec("s", (IdFeature("label", 10),)), "s: column label is named more than"),
    "no features": (lambda: FeatureSpec("s", ()), "s: a spec needs at least one feature"),
    "group key is no id": (
        lambda: FeatureSpec("s", (NumericFeature("a"),), group_key="a"),
        "s: group_key a is not one of its id features",
    ),
    "shared table of two sizes": (
        lambda: FeatureSpec("s", (IdFeature("a", 10, table="t"), IdFeature("b", 20, table="t"))),
        "b and a share table t but differ: num_buckets 20 and 10",
    ),
    "shared table of two types": (
        lambda: FeatureSpec("s", (IdFeature("a", 10, table="t"), IdFeature("b", 10, dtype="string", table="t"))),
        "dtype string and int64",
    ),
    "shared table of two hashes": (
        lambda: FeatureSpec("s", (IdFeature("a", 10, table="t"), IdSequence("b", 10, 3, table="t", hashing="digits"))),
        "b and a share table t but differ: hashing digits and bytes",
    ),
    "unknown hash": (lambda: IdFeature("a", 10, hashing="md5"), "a: hashing is 'md5', must be one of bytes, digits"),
    "digits of text": (
        lambda: IdFeature("a", 10, dtype="string", hashing="digits"),
        "a: hashing digits needs dtype int64, not string",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_FEATURES.values(), ids=BAD_FEATURES.keys())
def test_bad_feature_is_an_error_that_names_it(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numpys_numbers_become_pythons_own_which_json_knows():
    features = [
        IdFeature("a", np.int64(9), num_hashes=np.int8(2), min_presence=np.float64(0.5)),
        IdSequence("b", 9, np.int32(3), dtype="string", domain=["x", "y"]),
        NumericFeature("c", minimum=np.float32(0.5), maximum=np.int64(2**60)),
        NumericFeature("d", "quantile_buckets", num_buckets=np.uint8(4)),
    ]
    spec = FeatureSpec("s", features)
    plain = FeatureSpec(
        "s",
        (
            IdFeature("a", 9, num_hashes=2, min_presence=0.5),
            IdSequence("b", 9, 3, dtype="string", domain=("x", "y")),
            NumericFeature("c", minimum=0.5, maximum=2**60),
            NumericFeature("d", "quantile_buckets", num_buckets=4),
        ),
    )
    assert (spec, repr(spec)) == (plain, repr(plain))
    assert json.loads(json.dumps(dataclasses.asdict(spec)))["features"][0]["num_buckets"] == 9


def test_fields_stand_one_after_the_other_and_share_rows_where_they_share_a_table():
    spec = FeatureSpec(
        "s",
        (
            IdFeature("user", 10),
            NumericFeature("age"),
            IdFeature("item", 20, table="items"),
            IdSequence("history", 20, max_length=3, table="items", pooling="sqrtn"),
            NumericFeature("price", "quantile_buckets", num_buckets=4),
        ),
    )
    assert [(field.name, field.start, field.max_length, field.row_offset) for field in spec.id_fields] == [
        ("user", 0, 1, 0),
        ("item", 1, 1, 11),
        ("history", 2, 3, 11),
        ("price", 5, 1, 32),
    ]
    assert [field.pooling for field in spec.id_fields] == ["sum", "sum", "sqrtn", "sum"]
    assert spec.id_fields[2].positions == slice(2, 5)
    assert spec.num_positions == 6
    assert spec.num_table_rows == 1 + (10 + 1) + (20 + 1) + (4 + 1)
    assert [field.unseen for field in spec.id_fields] == [11, 21, 21, 5]
    assert [number.name for number in spec.numbers] == ["age"]


def test_shipped_specs():
    assert [feature.name for feature in MOVIELENS.features] == [
        "user_id", "item_id", "history", "skipped", "age", "gender", "occupation", "genres", "release_year",
        "user_impressions", "user_click_share", "item_impressions", "item_click_share",
        "genre_impressions", "genre_click_share",
    ]  # fmt: skip
    history, item = (next(field for field in MOVIELENS.id_fields if field.name == n) for n in ("history", "item_id"))
    assert history.row_offset == item.row_offset
    assert all(field.row_offset != item.row_offset for field in MOVIELENS.id_fields if field.name == "skipped")
    assert (len(CRITEO.numbers), len(CRITEO.id_fields)) == (13, 26)
    assert [(field.name, field.num_buckets) for field in NOTEBOOK.id_fields] == [("seq", 10), ("target", 10)]


BAD_PATHS = {
    "no colon": ("schemas.movielens", "not of the form package.module:NAME"),
    "no such module": ("schemas.nowhere:SPEC", "No module named 'schemas.nowhere'"),
    "no such name": ("schemas.movielens:SPEC", "schemas.movielens has no FeatureSpec SPEC"),
    "not a spec": ("schemas.features:IDS", "schemas.features has no FeatureSpec IDS"),
}


@pytest.mark.parametrize(("path", "message"), BAD_PATHS.values(), ids=BAD_PATHS.keys())
def test_bad_spec_path_is_an_error_that_names_it(path, message):
    with pytest.raises(ValueError, match=message):
        load_spec(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPEC = (", r"features 'of_a_user:SPEC': SyntaxError: .*never closed"),
        (
            "from schemas.features import IdFeature\nIdFeature('a', num_bucket=1)",
            r"features 'of_a_user:SPEC': TypeError: .*unexpected keyword argument 'num_bucket'",
        ),
        ("1 / 0", "features 'of_a_user:SPEC': ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_is_an_error_that_says_why(text, message, tmp_path, monkeypatch):
    (tmp_path / "of_a_user.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_spec("of_a_user:SPEC")


def test_spec_is_loaded_by_its_path():
    assert load_spec("schemas.movielens:MOVIELENS") is MOVIELENS


def test_hashes_and_targets_have_their_places():
    spec = FeatureSpec(
        "s",
        (
            IdFeature("user", 5),
            IdFeature("item", 9, table="t", num_hashes=2),
            IdSequence("history", 9, 4, "target_attention", table="t", num_hashes=2),
        ),
    )
    user, item, history = spec.id_fields
    assert (user.positions, item.positions, history.positions) == (slice(0, 1), slice(1, 3), slice(3, 11))
    assert spec.num_positions == 11
    assert (user.target, item.target, history.target) == (None, None, 1)
