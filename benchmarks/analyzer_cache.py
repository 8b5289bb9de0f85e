"""What the analyzer cache saves where a window has moved by a day: `make bench-analyzer-cache`.

The analysis of eight days of Criteo-shaped rows, as TFX's Transform does it, and with what was found of seven of them
the day before. Nothing is transformed here: that costs the same either way.

Writes `benchmarks/results/analyzer_cache.json`.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import tempfile
import time
from typing import Any

import click
from tfx.components import Transform
from tfx.dsl.compiler.compiler import Compiler
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import TransformCache

from benchmarks import results
from benchmarks.ingest_data import ROWS_PER_FILE, prepare
from components.curated_schema_gen.component import CuratedSchemaGen
from components.earlier.artifacts import EarlierArtifactStrategy
from components.impression_log_example_gen.component import ImpressionLogExampleGen
from components.transform_by_day.component import TransformByDay
from pipeline.beam import LOCAL_BEAM_ARGS
from pipeline.runner import ReportingRunner
from schemas.features import load_spec
from schemas.tfmd import schema_text

FEATURES = "benchmarks.speed_specs:ROWS_10K"
TRAIN_DAYS = 8


def run_day(log: pathlib.Path, home: pathlib.Path, as_of: str, *, cached: bool) -> dict[str, float]:
    """Runs ingestion, and the analysis of the days up to one; returns the analysis's seconds, and those of CPU."""
    schema_file = home / "schema.pbtxt"
    home.mkdir(exist_ok=True)
    schema_file.write_text(schema_text(load_spec(FEATURES)), encoding="utf-8")
    example_gen = ImpressionLogExampleGen(
        log_path=str(log), features=FEATURES, eval_days=1, train_days=TRAIN_DAYS, as_of=as_of, by_day=cached,
        quarantine=str(home / "quarantine"), source_fingerprint="",
    )  # fmt: skip
    schema_gen = CuratedSchemaGen(schema_file=str(schema_file))
    earlier = Resolver(
        strategy_class=EarlierArtifactStrategy,
        examples=example_gen.outputs["examples"],
        analyzer_cache=Channel(type=TransformCache),
    ).with_id("EarlierAnalysis")
    transform = (TransformByDay if cached else Transform)(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        custom_config={"features": FEATURES},
        analyzer_cache=earlier.outputs["analyzer_cache"] if cached else None,
        disable_analyzer_cache=not cached,
        disable_statistics=True,
        materialize=False,
    ).with_id("Transform")
    started: dict[str, float] = {}

    def note(event: dict[str, Any]) -> None:
        if event.get("component") == "Transform":
            started[event["event"]] = time.process_time()

    runner = ReportingRunner(note)
    pipeline = Pipeline(
        "analyzer_cache",
        str(home / "root"),
        components=[example_gen, schema_gen, *([earlier] if cached else []), transform],
        metadata_connection_config=sqlite_metadata_connection_config(str(home / "metadata.sqlite")),
        beam_pipeline_args=list(LOCAL_BEAM_ARGS),
    )
    runner.run(Compiler().compile(pipeline))
    cpu_seconds = started["finished"] - started["started"]
    return {"seconds": round(runner.seconds["Transform"], 1), "cpu_seconds": round(cpu_seconds, 1)}


@click.command()
def main() -> None:
    """Measures, prints and writes Transform's seconds."""
    figures = {}
    log = prepare((TRAIN_DAYS + 2) * ROWS_PER_FILE).resolve() / "parquet"
    with tempfile.TemporaryDirectory(dir=log.parent) as folder, contextlib.redirect_stdout(sys.stderr):
        home = pathlib.Path(folder)
        figures["TFX's Transform"] = run_day(log, home / "plain", "2026-01-10", cached=False)
        figures["by day, nothing known"] = run_day(log, home / "by_day", "2026-01-09", cached=True)
        figures["by day, seven of eight days known"] = run_day(log, home / "by_day", "2026-01-10", cached=True)
    for name, found in figures.items():
        print(f"{name}: {found['seconds']} s, {found['cpu_seconds']} s of CPU")
    ratio = figures["by day, seven of eight days known"]["cpu_seconds"] / figures["TFX's Transform"]["cpu_seconds"]
    goal = results.at_most("CPU seconds, times those of TFX's Transform", 0.5, round(ratio, 2))
    results.report("analyzer_cache", {"rows to train on": TRAIN_DAYS * ROWS_PER_FILE, **figures}, [goal])


if __name__ == "__main__":
    main()
