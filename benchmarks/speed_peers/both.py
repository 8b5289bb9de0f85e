"""PyTorch's SparseAdam for the embeddings, which it makes sparse, and Adam for the rest."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.quality_peers.common import LEARNING_RATE


class Both:
    """Two optimizers that are stepped as one."""

    def __init__(self, model: nn.Module) -> None:
        embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        for embedding in embeddings:
            embedding.sparse = True
        tables = {id(embedding.weight): embedding.weight for embedding in embeddings}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in tables]
        self._optimizers = [
            torch.optim.SparseAdam(list(tables.values()), LEARNING_RATE),
            torch.optim.Adam(rest, LEARNING_RATE),
        ]

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Takes one step."""
        for optimizer in self._optimizers:
            optimizer.step()
