"""The set-up script, as a machine without a usable Python and as one that is set up sees it."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def _machine(folder, glibc):
    """A checkout on a machine that has no Python but the one that makes the complaint, and this glibc."""
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copy(ROOT / "setup.py", folder)
    (folder / "trainer").mkdir()
    shutil.copy(ROOT / "trainer/row_kernels.cc", folder / "trainer")
    programs = folder / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "awk", "sort", "head", "printf", "ls", "cat", "sha256sum", "rm"):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "getconf").write_text(f"#!/bin/sh\necho glibc {glibc}\n")
    (programs / "getconf").chmod(0o755)
    return {"PATH": str(programs), "HOME": str(folder)}


@pytest.mark.parametrize(
    ("glibc", "wanted"), [("2.36", "Python 3.10"), ("2.39", "Python 3.11"), ("2.41", "Python 3.11")]
)
def test_a_machine_without_a_usable_python_gets_one_sentence(glibc, wanted, tmp_path):
    environment = _machine(tmp_path, glibc)
    process = subprocess.run(
        [tmp_path / "requirements/setup.sh"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1
    (line,) = process.stderr.strip().splitlines()
    assert f"glibc {glibc}" in line
    assert f"install {wanted}, on PATH or with pyenv" in line
    assert not (tmp_path / ".venv").exists()


def test_a_python_that_only_pyenv_has_is_found(tmp_path):
    environment = _machine(tmp_path, "2.36")
    python = tmp_path / ".pyenv/versions/3.10.99/bin/python3.10"
    python.parent.mkdir(parents=True)
    # It says that it is 3.10 and has no venv module, so that the set-up goes on to the next step and stops there.
    python.write_text(
        '#!/bin/bash\ncase "$2" in *version_info*) echo 3.10;; *realpath*) echo "$0";; *) exit 1;; esac\n'
    )
    python.chmod(0o755)
    process = subprocess.run(
        [tmp_path / "requirements/setup.sh"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1
    assert f"{python} cannot make virtual environments; install its venv module" in process.stderr


def test_set_up_again_is_a_no_op_of_well_under_a_second():
    start = time.monotonic()
    process = subprocess.run([ROOT / "requirements/setup.sh"], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert time.monotonic() - start < 2  # a loaded machine's second
