"""The one definition of a data set: which columns an impression has, and what the model makes of each.

Everything else is derived from a `FeatureSpec`: the TFMD schema, the transformation, the layout of the embedding table,
the label and the slices of the evaluation, the serving signature. Field order is the order of `FeatureSpec.features`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import numbers
import re
from typing import Literal, TypeAlias, get_args

IdType = Literal["int64", "string"]
NumberType = Literal["int64", "float32"]
Pooling = Literal["sum", "mean", "sqrtn", "target_attention"]
Normalization = Literal["z_score", "log1p_z_score", "quantile_buckets"]
Hashing = Literal["bytes", "digits"]

# The features that Transform writes and the Trainer reads, one vector each: what parsing costs is a feature's, not a
# value's.
IDS = "ids"  # int64 [num_positions]: bucket + 1; 0 where there is no id
NUMBERS = "numbers"  # float32 [num_numbers]: normalized; 0 where missing
LABEL = "label"  # float32 []
WEIGHT = "weight"  # float32 []: only where the spec names a weight

# What stands for a missing value where a column has one value at most, by the raw column's type. Ids are not negative.
# A float's is not NaN: that equals nothing, so that no schema would equal itself.
NO_ID: dict[str, int | str] = {"int64": -1, "string": ""}
NO_NUMBER: dict[str, int | float] = {"int64": -(2**63), "float32": -math.inf}


# An input of a signature may be called so. TFMA would feed a column `examples` to `serving_default`, whose input it is.
_COLUMN = re.compile(r"(?!(self|examples)$)[A-Za-z][A-Za-z0-9_]*")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True)
class IdFeature:
    """One categorical id, hashed to a bucket.

    Attributes:
        name: The column in the log.
        num_buckets: Number of hash buckets, the rows that the id takes in the embedding table.
        dtype: Type of the raw id.
        table: Name of the embedding table. Features that name the same one share its rows; by default one's own.
        domain: The values that a string id may take; any value where empty. The schema gate stops others.
        min_presence: Share of the impressions that must have the id, in [0, 1].
        num_hashes: 1, or 2: an id is then the sum of the rows of two hashes, so that two ids are the same to the model
            only where both collide (Svenstrup et al., "Hash Embeddings for Efficient Word Representations", NIPS 2017,
            without their weights).
        hashing: What of the id is hashed: its `bytes` (of an int64 eight), or an int64's decimal `digits`, as
            `tf.feature_column` does it. `digits` is much slower. See `schemas/hashing.py`.
    """

    name: str
    num_buckets: int
    dtype: IdType = "int64"
    table: str = ""
    domain: tuple[str, ...] = ()
    min_presence: float = 0.0
    num_hashes: int = 1
    hashing: Hashing = "bytes"

    def __post_init__(self) -> None:
        _check_id(self)


@dataclasses.dataclass(frozen=True)
class IdSequence:
    """A list of ids, oldest first: its most recent `max_length` ids are used, pooled for the deep tower.

    Attributes:
        name: The column in the log.
        num_buckets: Number of hash buckets.
        max_length: How many of the most recent ids are kept.
        pooling: How a sequence's vectors become one: their sum, mean, sum / sqrt(count), or `target_attention`: in the
            deep tower a mean weighted by how well each id fits the target, in the FM term the mean.
        dtype: Type of the raw ids.
        table: As in `IdFeature`.
        domain: As in `IdFeature`.
        min_presence: Share of the impressions that must have at least one id, in [0, 1].
        num_hashes: As in `IdFeature`.
        hashing: As in `IdFeature`.
        target: The id feature that `target_attention` compares with; by default the one that shares the table.
    """

    name: str
    num_buckets: int
    max_length: int
    pooling: Pooling = "mean"
    dtype: IdType = "int64"
    table: str = ""
    domain: tuple[str, ...] = ()
    min_presence: float = 0.0
    num_hashes: int = 1
    hashing: Hashing = "bytes"
    target: str = ""

    def __post_init__(self) -> None:
        _check_id(self)
        _require(
            not self.target or self.pooling == "target_attention",
            f"{self.name}: target goes with pooling target_attention, not {self.pooling}",
        )
        _require_number(self, "max_length", numbers.Integral)
        _require(self.max_length > 0, f"{self.name}: max_length is {self.max_length}, must be positive")
        _require_one_of(self.name, "pooling", self.pooling, Pooling)

    @property
    def length_name(self) -> str:
        """The name of a request's input with the number of its ids, where a request is padded."""
        return f"{self.name}_length"


@dataclasses.dataclass(frozen=True)
class NumericFeature:
    """A number, normalized or turned into the id of its quantile bucket.

    `z_score` is (x - mean) / standard deviation; `log1p_z_score` that of sign(x) * log(1 + |x|). Both are inputs of the
    linear term and the deep tower. `quantile_buckets` makes the number an id field with an embedding per bucket.

    Attributes:
        name: The column in the log.
        normalization: See above. Statistics are those of the training split.
        dtype: Type of the raw number. An int64 is read as a float32, in requests too, which tells integers apart up to
            2**24: of a time take the seconds since some event, and not since 1970.
        num_buckets: Number of quantile buckets, for `quantile_buckets` only.
        minimum: Least value that the schema gate lets through; of an int64 rounded up.
        maximum: Greatest value that the schema gate lets through; of an int64 rounded down.
        min_presence: Share of the impressions that must have the number, in [0, 1].
    """

    name: str
    normalization: Normalization = "z_score"
    dtype: NumberType = "float32"
    num_buckets: int = 0
    minimum: float = -math.inf
    maximum: float = math.inf
    min_presence: float = 0.0

    def __post_init__(self) -> None:
        _check_raw(self, NumberType)
        _require_one_of(self.name, "normalization", self.normalization, Normalization)
        if self.normalization == "quantile_buckets":
            _require_number(self, "num_buckets", numbers.Integral)
            _require(self.num_buckets > 1, f"{self.name}: num_buckets is {self.num_buckets}, must be at least 2")
        else:
            _require(
                self.num_buckets == 0,
                f"{self.name}: num_buckets goes with normalization quantile_buckets, not {self.normalization}",
            )
        _require_number(self, "minimum")
        _require_number(self, "maximum")
        _require(
            self.minimum <= self.maximum,
            f"{self.name}: minimum {self.minimum} is above maximum {self.maximum}",
        )
        if self.dtype == "int64":
            self._check_whole()

    def _check_whole(self) -> None:
        """Sees to it that the bounds fit an int64 and leave one between them."""
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        for which, bound in bounds.items():
            _require(
                math.isinf(bound) or -(2**63) <= bound < 2**63,
                f"{self.name}: {which} {bound} is not in the range of an int64, [-2^63, 2^63 - 1]",
            )
        _require(
            any(map(math.isinf, bounds.values())) or math.ceil(self.minimum) <= math.floor(self.maximum),
            f"{self.name}: there is no whole number from minimum {self.minimum} to maximum {self.maximum}",
        )


Feature: TypeAlias = IdFeature | IdSequence | NumericFeature


def no_value(feature: Feature) -> int | float | str:
    """Returns what stands for a missing value of a feature."""
    return NO_NUMBER[feature.dtype] if isinstance(feature, NumericFeature) else NO_ID[feature.dtype]


@dataclasses.dataclass(frozen=True)
class Label:
    """The click: an int64 column of 0 and 1.

    Attributes:
        name: The column in the log.
    """

    name: str = "label"


@dataclasses.dataclass(frozen=True)
class IdField:
    """Where one id field stands: in the packed `ids` vector, and in the one embedding table.

    Attributes:
        name: The feature's name.
        start: Its first position in `ids`.
        max_length: How many ids it has at most; each of its hashes takes so many positions in `ids`.
        pooling: How its positions become one vector.
        row_offset: Added to a position's value (bucket + 1) to give the table's row; row 0 is nobody's.
        num_buckets: Number of its buckets. The row after theirs stands for unseen ids.
        num_hashes: How many hashes an id has.
        hashing: What of an id is hashed.
        target: The number of the field that `target_attention` compares with, in field order.
    """

    name: str
    start: int
    max_length: int
    pooling: Pooling
    row_offset: int
    num_buckets: int
    num_hashes: int = 1
    hashing: Hashing = "bytes"
    target: int | None = None

    @property
    def unseen(self) -> int:
        """The value of a position that stands for an unseen id: one more than the last bucket's."""
        return self.num_buckets + 1

    @property
    def num_positions(self) -> int:
        """Its number of positions in `ids`."""
        return self.max_length * self.num_hashes

    @property
    def positions(self) -> slice:
        """The field's positions in the packed `ids` vector."""
        return slice(self.start, self.start + self.num_positions)


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """One data set.

    Attributes:
        name: Name of the data set; its schema is `schemas/<name>.pbtxt`.
        features: The model's features, in field order.
        label: The click.
        group_key: The id feature by which ranking metrics group impressions (a user or a request), if any.
        timestamp: An int64 column with seconds since 1970-01-01 UTC, if the log has one. Not an input of the model.
        weight: A float32 column with the weight of the impression in training and evaluation, at least 0; without one
            all weigh the same. Not an input of the model.
    """

    name: str
    features: tuple[Feature, ...]
    label: Label = Label()
    group_key: str | None = None
    timestamp: str | None = None
    weight: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        inputs = [feature.name for feature in self.features]
        inputs += [feature.length_name for feature in self.features if isinstance(feature, IdSequence)]
        columns = [*inputs, self.label.name, *(column for column in (self.timestamp, self.weight) if column)]
        for column in columns:
            _require(
                bool(_COLUMN.fullmatch(column)),
                f"{self.name}: the column name {column!r} is not one that a signature's input can have: ASCII letters, "
                "digits and _, a letter first, and not self or examples; log.columns says what it is called in the log",
            )
            _require(columns.count(column) == 1, f"{self.name}: column {column} is named more than once")
        for name in inputs:
            alike = sorted(other for other in inputs if other.lower() == name.lower())
            _require(
                len(alike) == 1,
                f"{self.name}: {' and '.join(alike)} differ in upper and lower case only, which the inputs of "
                "a signature may not; log.columns says what a column is called in the log",
            )
        _require(bool(self.features), f"{self.name}: a spec needs at least one feature")
        ids = {feature.name for feature in self.features if isinstance(feature, IdFeature)}
        _require(
            self.group_key is None or self.group_key in ids,
            f"{self.name}: group_key {self.group_key} is not one of its id features",
        )
        for feature in self.features:
            if isinstance(feature, IdSequence) and feature.pooling == "target_attention":
                self._find_target(feature)
        self._check_tables()

    def _check_tables(self) -> None:
        """Sees to it that in fields that share a table an id has the same row."""
        shared: dict[str, tuple[str, dict[str, int | str]]] = {}
        for feature in self.features:
            table = _table(feature)
            if table is None:
                continue
            meaning: dict[str, int | str] = {"num_buckets": feature.num_buckets}
            meaning |= {"dtype": feature.dtype, "hashing": _hashing(feature)}
            name, first = shared.setdefault(table, (feature.name, meaning))
            _require(
                meaning == first,
                f"{feature.name} and {name} share table {table} but differ: "
                + ", ".join(f"{key} {meaning[key]} and {first[key]}" for key in first if meaning[key] != first[key]),
            )

    @functools.cached_property
    def id_fields(self) -> tuple[IdField, ...]:
        """The id fields, in field order, with their places in `ids` and in the embedding table."""
        fields: list[IdField] = []
        start, next_offset = 0, 0
        offsets: dict[str, int] = {}
        for feature in self.features:
            table = _table(feature)
            if table is None:
                continue
            if table not in offsets:
                offsets[table] = next_offset
                next_offset += feature.num_buckets + 1
            max_length, pooling = (
                (feature.max_length, feature.pooling) if isinstance(feature, IdSequence) else (1, "sum")
            )
            num_hashes = 1 if isinstance(feature, NumericFeature) else feature.num_hashes
            field = IdField(
                feature.name,
                start,
                max_length,
                pooling,
                offsets[table],
                feature.num_buckets,
                num_hashes,
                _hashing(feature),
            )
            fields.append(field)
            start += field.num_positions
        names = [field.name for field in fields]
        by_name = {feature.name: feature for feature in self.features}
        return tuple(
            dataclasses.replace(field, target=names.index(self._find_target(by_name[field.name])))
            if field.pooling == "target_attention"
            else field
            for field in fields
        )

    def _find_target(self, sequence: Feature) -> str:
        """Returns the name of the id feature that a sequence's `target_attention` compares with."""
        assert isinstance(sequence, IdSequence)
        ids = [feature for feature in self.features if isinstance(feature, IdFeature)]
        targets = [
            feature.name
            for feature in ids
            if (feature.name == sequence.target if sequence.target else _table(feature) == _table(sequence))
        ]
        _require(
            len(targets) == 1,
            f"{sequence.name}: target_attention needs the name of an id feature as target"
            + (f", and {sequence.target} is none" if sequence.target else "")
            + f"; there are {', '.join(feature.name for feature in ids) or 'none'}",
        )
        return targets[0]

    @property
    def num_positions(self) -> int:
        """Length of the packed `ids` vector."""
        return sum(field.num_positions for field in self.id_fields)

    @property
    def num_table_rows(self) -> int:
        """Rows of the embedding table: one for each bucket, one for each table's unseen ids, and row 0, for padding."""
        return 1 + max((field.row_offset + field.unseen for field in self.id_fields), default=0)

    @property
    def numbers(self) -> tuple[NumericFeature, ...]:
        """The normalized numbers, in the order of the packed `numbers` vector."""
        return tuple(
            feature
            for feature in self.features
            if isinstance(feature, NumericFeature) and feature.normalization != "quantile_buckets"
        )


def load_spec(path: str) -> FeatureSpec:
    """Imports the spec that `path` names.

    Args:
        path: `package.module:NAME`.

    Raises:
        ValueError: `path` has another form, the module cannot be imported, for whatever reason, or the name is not a
            `FeatureSpec`.
    """
    module_name, _, attribute = path.partition(":")
    _require(bool(module_name and attribute), f"features {path!r} is not of the form package.module:NAME")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's own module
        kind = "" if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: "
        raise ValueError(f"features {path!r}: {kind}{' '.join(str(error).split())}") from error
    spec = getattr(module, attribute, None)
    if not isinstance(spec, FeatureSpec):
        raise ValueError(f"features {path!r}: {module_name} has no FeatureSpec {attribute}")
    return spec


def _table(feature: Feature) -> str | None:
    """The embedding table of a feature, None where it has none."""
    if isinstance(feature, NumericFeature):
        return feature.name if feature.normalization == "quantile_buckets" else None
    return feature.table or feature.name


def _hashing(feature: Feature) -> Hashing:
    return "bytes" if isinstance(feature, NumericFeature) else feature.hashing


def _check_id(feature: IdFeature | IdSequence) -> None:
    _check_raw(feature, IdType)
    _require_one_of(feature.name, "hashing", feature.hashing, Hashing)
    _require(
        feature.hashing == "bytes" or feature.dtype == "int64",
        f"{feature.name}: hashing {feature.hashing} needs dtype int64, not {feature.dtype}",
    )
    _require_number(feature, "num_hashes", numbers.Integral)
    _require(feature.num_hashes in (1, 2), f"{feature.name}: num_hashes is {feature.num_hashes}, must be 1 or 2")
    _require_number(feature, "num_buckets", numbers.Integral)
    _require(feature.num_buckets > 0, f"{feature.name}: num_buckets is {feature.num_buckets}, must be positive")
    _require(
        isinstance(feature.domain, list | tuple) and all(isinstance(value, str) for value in feature.domain),
        f"{feature.name}: domain is {feature.domain!r}, must be a tuple of texts, such as ('a',)",
    )
    object.__setattr__(feature, "domain", tuple(feature.domain))
    _require(
        not feature.domain or feature.dtype == "string",
        f"{feature.name}: a domain needs dtype string, not {feature.dtype}",
    )


def _require_number(feature: Feature, setting: str, kind: type = numbers.Real) -> None:
    """Makes Python's own number of NumPy's, which JSON does not know."""
    value = getattr(feature, setting)
    _require(
        isinstance(value, kind) and not isinstance(value, bool),
        f"{feature.name}: {setting} is {value!r}, must be {'an integer' if kind is numbers.Integral else 'a number'}",
    )
    object.__setattr__(feature, setting, int(value) if isinstance(value, numbers.Integral) else float(value))


def _check_raw(feature: Feature, dtypes: object) -> None:
    _require(bool(feature.name), "a feature has no name")
    _require_one_of(feature.name, "dtype", feature.dtype, dtypes)
    _require_number(feature, "min_presence")
    presence = feature.min_presence
    _require(0 <= presence <= 1, f"{feature.name}: min_presence is {presence}, must be in [0, 1]")


def _require_one_of(name: str, attribute: str, value: str, allowed: object) -> None:
    _require(
        value in get_args(allowed), f"{name}: {attribute} is {value!r}, must be one of {', '.join(get_args(allowed))}"
    )
