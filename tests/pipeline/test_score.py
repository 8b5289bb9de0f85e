from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import pipeline.score
import tests.small_model
from components.impression_log_example_gen.log import LogError
from pipeline.beam import BeamConfig
from pipeline.config import LogConfig, PipelineConfig
from pipeline.predict import ModelError
from pipeline.score import Scored, ScoreError, score_log
from pipeline.score_portion import ScorePortion
from schemas.features import Feature, IdFeature, IdSequence, NumericFeature
from tests.small_model import SPEC, Row, make_rows, to_example

CONFIG = PipelineConfig(
    features="tests.small_model:SPEC",
    log=LogConfig(key="id", columns={"item": "sku"}, max_bad_fraction=0.5, timestamp_unit="ms"),
)
ROWS = make_rows(40)


def _logged(row: Row, number: int, **changes: Any) -> Row:
    """Returns a row as the log has it: with a key, another name for the item, milliseconds, and no label."""
    logged = {name: value for name, value in row.items() if name not in ("item", "label", "time")}
    return logged | {"sku": row["item"], "time": 1000 * row["time"] + 1, "id": f"i{number}"} | changes


def _json(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two days: a Parquet file and JSON lines, of which the second is no JSON and the last has a wrong type."""
    rows = [_logged(row, number) for number, row in enumerate(ROWS)]
    for day, name in (("2026-01-01", "a.parquet"), ("2026-01-02", "b.jsonl")):
        (tmp_path / "log" / f"day={day}").mkdir(parents=True)
        if name == "a.parquet":
            pq.write_table(pa.Table.from_pylist(rows[:30]), tmp_path / "log" / f"day={day}" / name)
        else:
            text = _json(rows[30:31]) + "{nonsense\n" + _json([*rows[31:], _logged(ROWS[0], 99, age="old")])
            (tmp_path / "log" / f"day={day}" / name).write_text(text)
    return tmp_path / "log"


@pytest.fixture(scope="module")
def expected(small_model: Path) -> np.ndarray[Any, Any]:
    """The export's own predictions for all rows."""
    examples = tf.constant([to_example(row) for row in ROWS])
    return np.asarray(tf.saved_model.load(str(small_model)).signatures["serving_default"](examples)["ctr"])[:, 0]


def _read(out: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(out).to_pydict()
    return columns


def test_each_row_has_the_ctr_that_the_export_gives(
    small_model: Path, log: Path, tmp_path: Path, expected: np.ndarray[Any, Any]
) -> None:
    scored = score_log(CONFIG, log, tmp_path / "out", small_model)
    found = _read(tmp_path / "out")
    assert list(found) == ["file", "row", "key", "time", "ctr"]
    np.testing.assert_allclose(found["ctr"], expected, rtol=1e-6)
    assert found["key"] == [f"i{number}" for number in range(40)]
    assert found["time"] == [row["time"] for row in ROWS]
    assert found["file"] == ["day=2026-01-01/a.parquet"] * 30 + ["day=2026-01-02/b.jsonl"] * 10
    assert found["row"] == [*range(1, 31), 1, *range(3, 12)]
    assert scored.rows == 40
    assert scored.bad_rows == 2


def test_workers_elsewhere_are_told_absolute_paths(
    small_model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Path] = []

    def plan(path: Path) -> None:
        planned.append(path)
        raise LogError("enough")

    monkeypatch.setattr(pipeline.score, "plan", plan)
    monkeypatch.chdir(tmp_path)
    for beam in (BeamConfig(), BeamConfig(runner="flink")):
        with pytest.raises(LogError, match="enough"):
            score_log(dataclasses.replace(CONFIG, beam=beam), Path("log"), Path("out"), small_model)
    assert planned == [Path("log"), log]


def test_bad_rows_are_put_aside_with_the_reason(small_model: Path, log: Path, tmp_path: Path) -> None:
    score_log(CONFIG, log, tmp_path / "out", small_model)
    lines = (tmp_path / "out" / "_quarantine.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(row["row"], row["column"], row["reason"]) for row in found] == [
        (2, None, "unparsable line"),
        (12, "age", "wrong type"),
    ]


def test_nothing_is_left_beside_the_result(small_model: Path, log: Path, tmp_path: Path) -> None:
    score_log(CONFIG, log, tmp_path / "out", small_model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]
    assert len(list((tmp_path / "out").glob("*.parquet"))) == len(list((tmp_path / "out").iterdir())) - 1


def test_a_corrupt_file_is_left_out_as_a_whole(small_model: Path, log: Path, tmp_path: Path) -> None:
    good = (log / "day=2026-01-01" / "a.parquet").read_bytes()
    (log / "day=2026-01-01" / "c.parquet").write_bytes(good[:-200])
    score_log(CONFIG, log, tmp_path / "out", small_model)
    assert "day=2026-01-01/c.parquet" not in _read(tmp_path / "out")["file"]
    first = json.loads((tmp_path / "out" / "_quarantine.jsonl").read_text().splitlines()[0])
    assert (first["file"], first["reason"]) == (str(log / "day=2026-01-01" / "c.parquet"), "corrupt file")


@pytest.mark.parametrize("text", ["json", "csv"])
def test_a_single_file_is_a_log(small_model: Path, tmp_path: Path, expected: np.ndarray[Any, Any], text: str) -> None:
    config = PipelineConfig(features=CONFIG.features, log=LogConfig(columns={"item": "sku"}))
    rows = [_logged(row, number, time=row["time"]) for number, row in enumerate(ROWS)]
    file = tmp_path / f"log.{text}"
    if text == "json":
        file.write_text(_json(rows))
    else:
        names = list(rows[0])
        cells = [[row.get(name, "") for name in names] for row in rows]
        lines = [",".join("|".join(map(str, c)) if isinstance(c, list) else str(c) for c in line) for line in cells]
        file.write_text("\n".join([",".join(names), *lines]) + "\n")
    score_log(config, file, tmp_path / "out", small_model)
    found = _read(tmp_path / "out")
    assert list(found) == ["file", "row", "time", "ctr"]
    np.testing.assert_allclose(found["ctr"], expected, rtol=1e-6)


def test_too_many_bad_rows_write_nothing_but_these(small_model: Path, log: Path, tmp_path: Path) -> None:
    config = PipelineConfig(features=CONFIG.features, log=LogConfig(columns={"item": "sku"}, timestamp_unit="ms"))
    with pytest.raises(ScoreError, match=r"^2 of 42 rows are bad, more than log.max_bad_fraction = 1.00%: 1 x unpars"):
        score_log(config, log, tmp_path / "out", small_model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out.quarantine.jsonl"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_log_with_none_of_the_models_columns_is_refused(small_model: Path, tmp_path: Path, workers: int) -> None:
    (tmp_path / "log").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "log" / name).write_text(_json([{"person": 1, "time": 1, "user": None}] * 3))
    config = PipelineConfig(features=CONFIG.features, log=CONFIG.log, beam=BeamConfig(workers=workers))
    with pytest.raises(
        ScoreError, match=r"^no row has any of the model's columns, which are sought as user, sku, hist.*"
    ):
        score_log(config, tmp_path / "log", tmp_path / "out", small_model)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_columns_that_no_row_has_a_value_in_are_named(small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for name in ("user", "price"):  # a file each, and each column null in the other one
        (tmp_path / "log" / f"{name}.jsonl").write_text(_json([{name: 1, "rank": None}, {name: 2, "age": "bad"}]))
    scored = score_log(CONFIG, tmp_path / "log", tmp_path / "out", small_model)
    rest = "no value in any of the 2 rows; see log.columns and log.key"
    assert scored.hint() == f"sku, history, country, tags, age, rank, id: {rest}"
    columns = dict(CONFIG.log.columns) | {"time": "seen_at"}
    renamed = dataclasses.replace(CONFIG, log=dataclasses.replace(CONFIG.log, columns=columns))
    scored = score_log(renamed, tmp_path / "log", tmp_path / "again", small_model)
    assert scored.hint() == f"sku, history, country, tags, age, rank, seen_at, id: {rest}"


def test_a_failure_on_the_way_leaves_nothing(
    small_model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise LogError("it has changed")

    monkeypatch.setattr(ScorePortion, "_score", fail)
    with pytest.raises(LogError, match="it has changed"):
        score_log(CONFIG, log, tmp_path / "out", small_model)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_what_is_there_already_is_not_touched(small_model: Path, log: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ScoreError, match=r"out exists: name another folder, or remove it$"):
        score_log(CONFIG, log, tmp_path / "out", small_model)


@pytest.mark.parametrize("name", ["file", "row", "key", "ctr"])
def test_a_timestamp_with_the_name_of_a_column_that_is_written_is_refused(
    small_model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tests.small_model, "SPEC", dataclasses.replace(SPEC, timestamp=name))
    with pytest.raises(ScoreError, match=rf"^the spec's timestamp {name} has the name of .* log's in log.columns$"):
        score_log(CONFIG, log, tmp_path / "out", small_model)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_model_of_other_features_is_refused(small_model: Path, log: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"user is int64 for the model, and not there in the spec; .* user_id is not"):
        score_log(PipelineConfig(), log, tmp_path / "out", small_model)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (IdFeature("tags", 30, dtype="string"), "tags is a list of string for the model, and string in the spec"),
        (IdSequence("country", 20, max_length=2, dtype="string"), "country is string .*, and a list of string in the"),
        (NumericFeature("age"), "age is int64 for the model, and float32 in the spec"),
    ],
)
def test_a_feature_that_has_another_form_for_the_model_is_named(
    small_model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: Feature, told: str
) -> None:
    features = tuple(now if feature.name == now.name else feature for feature in SPEC.features)
    monkeypatch.setattr(tests.small_model, "SPEC", dataclasses.replace(SPEC, features=features))
    with pytest.raises(ModelError, match=rf"of small: {told}[^;]*$"):
        score_log(CONFIG, log, tmp_path / "out", small_model)


def test_the_model_is_loaded_once_in_a_process(
    small_model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import score_portion

    loads: list[Any] = []
    load = score_portion.load_model
    monkeypatch.setattr(score_portion, "load_model", lambda path: loads.append(path) or load(path))
    for number in range(6):  # more portions
        rows = [_logged(row, 40 * number + index) for index, row in enumerate(make_rows(1000, seed=number))]
        (log / "day=2026-01-02" / f"more-{number}.jsonl").write_text(_json(rows))
    assert score_log(CONFIG, log, tmp_path / "out", small_model).rows == 6040
    assert len(list((tmp_path / "out").glob("*.parquet"))) > 1
    assert loads == [small_model]


def test_workers_may_be_other_processes(
    small_model: Path, log: Path, tmp_path: Path, expected: np.ndarray[Any, Any]
) -> None:
    config = PipelineConfig(features=CONFIG.features, log=CONFIG.log, beam=BeamConfig(workers=2))
    assert score_log(config, log, tmp_path / "out", small_model) == Scored(
        40, 2, f"1 x unparsable line ({log}/day=2026-01-02/b.jsonl, row 2); "
        f"1 x wrong type in age ({log}/day=2026-01-02/b.jsonl, row 12)",
    )  # fmt: skip
    np.testing.assert_allclose(_read(tmp_path / "out")["ctr"], expected, rtol=1e-6)
