"""What made a loss NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.features import IDS, LABEL, NUMBERS, WEIGHT, FeatureSpec


class NonFiniteLossError(ValueError):
    """The loss of a training batch is NaN or infinite; the message names the feature."""


def find_offender(spec: FeatureSpec, batch: Mapping[str, Any], rows: Any) -> str:
    """Returns in words which feature of a batch made its loss NaN or infinite.

    Args:
        spec: The data set.
        batch: `ids`, `numbers`, `label` and `weight`, as far as there are such, as numpy arrays.
        rows: What the embedding table has at each position, float32 [batch, num_positions, 1 + dim], or None.
    """
    names = [feature.name for feature in spec.numbers]
    for key, columns in ((NUMBERS, names), (LABEL, [spec.label.name]), (WEIGHT, [spec.weight or ""])):
        if key not in batch:
            continue
        for column, name in zip(np.atleast_2d(batch[key].T), columns, strict=True):
            bad = np.flatnonzero(~np.isfinite(column))
            if len(bad):
                return f"{name} is {column[bad[0]]} in {len(bad)} of {len(column)} examples"
    if rows is not None:
        for field in spec.id_fields:
            ids = batch[IDS][:, field.positions]
            is_bad = ~np.isfinite(rows[:, field.positions]).all(axis=2)
            bad = np.unique(ids[is_bad & (ids > 0)])
            if len(bad):
                num_ids = len(np.unique(ids[ids > 0]))
                return f"the embeddings of {len(bad)} of {num_ids} ids of {field.name} are not finite"
    if names and len(batch[NUMBERS]):
        largest = np.abs(batch[NUMBERS]).max(axis=0)
        worst = int(largest.argmax())
        return (
            f"every input is finite; the farthest from its mean is {names[worst]}, by {largest[worst]:.3g} standard "
            "deviations: the training has diverged, lower training.learning_rate"
        )
    return (
        f"every input is finite, {spec.id_fields[0].name} too: the training has diverged, lower training.learning_rate"
    )
