"""A folder that appears when all of it is written, or not at all."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import uuid
from collections.abc import Iterator

SUCCESS = "_SUCCESS"  # readers of Hive partitions skip names that begin with an underscore


@contextlib.contextmanager
def write_whole(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path beside `target` to write a folder to, which becomes `target` at the end; after an error it is gone.

    Args:
        target: Absent, or an empty folder.
    """
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
