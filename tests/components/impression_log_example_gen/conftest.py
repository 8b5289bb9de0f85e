from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WriteDay = Callable[..., pathlib.Path]


@pytest.fixture
def log(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of an impression log, not made yet."""
    return tmp_path / "log"


@pytest.fixture
def write_day(log: pathlib.Path) -> WriteDay:
    """Writes one Parquet file of a day: `write_day("2026-01-31", {"label": [0, 1]}, name=..., row_group_size=...)`."""

    def write(
        day: str, columns: dict[str, Any], name: str = "part-0.parquet", row_group_size: int | None = None
    ) -> pathlib.Path:
        file = log / f"day={day}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file, row_group_size=row_group_size)
        return file

    return write
