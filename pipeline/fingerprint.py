"""What TFX's cache cannot see of our own code: it keys on a function's dotted path, not on what the function does."""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
from collections.abc import Collection


def source_fingerprint(*packages: str, suffixes: Collection[str] = (".py",)) -> str:
    """Returns the SHA-256 of all sources of the packages, by their names and contents.

    Args:
        packages: Names of importable packages, such as `transform`.
        suffixes: Of the files that are sources.
    """
    digest = hashlib.sha256()
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise ValueError(f"{package} is not a package")
        (folder,) = (pathlib.Path(location) for location in found.submodule_search_locations)
        for file in sorted(file for file in folder.rglob("*") if file.suffix in suffixes):
            digest.update(f"{package}/{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
