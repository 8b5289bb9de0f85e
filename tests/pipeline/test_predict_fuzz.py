"""Random lines for `ctr predict`: each gets exactly one answer, and those that follow are as if it had not been."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.predict import Model, load_model, predict, read_batches
from tests.small_model import SPEC, make_rows

GOOD = json.dumps(make_rows(1)[0]).encode()
SCALARS = (
    st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.integers() | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**63, 2**63 - 1, -(2**63), 3.5e38, 1e-310, "\ud800", "\x00", 10**400])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
NAMES = st.sampled_from([feature.name for feature in SPEC.features]) | st.text(max_size=8)
# Of the right type more often than chance would have it.
FITTING = st.fixed_dictionaries(
    {},
    optional={
        "user": st.integers(-(2**63), 2**63 - 1),
        "history": st.lists(st.integers(0, 2**63 - 1), max_size=30),
        "country": st.text(max_size=30),
        "tags": st.lists(st.text(max_size=5), max_size=9),
        "age": st.integers(),
        "price": st.floats(allow_nan=False, allow_infinity=False),
    },
)


def _to_json(value: Any) -> bytes:
    return json.dumps(value).encode()  # NaN and Infinity as Python writes them, which is no JSON


def _deep(depth: int) -> bytes:
    return b'{"user": ' + b"[" * depth + b"]" * depth + b"}"


LINES = (
    st.binary(max_size=60)
    | VALUES.map(_to_json)
    | st.dictionaries(NAMES, VALUES, max_size=6).map(_to_json)
    | FITTING.map(_to_json)
    | st.builds(lambda line, cut: line[:cut], FITTING.map(_to_json), st.integers(0, 80))
    | st.integers(1, 3000).map(_deep)
)


@pytest.fixture(scope="module")
def model(small_model: Path) -> Model:
    return load_model(small_model)


def _answers(model: Model, content: bytes) -> list[Any]:
    output = io.StringIO()
    counts = predict(model, read_batches(io.BytesIO(content), batch_size=3), output)  # type: ignore[arg-type]
    found = [json.loads(line, parse_constant=pytest.fail) for line in output.getvalue().splitlines()]
    assert counts.failed == sum("error" in answer for answer in found)
    assert counts.scored + counts.failed == len(found)
    return found


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines=st.lists(LINES, max_size=4))
def test_every_line_gets_one_answer(model: Model, lines: list[bytes]) -> None:
    content = b"\n".join([*lines, GOOD])
    found = _answers(model, content)
    assert len(found) == content.count(b"\n") + 1
    for number, answer in enumerate(found, start=1):
        if "error" in answer:
            assert answer["line"] == number
            assert answer["error"].startswith(f"line {number}: ")
            assert "\n" not in answer["error"]
        else:
            assert list(answer) == ["ctr"]
            assert 0 <= answer["ctr"] <= 1
    assert found[-1]["ctr"] == pytest.approx(_answers(model, GOOD)[0]["ctr"], rel=1e-5)
