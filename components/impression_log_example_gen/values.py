"""Values of one column -> the type that the spec says, and which of them are none of that type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from components.impression_log_example_gen import quarantine
from components.impression_log_example_gen.columns import PER_SECOND, Column
from schemas.whole import are_whole

ARROW_TYPES = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.large_binary()}
_MAX_INT64 = 2**63 - 1
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799  # of the years 1 and 9999, since 1970
_SECOND_OF_1990 = 631_152_000  # seconds, or milliseconds, of these days that are read as a smaller unit are before it
# Text that is surely a number, to Arrow as well; what is neither is asked of Arrow, one by one.
_PLAIN = {pa.int64(): "^-?[0-9]{1,18}$", pa.float64(): r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$"}
_WHOLE = "^-?[0-9]+$"
_WHOLE_AS_DOUBLE = r"^(-?(?:[0-9]{1,15}|[0-8][0-9]{15}))\.0*$"  # of 16 digits those that are surely below 2**53
_PER_SECOND_OF_ARROW = {**PER_SECOND, "ns": 10**9}

Wrong = list[tuple[int, str]]
_Positions = np.ndarray[Any, Any]


def decode(array: pa.Array) -> pa.Array:
    """Returns a dictionary array's values, any other array as it is."""
    return array.dictionary_decode() if types.is_dictionary(array.type) else array


def convert(values: pa.Array, column: Column, *, is_text: bool = False) -> tuple[pa.Array, Wrong]:
    """Converts values: what converts without loss, but for the digits that a float32 has not.

    Args:
        values: Any type, no nulls.
        column: What they are to be; not a key.
        is_text: Whether they are text to be parsed.

    Returns:
        The values, any other in the place of those that are wrong, and the position and the reason of each of these.
    """
    if types.is_null(values.type):
        return pa.array([], ARROW_TYPES[str(column.dtype)]), []
    if column.dtype == "string":
        return _to_bytes(values)
    wrong: Wrong = []
    if is_text:
        values, wrong = _parse(values, pa.int64() if column.dtype == "int64" else pa.float64(), is_id=column.is_id)
    if column.dtype == "float32":
        floats, more = _to_floats(values)
        if column.is_weight and len(floats) and pc.min(floats).as_py() < 0:
            more = _merge(more, _at(floats.to_numpy() < 0, quarantine.NEGATIVE_WEIGHT))
        return floats, _merge(wrong, more)
    integers, more = _to_integers(values, column.per_second)
    wrong = _merge(wrong, more)
    if column.is_id and len(integers) and pc.min(integers).as_py() < 0:
        wrong = _merge(wrong, _at(integers.to_numpy() < 0, quarantine.NEGATIVE_ID))
    if column.per_second and len(integers):
        seconds = integers.to_numpy()
        # Not of a type that has its unit, nor where the folder says the day.
        is_count = column.gives_day and column.per_second > 1 and not types.is_timestamp(values.type)
        first = _SECOND_OF_1990 if is_count else _FIRST_SECOND
        is_out = (seconds < first) | (seconds > _LAST_SECOND)
        wrong = _merge(wrong, _at(is_out, quarantine.NO_TIME)) if is_out.any() else wrong
    if column.is_label:
        wrong = _merge(wrong, _at(~np.isin(integers.to_numpy(), (0, 1)), quarantine.BAD_LABEL))
    return integers, wrong


def _to_integers(values: pa.Array, per_second: int) -> tuple[pa.Array, Wrong]:
    if per_second and types.is_timestamp(values.type):
        # Arrow's own cast to seconds goes towards 1970.
        return pa.array(values.cast(pa.int64()).to_numpy() // _PER_SECOND_OF_ARROW[values.type.unit]), []
    if types.is_float64(values.type):
        return _whole(values, per_second)
    if not (types.is_integer(values.type) or types.is_boolean(values.type)):
        return _all_wrong(values, pa.int64())
    wrong: Wrong = []
    if types.is_uint64(values.type) and len(values) and pc.max(values).as_py() > _MAX_INT64:
        is_over = values.to_numpy() > _MAX_INT64
        values = pa.array(np.where(is_over, 0, values.to_numpy()))
        wrong = _at(is_over, quarantine.OVER_INT64)
    integers = values.cast(pa.int64())
    return (pa.array(integers.to_numpy() // per_second) if per_second > 1 else integers), wrong


def _whole(values: pa.Array, per_second: int) -> tuple[pa.Array, Wrong]:
    """Returns doubles as integers, where they are whole: that is how pandas keeps integers beside a missing one."""
    numbers = values.to_numpy()
    is_finite = np.isfinite(numbers)
    is_whole = are_whole(numbers)
    integers = np.where(is_whole, numbers, 0).astype(np.int64) // max(per_second, 1)
    wrong = _merge(_at(~is_finite, quarantine.NOT_FINITE), _at(is_finite & ~is_whole, quarantine.WRONG_TYPE))
    return pa.array(integers), wrong


def _to_floats(values: pa.Array) -> tuple[pa.Array, Wrong]:
    if types.is_floating(values.type) or types.is_integer(values.type) or types.is_decimal(values.type):
        # By way of float64: Arrow refuses to round an integer to the nearest float32.
        floats = values.cast(pa.float64(), safe=False).cast(pa.float32(), safe=False)
        is_finite = np.isfinite(floats.to_numpy())
        return floats, [] if is_finite.all() else _at(~is_finite, quarantine.NOT_FINITE)
    return _all_wrong(values, pa.float32())


def _to_bytes(values: pa.Array) -> tuple[pa.Array, Wrong]:
    if not any(is_type(values.type) for is_type in _IS_TEXT):
        return _all_wrong(values, pa.large_binary())
    content = values.cast(pa.large_binary())
    try:
        content.cast(pa.large_string())  # which looks whether it is UTF-8
    except pa.ArrowInvalid:
        wrong = [(i, quarantine.INVALID_UTF8) for i, value in enumerate(content.to_pylist()) if not is_utf8(value)]
        return content, wrong
    return content, []


_IS_TEXT = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)


def _parse(text: pa.Array, wanted: pa.DataType, *, is_id: bool) -> tuple[pa.Array, Wrong]:
    try:
        return text.cast(wanted), []
    except pa.ArrowInvalid:
        pass
    if wanted == pa.int64():
        text = pc.replace_substring_regex(text, _WHOLE_AS_DOUBLE, r"\1")
    content = text.cast(pa.binary())
    doubtful = np.flatnonzero(~_matches(content, _PLAIN[wanted]))
    bad = [position for position in doubtful.tolist() if not _casts(text.slice(position, 1), wanted)]
    is_whole = _matches(content.take(pa.array(bad, pa.int64())), _WHOLE)
    reasons = []
    for position, whole in zip(bad, is_whole.tolist(), strict=True):
        is_negative = is_id and content[position].as_py().startswith(b"-")
        reason = quarantine.NEGATIVE_ID if is_negative else quarantine.OVER_INT64
        reasons.append((position, reason if whole else quarantine.WRONG_TYPE))
    is_bad = np.zeros(len(text), bool)
    is_bad[bad] = True
    return pc.if_else(pa.array(is_bad), pa.scalar("0", text.type), text).cast(wanted), reasons


def _matches(content: pa.Array, pattern: str) -> _Positions:
    return pc.match_substring_regex(content, pattern).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _casts(text: pa.Array, wanted: pa.DataType) -> bool:
    try:
        text.cast(wanted)
    except pa.ArrowInvalid:
        return False
    return True


def is_utf8(value: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _all_wrong(values: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, Wrong]:
    filler = pa.array(np.zeros(len(values), np.int64)).cast(wanted) if wanted != pa.large_binary() else None
    if filler is None:
        filler = pa.array([b""] * len(values), wanted)
    return filler, [(position, quarantine.WRONG_TYPE) for position in range(len(values))]


def _at(is_wrong: _Positions, reason: str) -> Wrong:
    return [(position, reason) for position in np.flatnonzero(is_wrong).tolist()]


def _merge(first: Wrong, then: Wrong) -> Wrong:
    """Returns both, of two reasons for one value the first."""
    return list((dict(then) | dict(first)).items()) if first and then else first or then
