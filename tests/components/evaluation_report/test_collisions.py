from __future__ import annotations

import collections

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.evaluation_report.collisions import (
    IdCounts,
    count_collisions,
    describe,
    find_collisions,
    read_statistics,
)
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.hashing import hash_ids
from schemas.tfmd import make_schema


def _keys(ids, num_buckets, num_hashes=1):
    """Each id's buckets by hashing it alone."""

    def bucket(id_, number):
        return int(
            hash_ids(tf.constant([id_], tf.int64 if isinstance(id_, int) else tf.string), num_buckets, number)[0]
        )

    return {id_: tuple(sorted(bucket(id_, number) for number in range(num_hashes))) for id_ in ids}


def _brute_force(occurrences, num_buckets, num_hashes=1, others=()):
    """Share of the colliding ids and of their occurrences."""
    ids = set(occurrences)
    keys = _keys(ids | set(others), num_buckets, num_hashes)
    holders = collections.Counter(keys.values())
    colliding = {id_ for id_ in ids if holders[keys[id_]] > 1}
    return len(colliding) / len(ids), sum(id_ in colliding for id_ in occurrences) / len(occurrences)


def _counts(occurrences, num_known=None):
    known = collections.Counter(occurrences).most_common(num_known)
    return IdCounts(len(set(occurrences)), len(occurrences), dict(known))


def _zipf(num, num_ids, seed=1):
    """Ids by a power law; by hand, as NumPy 1 and 2 draw different ones from a seed with their `zipf`."""
    cumulative = np.cumsum(np.arange(1, num_ids + 1) ** -1.2)
    return np.searchsorted(cumulative, np.random.default_rng(seed).random(num) * cumulative[-1]).tolist()


@pytest.mark.parametrize("num_hashes", [1, 2])
def test_all_ids_known_gives_what_brute_force_gives(num_hashes):
    occurrences = _zipf(3000, 400)
    num_buckets = 500 if num_hashes == 1 else 30
    (found,) = count_collisions([_counts(occurrences)], num_buckets, num_hashes)
    assert (found.colliding_ids, found.colliding_impressions) == pytest.approx(
        _brute_force(occurrences, num_buckets, num_hashes)
    )
    assert 0.05 < found.colliding_ids < 0.95
    assert found.exact
    assert (found.ids, found.buckets) == (len(set(occurrences)), num_buckets)


KNOWN_ANSWERS = {
    "one id collides with nothing": (1, 7, 1, 0.0),
    "two ids, ten buckets": (2, 10, 1, 0.1),
    "three ids, two buckets": (3, 2, 1, 0.75),
    "one bucket holds all": (5, 1, 1, 1.0),
    "two hashes, two buckets": (2, 2, 2, 3 / 8),  # of the 16 pairs of pairs 4 are the same and 2 swapped
    "a million ids in a hundred million buckets": (10**6, 10**8, 1, 0.00995),
}


@pytest.mark.parametrize(
    ("num_ids", "num_buckets", "num_hashes", "share"), KNOWN_ANSWERS.values(), ids=KNOWN_ANSWERS.keys()
)
def test_no_id_known_gives_the_expected_share(num_ids, num_buckets, num_hashes, share):
    (found,) = count_collisions([IdCounts(num_ids, 3 * num_ids, {})], num_buckets, num_hashes)
    assert found.colliding_ids == pytest.approx(share, rel=1e-3)
    assert found.colliding_impressions == pytest.approx(share, rel=1e-3)
    assert not found.exact


@pytest.mark.parametrize("num_hashes", [1, 2])
def test_some_ids_known_gives_what_brute_force_gives_on_average(num_hashes):
    num_buckets = 60 if num_hashes == 1 else 8
    rounds = []
    for seed in range(100):  # other ids each
        occurrences = [f"{seed}_{id_}" for id_ in _zipf(500, 50, seed)]
        (found,) = count_collisions([_counts(occurrences, 20)], num_buckets, num_hashes)
        rounds.append(
            (found.colliding_ids, found.colliding_impressions, *_brute_force(occurrences, num_buckets, num_hashes))
        )
    ids, impressions, true_ids, true_impressions = np.mean(rounds, axis=0)
    assert ids == pytest.approx(true_ids, abs=0.03)
    assert impressions == pytest.approx(true_impressions, abs=0.03)
    # What is known of the frequent ids shows: an estimate from the number of ids alone is farther off.
    errors = [abs(row[1] - row[3]) for row in rounds]
    assert np.mean(errors) < 0.9 * np.mean([abs(true_impressions - row[3]) for row in rounds])


def test_fields_of_one_table_collide_with_each_others_ids():
    items, history = list(range(100)), list(range(50, 250))
    of_items, of_history = count_collisions([_counts(items), _counts(history)], 300)
    assert (of_items.colliding_ids, of_items.colliding_impressions) == pytest.approx(
        _brute_force(items, 300, others=history)
    )
    assert of_history.colliding_ids == pytest.approx(_brute_force(history, 300, others=items)[0])
    assert of_items.colliding_ids > count_collisions([_counts(items)], 300)[0].colliding_ids
    assert of_items.exact


def test_the_unknown_ids_of_the_other_field_count_too():
    few, many = count_collisions([IdCounts(2, 2, {}), IdCounts(11, 11, {})], 10)
    assert few.colliding_ids == many.colliding_ids == pytest.approx(1 - 0.9**10)
    (of_known, _) = count_collisions([IdCounts(1, 1, {"7": 1}), IdCounts(11, 11, {})], 10)
    assert of_known.colliding_ids == pytest.approx(1 - 0.9**10)
    assert not of_known.exact


SPEC = FeatureSpec(
    "s",
    (
        NumericFeature("price"),
        NumericFeature("age", "quantile_buckets", num_buckets=4),
        IdFeature("user", 40),
        IdFeature("item", 700, table="item"),
        IdSequence("history", 700, 3, table="item"),
        IdFeature("city", 30, dtype="string"),
        IdFeature("shop", 9, num_hashes=2),
        IdFeature("nobody", 5),
    ),
)


@pytest.fixture(scope="module")
def columns():
    generator = np.random.default_rng(3)
    histories = [generator.integers(0, 150, length).tolist() for length in generator.integers(0, 5, 2000)]
    return {
        "price": [[1.5]] * 2000,
        "age": [[2.5]] * 2000,
        "user": [[id_] for id_ in generator.integers(0, 60, 2000).tolist()],
        "item": [[id_] for id_ in generator.integers(100, 400, 2000).tolist()],
        "history": histories,
        "city": [[["Oslo", "", "Bergen", "Moss", b"\xff\xfe"][number % 5]] for number in range(2000)],
        "shop": [[id_] for id_ in generator.integers(0, 40, 2000).tolist()],
        "nobody": [None] * 2000,
    }


@pytest.fixture(scope="module")
def statistics(columns, tmp_path_factory):
    """The statistics that StatisticsGen would write, by TFDV."""
    types = {"price": pa.float32(), "age": pa.float32(), "city": pa.large_binary()}
    table = pa.RecordBatch.from_pydict(
        {name: pa.array(rows, pa.large_list(types.get(name, pa.int64()))) for name, rows in columns.items()}
    )
    return _statistics_of(table, SPEC, tmp_path_factory.mktemp("statistics"))


def _statistics_of(table, spec, folder):
    import apache_beam as beam

    file = folder / "FeatureStats.pb"
    options = tfdv.StatsOptions(schema=make_schema(spec), use_sketch_based_topk_uniques=True)
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner") as pipeline:
        (
            pipeline
            | beam.Create([table])
            | tfdv.GenerateStatistics(options)
            | beam.Map(lambda result: file.write_bytes(result.SerializeToString()))
        )
    return read_statistics(str(file))


def test_the_collisions_of_each_hashed_field_come_from_tfdvs_statistics(statistics, columns):
    found = find_collisions(SPEC, statistics)
    flat = {name: [id_ for row in rows if row for id_ in row] for name, rows in columns.items()}
    assert list(found) == ["user", "item", "history", "city", "shop", "nobody"]
    for name, num_buckets, num_hashes, others in [
        ("user", 40, 1, ()),
        ("item", 700, 1, flat["history"]),
        ("history", 700, 1, flat["item"]),
        ("shop", 9, 2, ()),
    ]:
        assert found[name].ids == len(set(flat[name]))
        assert found[name].exact
        assert (found[name].colliding_ids, found[name].colliding_impressions) == pytest.approx(
            _brute_force(flat[name], num_buckets, num_hashes, others)
        ), name
    assert (found["nobody"].ids, found["nobody"].colliding_ids, found["nobody"].colliding_impressions) == (0, 0, 0)


def test_of_more_ids_than_the_sketch_counts_the_frequent_ones_are_known(tmp_path):
    occurrences = [f"{id_:08x}" for id_ in _zipf(40_000, 6_000)]
    table = pa.RecordBatch.from_pydict({"page": pa.array([[id_.encode()] for id_ in occurrences])})
    spec = FeatureSpec("s", (IdFeature("page", 20_000, dtype="string"), NumericFeature("price")))
    page = find_collisions(spec, _statistics_of(table, spec, tmp_path))["page"]
    assert page.ids == len(set(occurrences))
    assert not page.exact
    counts = collections.Counter(occurrences)
    frequent = {id_: number for id_, number in counts.items() if number > 10 * len(occurrences) / 1024}
    assert len(frequent) > 5
    (expected,) = count_collisions([IdCounts(len(counts), len(occurrences), frequent)], 20_000)
    assert page.colliding_ids == pytest.approx(expected.colliding_ids, rel=1e-3)
    assert page.colliding_impressions == pytest.approx(expected.colliding_impressions, rel=0.02)


def test_the_empty_string_is_no_id_and_one_that_is_not_utf8_is_an_unknown_one(statistics):
    city = find_collisions(SPEC, statistics)["city"]
    assert city.ids == 4
    assert not city.exact
    known = {"Oslo": 400, "Bergen": 400, "Moss": 400}
    assert [city] == count_collisions([IdCounts(4, 1600, known)], 30)


def test_a_field_whose_ids_are_not_counted_is_left_out(statistics):
    numeric = statistics_pb2.DatasetFeatureStatistics()
    numeric.CopyFrom(statistics)
    for feature in numeric.features:
        if feature.path.step[0] == "user":
            feature.num_stats.SetInParent()
    assert "user" not in find_collisions(SPEC, numeric)
    assert "item" in find_collisions(SPEC, numeric)


def test_the_schema_makes_tfdv_count_int64_ids():
    (user,) = (feature for feature in make_schema(SPEC).feature if feature.name == "user")
    assert user.type == schema_pb2.INT
    assert user.int_domain.is_categorical


def test_the_log_has_a_sentence_for_a_field():
    (found,) = count_collisions([IdCounts(2000, 9000, {})], 10_000)
    assert describe("user", found) == (
        "user: 2,000 ids in 10,000 buckets, 18.12% of the ids and 18.12% of their impressions share a bucket (expected)"
    )
