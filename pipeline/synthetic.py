"""Writes an invented impression log of any feature spec, of which it is known how well a model can do at best."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import LogConfig
from pipeline.planted import Array, Bayes, PlantedDeepFM
from pipeline.whole_folder import SUCCESS, write_whole
from schemas.features import FeatureSpec

FIRST_DAY = datetime.date(2026, 1, 1)
BAD_LABEL = 7
_CHUNK = 50_000
_THREADS = 2
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


class SyntheticError(RuntimeError):
    """The log cannot be written; the message is one sentence for the user."""


@dataclasses.dataclass(frozen=True)
class SyntheticLog:
    """What a written log holds.

    Attributes:
        num_impressions: Rows, the bad ones too.
        num_clicks: Rows with label 1.
        num_bad: Rows whose label is neither 0 nor 1.
        first_day: YYYY-MM-DD.
        last_day: YYYY-MM-DD.
        bayes_auc: AUC of the click probabilities on good rows, in expectation over the clicks.
        bayes_log_loss: Their log loss in nats, likewise.
        last_day_auc: The same of the last day alone.
        last_day_log_loss: The same of the last day alone.
    """

    num_impressions: int
    num_clicks: int
    num_bad: int
    first_day: str
    last_day: str
    bayes_auc: float
    bayes_log_loss: float
    last_day_auc: float
    last_day_log_loss: float


def write_synthetic_log(
    directory: pathlib.Path,
    spec: FeatureSpec,
    *,
    num_rows: int,
    num_days: int,
    seed: int = 0,
    bad_rate: float = 0.0,
    log: LogConfig | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> SyntheticLog:
    """Writes the log: a Parquet file a day, in `day=YYYY-MM-DD` folders from 2026-01-01 on.

    It is written beside `directory` and renamed when it is complete. Memory does not grow with the rows.

    Args:
        directory: Where the log goes; absent or empty.
        spec: Which columns it has.
        num_rows: Rows in all.
        num_days: Days.
        seed: The same seed gives the same rows.
        bad_rate: Share of the rows that get a label that is none, in [0, 1].
        log: Its names of the spec's columns, its timestamp's unit, its key.
        progress: Told how many rows are written.

    Raises:
        SyntheticError: `directory` is in use or not writable, or there are fewer rows than days.
    """
    if num_rows < num_days:
        raise SyntheticError(f"{num_rows} rows are too few for {num_days} days: raise --rows, or lower --days")
    target = directory.resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise SyntheticError(f"{directory} is not empty: remove it, or choose another directory with --out")
        writer = _Writer(spec, log or LogConfig(), num_rows, num_days, seed, bad_rate)
        with write_whole(target) as unfinished:
            written = writer.write(unfinished, progress)
            (unfinished / SUCCESS).write_text(json.dumps(dataclasses.asdict(written)), encoding="utf-8")
    except OSError as error:
        raise SyntheticError(f"cannot write {directory}: {error.strerror or error}") from error
    return written


@dataclasses.dataclass
class _Chunk:
    table: pa.Table
    probabilities: Array  # of the good rows
    num_clicks: int
    num_bad: int


class _Writer:
    def __init__(
        self, spec: FeatureSpec, log: LogConfig, num_rows: int, num_days: int, seed: int, bad_rate: float
    ) -> None:
        self._spec, self._log, self._seed, self._bad_rate = spec, log, seed, bad_rate
        self._rows_of_day = [num_rows * (day + 1) // num_days - num_rows * day // num_days for day in range(num_days)]
        self._model = PlantedDeepFM(spec, num_days, seed)

    def write(self, folder: pathlib.Path, progress: Callable[[int], None]) -> SyntheticLog:
        overall, num_clicks, num_bad, done = Bayes(), 0, 0, 0
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            for day, num_rows in enumerate(self._rows_of_day):
                of_day = Bayes()
                partition = folder / f"day={FIRST_DAY + datetime.timedelta(day)}"
                partition.mkdir(parents=True)
                writer = None
                for chunk in self._draw_day(threads, day, num_rows):
                    writer = writer or pq.ParquetWriter(partition / "part-0.parquet", chunk.table.schema)
                    writer.write_table(chunk.table)
                    of_day.add(chunk.probabilities)
                    num_clicks, num_bad, done = (
                        num_clicks + chunk.num_clicks, num_bad + chunk.num_bad, done + chunk.table.num_rows,
                    )  # fmt: skip
                    progress(done)
                if writer:
                    writer.close()
                pa.default_memory_pool().release_unused()  # or what is kept grows with the rows of a day
                overall.merge(of_day)
        last = FIRST_DAY + datetime.timedelta(len(self._rows_of_day) - 1)
        return SyntheticLog(
            done, num_clicks, num_bad, FIRST_DAY.isoformat(), last.isoformat(),
            overall.auc, overall.log_loss, of_day.auc, of_day.log_loss,
        )  # fmt: skip

    def _draw_day(self, threads: concurrent.futures.ThreadPoolExecutor, day: int, num_rows: int) -> Iterator[_Chunk]:
        """Yields the day's chunks in order, and draws the next ones while one is written."""
        sizes = [min(_CHUNK, num_rows - start) for start in range(0, num_rows, _CHUNK)]
        numbered = enumerate(sizes)
        waiting = [threads.submit(self._draw, day, *chunk) for chunk in itertools.islice(numbered, _THREADS)]
        while waiting:
            chunk = waiting.pop(0).result()
            waiting += [threads.submit(self._draw, day, *following) for following in itertools.islice(numbered, 1)]
            yield chunk

    def _draw(self, day: int, number: int, num_rows: int) -> _Chunk:
        columns, probabilities = self._model.draw(day, number, num_rows)
        generator = np.random.default_rng([self._seed, 2, day, number])
        labels = (generator.random(num_rows, np.float32) < probabilities).astype(np.int64)
        is_bad = generator.random(num_rows, np.float32) < self._bad_rate
        num_clicks = int(labels[~is_bad].sum())
        labels[is_bad] = BAD_LABEL
        columns[self._spec.label.name] = pa.array(labels)
        if self._spec.weight:
            columns[self._spec.weight] = pa.array(np.ones(num_rows, np.float32))
        if self._spec.group_key and self._spec.group_key not in columns:
            columns[self._spec.group_key] = pa.array(generator.integers(1, 1000, num_rows))
        if self._spec.timestamp:
            midnight = (FIRST_DAY - datetime.date(1970, 1, 1)).days + day
            seconds = midnight * 86_400 + np.sort(generator.integers(0, 86_400, num_rows))
            columns[self._spec.timestamp] = pa.array(seconds * _PER_SECOND[self._log.timestamp_unit])
        if self._log.key and self._log.key not in columns:
            first = sum(self._rows_of_day[:day]) + number * _CHUNK
            columns[self._log.key] = pa.array(np.arange(first, first + num_rows))
        table = pa.table({self._log.columns.get(name, name): column for name, column in columns.items()})
        return _Chunk(table, probabilities[~is_bad], num_clicks, int(is_bad.sum()))
