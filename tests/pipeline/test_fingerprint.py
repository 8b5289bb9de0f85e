from __future__ import annotations

import sys

import pytest

from pipeline.fingerprint import source_fingerprint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package `fingerprinted` with one module."""
    folder = tmp_path / "fingerprinted"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "code.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    sys.modules.pop("fingerprinted", None)


CHANGES = {
    "an edit": lambda folder: (folder / "code.py").write_text("x = 2"),
    "a new module": lambda folder: (folder / "more.py").write_text(""),
    "a renamed module": lambda folder: (folder / "code.py").rename(folder / "other.py"),
    "a module in a folder": lambda folder: ((folder / "sub").mkdir(), (folder / "sub" / "a.py").write_text("")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_fingerprint_changes_with_the_sources(package, change):
    before = source_fingerprint("fingerprinted")
    assert source_fingerprint("fingerprinted") == before
    change(package)
    assert source_fingerprint("fingerprinted") != before


def test_fingerprint_does_not_change_with_compiled_files_or_times(package):
    before = source_fingerprint("fingerprinted")
    (package / "code.pyc").write_bytes(b"compiled")
    (package / "code.py").touch()
    assert source_fingerprint("fingerprinted") == before


def test_a_module_is_not_a_package():
    with pytest.raises(ValueError, match="antigravity is not a package"):
        source_fingerprint("antigravity")
