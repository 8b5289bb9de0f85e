"""Ingestion and the schema gate as a small pipeline of real TFX components, under TFX's own LocalDagRunner."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2
from tfx.components import ExampleValidator, StatisticsGen
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline

from components.curated_schema_gen.component import CuratedSchemaGen
from components.impression_log_example_gen.component import ImpressionLogExampleGen
from components.schema_gate.component import SchemaGate
from components.schema_gate.executor import SchemaAnomalies
from schemas.features import FeatureSpec, IdFeature
from schemas.tfmd import schema_text

SPEC = FeatureSpec("small", (IdFeature("item", 10), IdFeature("gender", 4, dtype="string", domain=("F", "M"))))
BEAM_ARGS = [
    "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
    "--sdk_container_image=unused",
]


def _write_day(log, day, genders):
    folder = log / f"day={day}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"item": list(range(len(genders))), "gender": genders, "label": [0, 1] * (len(genders) // 2)}
    pq.write_table(pa.table(rows), folder / "part-0.parquet")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the pipeline on tmp_path/log, and returns the states of the last execution of each component."""
    (tmp_path / "small_spec.py").write_text(
        "from schemas.features import FeatureSpec, IdFeature\n"
        "SPEC = FeatureSpec('small', (IdFeature('item', 10), IdFeature('gender', 4, dtype='string')))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "schema.pbtxt").write_text(schema_text(SPEC))
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        _write_day(tmp_path / "log", day, ["F", "M"] * 10)

    def run_once():
        example_gen = ImpressionLogExampleGen(
            log_path=str(tmp_path / "log"),
            features="small_spec:SPEC",
            eval_days=1,
            train_days=1,
            quarantine=str(tmp_path / "quarantine"),
            source_fingerprint="",
        )
        schema = CuratedSchemaGen(str(tmp_path / "schema.pbtxt")).with_id("CuratedSchemaGen")
        statistics = StatisticsGen(examples=example_gen.outputs["examples"])
        validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
        gate = SchemaGate(
            anomalies=validator.outputs["anomalies"], schema=schema.outputs["schema"], source_fingerprint=""
        )
        connection = sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
        LocalDagRunner().run(
            Pipeline(
                pipeline_name="small",
                pipeline_root=str(tmp_path / "root"),
                components=[example_gen, schema, statistics, validator, gate],
                enable_cache=True,
                metadata_connection_config=connection,
                beam_pipeline_args=BEAM_ARGS,
            )
        )
        store = metadata_store.MetadataStore(connection)
        names = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
        executions = sorted(store.get_executions(), key=lambda execution: execution.id)
        states = {
            names[execution.type_id]: execution.last_known_state == metadata_store_pb2.Execution.CACHED
            for execution in executions
        }
        (examples, *_) = sorted(store.get_artifacts_by_type("Examples"), key=lambda artifact: -artifact.id)
        return {name for name, cached in states.items() if not cached}, examples.custom_properties

    return run_once


def test_components_run_again_only_for_what_has_changed(run, tmp_path):
    executed, examples = run()
    assert executed == {
        "ImpressionLogExampleGen", "CuratedSchemaGen", "StatisticsGen", "ExampleValidator", "SchemaGate",
    }  # fmt: skip
    assert json.loads(examples["num_examples"].string_value) == {"train": 20, "eval": 20}
    assert json.loads(examples["days"].string_value) == {"train": ["2026-01-02"], "eval": ["2026-01-03"]}

    assert run()[0] == set()

    _write_day(tmp_path / "log", "2026-01-01", ["F", "M"] * 50)  # a day before the window
    assert run()[0] == set()

    (tmp_path / "schema.pbtxt").write_text("# looked at\n" + (tmp_path / "schema.pbtxt").read_text())
    assert run()[0] == {"CuratedSchemaGen", "ExampleValidator", "SchemaGate"}

    _write_day(tmp_path / "log", "2026-01-04", ["F", "M"] * 5)  # a new day
    executed, examples = run()
    assert executed == {"ImpressionLogExampleGen", "StatisticsGen", "ExampleValidator", "SchemaGate"}
    assert json.loads(examples["num_examples"].string_value) == {"train": 20, "eval": 10}


def test_values_outside_the_domain_stop_the_run_at_the_gate(run, tmp_path):
    _write_day(tmp_path / "log", "2026-01-03", ["F", "X"] * 10)
    with pytest.raises(
        SchemaAnomalies, match=r"the examples have 1 anomaly: eval: gender: Unexpected string values.*X"
    ):
        run()
