"""What the exported model computes for a request: raw impressions -> ctr.

Two forms of a request: serialized `tf.Example`s, and dense tensors by the features' names, as TF Serving's REST API
takes them. Both become the same tensors, which the transformation of the training then reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow_transform.tf_metadata import schema_utils

from schemas.features import NO_NUMBER, Feature, FeatureSpec, IdSequence, NumericFeature
from schemas.tfmd import SERVING, TRAINING, features_in, make_schema
from trainer.logit import as_constant, has_short_form, short_logit
from trainer.model import DeepFM
from trainer.parsing import parse_examples

Raw = Mapping[str, tf.Tensor | tf.RaggedTensor]
Transformation = Callable[[Raw], Mapping[str, tf.Tensor]]
Signature = Callable[..., dict[str, tf.Tensor]]

_MAX_INT64_FLOAT = 2.0**63 - 2.0**39  # the greatest float32 that is an int64


def raw_feature_spec(spec: FeatureSpec, environment: str) -> dict[str, Any]:
    """Returns how a raw tf.Example is parsed, for `tf.io.parse_example`; see `schemas.tfmd.make_schema`.

    Args:
        spec: The data set.
        environment: `TRAINING`, or `SERVING`, which lacks the label, the timestamp and the weight.
    """
    schema = make_schema(spec)
    parsing = schema_utils.schema_as_feature_spec(schema).feature_spec
    return {name: parsing[name] for name in features_in(schema, environment)}


def make_signatures(
    model: DeepFM, transform: Transformation, spec: FeatureSpec, shift: float
) -> dict[str, tuple[Signature, list[tf.TensorSpec]]]:
    """Returns each signature's function and inputs by its name; see `trainer.export.export`.

    Args:
        model: The trained model.
        transform: The transformation of the training.
        spec: The data set.
        shift: Added to the logit.
    """
    serving_spec = raw_feature_spec(spec, SERVING)
    training_spec = raw_feature_spec(spec, TRAINING)

    def score(raw: Raw) -> dict[str, tf.Tensor]:
        transformed = transform(raw)
        features = {name: transformed[name] for name in model.zero_batch()}
        # The small weights are constants of the graph: reading a variable is an operation.
        logit = short_logit(model, features, as_constant) if has_short_form(model) else model(features)
        return {"ctr": tf.sigmoid(logit + shift if shift else logit)}

    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return score(parse_examples(examples, serving_spec))

    def predict(*dense: tf.Tensor) -> dict[str, tf.Tensor]:
        return score(_to_raw(dict(zip(inputs, dense, strict=True)), spec))

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(transform(tf.io.parse_example(examples, training_spec)))

    inputs = dense_inputs(spec)
    examples = [tf.TensorSpec([None], tf.string, name="examples")]
    return {
        "serving_default": (serve, examples),
        "predict": (predict, list(inputs.values())),
        "transform_features": (transform_features, examples),
    }


def dense_inputs(spec: FeatureSpec) -> dict[str, tf.TensorSpec]:
    """Returns the inputs of `predict` by their names.

    An id or a number is [batch]; a sequence is [batch, any] with its `<name>_length`, int64 [batch], behind it.
    """
    inputs = {}
    for feature in spec.features:
        if isinstance(feature, IdSequence):
            inputs[feature.name] = tf.TensorSpec([None, None], feature.dtype, name=feature.name)
            inputs[feature.length_name] = tf.TensorSpec([None], tf.int64, name=feature.length_name)
        else:
            dtype = tf.float32 if isinstance(feature, NumericFeature) else feature.dtype
            inputs[feature.name] = tf.TensorSpec([None], dtype, name=feature.name)
    return inputs


def _to_raw(dense: Mapping[str, tf.Tensor], spec: FeatureSpec) -> Raw:
    """Returns what parsing the same impressions as tf.Examples would give."""
    sizes = tf.stack([tf.shape(values)[0] for values in dense.values()])
    # The transformation lays columns together, and would put one impression's values to another, or where no memory is.
    checks = [tf.debugging.assert_equal(sizes, sizes[0], message="the inputs must have the same number of impressions")]
    for feature in spec.features:
        if isinstance(feature, IdSequence):
            lengths, width = dense[feature.length_name], tf.shape(dense[feature.name], tf.int64)[1]
            does_fit = tf.reduce_all((lengths >= 0) & (lengths <= width))
            checks.append(tf.debugging.Assert(does_fit, [f"{feature.length_name} must be from 0 to", width]))
    with tf.control_dependencies(checks):  # or it would run beside the transformation
        dense = {name: tf.identity(values) for name, values in dense.items()}
    return {feature.name: _raw_column(feature, dense) for feature in spec.features}


def _raw_column(feature: Feature, dense: Mapping[str, tf.Tensor]) -> tf.Tensor | tf.RaggedTensor:
    values = dense[feature.name]
    if isinstance(feature, IdSequence):
        is_value = tf.sequence_mask(dense[feature.length_name], tf.shape(values)[1])
        return tf.ragged.boolean_mask(values, is_value)
    if isinstance(feature, NumericFeature) and feature.dtype == "int64":
        is_number = tf.math.is_finite(values)
        clipped = tf.clip_by_value(tf.where(is_number, values, 0.0), -_MAX_INT64_FLOAT, _MAX_INT64_FLOAT)
        return tf.where(is_number, tf.cast(clipped, tf.int64), NO_NUMBER["int64"])
    return values
