"""Exports of one DeepFM: the project's, and a plain Keras functional model with an Embedding layer a field.

Keras hashes an id's digits, as its own layers do. To see that both models are one, the project's is exported again with
that hash.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata

from benchmarks.speed_specs import MAX_LENGTH, make_spec
from schemas.features import FeatureSpec, IdSequence, NumericFeature
from schemas.tfmd import make_schema
from trainer.config import ModelConfig
from trainer.export import export
from trainer.model import DeepFM, model_fn
from transform.preprocessing import transform_impressions

SPEC = make_spec("serving", 260_000)
_NUM_ANALYZED = 512
Row = dict[str, Any]


def make_rows(count: int) -> list[Row]:
    """Returns impressions: ids drawn from a Zipf distribution, histories of 0 to `MAX_LENGTH` ids."""
    generator = np.random.default_rng(0)

    def ids(size: int) -> np.ndarray[Any, Any]:
        return generator.zipf(1.2, size) % 1_000_000

    rows = []
    for _ in range(count):
        row: Row = {}
        for feature in SPEC.features:
            if isinstance(feature, IdSequence):
                row[feature.name] = ids(int(generator.integers(0, MAX_LENGTH + 1)))
            elif hasattr(feature, "normalization"):
                row[feature.name] = generator.normal(size=1).astype(np.float32)
            else:
                row[feature.name] = ids(1)
        rows.append(row)
    return rows


def to_example(row: Row) -> bytes:
    """Returns a row as a serialized tf.Example."""
    example = tf.train.Example()
    for name, values in row.items():
        feature = example.features.feature[name]
        target = feature.float_list if values.dtype == np.float32 else feature.int64_list
        target.value.extend(values.tolist())
    return bytes(example.SerializeToString())


def export_all(rows: list[Row], folder: pathlib.Path) -> tuple[str, str, str]:
    """Writes both models with the same weights; returns the folders: ours, ours with Keras's hash, plain Keras."""
    analyzed = rows[:_NUM_ANALYZED]
    model = model_fn(SPEC, ModelConfig(), seed=1)
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.1, size=weight.shape).astype(np.float32))
    table = model.tables[0]
    table.assign(table.numpy() * (np.arange(table.shape[0]) > 0)[:, np.newaxis])
    for name, spec in (("ours", SPEC), ("same", _with_digits(SPEC))):
        _transform(analyzed, spec, str(folder / f"{name}_transform"))
        export(model, tft.TFTransformOutput(str(folder / f"{name}_transform")), SPEC, str(folder / name))
    _export_plain(model, analyzed, str(folder / "plain"))
    return str(folder / "ours"), str(folder / "same"), str(folder / "plain")


def _with_digits(spec: FeatureSpec) -> FeatureSpec:
    features = tuple(
        feature if isinstance(feature, NumericFeature) else dataclasses.replace(feature, hashing="digits")
        for feature in spec.features
    )
    return dataclasses.replace(spec, features=features)


def _transform(rows: list[Row], spec: FeatureSpec, directory: str) -> None:
    lists = {feature.name for feature in spec.features if isinstance(feature, IdSequence)}
    raw = [{name: ids if name in lists else ids[0] for name, ids in row.items()} | {"label": 0} for row in rows]
    with tempfile.TemporaryDirectory() as temporary, tft_beam.Context(temp_dir=temporary):
        _, transform_fn = (
            raw,
            dataset_metadata.DatasetMetadata(make_schema(spec)),
        ) | tft_beam.AnalyzeAndTransformDataset(lambda inputs: transform_impressions(inputs, spec))
        _ = transform_fn | tft_beam.WriteTransformFn(directory)


def _export_plain(model: DeepFM, analyzed: list[Row], directory: str) -> None:
    plain = _plain_model(model)
    names = [feature.name for feature in SPEC.numbers]
    numbers = np.array([[row[name][0] for name in names] for row in analyzed], np.float64)
    mean, deviation = numbers.mean(axis=0).astype(np.float32), numbers.std(axis=0).astype(np.float32)
    parsing: dict[str, Any] = {
        feature.name: tf.io.FixedLenFeature([1], tf.as_dtype(feature.dtype)) for feature in SPEC.features
    } | {"history": tf.io.VarLenFeature(tf.int64)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = tf.io.parse_example(examples, parsing)
        inputs = {}
        for field in SPEC.id_fields:
            values = raw[field.name]
            is_sequence = isinstance(values, tf.SparseTensor)
            ids = values.values if is_sequence else values
            buckets = tf.strings.to_hash_bucket_fast(tf.strings.as_string(ids), field.num_buckets) + 1
            if is_sequence:
                sparse = tf.SparseTensor(values.indices, buckets, values.dense_shape)
                buckets = tf.RaggedTensor.from_sparse(sparse).to_tensor(shape=[None, MAX_LENGTH])
            inputs[field.name] = buckets
        inputs["numbers"] = (tf.concat([raw[name] for name in names], axis=1) - mean) / deviation
        return {"ctr": plain(inputs)}

    archive = keras.export.ExportArchive()
    archive.track(plain)
    archive.add_endpoint("serving_default", serve)
    archive.write_out(directory, verbose=False)


def _plain_model(model: DeepFM) -> keras.Model:
    """Returns the same DeepFM as one would write it with Keras's own layers."""
    weights = {weight.path.split("/", 1)[-1]: weight.numpy() for weight in model.weights}
    table = model.tables[0].numpy()
    linear, factors, inputs = [], [], {}
    for field in SPEC.id_fields:
        ids = keras.Input((field.max_length,), dtype="int64", name=field.name)
        rows = np.concatenate([table[:1], table[field.row_offset + 1 : field.row_offset + 1 + field.num_buckets]])
        embedding = keras.layers.Embedding(*rows.shape, name=f"embedding_{field.name}")
        vectors = embedding(ids)  # [batch, max_length, 1 + dim]; row 0, of padding, is 0
        embedding.set_weights([rows])
        total = keras.ops.sum(vectors, axis=1)
        linear.append(total[:, :1])
        if field.max_length > 1:
            count = keras.ops.sum(keras.ops.cast(ids > 0, "float32"), axis=1, keepdims=True)
            total = total / keras.ops.maximum(count, 1.0)
        factors.append(total[:, 1:])
        inputs[field.name] = ids
    numbers = inputs["numbers"] = keras.Input((len(SPEC.numbers),), name="numbers")
    stacked = keras.ops.stack(factors, axis=1)  # [batch, fields, dim]
    sum_of_squares = keras.ops.sum(keras.ops.square(stacked), axis=[1, 2])
    square_of_sum = keras.ops.sum(keras.ops.square(keras.ops.sum(stacked, axis=1)), axis=1)
    fm = 0.5 * (square_of_sum - sum_of_squares)
    number_layer = keras.layers.Dense(1, name="number_weights")
    wide = keras.ops.sum(keras.ops.concatenate(linear, axis=1), axis=1, keepdims=True) + number_layer(numbers)
    number_layer.set_weights([model.number_weights.get_weights()[0], weights["bias"]])
    hidden = keras.layers.Concatenate()([*factors, numbers])
    dense = [layer for layer in model.deep_tower.layers if isinstance(layer, keras.layers.Dense)]
    for source in dense:
        layer = keras.layers.Dense(
            source.units, "relu" if source is not dense[-1] else None, use_bias=source.use_bias, name=source.name
        )
        hidden = layer(hidden)
        layer.set_weights(source.get_weights())
    ctr = keras.activations.sigmoid(wide + keras.ops.expand_dims(fm, 1) + hidden)
    return keras.Model(inputs, ctr)
