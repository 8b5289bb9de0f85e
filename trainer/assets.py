"""What goes with a SavedModel, in its `assets.extra`.

TF Serving reads `tf_serving_warmup_requests` and ignores the rest: `schema.pbtxt` and `feature_spec.json` tell a client
what a request holds, `model_card.json` and `model_card.md` tell people what the model is.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from schemas.features import Feature, FeatureSpec, IdSequence, NumericFeature
from schemas.model_card import CARD_ASSET, FEATURE_SPEC_ASSET, card_markdown
from schemas.tfmd import SCHEMA_ASSET, make_schema

WARMUP_ASSET = "assets.extra/tf_serving_warmup_requests"

_WARMUP_BATCHES = (1, 64)
_LIMITS = (
    "An id that the training has not seen shares the row of a hash bucket with others.",
    "A sequence's ids before its last max_length are not used.",
    "ctr is calibrated on the impressions of the log's training days; other traffic needs a calibration of its own.",
)


def write_assets(directory: str, spec: FeatureSpec, card: Mapping[str, Any]) -> None:
    """Writes all of them.

    Args:
        directory: A SavedModel.
        spec: The data set.
        card: What the model card says beside the data set, the versions and the limits.
    """
    home = pathlib.Path(directory)
    (home / SCHEMA_ASSET).parent.mkdir()
    (home / SCHEMA_ASSET).write_text(text_format.MessageToString(make_schema(spec)), encoding="utf-8")
    (home / FEATURE_SPEC_ASSET).write_text(_json(_plain_spec(spec)), encoding="utf-8")
    content = _card(spec, card)
    (home / CARD_ASSET).write_text(_json(content), encoding="utf-8")
    (home / CARD_ASSET).with_suffix(".md").write_text(card_markdown(content), encoding="utf-8")
    with tf.io.TFRecordWriter(str(home / WARMUP_ASSET)) as writer:
        for request in _warmup_requests(spec):
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def _card(spec: FeatureSpec, card: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data_set": spec.name,
        "features": [feature.name for feature in spec.features],
        "label": spec.label.name,
        **card,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "limits": list(_LIMITS),
        # A model is exported before it is evaluated.
        "evaluation": None,
    }


def _plain_spec(spec: FeatureSpec) -> dict[str, Any]:
    """Returns the spec as JSON can hold it: a feature's kind is named, a bound that is infinite is null."""
    features = []
    for feature in spec.features:
        fields = {"kind": type(feature).__name__, **dataclasses.asdict(feature)}
        features.append({name: None if isinstance(v, float) and math.isinf(v) else v for name, v in fields.items()})
    return dataclasses.asdict(spec) | {"features": features}


def _warmup_requests(spec: FeatureSpec) -> Iterator[predict_pb2.PredictRequest]:
    """Yields requests of some batch sizes for each signature that serves; what they ask for does not matter."""
    example = tf.train.Example()
    dense = {}
    for feature in spec.features:
        _add_values(example.features.feature[feature.name], feature)
        dtype = tf.float32 if isinstance(feature, NumericFeature) else tf.as_dtype(feature.dtype)
        shape = [feature.max_length] if isinstance(feature, IdSequence) else []
        dense[feature.name] = tf.fill(shape, tf.cast(1, dtype) if dtype != tf.string else "a")
        if isinstance(feature, IdSequence):
            dense[feature.length_name] = tf.constant(feature.max_length, tf.int64)
    for size in _WARMUP_BATCHES:
        yield _request("serving_default", {"examples": tf.fill([size], example.SerializeToString())})
        yield _request("predict", {name: tf.stack([value] * size) for name, value in dense.items()})


def _add_values(target: tf.train.Feature, feature: Feature) -> None:
    count = feature.max_length if isinstance(feature, IdSequence) else 1
    if feature.dtype == "string":
        target.bytes_list.value.extend([b"a"] * count)
    elif feature.dtype == "int64":
        target.int64_list.value.extend([1] * count)
    else:
        target.float_list.value.extend([1.0] * count)


def _request(signature: str, inputs: Mapping[str, tf.Tensor]) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
    return request


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
