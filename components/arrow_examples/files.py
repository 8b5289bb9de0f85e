"""The file of record batches beside a file of Examples: where it is, how it is written and read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems  # its files are what Arrow takes for files; TFX's are not

FOLDER = "arrow"  # beside the splits' folders, which may have nothing but TFRecords
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


def arrow_file(examples_file: str) -> str:
    """Returns where the rows of a split's file of Examples are as record batches, if they are.

    Args:
        examples_file: `URI/Split-NAME/FILE`.
    """
    folder, name = os.path.split(examples_file)
    uri, split = os.path.split(folder)
    return os.path.join(uri, FOLDER, split, f"{name}.arrow")


class ArrowWriter:
    """Writes a file of record batches of one schema.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._file = FileSystems.create(path)
        self._writer: pa.RecordBatchStreamWriter | None = None

    def __enter__(self) -> ArrowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer and error is None:
            self._writer.close()
        self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes rows.

        Args:
            batch: In the types that tfx_bsl decodes Examples to: large lists of large_binary, int64 or float32; a row
                without values is null.
        """
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._file, batch.schema, options=_OPTIONS)
        self._writer.write_batch(batch)


def read_batches(path: str, columns: pa.Schema | None, max_rows: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file.

    Args:
        path: The file.
        columns: Which columns, in which order, as `has_columns` has found them there; None for those with any value, of
            each batch its own, as tfx_bsl decodes Examples without a schema.
        max_rows: Of a batch.
    """
    with FileSystems.open(path) as file, pa.ipc.open_stream(file) as batches:
        for batch in batches:
            for start in range(0, batch.num_rows, max_rows):
                rows = batch if batch.num_rows <= max_rows else _cut(batch, start, max_rows)
                chosen = columns or [
                    field
                    for field, column in zip(rows.schema, rows.columns, strict=True)
                    if column.null_count < rows.num_rows
                ]
                arrays = [rows.column(rows.schema.get_field_index(field.name)) for field in chosen]
                yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(chosen))


def _cut(batch: pa.RecordBatch, start: int, num_rows: int) -> pa.RecordBatch:
    """Returns some rows as a batch of their own: of a slice, tfx_bsl makes no ragged tensors."""
    return pa.ipc.read_record_batch(batch.slice(start, num_rows).serialize(), batch.schema)


def has_columns(path: str, columns: pa.Schema | None) -> bool:
    """Returns whether a file is there, and has these columns with these types; None for any."""
    if not FileSystems.exists(path):
        return False
    if columns is None:
        return True
    with FileSystems.open(path) as file, pa.ipc.open_stream(file) as batches:
        types = {field.name: field.type for field in batches.schema}
    return all(types.get(field.name) == field.type for field in columns)
