"""A DeepFM with random weights, which invents impressions and says how probable a click on each is.

Bias, linear term, FM term and a layer of tanh units over all ids, and a slope for each number. Ids follow Zipf's law,
and the standard deviation of an id's weights is proportional to its popularity: what rare ids mean no number of rows
would tell a model, and the best possible would be out of reach. Popularity drifts: ten ids of neighbouring ranks move
one rank down each day, and the last of them becomes their first. One id in a hundred is new: no day before has it.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature

Array: TypeAlias = npt.NDArray[Any]
_DIM, _UNITS = 4, 16
_BIAS = -1.5
_MOST_IDS, _LEAST_SHARE = 50_000, 0.001  # of a table, and how many the smallest table has of them
_LINEAR_SCALE, _FACTOR_SCALE = 2.0, 0.3  # interactions are less than the linear term, as on real logs
_RANKS = 10  # that popularity drifts over
_MOST_IN_SEQUENCE = 20
_COLD_SHARE = 0.01
_COLD_IDS = 500  # of a table a day
_SCORE_BINS = 100_000


class Bayes:
    """Sums up what is best possible: a histogram of the probabilities, [bins] rows and clicks to be expected."""

    def __init__(self) -> None:
        self._rows = np.zeros(_SCORE_BINS)
        self._clicks = np.zeros(_SCORE_BINS)
        self._loss = 0.0

    def add(self, probabilities: Array) -> None:
        """Adds rows.

        Args:
            probabilities: Of a click, [rows], in (0, 1).
        """
        bins = np.minimum((probabilities * _SCORE_BINS).astype(np.int64), _SCORE_BINS - 1)
        self._rows += np.bincount(bins, minlength=_SCORE_BINS)
        self._clicks += np.bincount(bins, probabilities, minlength=_SCORE_BINS)
        rest = 1 - probabilities
        self._loss -= float(np.sum(probabilities * np.log(probabilities) + rest * np.log(rest)))

    def merge(self, other: Bayes) -> None:
        """Adds the rows of another one."""
        self._rows += other._rows
        self._clicks += other._clicks
        self._loss += other._loss

    @property
    def auc(self) -> float:
        """The AUC to be expected, to about 1e-5."""
        others = self._rows - self._clicks
        below = np.cumsum(others) - others / 2
        return float(np.sum(self._clicks * below) / (np.sum(self._clicks) * np.sum(others)))

    @property
    def log_loss(self) -> float:
        """The log loss to be expected, in nats."""
        return self._loss / float(np.sum(self._rows))


class PlantedDeepFM:
    """The click probabilities, and the columns they come from.

    Args:
        spec: The data set.
        num_days: How many days there will be ids for.
        seed: Of the weights and of all draws.
    """

    def __init__(self, spec: FeatureSpec, num_days: int, seed: int) -> None:
        self._seed = seed
        generator = np.random.default_rng([seed, 0])
        self._fields = [feature for feature in spec.features if isinstance(feature, IdFeature | IdSequence)]
        self._numbers = [feature for feature in spec.features if isinstance(feature, NumericFeature)]
        self._sizes: dict[str, int] = {}
        for field in self._fields:
            most = min(_MOST_IDS, max(2, field.num_buckets // 4))
            drawn = most * _LEAST_SHARE ** generator.random()
            size = len(field.domain) or max(2, round(drawn))
            self._sizes[_table(field)] = max(size, self._sizes.get(_table(field), 0))
        spread = 1 / math.sqrt(max(1, len(self._fields)))

        def normal(*shape: int) -> Array:
            return generator.standard_normal(shape, np.float32)

        heights = {table: size + num_days * _COLD_IDS for table, size in self._sizes.items()}
        scales = {table: spread * _scales(size, heights[table]) for table, size in self._sizes.items()}
        self._linear = {table: _LINEAR_SCALE * scale * normal(len(scale)) for table, scale in scales.items()}
        self._factors = {
            table: _FACTOR_SCALE * scale[:, None] * normal(len(scale), _DIM) for table, scale in scales.items()
        }
        self._kernel = normal(len(self._fields) * _DIM, _UNITS)
        # Eight characters each, as one number: so an array of strings is made of one of ids without a loop.
        texts = "".join(f"{id_:08x}" for id_ in range(max(heights.values(), default=0)))
        self._texts = np.frombuffer(texts.encode(), np.int64)
        self._output = normal(_UNITS) / math.sqrt(_UNITS)
        self._slopes = normal(len(self._numbers)) * 0.5 / math.sqrt(max(1, len(self._numbers)))

    def draw(self, day: int, chunk: int, num_rows: int) -> tuple[dict[str, pa.Array], Array]:
        """Draws impressions; the same ones each time.

        Args:
            day: Its number, from 0.
            chunk: Which of the day's.
            num_rows: How many.

        Returns:
            The columns of all features by their names, and the probabilities of a click, float64; [num_rows] each.
        """
        generator = np.random.Generator(np.random.SFC64([self._seed, 1, day, chunk]))
        columns: dict[str, pa.Array] = {}
        logits = np.full(num_rows, _BIAS, np.float32)
        vectors = np.empty((num_rows, len(self._fields), _DIM), np.float32)
        for index, field in enumerate(self._fields):
            lengths = np.ones(num_rows, np.int64)
            if isinstance(field, IdSequence):
                least = int(field.min_presence > 0)
                lengths = generator.integers(least, min(field.max_length, _MOST_IN_SEQUENCE) + 1, num_rows)
            ids = self._draw_ids(field, day, int(lengths.sum()), generator)
            linear, factors = self._linear[_table(field)][ids], self._factors[_table(field)].take(ids, 0, mode="clip")
            if isinstance(field, IdSequence):
                linear, factors = _means(linear[:, None], lengths)[:, 0], _means(factors, lengths)
                offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
                columns[field.name] = pa.ListArray.from_arrays(offsets, self._raw(field, ids))
            else:
                columns[field.name] = self._raw(field, ids)
            logits += linear
            vectors[:, index] = factors
        logits += self._interactions(vectors.reshape(num_rows, -1))
        for number, slope in zip(self._numbers, self._slopes, strict=True):
            values = _draw_numbers(number, num_rows, generator)
            columns[number.name] = pa.array(values)
            logits += slope * np.tanh(_standardized(number, values))
        return columns, 1 / (1 + np.exp(-logits.astype(np.float64)))

    def _interactions(self, vectors: Array) -> Array:
        """Returns the FM term and the layer's output, float32 [rows], of the factors [rows, fields * dim]."""
        # Products of matrices: sums over short axes take several times as long.
        total = vectors @ np.tile(np.eye(_DIM, dtype=np.float32), (len(self._fields), 1))  # [rows, dim]
        pairs = np.einsum("nd,nd->n", total, total) - np.einsum("nd,nd->n", vectors, vectors)
        result: Array = 0.5 * pairs + np.tanh(vectors @ self._kernel) @ self._output
        return result

    def _raw(self, field: IdFeature | IdSequence, ids: Array) -> pa.Array:
        """Returns ids as the log has them: a domain's values, hexadecimal text, or numbers from 1 on."""
        if field.domain:
            return pa.array(list(field.domain)).take(pa.array(ids))
        if field.dtype != "string":
            return pa.array(ids + 1)
        offsets = np.arange(0, 8 * len(ids) + 1, 8, np.int32)
        return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(self._texts.take(ids)))

    def _draw_ids(self, field: IdFeature | IdSequence, day: int, count: int, generator: np.random.Generator) -> Array:
        size = len(field.domain) or self._sizes[_table(field)]
        # P(rank < r) = log(1 + r) / log(1 + size): Zipf's law with exponent 1.
        uniform = generator.random(count, np.float32)
        ids = np.exp(uniform * np.float32(math.log(size + 1))).astype(np.int32) - 1
        np.minimum(ids, size - 1, out=ids)
        if field.domain:
            return ids.astype(np.intp)
        first = ids - ids % np.int32(_RANKS)
        ids = first + (ids - first - day) % np.minimum(_RANKS, size - first)
        cold = generator.integers(0, max(count, 1), generator.binomial(count, _COLD_SHARE))
        ids[cold] = size + day * _COLD_IDS + generator.integers(0, _COLD_IDS, len(cold))
        return ids.astype(np.intp)  # as numpy's own indices are


def _table(field: IdFeature | IdSequence) -> str:
    return field.table or field.name


def _scales(size: int, height: int) -> Array:
    """Returns the standard deviation of each id's linear weight, float32 [height]; its mean square is 1 in a log.

    Args:
        size: Number of ids that each day has; the others are new ones of some day.
        height: Number of all ids.
    """
    popularity = np.full(height, _COLD_SHARE / _COLD_IDS)
    first = np.arange(size) // _RANKS * _RANKS
    popularity[:size] = np.log1p(1 / (1 + first)) / math.log(1 + size)
    shares = np.log1p(1 / (1 + np.arange(size))) / math.log(1 + size)
    scales: Array = popularity / math.sqrt(np.sum(shares * popularity[:size] ** 2))
    return scales.astype(np.float32)


def _means(rows: Array, lengths: Array) -> Array:
    """Returns the mean of each list's rows, float32 [lists, dim], 0 of an empty one."""
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, 0, dtype=np.float64)])
    ends = np.cumsum(lengths)
    means: Array = (sums[ends] - sums[ends - lengths]) / np.maximum(lengths, 1)[:, None]
    return means.astype(np.float32)


def _draw_numbers(feature: NumericFeature, count: int, generator: np.random.Generator) -> Array:
    low, high = feature.minimum, feature.maximum
    if math.isfinite(low) and math.isfinite(high):
        values = low + generator.random(count, np.float32) * (high - low)
    else:
        values = np.exp(1 + generator.standard_normal(count, np.float32))
        values = values + low if math.isfinite(low) else np.minimum(values, high)
    if feature.dtype == "int64":
        return np.maximum(np.floor(values), np.ceil(low)).astype(np.int64)
    return values.astype(np.float32)


def _standardized(feature: NumericFeature, values: Array) -> Array:
    """Returns values of about mean 0 and variance 1."""
    values = values.astype(np.float32)
    low, high = feature.minimum, feature.maximum
    if math.isfinite(low) and math.isfinite(high):
        return (values - (low + high) / 2) / max((high - low) / math.sqrt(12), 1e-6)
    return np.log(np.maximum(values - (low if math.isfinite(low) else 0), 0.1)) - 1
