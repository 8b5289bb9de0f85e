"""The trained model as a SavedModel that takes raw impressions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import FeatureSpec
from schemas.tfmd import TRAINING
from trainer.assets import write_assets
from trainer.model import DeepFM
from trainer.signatures import make_signatures, raw_feature_spec
from trainer.train import logit_shift


def export(
    model: DeepFM,
    transform_output: tft.TFTransformOutput,
    spec: FeatureSpec,
    directory: str,
    negative_sampling_rate: float = 1.0,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Writes a SavedModel with the transformation and the model in one graph.

    Signatures:
        serving_default: serialized raw tf.Examples, string [batch] -> `ctr` float32 [batch, 1]. A missing feature is
            what `transform/preprocessing.py` makes of it; an empty batch gives an empty answer; bytes that are not a
            tf.Example, or several values where there may be one, are an InvalidArgument error.
        predict: for each feature a dense tensor of its name -> `ctr` float32 [batch, 1]. An id is int64 or string
            [batch], negative or empty where it is missing. A number is float32 [batch], NaN where it is missing. A
            sequence is [batch, any], with `<name>_length` int64 [batch], the number of its ids; what is behind them is
            padding and not read. Inputs of different batch sizes are an InvalidArgument error.
        transform_features: serialized raw tf.Examples with their label, string [batch] -> the transformed features.

    Args:
        model: The trained model.
        transform_output: The output of TFX Transform.
        spec: The data set.
        directory: Folder to write.
        negative_sampling_rate: Share of the negatives that the training saw, for which `ctr` is corrected.
        card: What else the model card says; see `trainer.assets`.
    """
    transform_layer = transform_output.transform_features_layer()
    # Makes its tables and constants.
    transform_layer(tf.io.parse_example(tf.constant([], tf.string), raw_feature_spec(spec, TRAINING)))
    signatures = make_signatures(model, transform_layer, spec, logit_shift(negative_sampling_rate))
    servable = tf.Module()
    # TensorFlow's variables, not Keras's objects around them: Keras's ExportArchive writes the table twice, and what
    # `tf.saved_model.save` makes of a Keras 3 model loads in no TF1 session.
    servable.model = [variable.value for variable in model.variables]
    servable.transform = transform_layer
    functions = {name: tf.function(function, inputs) for name, (function, inputs) in signatures.items()}
    tf.saved_model.save(servable, directory, functions)
    write_assets(directory, spec, card or {})
