"""What made a loss NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.features import IDS, LABEL, NUMBERS, WEIGHT, FeatureSpec


class NonFiniteLossError(ValueError):
    """The loss of a training batch is NaN or infinite; the message names the feature."""


def find_offender(spec: FeatureSpec, batch: Mapping[str, Any], table: Any) -> str:
    """Returns in words which feature of a batch made its loss NaN or infinite.

    Args:
        spec: The data set.
        batch: `ids`, `numbers`, `label` and `weight`, as far as there are such, as numpy arrays.
        table: The embedding table, float32 [num_rows, 1 + dim], or None.
    """
    names = [feature.name for feature in spec.numbers]
    for key, columns in ((NUMBERS, names), (LABEL, [spec.label.name]), (WEIGHT, [spec.weight or ""])):
        if key not in batch:
            continue
        for column, name in zip(np.atleast_2d(batch[key].T), columns, strict=True):
            bad = np.flatnonzero(~np.isfinite(column))
            if len(bad):
                return f"{name} is {column[bad[0]]} in {len(bad)} of {len(column)} examples"
    if table is not None:
        for field in spec.id_fields:
            ids = batch[IDS][:, field.positions]
            rows = np.unique(ids[ids > 0] + field.row_offset)
            bad = rows[~np.isfinite(table[rows]).all(axis=1)]
            if len(bad):
                return f"the embeddings of {len(bad)} of {len(rows)} ids of {field.name} are not finite"
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
