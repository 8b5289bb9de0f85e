"""`ctr`, killed as if by `kill -9` when its child process comes to a point.

Usage: killed.py POINT CTR_ARGUMENTS. All but the kill is the real thing.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import signal
import sys

# What to kill at: module, function, a pattern that its arguments match, which such call, before or after it.
POINTS = {
    "ImpressionLogExampleGen": ("tensorflow.io", "TFRecordWriter", "", 2, "after"),
    "Transform": ("apache_beam.io.filesystems", "FileSystems.create", "transformed_examples", 1, "after"),
    "Trainer, at the second epoch's end": ("trainer.checkpoints", "Checkpoints.write", "", 2, "after"),
    "Trainer, with half an export": ("tensorflow.saved_model", "save", "Format-Serving", 1, "after"),
    "Evaluator": ("apache_beam.io.filesystems", "FileSystems.create", "Evaluator/evaluation", 1, "after"),
    "Pusher": ("tfx.dsl.io.fileio", "rename", "serving", 1, "before"),
}


def _kill_all():
    os.kill(int(os.environ["CTR_PID"]), signal.SIGKILL)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _arm(module, function, pattern, number, when):
    """Replaces a function by one that kills this run and does the same otherwise."""
    *path, name = function.split(".")
    owner = functools.reduce(getattr, path, importlib.import_module(module))
    real = getattr(owner, name)
    count = 0

    @functools.wraps(real)
    def armed(*args, **kwargs):
        nonlocal count
        count += bool(re.search(pattern, repr((args, kwargs))))
        if count == number and when == "before":
            _kill_all()
        result = real(*args, **kwargs)
        if count == number:
            _kill_all()
        return result

    setattr(owner, name, staticmethod(armed) if isinstance(owner.__dict__.get(name), staticmethod) else armed)


def main():
    if "--events-fd" in sys.argv:
        from pipeline import local

        _arm(*POINTS[os.environ["CTR_KILL_AT"]])
        sys.exit(local.main())
    os.environ.update(CTR_PID=str(os.getpid()), CTR_KILL_AT=sys.argv.pop(1))
    from pipeline import cli, supervise

    supervise.supervise.__defaults__ = ((sys.executable, __file__), *supervise.supervise.__defaults__[1:])
    cli.main(prog_name="ctr")


if __name__ == "__main__":
    main()
