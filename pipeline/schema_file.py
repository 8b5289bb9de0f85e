"""Finds the curated TFMD schema of a pipeline. Imports no TFX, so that `ctr run` can look at it at once."""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.config import ConfigError, PipelineConfig
from schemas.features import FeatureSpec
from schemas.tfmd import make_schema


def find_schema(config: PipelineConfig, spec: FeatureSpec) -> pathlib.Path:
    """Returns the path of the curated schema.

    Raises:
        ConfigError: There is none, or its columns, their types or the tensors that they are read as are not the spec's,
            or it stands beside the spec and has another bound where the spec sets one.
    """
    module = importlib.import_module(config.features.partition(":")[0])
    beside_spec = pathlib.Path(str(module.__file__)).parent / f"{spec.name}.pbtxt"
    file = pathlib.Path(config.schema_file).resolve() if config.schema_file else beside_spec
    remedy = f"make it with: python -m schemas.tfmd {config.features} {file}"
    if not file.is_file():
        raise ConfigError(f"no schema at {file}; {remedy}")
    try:
        schema = text_format.Parse(file.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} is not a TFMD schema: {error}; {remedy}") from error
    made = make_schema(spec)
    columns, wanted = _columns(schema), _columns(made)
    different = sorted(name for name in {*columns, *wanted} if columns.get(name) != wanted.get(name))
    if file == beside_spec and not different:  # one that stands elsewhere may have bounds of its own
        different = _other_bounds(schema, made, spec)
    if different:
        raise ConfigError(
            f"schema {file} and feature spec {config.features} differ in {', '.join(different)}; {remedy} --force, "
            "which loses what was edited in it"
        )
    return file


def _columns(schema: schema_pb2.Schema) -> dict[str, tuple[int, bytes]]:
    """Returns each column's type, and the tensor that Transform and the model read it as."""
    tensors = schema.tensor_representation_group[""].tensor_representation if schema.tensor_representation_group else {}
    return {
        feature.name: (
            feature.type,
            tensors[feature.name].SerializeToString(deterministic=True) if feature.name in tensors else b"",
        )
        for feature in schema.feature
    }


def _other_bounds(schema: schema_pb2.Schema, made: schema_pb2.Schema, spec: FeatureSpec) -> list[str]:
    """Returns which bounds that the spec sets are others in the schema than in the one made of it: nobody would see."""
    found, wanted = ({feature.name: _bounds(feature, of) for feature in of.feature} for of in (schema, made))
    return [
        f"{name} of {feature.name}"
        for feature in spec.features
        for name, value in wanted[feature.name].items()
        if getattr(feature, name, None) != getattr(type(feature), name, None) and found[feature.name][name] != value
    ]


def _bounds(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> dict[str, Any]:
    """Returns a column's bounds by the names that they have in a feature spec."""
    number = feature.int_domain if feature.HasField("int_domain") else feature.float_domain
    domains = {domain.name: domain for domain in schema.string_domain}
    domain = domains.get(feature.domain, feature.string_domain)
    return {
        "min_presence": feature.presence.min_fraction,
        "minimum": number.min if number.HasField("min") else None,
        "maximum": number.max if number.HasField("max") else None,
        "domain": sorted(domain.value),
    }
