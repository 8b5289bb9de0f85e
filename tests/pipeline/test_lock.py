from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from pipeline.lock import LockedError, hold_lock

HOLDER = """
import pathlib, subprocess, sys, time
from pipeline.lock import hold_lock
with hold_lock(pathlib.Path(sys.argv[1])) as lock:
    if "child" in sys.argv:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock])
        print(child.pid, flush=True)
    else:
        print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lock of `tmp_path`; ends it afterwards."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()


def _can_hold(home):
    try:
        with hold_lock(home):
            return True
    except LockedError:
        return False


def test_a_second_process_is_told_who_holds_the_lock(tmp_path, holder):
    process, _ = holder()
    expected = (
        f"the pipeline {tmp_path.name} is in use by process {process.pid} on .*, `-c .*`, since 20..-..-..T.*\nwait"
    )
    with pytest.raises(LockedError, match=expected), hold_lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    process, _ = holder()
    assert not _can_hold(tmp_path)
    process.kill()
    process.wait()
    assert _can_hold(tmp_path)


def test_a_child_that_got_the_lock_holds_it_on(tmp_path, holder):
    process, child = holder("child")
    process.kill()
    process.wait()
    try:
        with pytest.raises(LockedError, match=re.escape(f"process {process.pid} on")), hold_lock(tmp_path):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not _can_hold(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lock_can_be_held_again_and_says_nothing_of_the_last_holder(tmp_path):
    assert _can_hold(tmp_path)
    assert (tmp_path / "lock").read_text() == ""
    assert _can_hold(tmp_path)


def test_a_lock_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "lock").mkdir()  # as root may write any file
    told = rf"cannot write {tmp_path}/lock: Is a directory; does the pipeline belong to another user"
    with pytest.raises(LockedError, match=told), hold_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    error = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(error))
    told = rf"^cannot lock {tmp_path}/lock: No locks available; its folder must be on a file system that has locks"
    with pytest.raises(LockedError, match=told), hold_lock(tmp_path):
        pass


def test_a_full_disk_is_said(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # a write fails as on a full disk, but for the reason
    try:
        with pytest.raises(LockedError, match=rf"^cannot write {tmp_path}/lock: File too large$"), hold_lock(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _can_hold(tmp_path)
