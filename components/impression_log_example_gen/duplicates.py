"""Which rows are impressions that the log has had before: of those with the same key, all but the first.

Each worker writes its rows' keys, as hashes of 128 bits, into partitions by hash; a partition is then sorted by whoever
gets it. So memory is bounded by a partition's size, and two different keys are taken for the same with a probability of
less than 1e-20 for a billion rows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types
from tfx.dsl.io import fileio

from components.impression_log_example_gen.check import find, flatten
from components.impression_log_example_gen.log import LogError
from schemas.whole import are_whole

_SEEDS = ("impression_key_0", "impression_key_1")  # the length is SipHash's
_BUFFERED_ROWS = 250_000
_Array = np.ndarray[Any, Any]


def hash_keys(batch: pa.RecordBatch, source: str) -> tuple[_Array, _Array]:
    """Returns the rows that have a key, int64 [n], and the keys' hashes, uint64 [n, 2].

    A key is the same as an integer, as a whole double and as text. A row without one is a duplicate of none. The empty
    text is none in every format, as it is in CSV, and so is NaN, as pandas writes a gap.

    Raises:
        LogError: The values are of a type that names nothing, or doubles that do not tell integers apart.
    """
    values, lengths = flatten(find(batch, source))
    rows = np.flatnonzero(lengths)
    firsts = (np.cumsum(lengths) - lengths)[rows]
    keys = values.take(pa.array(firsts))
    if not any(is_type(keys.type) for is_type in _IS_TEXT):
        keys = _to_text(keys, source)
    keys = keys.cast(pa.large_binary())
    is_key = pc.binary_length(keys).to_numpy() > 0
    texts = keys.filter(pa.array(is_key)).to_numpy(zero_copy_only=False)
    hashes = [pd.util.hash_array(texts, hash_key=seed, categorize=False) for seed in _SEEDS]
    return rows[is_key], np.stack(hashes, axis=1).astype(np.uint64)


def _to_text(keys: pa.Array, source: str) -> pa.Array:
    if types.is_floating(keys.type):
        numbers = keys.to_numpy(zero_copy_only=False)
        is_key = ~np.isnan(numbers)
        wrong = numbers[is_key & ~are_whole(numbers)]
        if len(wrong):
            raise LogError(
                f"log.key: {wrong[0]:.17g} in {source} is a {keys.type}, which is no integer or may stand for several: "
                "write the key as an integer or as text"
            )
        integers = pa.array(np.where(is_key, numbers, 0).astype(np.int64)).cast(pa.string())
        return pc.if_else(pa.array(is_key), integers, "")
    try:
        return keys.cast(pa.string())
    except pa.ArrowNotImplementedError:
        if not types.is_decimal(keys.type):
            raise LogError(f"log.key: values of {source} are of the type {keys.type}: name a column of ids") from None
        return pa.array(map(str, keys.to_pylist()), pa.string())


_IS_TEXT = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)


class KeyWriter:
    """Writes the keys of one portion's rows.

    Attributes:
        num_partitions: How many partitions the keys have.
    """

    def __init__(self, folder: str, portion: int, num_partitions: int) -> None:
        self.num_partitions = num_partitions
        self._folder = folder
        self._portion = portion
        self._hashes: list[_Array] = []
        self._ordinals: list[_Array] = []
        self._num_files = 0

    def add(self, hashes: _Array, ordinals: _Array) -> None:
        """Adds rows.

        Args:
            hashes: uint64 [n, 2]: their keys.
            ordinals: int64 [n]: their places in the portion.
        """
        self._hashes.append(hashes)
        self._ordinals.append(ordinals)
        if sum(map(len, self._ordinals)) >= _BUFFERED_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what has been added."""
        if not self._hashes:
            return
        hashes, ordinals = np.concatenate(self._hashes), np.concatenate(self._ordinals)
        for partition in range(self.num_partitions):
            is_in = hashes[:, 0] % np.uint64(self.num_partitions) == partition
            path = os.path.join(self._folder, f"{partition}-{self._portion}-{self._num_files}.npz")
            # Under one name however often a runner tries: the content is the same.
            _save(path, hashes=hashes[is_in], ordinals=ordinals[is_in])
        self._hashes, self._ordinals = [], []
        self._num_files += 1


def find_duplicates(
    partition: int, folder: str, left_out: Mapping[int, Iterable[tuple[int, int]]], out_folder: str
) -> None:
    """Writes the ordinals of a partition's duplicates, for each portion that has some.

    Args:
        partition: The partition.
        folder: Where the keys are.
        left_out: By portion, ranges of ordinals that count for nothing: those of corrupt files.
        out_folder: Where to write.
    """
    names = [name for name in fileio.listdir(folder) if name.startswith(f"{partition}-")]
    names.sort(key=lambda name: [int(part) for part in name.removesuffix(".npz").split("-")])
    hashes, ordinals, portions = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for name in names:
        portion = int(name.split("-")[1])
        keys = _load(os.path.join(folder, name))
        counts = np.ones(len(keys["ordinals"]), bool)
        for start, stop in left_out.get(portion, ()):
            counts &= (keys["ordinals"] < start) | (keys["ordinals"] >= stop)
        hashes.append(keys["hashes"][counts])
        ordinals.append(keys["ordinals"][counts])
        portions.append(np.full(int(counts.sum()), portion))
    all_hashes, all_ordinals, all_portions = (np.concatenate(arrays) for arrays in (hashes, ordinals, portions))
    order = np.lexsort(all_hashes.T)  # stable: of the same keys the first in the log stays the first
    is_repeated = np.zeros(len(order), bool)
    is_repeated[1:] = (all_hashes[order][1:] == all_hashes[order][:-1]).all(axis=1)
    repeated = order[is_repeated]
    for portion in np.unique(all_portions[repeated]).tolist():
        of_portion = np.sort(all_ordinals[repeated[all_portions[repeated] == portion]])
        _save(os.path.join(out_folder, f"{portion}-{partition}.npz"), ordinals=of_portion)


def read_duplicates(out_folder: str, portion: int) -> _Array:
    """Returns the ordinals of a portion's duplicates, int64 [n]."""
    arrays: list[_Array] = [np.zeros(0, np.int64)]
    for name in fileio.listdir(out_folder):
        if name.startswith(f"{portion}-"):
            arrays.append(_load(os.path.join(out_folder, name))["ordinals"])
    ordinals: _Array = np.concatenate(arrays)
    return ordinals


def _save(path: str, **arrays: _Array) -> None:
    content = io.BytesIO()  # TFX's files cannot be sought in while they are written
    np.savez(content, **arrays)
    with fileio.open(path, "wb") as file:
        file.write(content.getvalue())


def _load(path: str) -> dict[str, _Array]:
    with fileio.open(path, "rb") as file, np.load(io.BytesIO(file.read())) as content:
        return dict(content)
