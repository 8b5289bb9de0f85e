"""MovieLens-100K as arrays: transformed once with the project's own transformation, for all models that are compared.

Settings, each with its spec and its split:

- `temporal`: the project's `schemas.movielens` spec; the last 10% of the rows by time are the eval rows.
- `described`: the same rows without what was skipped and counted before (`pipeline/movielens_context.py`).
- `random-SEED`: RecBole's published setting: user, item, age, gender, occupation, release year and genres, all as
  tokens, in buckets so many that hardly two values share one; no history, no time. 80% of the rows are for training,
  10% for validation (the last fold), 10% are the eval rows, drawn as RecBole draws them: with its seed, 2020, they are
  the rows of its published figures (`recbole_permutation`). The transformation of ids does not depend on the split.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from pipeline.movielens import VERSION
from schemas.features import IDS, LABEL, NUMBERS, FeatureSpec, IdFeature, IdSequence
from schemas.movielens import MOVIELENS

LOG = pathlib.Path("logs/movielens")
CACHE = pathlib.Path(".cache/bench/quality")
EVAL_SHARE = 0.1
NUM_FOLDS = 3
RECBOLE_SEED = 2020

_MANY = 1_000_000
TOKENS = FeatureSpec(
    name="movielens_tokens",
    features=(
        IdFeature("user_id", num_buckets=_MANY),
        IdFeature("item_id", num_buckets=_MANY),
        IdFeature("age", num_buckets=20_000),
        IdFeature("gender", num_buckets=20_000, dtype="string"),
        IdFeature("occupation", num_buckets=20_000, dtype="string"),
        IdSequence("genres", num_buckets=20_000, max_length=6, dtype="string"),
        IdFeature("release_year", num_buckets=20_000),
    ),
)
_DESCRIPTIONS = ("user_id", "item_id", "history", "age", "gender", "occupation", "genres", "release_year")
DESCRIBED = dataclasses.replace(
    MOVIELENS, features=tuple(feature for feature in MOVIELENS.features if feature.name in _DESCRIPTIONS)
)
SPECS = {"temporal": MOVIELENS, "described": DESCRIBED, "random": TOKENS}

Array: TypeAlias = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Transformed impressions.

    Attributes:
        ids: int64 [num_rows, num_positions]: bucket + 1, 0 for padding.
        numbers: float32 [num_rows, num_numbers].
        labels: float32 [num_rows].
    """

    ids: Array
    numbers: Array
    labels: Array

    def __getitem__(self, index: slice | Array) -> Rows:
        return Rows(self.ids[index], self.numbers[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)

    def followed_by(self, other: Rows) -> Rows:
        """Returns these rows and then the other's."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self))
        return Rows(*(np.concatenate(pair) for pair in pairs))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A data set with its split.

    Attributes:
        spec: The features.
        train: The rows that a model learns from, `validation` included; by time where the setting is `temporal`.
        eval: The rows that are measured, once.
        folds: (training rows, validation rows) of `train`, on which settings are chosen.
        file: The arrays' npz file, for other environments; beside it `.json` is the fields' layout.
    """

    spec: FeatureSpec
    train: Rows
    eval: Rows
    folds: tuple[tuple[Rows, Rows], ...]
    file: pathlib.Path


def load_setting(name: str) -> Setting:
    """Returns a setting: `temporal`, `described` or `random-SEED`; transforms the log where that was not done yet."""
    kind, _, seed = name.partition("-")
    spec = SPECS[kind]
    version = hashlib.sha256(repr((spec, EVAL_SHARE, VERSION)).encode()).hexdigest()[:8]
    file = CACHE / f"{kind}-{version}.npz"
    if not file.is_file():
        _write(kind, spec, file)
    with np.load(file) as arrays:
        train, eval_rows = (
            Rows(arrays[f"{split}_ids"], arrays[f"{split}_numbers"], arrays[f"{split}_labels"])
            for split in ("train", "eval")
        )
    size = len(eval_rows)
    if kind == "random":
        rows = train.followed_by(eval_rows)[recbole_permutation(len(train) + size, int(seed))]
        train, eval_rows = rows[:-size], rows[-size:]
    ends = [len(train) - number * size for number in reversed(range(NUM_FOLDS))]
    folds = tuple((train[: end - size], train[end - size : end]) for end in ends)
    if kind == "random":  # the other rows are as good after the validation rows as before them
        folds = tuple(
            (rows.followed_by(train[end:]), validation) for end, (rows, validation) in zip(ends, folds, strict=True)
        )
    return Setting(spec, train, eval_rows, folds, file)


def _write(kind: str, spec: FeatureSpec, file: pathlib.Path) -> None:
    table = read_log()
    if kind == "random":
        table = table.take(recbole_order(table))
    num_eval = round(EVAL_SHARE * table.num_rows)
    tables = {"train": table.slice(0, table.num_rows - num_eval), "eval": table.slice(table.num_rows - num_eval)}
    arrays = {
        f"{split}_{kind}": array
        for split, rows in transform(spec, tables).items()
        for kind, array in dataclasses.asdict(rows).items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(json.dumps([dataclasses.asdict(field) for field in spec.id_fields]))
    np.savez(file, **arrays)


def recbole_permutation(num_rows: int, seed: int) -> Array:
    """Returns `torch.randperm(num_rows)` after `torch.manual_seed(seed)`, which is how RecBole draws its split.

    A Fisher-Yates shuffle from the front, with the 32-bit outputs of a Mersenne Twister, each modulo the rows left.
    """
    outputs = np.random.RandomState(seed)._bit_generator.random_raw(num_rows - 1)
    permutation = np.arange(num_rows)
    for index, output in enumerate(outputs.tolist()):
        other = index + output % (num_rows - index)
        permutation[index], permutation[other] = permutation[other], permutation[index]
    return permutation


def recbole_order(table: Any) -> Array:
    """Returns for each rating of RecBole's file, in its order, its row in the log: int64 [num_rows]."""
    from pipeline.movielens import FOLDER, WHEEL_SHA256, install_wheel

    with tempfile.TemporaryDirectory() as unpacked:
        install_wheel(pathlib.Path(unpacked), WHEEL_SHA256)
        ratings = np.loadtxt(
            pathlib.Path(unpacked) / FOLDER / "ml-100k.inter", np.int64, skiprows=1, delimiter="\t", usecols=(0, 1)
        )
    pairs = zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    row_of = {pair: row for row, pair in enumerate(pairs)}
    return np.array([row_of[tuple(pair)] for pair in ratings.tolist()])


def read_log() -> Any:
    """Returns the impressions by time, then user, then item: a `pyarrow.Table`."""
    import pyarrow.dataset as ds

    from pipeline.movielens import write_impression_log

    write_impression_log(LOG, progress=lambda *_: None)
    table = ds.dataset(LOG, format="parquet").to_table()
    return table.sort_by([(key, "ascending") for key in ("timestamp", "user_id", "item_id")])


def transform(spec: FeatureSpec, tables: dict[str, Any]) -> dict[str, Rows]:
    """Analyzes the rows of `tables["train"]` and transforms all tables, with the project's preprocessing.

    Args:
        spec: The data set.
        tables: A `pyarrow.Table` for each split.
    """
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tfx_bsl.public.tfxio import TensorAdapter, TensorAdapterConfig

    from schemas.tfmd import make_schema
    from transform.preprocessing import transform_impressions

    names = [*(feature.name for feature in spec.features), spec.label.name]
    batches = {split: _to_batch(table, names) for split, table in tables.items()}
    forms = make_schema(spec).tensor_representation_group[""].tensor_representation
    config = TensorAdapterConfig(batches["train"].schema, {name: forms[name] for name in names})
    with tempfile.TemporaryDirectory() as folder:
        with tft_beam.Context(temp_dir=f"{folder}/temp"):
            transform_fn = ([batches["train"]], config) | tft_beam.AnalyzeDataset(
                lambda inputs: transform_impressions(inputs, spec)
            )
            _ = transform_fn | tft_beam.WriteTransformFn(f"{folder}/graph")
        layer = tft.TFTransformOutput(f"{folder}/graph").transform_features_layer()
        transformed = {}
        for split, table in tables.items():
            outputs = layer(TensorAdapter(config).ToBatchTensors(batches[split]))
            numbers = outputs[NUMBERS].numpy() if NUMBERS in outputs else np.zeros([table.num_rows, 0], np.float32)
            transformed[split] = Rows(outputs[IDS].numpy(), numbers, outputs[LABEL].numpy())
    return transformed


def _to_batch(table: Any, names: Iterable[str]) -> Any:
    """Returns a `pyarrow.RecordBatch` with one list of values a row; a missing value is a null."""
    import pyarrow as pa

    columns = {}
    for name in names:
        values = [value if value is None or isinstance(value, list) else [value] for value in table[name].to_pylist()]
        kind = table.schema.field(name).type
        columns[name] = pa.array(values, kind if pa.types.is_list(kind) else pa.list_(kind))
    return pa.RecordBatch.from_pydict(columns)
