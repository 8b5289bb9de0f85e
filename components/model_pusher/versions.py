"""The serving folder: a folder per version, named by a number; model servers serve the highest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import uuid

from absl import logging
from tfx.dsl.io import fileio
from tfx.utils import io_utils

_SAVED_MODEL = "saved_model.pb"
_NEEDED = (_SAVED_MODEL, "variables/variables.index", "variables/variables.data-*")  # without these nobody can serve it
_SOURCE = os.path.join("assets.extra", "source.json")


@dataclasses.dataclass(frozen=True)
class Source:
    """Which model a version holds; it lies in the version's `assets.extra/source.json`.

    Attributes:
        model_id: The Model artifact's id in the metadata store.
        model_uri: Its folder.
        sha256: A digest of all the SavedModel's files.
        restored_from: The version that this one is a copy of, where a rollback has made it.
    """

    model_id: int
    model_uri: str
    sha256: str
    restored_from: int | None = None


def list_versions(serving: str) -> list[int]:
    """Returns the versions that are there, lowest first.

    Args:
        serving: The serving folder; it may be missing.
    """
    if not fileio.isdir(serving):
        return []
    names = (name.rstrip("/") for name in fileio.listdir(serving))
    return sorted(int(name) for name in names if name.isdecimal())


def version_path(serving: str, version: int) -> str:
    """Returns a version's folder."""
    return os.path.join(serving, str(version))


def is_servable(serving: str, version: int) -> bool:
    """Returns whether a version has a graph and variables; a copy that was cut off, or a folder by hand, may not."""
    folder = version_path(serving, version)
    return all(fileio.glob(os.path.join(folder, pattern)) for pattern in _NEEDED)


def read_source(serving: str, version: int) -> Source | None:
    """Returns which model a version holds; None where nothing, or nothing legible, says it."""
    file = os.path.join(version_path(serving, version), _SOURCE)
    if not fileio.exists(file):
        return None
    with fileio.open(file, "r") as content:
        try:
            return Source(**json.loads(content.read()))
        except (TypeError, ValueError) as error:
            logging.warning("%s is damaged, and says nothing of the version: %s", file, error)
            return None


def digest(saved_model: str) -> str:
    """Returns a SHA-256 digest of a SavedModel: of its files' names and contents.

    Args:
        saved_model: The SavedModel's folder.
    """
    total = hashlib.sha256()
    for folder, _, names in sorted(fileio.walk(saved_model)):
        for name in sorted(names):
            file = os.path.join(folder, name)
            content = hashlib.sha256()
            with fileio.open(file, "rb") as stream:
                while chunk := stream.read(1 << 20):
                    content.update(chunk)
            total.update(f"{os.path.relpath(file, saved_model)} {content.hexdigest()}\n".encode())
    return total.hexdigest()


def publish(saved_model: str, serving: str, source: Source) -> int:
    """Makes a SavedModel the newest version.

    On a file system it appears whole: it is copied under a hidden name, which model servers pass over, and renamed.
    An object store (`gs://`, `s3://`) cannot rename a folder: there `saved_model.pb`, without which no model server
    takes a version for one, comes last.

    Args:
        saved_model: The SavedModel's folder.
        serving: The serving folder; made where missing.
        source: Which model it is.

    Returns:
        The version: the time in seconds, or one more than the newest version's where that is not less.
    """
    version = max([int(time.time()), *(known + 1 for known in list_versions(serving))])
    target = version_path(serving, version)
    if "://" in serving:
        io_utils.copy_dir(saved_model, target, deny_regex_patterns=[r"saved_model\.pb"])
        _write_source(target, source)
        io_utils.copy_file(os.path.join(saved_model, _SAVED_MODEL), os.path.join(target, _SAVED_MODEL))
        return version
    _remove_leftovers(serving)
    hidden = os.path.join(serving, f".{version}.{uuid.uuid4().hex}")
    io_utils.copy_dir(saved_model, hidden)
    _write_source(hidden, source)
    fileio.rename(hidden, target)
    return version


def prune(serving: str, keep: int) -> list[int]:
    """Removes all but the newest versions.

    Args:
        serving: The serving folder.
        keep: How many stay, at least 1.

    Returns:
        The versions that are gone.
    """
    old = list_versions(serving)[:-keep]
    for version in old:
        path = version_path(serving, version)
        if "://" not in serving:  # gone at once for whoever looks, however long it takes to remove
            hidden = os.path.join(serving, f".{version}.{uuid.uuid4().hex}")
            fileio.rename(path, hidden)
            path = hidden
        fileio.rmtree(path)
    return old


def _write_source(folder: str, source: Source) -> None:
    io_utils.write_string_file(os.path.join(folder, _SOURCE), json.dumps(dataclasses.asdict(source)) + "\n")


def _remove_leftovers(serving: str) -> None:
    """Removes what a push or a removal that was cut off has left under a hidden name."""
    if fileio.isdir(serving):
        for name in fileio.listdir(serving):
            if name.startswith(".") and name.split(".")[1].isdecimal():
                fileio.rmtree(os.path.join(serving, name))
