"""DeepCTR-Torch's DeepFM, with the library's own initialization (N(0, 1e-4^2)) and regularization (1e-5)."""

from __future__ import annotations

import torch
from deepctr_torch import inputs
from deepctr_torch.models import DeepFM

from benchmarks.quality_peers import common


def train_and_score(arrays: common.Arrays, seed: int) -> common.Array:
    """Returns the eval rows' click-through rates after the last epoch."""
    torch.set_num_threads(1)
    columns = common.feature_columns(arrays, inputs)
    model = DeepFM(columns, columns, dnn_hidden_units=common.HIDDEN_UNITS, seed=seed)
    torch.manual_seed(seed)
    model.compile(torch.optim.Adam(model.parameters(), common.LEARNING_RATE), "binary_crossentropy")
    model.fit(
        common.inputs(arrays, arrays.train),
        arrays.train["labels"],
        batch_size=common.BATCH_SIZE,
        epochs=common.NUM_EPOCHS,
        verbose=0,
    )
    return model.predict(common.inputs(arrays, arrays.eval), batch_size=10_000)


if __name__ == "__main__":
    common.run(train_and_score)
