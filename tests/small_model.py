"""A small exported model with every kind of feature, and impressions for it."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature, no_value
from schemas.tfmd import make_schema
from trainer.config import ModelConfig
from trainer.export import export
from trainer.model import DeepFM, model_fn
from transform.preprocessing import transform_impressions

SPEC = FeatureSpec(
    "small",
    (
        IdFeature("user", 60, num_hashes=2),
        IdFeature("item", 50, table="item"),
        IdSequence("history", 50, max_length=3, table="item", pooling="target_attention"),
        IdFeature("country", 20, dtype="string"),
        IdSequence("tags", 30, max_length=4, dtype="string"),
        NumericFeature("age", dtype="int64"),
        NumericFeature("price", "log1p_z_score"),
        NumericFeature("rank", "quantile_buckets", num_buckets=3),
    ),
    group_key="user",
    timestamp="time",
)
Row = dict[str, Any]


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Returns different impressions with values, empty lists and missing ones, in the form of a row of a log."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        row: Row = {
            "user": int(generator.integers(100)),
            "item": int(generator.integers(10**12)),
            "history": [int(item) for item in generator.integers(100, size=number % 6)],
            "country": ["DE", "FR", "Côte d'Ivoire"][number % 3],
            "tags": ["a", "b", "c"][: number % 4],
            "age": int(generator.integers(18, 90)),
            "price": float(np.float32(generator.lognormal())),
            "rank": number / 2,
            "label": number % 2,
            "time": 1_700_000_000 + number,
        }
        if number % 7 == 3:
            del row["country"], row["age"], row["price"]
        rows.append(row)
    return rows


def to_example(row: Row) -> bytes:
    """Returns a row as the serialized tf.Example that the ingestion makes of it."""
    example = tf.train.Example()
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name] if values else None
        if feature is None:
            continue
        if isinstance(values[0], str):
            feature.bytes_list.value.extend(text.encode() for text in values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return bytes(example.SerializeToString())


def export_small_model(home: pathlib.Path) -> DeepFM:
    """Writes the SavedModel `home/model`, with weights that look trained, and returns the model in memory."""
    raw = []
    for row in make_rows(64):
        instance: Row = {f.name: [] if isinstance(f, IdSequence) else no_value(f) for f in SPEC.features}
        raw.append(instance | row | {"time": [row["time"]]})
    with tft_beam.Context(temp_dir=str(home / "transform_temporary")):
        _, transform_fn = (
            raw,
            dataset_metadata.DatasetMetadata(make_schema(SPEC)),
        ) | tft_beam.AnalyzeAndTransformDataset(lambda inputs: transform_impressions(inputs, SPEC))
        _ = transform_fn | tft_beam.WriteTransformFn(str(home / "transform"))
    model = model_fn(SPEC, ModelConfig(embedding_dim=4, hidden_units=(8,)), seed=1)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.3, size=weight.shape).astype(np.float32))
    table = model.tables[0]
    table.assign(table.numpy() * (np.arange(table.shape[0]) > 0)[:, np.newaxis])  # row 0 is padding's
    export(model, tft.TFTransformOutput(str(home / "transform")), SPEC, str(home / "model"))
    return model
