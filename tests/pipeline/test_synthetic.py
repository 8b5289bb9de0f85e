from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.cli import main
from pipeline.config import LogConfig
from pipeline.planted import Bayes, PlantedDeepFM
from pipeline.synthetic import SyntheticError, write_synthetic_log
from schemas.features import FeatureSpec, IdFeature, IdSequence, Label, NumericFeature
from schemas.movielens import MOVIELENS

SPEC = FeatureSpec(
    "invented",
    (
        IdFeature("user", 4_000),
        IdFeature("item", 8_000, dtype="string", table="item"),
        IdSequence("seen", 8_000, max_length=5, dtype="string", table="item"),
        IdFeature("gender", 16, dtype="string", domain=("F", "M")),
        NumericFeature("age", dtype="int64", minimum=18, maximum=70),
        NumericFeature("price", "log1p_z_score", minimum=0),
    ),
    group_key="user",
    label=Label("clicked"),
    timestamp="time",
    weight="weight",
)


def _write(folder, **replaced):
    return write_synthetic_log(folder, SPEC, **{"num_rows": 120_000, "num_days": 2, "seed": 3} | replaced)


def _read(folder):
    return [pq.ParquetFile(file).read() for file in sorted(folder.glob("day=*/*.parquet"))]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "log"
    return _write(folder), folder


def test_the_summary_is_of_what_is_there(written):
    log, folder = written
    days = _read(folder)
    assert [path.name for path in sorted(folder.iterdir())] == ["_SUCCESS", "day=2026-01-01", "day=2026-01-02"]
    assert [day.num_rows for day in days] == [60_000, 60_000]
    clicks = np.concatenate([day["clicked"].to_numpy() for day in days])
    assert (log.num_impressions, log.num_clicks, log.num_bad) == (120_000, clicks.sum(), 0)
    assert (log.first_day, log.last_day) == ("2026-01-01", "2026-01-02")
    assert 0.1 < clicks.mean() < 0.4
    assert json.loads((folder / "_SUCCESS").read_text())["bayes_auc"] == log.bayes_auc


def test_an_int64_is_within_bounds_that_are_not_whole(tmp_path):
    bounded = NumericFeature("age", dtype="int64", minimum=1.9, maximum=3.2)
    spec = FeatureSpec("s", (IdFeature("user", 100), bounded), timestamp="time")
    write_synthetic_log(tmp_path / "log", spec, num_rows=1_000, num_days=1, seed=1)
    (day,) = _read(tmp_path / "log")
    assert set(day["age"].to_pylist()) == {2, 3}


def test_columns_are_as_the_spec_has_them(written):
    day = _read(written[1])[1]
    assert set(day.column_names) == {"user", "item", "seen", "gender", "age", "price", "clicked", "time", "weight"}
    assert day.schema.field("user").type == pa.int64()
    assert day.schema.field("item").type == pa.string()
    assert day.schema.field("seen").type == pa.list_(pa.string())
    assert set(day["gender"].to_pylist()) == {"F", "M"}
    ages, times = day["age"].to_numpy(), day["time"].to_numpy()
    assert (ages.min(), ages.max()) in {(18, 69), (18, 70)}
    assert day["price"].to_numpy().min() >= 0
    assert set(times // 86_400) == {20_455}  # 2026-01-02
    assert {len(seen) for seen in day["seen"].to_pylist()} == set(range(6))
    assert set(day["weight"].to_pylist()) == {1.0}


def test_the_best_figures_are_those_of_the_probabilities_that_the_clicks_come_from():
    columns, probabilities = PlantedDeepFM(SPEC, 1, seed=1).draw(0, 0, 200_000)
    bayes = Bayes()
    for part in np.array_split(probabilities, 3):
        bayes.add(part)
    clicks = np.random.default_rng(0).random(len(probabilities)) < probabilities
    assert bayes.auc == pytest.approx(roc_auc_score(clicks, probabilities), abs=0.004)
    assert bayes.log_loss == pytest.approx(log_loss(clicks, probabilities), abs=0.004)
    assert 0.65 < bayes.auc < 0.95
    assert len(columns) == len(SPEC.features)


def test_the_best_auc_is_exact_on_few_probabilities():
    bayes = Bayes()
    bayes.add(np.array([0.2, 0.8]))
    # Of a click and none drawn at random: 0.8 * 0.8 are in order, 0.2 * 0.2 are not, 2 * 0.8 * 0.2 are one row's.
    assert bayes.auc == pytest.approx(0.64 + 0.5 * 0.32)
    assert bayes.log_loss == pytest.approx(-(0.2 * np.log(0.2) + 0.8 * np.log(0.8)))


def test_ids_follow_zipf_drift_and_some_are_new_each_day(written):
    first, second = (np.array(day["user"].to_pylist()) for day in _read(written[1]))
    counts = np.sort(np.unique(first, return_counts=True)[1])[::-1]
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.4)
    top = [np.bincount(day).argmax() for day in (first, second)]
    assert top[0] != top[1]
    known = set(first.tolist())
    new = [user for user in second.tolist() if user not in known]
    assert 0.005 < len(new) / len(second) < 0.05


def test_the_same_seed_gives_the_same_rows(written, tmp_path):
    _write(tmp_path / "again")
    assert _read(tmp_path / "again") == _read(written[1])
    _write(tmp_path / "other", seed=4)
    assert _read(tmp_path / "other") != _read(written[1])


def test_bad_rows_are_of_the_share_that_is_asked_for(tmp_path):
    log = _write(tmp_path / "log", bad_rate=0.1)
    labels = np.concatenate([day["clicked"].to_numpy() for day in _read(tmp_path / "log")])
    assert log.num_bad == (labels == 7).sum() == pytest.approx(12_000, rel=0.1)
    assert log.num_clicks == (labels == 1).sum()


def test_the_log_is_as_its_config_reads_it(tmp_path):
    config = LogConfig(columns={"item": "sku"}, timestamp_unit="ms", key="impression")
    _write(tmp_path / "log", log=config)
    days = _read(tmp_path / "log")
    assert set(days[0].column_names) >= {"sku", "user"}
    assert "item" not in days[0].column_names
    assert set(days[0]["time"].to_numpy() // 86_400_000) == {20_454}
    assert np.concatenate([day["impression"].to_numpy() for day in days]).tolist() == list(range(120_000))


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "precious").touch()
    with pytest.raises(SyntheticError, match="log is not empty: remove it, or choose another directory with --out"):
        _write(tmp_path / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    with pytest.raises(SyntheticError, match="1 rows are too few for 2 days"):
        _write(tmp_path / "other", num_rows=1)


def test_the_command_writes_to_where_the_config_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["data", "synthetic", "--rows", "1000", "--days", "2"])
    assert result.exit_code == 0, result.output
    assert "written: 1,000 rows, " in result.output
    assert "at best: AUC 0." in result.output
    (first, _) = _read(tmp_path / "logs/movielens")
    assert {feature.name for feature in MOVIELENS.features} <= set(first.column_names)


def test_a_domain_may_be_of_a_table_that_others_share(tmp_path):
    country = IdFeature("country", 50, dtype="string", domain=("DE", "FR"), table="place")
    spec = FeatureSpec("s", (country, IdSequence("visited", 50, max_length=4, dtype="string", table="place")))
    write_synthetic_log(tmp_path / "log", spec, num_rows=500, num_days=1, seed=1)
    (table,) = _read(tmp_path / "log")
    assert set(table["country"].to_pylist()) == {"DE", "FR"}


@pytest.mark.parametrize("min_presence", [0.0, 0.9])
def test_a_list_that_must_be_there_has_an_id_in_each_row(min_presence, tmp_path):
    spec = FeatureSpec("s", (IdSequence("visited", 50, max_length=2, min_presence=min_presence),))
    write_synthetic_log(tmp_path / "log", spec, num_rows=500, num_days=1, seed=1)
    (table,) = _read(tmp_path / "log")
    assert min(map(len, table["visited"].to_pylist())) == (1 if min_presence else 0)
