"""What an error says, in one line."""

from __future__ import annotations

# How TensorFlow's lines begin that say where it was, not what it was.
_WHERE = ("Detected at node", "<stack traces", "  File", "\t")


def one_line(message: str) -> str:
    """Returns the first line of a message, and the one that says what it was where TensorFlow says first where.

    Args:
        message: The error as text.

    Returns:
        The line; empty where the message is.
    """
    first, *others = [line for line in message.splitlines() if line.strip()] or [""]
    if not first.endswith("Graph execution error:"):
        return first.strip()
    told = [line for line in others if not line.startswith(_WHERE)]
    return " ".join([first, *told[:1]])
