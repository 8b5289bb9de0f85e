"""Which ids the training split has, told by files that any worker can read: an id is new, or shares its buckets.

A file has the fingerprints of one field's distinct ids, sorted: uint64 [num_ids, num_hashes], 8 bytes an id and hash.
They are what Transform's hashes are made of, so that the buckets follow from them. Two ids with the same 64 bits are
taken for one: among 100 million ids no such pair is expected.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tfx.dsl.io import fileio

from components.evaluation.derived import fields_read
from schemas.features import NO_ID, FeatureSpec, IdField
from schemas.hashing import fingerprint_ids

Fingerprints: TypeAlias = npt.NDArray[np.uint64]  # [num_ids, num_hashes]

_MIN_PENDING = 2**16


def training_fields(spec: FeatureSpec, columns: Collection[str]) -> tuple[IdField, ...]:
    """Returns the fields whose training ids are needed to derive columns: theirs, and those that share their tables.

    Args:
        spec: The data set.
        columns: Names of columns, of which some may be derived.
    """
    read = fields_read(spec, columns)
    tables = {_table(field) for field in spec.id_fields if field.name in read}
    return tuple(field for field in spec.id_fields if _table(field) in tables)


class WriteTrainingIds(beam.PTransform):
    """Writes the file of each field: PCollection of Arrow record batches of raw impressions -> files.

    Args:
        fields: The fields.
        folder: Where to write.
    """

    def __init__(self, fields: Sequence[IdField], folder: str) -> None:
        super().__init__()
        self._fields = {field.name: field for field in fields}
        self._folder = folder

    def expand(self, batches: Any) -> Any:
        """Applies the transform."""
        none = [(name, np.zeros((0, field.num_hashes), np.uint64)) for name, field in self._fields.items()]
        found = batches | "Fingerprint" >> beam.FlatMap(_fingerprint_batch, self._fields)
        return (
            [found, batches.pipeline | "None" >> beam.Create(none)]
            | beam.Flatten()
            | "Distinct" >> beam.CombinePerKey(_Distinct())
            | "Write" >> beam.Map(_write, self._folder)
        )


def _fingerprint_batch(batch: pa.RecordBatch, fields: Mapping[str, IdField]) -> Iterator[tuple[str, Fingerprints]]:
    for name, field in fields.items():
        column = batch.column(batch.schema.get_field_index(name))
        if not pa.types.is_null(column.type):
            yield name, fingerprint(pc.unique(column.flatten()).to_pylist(), field)


def fingerprint(ids: Sequence[bytes | int], field: IdField) -> Fingerprints:
    """Returns the fingerprints of a field's ids, [the number of ids that are there, num_hashes]."""
    present = [id_ for id_ in ids if id_ not in (b"", NO_ID["int64"])]
    raw = tf.constant(present, tf.string if present and isinstance(present[0], bytes) else tf.int64)
    return np.stack([fingerprint_ids(raw, number, field.hashing).numpy() for number in range(field.num_hashes)], axis=1)


class _Distinct(beam.CombineFn):
    """Union of sets of fingerprints. What is put off is bounded by what is kept, so that a row is sorted seldom."""

    def create_accumulator(self) -> list[Fingerprints]:
        return []

    def add_input(self, accumulator: list[Fingerprints], element: Fingerprints) -> list[Fingerprints]:
        accumulator.append(element)
        pending = sum(map(len, accumulator[1:]))
        return [_union(accumulator)] if pending > max(_MIN_PENDING, len(accumulator[0])) else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[Fingerprints]]) -> list[Fingerprints]:
        arrays = [array for accumulator in accumulators for array in accumulator]
        return [_union(arrays)] if arrays else []

    def extract_output(self, accumulator: list[Fingerprints]) -> Fingerprints:
        return _union(accumulator)


def _union(arrays: Sequence[Fingerprints]) -> Fingerprints:
    rows = np.concatenate(arrays)
    _, first = np.unique(rows[:, 0], return_index=True)
    return rows[first]


def _write(found: tuple[str, Fingerprints], folder: str) -> None:
    name, fingerprints = found
    fileio.makedirs(folder)
    with fileio.open(_file(folder, name), "wb") as file:
        file.write(_header(fingerprints) + fingerprints.tobytes())


def _header(fingerprints: Fingerprints) -> bytes:
    header: bytes = np.array(fingerprints.shape, np.uint64).tobytes()
    return header


def _read(folder: str, name: str) -> Fingerprints:
    with fileio.open(_file(folder, name), "rb") as file:
        content = np.frombuffer(file.read(), np.uint64)
    return content[2:].reshape(content[:2].astype(np.int64))


def _file(folder: str, name: str) -> str:
    return os.path.join(folder, f"{name}.fingerprints")


class TrainingIds:
    """The ids of the training split, read from what `WriteTrainingIds` has written.

    Args:
        spec: The data set.
        folder: Where the files are.
        columns: The columns that are to be derived.
    """

    def __init__(self, spec: FeatureSpec, folder: str, columns: Collection[str]) -> None:
        needed = training_fields(spec, columns)
        self._fields = {field.name: field for field in needed}
        self._known = {field.name: _read(folder, field.name) for field in needed}
        tables = {_table(field): field for field in needed}
        self._tables = {
            table: _Table(_union([self._known[other.name] for other in needed if _table(other) == table]), field)
            for table, field in tables.items()
        }

    def are_known(self, field: str, ids: Sequence[bytes | int]) -> npt.NDArray[np.bool_]:
        """Returns which of a field's ids, none of them empty, occur in the field in the training split, [ids]."""
        return _isin(fingerprint(ids, self._fields[field])[:, 0], self._known[field][:, 0])

    def are_colliding(self, field: str, ids: Sequence[bytes | int]) -> npt.NDArray[np.bool_]:
        """Returns which ids, none of them empty, have the buckets of another one in the training split, [ids].

        The other one may be of any field that shares the table.
        """
        found = self._fields[field]
        return self._tables[_table(found)].are_colliding(fingerprint(ids, found))


class _Table:
    """The ids of an embedding table by their buckets."""

    def __init__(self, ids: Fingerprints, field: IdField) -> None:
        self._num_buckets = field.num_buckets
        self._ids = ids[:, 0]
        counted: tuple[Any, Any] = np.unique(self._bucket_keys(ids), return_counts=True)
        self._keys, self._counts = counted

    def are_colliding(self, ids: Fingerprints) -> npt.NDArray[np.bool_]:
        keys = self._bucket_keys(ids)
        counts = np.append(self._counts, 0)[np.searchsorted(self._keys, keys)] * _isin(keys, self._keys)
        others: npt.NDArray[np.bool_] = counts > _isin(ids[:, 0], self._ids)
        return others

    def _bucket_keys(self, ids: Fingerprints) -> Any:
        """Returns the buckets as one number, in ascending order: what two hashes give is a sum."""
        buckets = np.sort(ids % np.uint64(self._num_buckets), axis=1)
        return buckets[:, 0] * np.uint64(self._num_buckets) + buckets[:, -1]


def _isin(values: Any, ascending: Any) -> npt.NDArray[np.bool_]:
    place: Any = np.searchsorted(ascending, values)
    inside = place < len(ascending)
    found = np.zeros(len(values), bool)
    found[inside] = ascending[place[inside]] == values[inside]
    return found


def _table(field: IdField) -> tuple[int, int]:
    return field.row_offset, field.num_hashes  # the sum of two rows is no row of one hash
