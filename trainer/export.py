"""The trained model as a SavedModel that takes raw serialized tf.Examples."""

from __future__ import annotations

import pathlib

import keras
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_transform.tf_metadata import schema_utils

from schemas.features import FeatureSpec
from schemas.tfmd import SCHEMA_ASSET, SERVING, TRAINING, features_in, make_schema
from trainer.model import DeepFM
from trainer.train import logit_shift


def raw_feature_spec(spec: FeatureSpec, environment: str) -> dict[str, tf.io.VarLenFeature]:
    """Returns how a raw tf.Example is parsed: each column may be missing and have any number of values.

    Args:
        spec: The data set.
        environment: `TRAINING`, or `SERVING`, which lacks the label, the timestamp and the weight.
    """
    schema = make_schema(spec)
    parsing = schema_utils.schema_as_feature_spec(schema).feature_spec
    return {name: parsing[name] for name in features_in(schema, environment)}


def export(
    model: DeepFM,
    transform_output: tft.TFTransformOutput,
    spec: FeatureSpec,
    directory: str,
    negative_sampling_rate: float = 1.0,
) -> None:
    """Writes a SavedModel with the transformation and the model in one graph.

    Signatures:
        serving_default: serialized raw tf.Examples, string [batch] -> `ctr` float32 [batch, 1]. A missing feature is
            what `transform/preprocessing.py` makes of it; an empty batch gives an empty answer; bytes that are not a
            tf.Example are an InvalidArgument error.
        transform_features: serialized raw tf.Examples with their label, string [batch] -> the transformed features.

    Args:
        model: The trained model.
        transform_output: The output of TFX Transform.
        spec: The data set.
        directory: Folder to write.
        negative_sampling_rate: Share of the negatives that the training saw, for which `ctr` is corrected.
    """
    shift = logit_shift(negative_sampling_rate)
    transform_layer = transform_output.transform_features_layer()
    serving_spec = raw_feature_spec(spec, SERVING)
    training_spec = raw_feature_spec(spec, TRAINING)

    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        features = transform_layer(tf.io.parse_example(examples, serving_spec))
        return {"ctr": tf.sigmoid(model({name: features[name] for name in model.zero_batch()}) + shift)}

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(transform_layer(tf.io.parse_example(examples, training_spec)))

    transform_layer(tf.io.parse_example(tf.constant([], tf.string), training_spec))  # makes its tables and constants
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.track(transform_layer)
    signature = [tf.TensorSpec([None], tf.string, name="examples")]
    archive.add_endpoint("serving_default", serve, signature)
    archive.add_endpoint("transform_features", transform_features, signature)
    archive.write_out(directory, verbose=False)
    schema_file = pathlib.Path(directory) / SCHEMA_ASSET
    schema_file.parent.mkdir()
    schema_file.write_text(text_format.MessageToString(make_schema(spec)), encoding="utf-8")
