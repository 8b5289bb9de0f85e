"""What all peers share: the arrays, and how the scores come back. Needs numpy only."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

DIM = 8
HIDDEN_UNITS = (64, 32)
LEARNING_RATE = 0.001
BATCH_SIZE = 1024
NUM_EPOCHS = 3


@dataclasses.dataclass(frozen=True)
class Field:
    """One id field.

    Attributes:
        name: Its name.
        start: Its first position in `ids`.
        length: Its number of positions; more than 1 for a sequence.
        pooling: How a sequence's vectors become one.
        num_ids: Number of values that a position may have: buckets, the unseen ids' one, and 0 for padding.
        table: The name of the first field with the same table.
    """

    name: str
    start: int
    length: int
    pooling: str
    num_ids: int
    table: str


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The rows of both splits.

    Attributes:
        fields: The id fields, in field order.
        train: `ids` int64, `numbers` float32 and `labels` float32, see `benchmarks/quality_data.py`.
        eval: The same of the eval rows.
    """

    fields: tuple[Field, ...]
    train: dict[str, Array]
    eval: dict[str, Array]


def read(file: pathlib.Path) -> Arrays:
    """Reads the arrays and the fields' layout beside them."""
    tables: dict[int, str] = {}
    fields = tuple(
        Field(
            field["name"],
            field["start"],
            field["max_length"],
            field["pooling"],
            field["num_buckets"] + 2,
            tables.setdefault(field["row_offset"], field["name"]),
        )
        for field in json.loads(file.with_suffix(".json").read_text())
    )
    with np.load(file) as arrays:
        splits = [
            {kind: arrays[f"{split}_{kind}"] for kind in ("ids", "numbers", "labels")} for split in ("train", "eval")
        ]
    return Arrays(fields, *splits)


def inputs(arrays: Arrays, rows: dict[str, Array]) -> dict[str, Array]:
    """Returns one array a feature: [num_rows] for an id or a number, [num_rows, length] for a sequence."""
    columns = {
        field.name: rows["ids"][:, field.start]
        if field.length == 1
        else rows["ids"][:, field.start : field.start + field.length]
        for field in arrays.fields
    }
    return columns | {f"number_{index}": column for index, column in enumerate(rows["numbers"].T)}


def feature_columns(arrays: Arrays, library: Any) -> list[Any]:
    """Describes the features to DeepCTR or DeepCTR-Torch; `library` is the one's module of feature columns."""
    columns = []
    for field in arrays.fields:
        column = library.SparseFeat(field.name, field.num_ids, DIM, embedding_name=field.table)
        columns.append(column if field.length == 1 else library.VarLenSparseFeat(column, field.length, field.pooling))
    return columns + [library.DenseFeat(f"number_{index}", 1) for index in range(arrays.train["numbers"].shape[1])]


def run(train_and_score: Callable[[Arrays, int], Array]) -> None:
    """The command line `ARRAYS.npz SEED SCORES.npy`: writes the eval rows' click-through rates, float [num_rows]."""
    file, seed, scores = sys.argv[1:]
    np.save(scores, np.asarray(train_and_score(read(pathlib.Path(file)), int(seed)), np.float64).reshape(-1))
