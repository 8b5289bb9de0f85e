"""The speed benchmark's log, put through the pipeline's own components as far as Transform.

Ids are drawn from a power law (the k-th most frequent of a column has weight k^-1.05), as many different ones as the
column has buckets; a batch of 1024 reads about 6,000 different rows of the table of 10 thousand, 19,000 of that of 4
million. The click depends on some of the ids, so that there is something to learn.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import pathlib
import sys
from typing import Any

import numpy as np

from benchmarks import speed_specs
from benchmarks.speed_specs import MAX_LENGTH, NUM_IDS, NUM_NUMBERS, SIZES
from schemas.features import IDS, NUMBERS, FeatureSpec

CACHE = pathlib.Path(".cache/bench/speed")
NUM_ROWS = 1_000_000
_EXPONENT = 1.05


def folder_of(size: str) -> pathlib.Path:
    """Returns where a size's data is: `files.json` for this project, `arrays.npz` and `arrays.json` for the peers."""
    source = "".join(inspect.getsource(module) for module in (sys.modules[__name__], speed_specs))
    return CACHE / f"{size}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def prepare(size: str) -> None:
    """Makes a size's data, where that has not been done yet."""
    folder = folder_of(size)
    if (folder / "arrays.json").is_file():
        return
    spec = SIZES[size]
    _write_log(spec, folder / "log")
    examples, graph = _transform(spec, folder)
    files = {split: [f"{examples}/Split-{split}/*"] for split in ("train", "eval")} | {"graph": graph}
    (folder / "files.json").write_text(json.dumps(files), encoding="utf-8")
    np.savez(
        folder / "arrays.npz", **{f"{split}_{k}": v for split in ("train", "eval") for k, v in _read(files, split)}
    )
    layout = [dataclasses.asdict(field) for field in spec.id_fields]
    (folder / "arrays.json").write_text(json.dumps(layout), encoding="utf-8")


def _write_log(spec: FeatureSpec, folder: pathlib.Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(1)
    num_values = spec.id_fields[0].num_buckets
    cumulative = np.cumsum(np.arange(1, num_values + 1) ** -_EXPONENT)

    def draw(count: int) -> Any:
        return np.searchsorted(cumulative, generator.random(count) * cumulative[-1])

    for day, num_rows in (("2026-01-01", NUM_ROWS), ("2026-01-02", 10_000)):
        columns: dict[str, Any] = {f"id_{index}": draw(num_rows) for index in range(NUM_IDS)}
        lengths = generator.integers(0, MAX_LENGTH + 1, num_rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns["history"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(draw(int(lengths.sum()))))
        for index in range(NUM_NUMBERS):
            columns[f"number_{index}"] = generator.normal(size=num_rows).astype(np.float32)
        logits = sum(np.cos(columns[f"id_{index}"]) for index in range(8)) + columns["number_0"] - 1.5
        columns["label"] = (generator.random(num_rows) < 1 / (1 + np.exp(-logits))).astype(np.int64)
        (folder / f"day={day}").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / f"day={day}" / "part-0.parquet", row_group_size=50_000)


def _transform(spec: FeatureSpec, folder: pathlib.Path) -> tuple[str, str]:
    """Runs the pipeline's ingestion and Transform; returns the URIs of the transformed examples and of the graph."""
    from tfx.components import Transform
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.metadata import sqlite_metadata_connection_config
    from tfx.orchestration.pipeline import Pipeline

    from components.curated_schema_gen.component import CuratedSchemaGen
    from components.impression_log_example_gen.component import ImpressionLogExampleGen
    from pipeline.beam import LOCAL_BEAM_ARGS
    from schemas.tfmd import schema_text

    attribute = {spec.name: key for key, spec in vars(speed_specs).items() if isinstance(spec, FeatureSpec)}[spec.name]
    features = f"benchmarks.speed_specs:{attribute}"
    (folder / "schema.pbtxt").write_text(schema_text(spec), encoding="utf-8")
    example_gen = ImpressionLogExampleGen(
        log_path=str((folder / "log").resolve()),
        features=features,
        eval_days=1,
        quarantine=str((folder / "quarantine").resolve()),
        source_fingerprint="",
    )
    schema_gen = CuratedSchemaGen(schema_file=str((folder / "schema.pbtxt").resolve()))
    transform = Transform(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        custom_config={"features": features},
        disable_statistics=True,
    )
    root = (folder / "root").resolve()
    LocalDagRunner().run(
        Pipeline(
            pipeline_name=spec.name,
            pipeline_root=str(root),
            components=[example_gen, schema_gen, transform],
            metadata_connection_config=sqlite_metadata_connection_config(str(folder / "metadata.sqlite")),
            beam_pipeline_args=list(LOCAL_BEAM_ARGS),
        )
    )
    (examples,) = (root / "Transform" / "transformed_examples").iterdir()
    (graph,) = (root / "Transform" / "transform_graph").iterdir()
    return str(examples), str(graph)


def _read(files: dict[str, Any], split: str) -> list[tuple[str, Any]]:
    import tensorflow_transform as tft

    from trainer.input import ordered_batches, read_chunks

    parsing = tft.TFTransformOutput(files["graph"]).transformed_feature_spec()
    batches = list(ordered_batches(read_chunks(files[split], parsing), 10_000))
    return [
        ("ids", np.concatenate([features[IDS] for features, _ in batches])),
        ("numbers", np.concatenate([features[NUMBERS] for features, _ in batches])),
        ("labels", np.concatenate([label[:, 0] for _, label in batches])),
    ]
