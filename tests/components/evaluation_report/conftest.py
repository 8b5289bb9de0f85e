from __future__ import annotations

import json
import os
import pathlib

import pytest

from tests.chromium import NAMES, Chromium, find_chromium


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium with the network off; without one the tests are skipped, but not on CI."""
    if not find_chromium():
        reason = f"there is none of {', '.join(NAMES)} on PATH: `make browser` installs Chromium on Debian as root"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with Chromium() as chromium:
        yield chromium


@pytest.fixture
def screenshots(tmp_path):
    """The folder for pictures: that which SCREENSHOTS names, or a temporary one."""
    folder = pathlib.Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def read_data():
    """Returns what a page has in its script element `page-data`."""

    def read(page):
        opening = '<script type="application/json" id="page-data">'
        return json.loads(page.partition(opening)[2].partition("</script>")[0])

    return read
