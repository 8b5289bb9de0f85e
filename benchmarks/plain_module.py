"""The module file of the plain TFX pipeline, written as TFX's templates are: a column a feature, an Embedding a field.

DeepFM with the sizes, epochs and batches of this project's run, which `custom_config` has.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public import tfxio

NUMBERS = [f"I{number}" for number in range(1, 14)]
IDS = [f"C{number}" for number in range(1, 27)]
LABEL = "label"
BUCKETS = 100_000


def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, tf.Tensor]:
    """TFX Transform's entry: log1p and z-score of numbers, hash buckets of ids."""
    outputs = {}
    for name in NUMBERS:
        outputs[name] = tft.scale_to_z_score(tf.math.log1p(tf.cast(_dense(inputs[name]), tf.float32)))
    for name in IDS:
        outputs[name] = tft.hash_strings(_dense(inputs[name]), BUCKETS)
    outputs[LABEL] = tf.cast(_dense(inputs[LABEL]), tf.float32)
    return outputs


def _dense(values: Any) -> tf.Tensor:
    return tf.sparse.to_dense(values) if isinstance(values, tf.SparseTensor) else values


def make_model(dim: int, hidden_units: list[int]) -> keras.Model:
    """Returns the DeepFM: columns [batch, 1] -> ctr [batch, 1]."""
    inputs = {name: keras.Input((1,), name=name, dtype="float32") for name in NUMBERS}
    inputs |= {name: keras.Input((1,), name=name, dtype="int64") for name in IDS}
    normal = keras.initializers.RandomNormal(stddev=1e-4)

    def embed(width: int) -> list[Any]:
        return [
            keras.layers.Flatten()(keras.layers.Embedding(BUCKETS, width, embeddings_initializer=normal)(inputs[name]))
            for name in IDS
        ]

    vectors = embed(dim)
    total = keras.layers.Add()(vectors)
    squares = keras.layers.Add()([keras.ops.square(vector) for vector in vectors])
    fm = 0.5 * keras.ops.sum(keras.ops.square(total) - squares, axis=1, keepdims=True)
    deep = keras.layers.Concatenate()([*vectors, *(inputs[name] for name in NUMBERS)])
    for units in hidden_units:
        deep = keras.layers.Dense(units, activation="relu")(deep)
    logit = keras.layers.Add()([*embed(1), fm, keras.layers.Dense(1)(deep)])
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(logit))


def run_fn(fn_args: Any) -> None:
    """TFX Trainer's entry."""
    settings = fn_args.custom_config
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    options = tfxio.TensorFlowDatasetOptions(batch_size=settings["batch_size"], label_key=LABEL, num_epochs=1)
    train, evaluation = (
        fn_args.data_accessor.tf_dataset_factory(files, options, transform_output.transformed_metadata.schema)
        for files in (fn_args.train_files, fn_args.eval_files)
    )
    model = make_model(settings["dim"], settings["hidden_units"])
    model.compile(keras.optimizers.Adam(settings["learning_rate"]), "binary_crossentropy", metrics=["AUC"])
    model.fit(train, validation_data=evaluation, epochs=settings["epochs"], verbose=2)
    _export(model, transform_output, fn_args.serving_model_dir)


def _export(model: keras.Model, transform_output: tft.TFTransformOutput, folder: str) -> None:
    layer = transform_output.transform_features_layer()
    raw = transform_output.raw_feature_spec()
    raw.pop(LABEL)

    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        transformed = layer(tf.io.parse_example(examples, raw))
        return {"ctr": model({name: transformed[name] for name in (*NUMBERS, *IDS)})}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.track(layer)
    signature = [tf.TensorSpec([None], tf.string, name="examples")]
    archive.add_endpoint("serving_default", serve, input_signature=signature)
    archive.write_out(folder)
