from __future__ import annotations

import pathlib

import pytest


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of an exported model of `tests.small_model.SPEC`; not to be changed."""
    from tests.small_model import export_small_model

    home = tmp_path_factory.mktemp("small_model")
    export_small_model(home)
    return home / "model"
