"""FeatureSpec -> TFMD schema, which StatisticsGen, ExampleValidator, Transform and the serving signature read.

`python -m schemas.tfmd package.module:NAME FILE` writes the schema of a spec.
"""

from __future__ import annotations

import argparse
import math
import pathlib

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas.features import Feature, FeatureSpec, IdSequence, NumericFeature, load_spec, no_value

TRAINING = "TRAINING"
SERVING = "SERVING"  # what a request holds: no label
# Where a SavedModel has its schema. TF Serving ignores assets.extra; clients find the types of a request there.
SCHEMA_ASSET = "assets.extra/schema.pbtxt"

_TYPES = {
    "int64": schema_pb2.FeatureType.INT,
    "float32": schema_pb2.FeatureType.FLOAT,
    "string": schema_pb2.FeatureType.BYTES,
}


def make_schema(spec: FeatureSpec) -> schema_pb2.Schema:
    """Returns the TFMD schema of a spec, with the environments TRAINING and SERVING.

    A feature with one value is a dense tensor [batch], where what is missing has a value that stands for it, so that
    parsing never fails on a request that lacks one; with several values it does. A sequence is a ragged tensor. How
    often a value may be missing is for ExampleValidator to check. Label and weight may not be.
    """
    schema = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    for feature in spec.features:
        _add_feature(schema, feature)
    label = _add_training_only(schema, spec.label.name, schema_pb2.FeatureType.INT)
    label.int_domain.CopyFrom(schema_pb2.IntDomain(min=0, max=1))
    if spec.timestamp:
        _add_training_only(schema, spec.timestamp, schema_pb2.FeatureType.INT)
    if spec.weight:
        weight = _add_training_only(schema, spec.weight, schema_pb2.FeatureType.FLOAT)
        weight.float_domain.CopyFrom(schema_pb2.FloatDomain(min=0, disallow_nan=True, disallow_inf=True))
    _represent(schema, spec)
    return schema


def features_in(schema: schema_pb2.Schema, environment: str) -> dict[str, schema_pb2.Feature]:
    """Returns the features of an environment, by their names, in the schema's order.

    Args:
        schema: Any TFMD schema.
        environment: Such as `SERVING`.
    """
    is_default = environment in schema.default_environment
    return {
        feature.name: feature
        for feature in schema.feature
        if environment in feature.in_environment or (is_default and environment not in feature.not_in_environment)
    }


def schema_text(spec: FeatureSpec) -> str:
    """Returns the schema as text, with a first line that says where it comes from."""
    return "# Made from the feature spec; edit that.\n" + text_format.MessageToString(make_schema(spec))


def _add_feature(schema: schema_pb2.Schema, feature: Feature) -> None:
    entry = schema.feature.add(name=feature.name, type=_TYPES[feature.dtype])
    entry.presence.CopyFrom(schema_pb2.FeaturePresence(min_fraction=feature.min_presence, min_count=1))
    if not isinstance(feature, IdSequence):
        entry.value_count.CopyFrom(schema_pb2.ValueCount(min=1, max=1))
    if isinstance(feature, NumericFeature):
        _add_range(entry, feature)
    elif feature.dtype == "int64":
        entry.int_domain.CopyFrom(schema_pb2.IntDomain(min=0, is_categorical=True))
    elif feature.domain:
        entry.string_domain.CopyFrom(schema_pb2.StringDomain(name=feature.name, value=feature.domain))


def _add_training_only(
    schema: schema_pb2.Schema, name: str, feature_type: schema_pb2.FeatureType
) -> schema_pb2.Feature:
    """Adds a column that every impression of a log has once, and no request."""
    entry = schema.feature.add(name=name, type=feature_type)
    entry.value_count.CopyFrom(schema_pb2.ValueCount(min=1, max=1))
    entry.presence.CopyFrom(schema_pb2.FeaturePresence(min_fraction=1.0, min_count=1))
    entry.not_in_environment.append(SERVING)
    return entry


def _represent(schema: schema_pb2.Schema, spec: FeatureSpec) -> None:
    """Says as what tensor each column is read."""
    tensors = schema.tensor_representation_group[""].tensor_representation
    for feature in spec.features:
        if isinstance(feature, IdSequence):
            ragged = tensors[feature.name].ragged_tensor
            ragged.feature_path.step.append(feature.name)
            ragged.row_partition_dtype = schema_pb2.TensorRepresentation.RowPartitionDType.INT64
            continue
        dense = tensors[feature.name].dense_tensor
        dense.column_name = feature.name
        dense.shape.SetInParent()
        missing = no_value(feature)
        if isinstance(missing, str):
            dense.default_value.bytes_value = missing.encode()
        elif isinstance(missing, int):
            dense.default_value.int_value = missing
        else:
            dense.default_value.float_value = missing
    for name in (spec.label.name, *([spec.weight] if spec.weight else [])):
        tensors[name].dense_tensor.column_name = name
        tensors[name].dense_tensor.shape.SetInParent()


def _add_range(entry: schema_pb2.Feature, feature: NumericFeature) -> None:
    domain = entry.int_domain if feature.dtype == "int64" else entry.float_domain
    domain.SetInParent()
    if math.isfinite(feature.minimum):
        domain.min = math.ceil(feature.minimum) if feature.dtype == "int64" else feature.minimum
    if math.isfinite(feature.maximum):
        domain.max = math.floor(feature.maximum) if feature.dtype == "int64" else feature.maximum


def main() -> None:
    """Writes the schema of a spec; a file that says otherwise only where it is told to."""
    parser = argparse.ArgumentParser("python -m schemas.tfmd", description="Writes the schema of a feature spec.")
    parser.add_argument("spec", help="the spec, as package.module:NAME")
    parser.add_argument("file", type=pathlib.Path, help="the file to write, such as shop.pbtxt")
    parser.add_argument(
        "--force", action="store_true", help="overwrite a file that is there, and what was edited in it"
    )
    arguments = parser.parse_args()
    try:
        text = schema_text(load_spec(arguments.spec))
        is_other = arguments.file.exists() and arguments.file.read_text(encoding="utf-8") != text
        if is_other and not arguments.force:
            parser.exit(
                1, f"{arguments.file} is there and says otherwise: --force overwrites it, and what was edited in it\n"
            )
        arguments.file.write_text(text, encoding="utf-8")
    except (ValueError, ImportError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
