"""One ingestion in a process of its own: `python -m benchmarks.ingest_run NAME LOG`. Prints its figures as JSON."""

from __future__ import annotations

import contextlib
import json
import pathlib
import resource
import sys
import tempfile
import time
from typing import Any

from tfx.components import CsvExampleGen
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.example_gen.custom_executors import parquet_executor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2

from components.impression_log_example_gen.component import ImpressionLogExampleGen
from pipeline.beam import LOCAL_BEAM_ARGS


def make_component(name: str, log: str, quarantine: str) -> Any:
    """Returns the component: "ours", "tfx_csv" or "tfx_parquet"."""
    everything = example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="all", pattern="day=*/*")])
    if name == "tfx_csv":
        return CsvExampleGen(input_base=log, input_config=everything)
    if name == "tfx_parquet":
        return FileBasedExampleGen(
            input_base=log,
            input_config=everything,
            custom_executor_spec=BeamExecutorSpec(parquet_executor.Executor),
        )
    return ImpressionLogExampleGen(
        log_path=log,
        features="benchmarks.speed_specs:ROWS_10K",
        eval_days=1,
        quarantine=quarantine,
        source_fingerprint="",
    )


def main() -> None:
    """Runs one component under TFX's own LocalDagRunner, with the driver; imports do not count."""
    name, log = sys.argv[1], str(pathlib.Path(sys.argv[2]).resolve())
    with tempfile.TemporaryDirectory(dir=pathlib.Path(log).parent) as folder, contextlib.redirect_stdout(sys.stderr):
        pipeline = Pipeline(
            pipeline_name=name,
            pipeline_root=folder,
            components=[make_component(name, log, f"{folder}/quarantine")],
            metadata_connection_config=sqlite_metadata_connection_config(f"{folder}/metadata.sqlite"),
            beam_pipeline_args=list(LOCAL_BEAM_ARGS),
        )
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.monotonic()
        LocalDagRunner().run(pipeline)
        seconds = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        num_bytes = sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*.gz"))
    figures = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_rss_mb": after.ru_maxrss // 1024,
        "rss_before_mb": before.ru_maxrss // 1024,
        "output_mb": num_bytes >> 20,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
