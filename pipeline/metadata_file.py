"""Whether the metadata store's file can be read, before ml-metadata says it in the middle of something."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3


def find_damage(file: pathlib.Path) -> str | None:
    """Returns what is wrong with a pipeline's `metadata.sqlite`, and what to do, in one line; None where nothing is.

    Args:
        file: The file; it may be missing, or in use.
    """
    if not file.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(file)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # it is locked, say: nothing that a backup would mend
        return None
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found == "ok":
        return None
    return (
        f"the metadata store {file} is damaged ({' '.join(found.split())}): restore it from a backup, or move it away; "
        "the next run then has no baseline and no warm start"
    )
