from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.metadata_file import find_damage

DAMAGES = {
    "no database": (lambda content: b"nonsense" * 1000, "file is not a database"),
    "cut off": (lambda content: content[: len(content) // 2], "database disk image is malformed"),
    "a hole": (lambda content: content[:8192] + bytes(4096) + content[12288:], r"\*\*\* in database main \*\*\* .*"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with contextlib.closing(sqlite3.connect(tmp_path / "metadata.sqlite")) as database:
        database.execute("CREATE TABLE numbers (n)")
        database.executemany("INSERT INTO numbers VALUES (?)", [(f"{n:0100}",) for n in range(1000)])
        database.commit()
    return tmp_path / "metadata.sqlite"


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named_with_what_to_do(file: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    file.write_bytes(damage(file.read_bytes()))
    told = find_damage(file)
    assert told is not None
    assert re.match(
        rf"the metadata store {file} is damaged \({said}\): restore it from a backup, or move it away; ", told
    )
    assert "\n" not in told


def test_a_good_file_is_not_damaged_even_while_it_is_written(file: Path) -> None:
    assert find_damage(file) is None
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("INSERT INTO numbers VALUES (1)")
        assert find_damage(file) is None


def test_a_missing_file_stays_missing(tmp_path: Path) -> None:
    assert find_damage(tmp_path / "metadata.sqlite") is None
    assert list(tmp_path.iterdir()) == []
