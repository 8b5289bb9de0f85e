"""What the exported model computes for a request: raw impressions -> ctr.

Two forms of a request: serialized `tf.Example`s, and dense tensors by the features' names, as TF Serving's REST API
takes them. Both become the same sparse tensors, which the transformation of the training then reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf
from tensorflow_transform.tf_metadata import schema_utils

from schemas.features import Feature, FeatureSpec, IdSequence, NumericFeature
from schemas.tfmd import SERVING, TRAINING, features_in, make_schema
from trainer.model import DeepFM

Transformation = Callable[[Mapping[str, tf.SparseTensor]], Mapping[str, tf.Tensor]]
Signature = Callable[..., dict[str, tf.Tensor]]

_MAX_INT64_FLOAT = 2.0**63 - 2.0**39  # the greatest float32 that is an int64


def raw_feature_spec(spec: FeatureSpec, environment: str) -> dict[str, tf.io.VarLenFeature]:
    """Returns how a raw tf.Example is parsed: each column may be missing and have any number of values.

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

    def score(raw: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        features = transform(raw)
        return {"ctr": tf.sigmoid(model({name: features[name] for name in model.zero_batch()}) + shift)}

    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return score(tf.io.parse_example(examples, serving_spec))

    def predict(*dense: tf.Tensor) -> dict[str, tf.Tensor]:
        return score(_to_sparse(dict(zip(inputs, dense, strict=True)), spec))

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


def _to_sparse(dense: Mapping[str, tf.Tensor], spec: FeatureSpec) -> dict[str, tf.SparseTensor]:
    """Returns what parsing the same impressions as tf.Examples would give."""
    sizes = tf.stack([tf.shape(values)[0] for values in dense.values()])
    # The transformation lays columns together, and would put one impression's values to another, or where no memory is.
    check = tf.debugging.assert_equal(sizes, sizes[0], message="the inputs must have the same number of impressions")
    with tf.control_dependencies([check]):  # or it would run beside the transformation
        dense = {name: tf.identity(values) for name, values in dense.items()}
    return {feature.name: _sparse_column(feature, dense) for feature in spec.features}


def _sparse_column(feature: Feature, dense: Mapping[str, tf.Tensor]) -> tf.SparseTensor:
    values = dense[feature.name]
    if isinstance(feature, IdSequence):
        is_value = tf.sequence_mask(dense[feature.length_name], tf.shape(values)[1])
    else:
        values = values[:, tf.newaxis]
        if isinstance(feature, NumericFeature):
            is_value = tf.math.is_finite(values)
        else:
            is_value = values != "" if feature.dtype == "string" else values >= 0
    indices = tf.where(is_value)
    values = tf.gather_nd(values, indices)
    if isinstance(feature, NumericFeature) and feature.dtype == "int64":
        values = tf.cast(tf.clip_by_value(values, -_MAX_INT64_FLOAT, _MAX_INT64_FLOAT), tf.int64)
    return tf.SparseTensor(indices, values, tf.shape(is_value, tf.int64))
