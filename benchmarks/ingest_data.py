"""The ingestion benchmark's log: Criteo-shaped rows, the same ones as Parquet and as CSV.

26 ids from a power law, 13 numbers, a sequence of up to 20 ids, a label. Every day has a file of 100 thousand rows, in
row groups of 50 thousand; a larger log has more days.
"""

from __future__ import annotations

import datetime
import hashlib
import inspect
import pathlib
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.speed_specs import MAX_LENGTH, NUM_IDS, NUM_NUMBERS

CACHE = pathlib.Path(".cache/bench/ingest")
ROWS_PER_FILE = 100_000


def prepare(num_rows: int) -> pathlib.Path:
    """Writes the log, where that has not been done yet, and returns the folder that holds `parquet/` and `csv/`."""
    source = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()[:8]
    folder = CACHE / f"{num_rows}-{source}"
    if not (folder / "done").is_file():
        for index, start in enumerate(range(0, num_rows, ROWS_PER_FILE)):
            table = _make_table(index, min(ROWS_PER_FILE, num_rows - start))
            day = datetime.date(2026, 1, 1) + datetime.timedelta(index)
            files = [folder / name / f"day={day}" / f"part-0.{name}" for name in ("parquet", "csv")]
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, files[0], row_group_size=ROWS_PER_FILE // 2)
            texts = pc.binary_join(pc.cast(table["history"], pa.list_(pa.string())), "|")
            text = table.set_column(table.schema.get_field_index("history"), "history", texts)
            pyarrow.csv.write_csv(text, files[1])
        (folder / "done").touch()
    return folder


def _make_table(seed: int, num_rows: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    cumulative = np.cumsum(np.arange(1, 100_001) ** -1.05)

    def draw(count: int) -> Any:
        return np.searchsorted(cumulative, generator.random(count) * cumulative[-1])

    columns: dict[str, Any] = {"label": (generator.random(num_rows) < 0.03).astype(np.int64)}
    for index in range(NUM_NUMBERS):
        columns[f"number_{index}"] = generator.exponential(10, num_rows).round(3)
    for index in range(NUM_IDS):
        columns[f"id_{index}"] = draw(num_rows)
    lengths = generator.integers(0, MAX_LENGTH + 1, num_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    columns["history"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(draw(int(lengths.sum()))))
    return pa.table(columns)
