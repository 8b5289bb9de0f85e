"""The signals that tell a command to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def ended_by_signals(leave: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Has SIGTERM and SIGHUP, unless they are ignored (nohup), call what ends the process in an orderly way.

    Args:
        leave: The handler.
    """
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
