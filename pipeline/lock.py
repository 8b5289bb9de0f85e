"""One process at a time may run a pipeline, roll it back, or write a folder of scores, on this machine."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import IO

LOCK = "lock"


class LockedError(RuntimeError):
    """Another process is at work on the pipeline; the message says which, since when, and what to do."""


@contextlib.contextmanager
def hold_lock(home: pathlib.Path) -> Iterator[int]:
    """Holds the lock of a pipeline, or of another folder.

    The kernel's lock on the file counts, not the file: it is gone with the last process that has it, however that ends,
    so there is no stale lock to remove. What is written in the file only tells others who holds it.

    Args:
        home: The folder, which exists.

    Yields:
        The file descriptor, to hand on to a child process that shall hold the lock as long as it lives.

    Raises:
        LockedError: Another process holds it, or it cannot be written.
    """
    path = home / LOCK
    with _open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(_describe(home, file.read())) from None
        except OSError as error:
            raise LockedError(
                f"cannot lock {path}: {error.strerror}; its folder must be on a file system that has locks (flock)"
            ) from None
        started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        command = " ".join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "command": command}
        try:
            file.truncate(0)
            # Not with `file.write`, whose buffer is written again, and fails again, as the file is closed.
            os.write(file.fileno(), json.dumps(holder).encode())
        except OSError as error:
            raise LockedError(f"cannot write {path}: {error.strerror}") from None
        yield file.fileno()
        file.truncate(0)


def _open(path: pathlib.Path) -> IO[str]:
    try:
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise LockedError(
            f"cannot write {path}: {error.strerror}; does the pipeline belong to another user? Run as that one"
        ) from None


def _describe(home: pathlib.Path, text: str) -> str:
    try:
        holder = json.loads(text)
        who = f"process {holder['pid']} on {holder['host']}, `{holder['command']}`, since {holder['started']}"
    except (ValueError, KeyError, TypeError):  # caught while it is being written
        who = "another process"
    advice = f"wait for its end; `fuser {home / LOCK}` lists what holds the lock"
    return f"the pipeline {home.name} is in use by {who}\n{advice}"
