"""CuratedSchemaGen: TFX's ImportSchemaGen, cached by the schema's content."""

from __future__ import annotations

import hashlib
import pathlib
from typing import ClassVar

from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.types.channel import Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Schema


class CuratedSchemaGenSpec(ComponentSpec):
    """Parameters and output of `CuratedSchemaGen`, which explains them."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "schema_file": ExecutionParameter(type=str),
        "schema_fingerprint": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {"schema": ChannelParameter(type=Schema)}


class CuratedSchemaGen(ImportSchemaGen):
    """Imports a schema file. TFX's own has the file's path for its cache key, so that it would not see an edit.

    Output `schema`: a copy of the file.
    """

    SPEC_CLASS = CuratedSchemaGenSpec

    def __init__(self, schema_file: str) -> None:
        """Makes the component.

        Args:
            schema_file: A TFMD schema as text proto. It is read here, for its fingerprint.

        Raises:
            ValueError: There is no such file.
        """
        try:
            content = pathlib.Path(schema_file).read_bytes()
        except OSError as error:
            raise ValueError(f"the schema {schema_file} cannot be read: {error.strerror}") from None
        # ImportSchemaGen's constructor makes a spec of its own class, which has no place for the fingerprint.
        super(ImportSchemaGen, self).__init__(
            spec=CuratedSchemaGenSpec(
                schema_file=schema_file,
                schema_fingerprint=hashlib.sha256(content).hexdigest(),
                schema=Channel(type=Schema),
            )
        )
