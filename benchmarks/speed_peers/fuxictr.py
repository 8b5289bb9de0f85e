"""FuxiCTR's layers in a plain loop over tensors in memory, which costs less than the library's own loader and trainer.

`sparse`: sparse embeddings with SparseAdam.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.quality_peers import common
from benchmarks.quality_peers.fuxictr import DeepFM, make_feature_map
from benchmarks.speed_peers import clock
from benchmarks.speed_peers.both import Both


def prepare(arrays: common.Arrays, variant: str) -> clock.Fit:
    """Makes the model."""
    torch.set_num_threads(clock.THREADS)
    model = DeepFM(make_feature_map(arrays))
    optimizer = Both(model) if variant == "sparse" else torch.optim.Adam(model.parameters(), common.LEARNING_RATE)
    model.train()

    def fit(rows: dict[str, common.Array], batch_size: int) -> None:
        columns = {name: torch.from_numpy(column.copy()) for name, column in common.inputs(arrays, rows).items()}
        labels = torch.from_numpy(rows["labels"])
        for batch in torch.randperm(len(labels)).split(batch_size):
            logits = model({name: column[batch] for name, column in columns.items()})[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return fit


if __name__ == "__main__":
    clock.run(prepare)
