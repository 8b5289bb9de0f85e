"""Integers that are written as doubles, which is how pandas keeps integers beside a missing one."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

_WHOLE_DOUBLES = 2**sys.float_info.mant_dig  # 2**53: below it no two integers are one double


def as_integer(value: Any) -> Any:
    """Returns a whole double as the integer that it stands for, anything else as it is."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_DOUBLES
    return int(value) if is_whole else value


def are_whole(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns which floats, of any width, are whole and stand for one integer only: bool, of the same shape."""
    limit = 2 ** (np.finfo(numbers.dtype).nmant + 1)
    result: np.ndarray[Any, Any] = (np.abs(numbers) < limit) & (numbers == np.floor(numbers))
    return result
