from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2

from components.drift_gate.bounds import DriftBounds
from components.drift_gate.measure import measure


def _statistics(**columns):
    schema = schema_pb2.Schema()
    for name in columns:
        entry = schema.feature.add(name=name, type=schema_pb2.INT)
        if name == "item_id":
            entry.int_domain.is_categorical = True
    options = tfdv.StatsOptions(schema=schema)
    return tfdv.generate_statistics_from_dataframe(pd.DataFrame(columns), options, n_jobs=1)


def _measure(training, evaluation, earlier=None, **bounds):
    bounds = {name: bounds.get(name, DriftBounds()) for name in ("item_id", "age")}
    return {(found.feature, found.kind): found for found in measure(training, evaluation, earlier, bounds)}


ITEMS = [1] * 60 + [2] * 40
MOVED = [1] * 40 + [2] * 30 + [3] * 30
AGES = list(range(100))


def test_the_distance_of_ids_is_the_greatest_change_of_a_share():
    training, moved = _statistics(item_id=ITEMS, age=AGES), _statistics(item_id=MOVED, age=AGES)
    found = _measure(training, moved, moved, item_id=DriftBounds(drift=0.25, skew=0.35, action="block"))
    drift, skew = found["item_id", "drift"], found["item_id", "skew"]
    assert (drift.measure, drift.bound, drift.action, drift.is_beyond) == ("L-infinity", 0.25, "block", True)
    assert drift.value == pytest.approx(0.3)  # item 3: from 0 to 0.3
    assert drift.most_moved == "3"
    assert (skew.value, skew.is_beyond, skew.most_moved) == (pytest.approx(0.3), False, None)
    assert drift.sentence() == "item_id has moved by 0.3 since the previous run (L-infinity, bound 0.25), most at 3"
    assert found["age", "drift"].value == 0


def test_the_distance_of_numbers_is_a_divergence():
    training = _statistics(item_id=ITEMS, age=AGES)
    halves = _statistics(item_id=ITEMS, age=[*range(50), *range(50)])
    skew = _measure(training, halves)["age", "skew"]
    assert skew.measure == "Jensen-Shannon"
    # Half of the mass of (1/2, 1/2) against (1, 0).
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    mean = (p + q) / 2
    expected = sum(0.5 * a * math.log2(a / m) for part in (p, q) for a, m in zip(part, mean, strict=True) if a)
    assert skew.value == pytest.approx(expected, abs=0.05)
    assert skew.sentence().startswith("age has moved by 0.3")
    assert skew.sentence().endswith(" from training to eval (Jensen-Shannon)")


def test_without_a_previous_run_only_the_skew_is_measured():
    training = _statistics(item_id=ITEMS, age=AGES)
    assert set(_measure(training, training)) == {("item_id", "skew"), ("age", "skew")}


def test_a_feature_that_one_side_lacks_is_left_out():
    training = _statistics(item_id=ITEMS, age=AGES)
    assert set(_measure(training, _statistics(item_id=ITEMS))) == {("item_id", "skew")}


def test_one_great_value_is_no_drift_of_a_number_with_a_long_tail():
    generator = np.random.default_rng(1)
    before, after, moved = (np.int64(generator.lognormal(mean, 1.2, 20_000) * 1000) for mean in (5, 5, 6))
    after[0] = 50 * after.max()
    training, evaluation, dearer = (_statistics(item_id=[1] * 20_000, age=ages) for ages in (before, after, moved))
    assert _measure(training, evaluation)["age", "skew"].value < 0.02
    assert _measure(training, dearer)["age", "skew"].value > 0.05


def test_a_click_rate_of_a_hundredth_that_grows_is_seen():
    def statistics(share):
        return _statistics(item_id=[1] * 10_000, age=[1] * int(10_000 * share) + [0] * int(10_000 * (1 - share)))

    p, q = np.array([0.99, 0.01]), np.array([0.9, 0.1])
    expected = sum(0.5 * float(np.sum(part * np.log2(part / ((p + q) / 2)))) for part in (p, q))
    assert _measure(statistics(0.01), statistics(0.1))["age", "skew"].value == pytest.approx(expected, rel=0.03)


def test_a_number_of_which_one_side_has_no_value_is_left_out():
    training = _statistics(item_id=ITEMS, age=AGES)
    none = _statistics(item_id=ITEMS, age=AGES)
    for feature in none.datasets[0].features:
        feature.num_stats.ClearField("histograms")
    assert set(_measure(training, none)) == {("item_id", "skew")}
