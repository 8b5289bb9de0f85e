"""DeepCTR-Torch's DeepFM through its `fit`. `sparse`: embeddings with SparseAdam."""

from __future__ import annotations

import torch
from deepctr_torch import inputs
from deepctr_torch.models import DeepFM

from benchmarks.quality_peers import common
from benchmarks.speed_peers import clock
from benchmarks.speed_peers.both import Both


def prepare(arrays: common.Arrays, variant: str) -> clock.Fit:
    """Makes the model."""
    torch.set_num_threads(clock.THREADS)
    columns = common.feature_columns(arrays, inputs)
    # Without its penalty, which is a pass over every table in every step.
    model = DeepFM(columns, columns, dnn_hidden_units=common.HIDDEN_UNITS, l2_reg_linear=0, l2_reg_embedding=0)
    optimizer = Both(model) if variant == "sparse" else torch.optim.Adam(model.parameters(), common.LEARNING_RATE)
    model.compile(optimizer, "binary_crossentropy")

    def fit(rows: dict[str, common.Array], batch_size: int) -> None:
        model.fit(common.inputs(arrays, rows), rows["labels"], batch_size=batch_size, epochs=1, verbose=0)

    return fit


if __name__ == "__main__":
    clock.run(prepare)
