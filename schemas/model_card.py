"""The model card: where a SavedModel has it, and the feature spec, and how it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FEATURE_SPEC_ASSET = "assets.extra/feature_spec.json"
CARD_ASSET = "assets.extra/model_card.json"  # and beside it the same as .md
EVALUATION_PROPERTY = "evaluation"  # of a ModelBlessing: what the card says of the evaluation, as JSON


def card_markdown(card: Mapping[str, Any]) -> str:
    """Returns a card as Markdown: a section for each key, in their order.

    Args:
        card: Its content. `evaluation` is None where the model has not been evaluated yet.
    """
    lines = [f"# Model card: {card['data_set']}", ""]
    for name, value in card.items():
        if name == "data_set":
            continue
        lines += [f"## {_title(name)}", ""]
        if name == "evaluation" and value is None:
            lines.append("Not known when the model was exported; the version that is pushed has it.")
        else:
            lines += _bullets(value)
        lines.append("")
    return "\n".join(lines)


def _bullets(value: Any, indent: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, Mapping | list | tuple) and inner and not _is_flat(inner):
                yield f"{indent}- {_title(name)}:"
                yield from _bullets(inner, indent + "  ")
            else:
                yield f"{indent}- {_title(name)}: {_inline(inner)}"
    elif isinstance(value, list | tuple):
        for inner in value:
            yield f"{indent}- {_inline(inner)}"
    else:
        yield _inline(value)


def _is_flat(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(inner, int | float) for inner in value)


def _inline(value: Any) -> str:
    if value is None or value in ({}, [], ()):
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_inline, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _title(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
