"""A DeepFM of FuxiCTR's layers, put together as its model zoo does: the wheel has the layers, not the model.

FuxiCTR leaves the linear weights of a field that shares another's table at PyTorch's N(0, 1): its `init_weights` skips
such fields, and the linear term shares no tables. This draws them from N(0, 1e-4^2), as the library does all others.
"""

from __future__ import annotations

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from torch import nn

from benchmarks.quality_peers import common


class DeepFM(nn.Module):
    """FM with its linear term, and an MLP, over the same embeddings."""

    def __init__(self, feature_map: FeatureMap) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(feature_map, common.DIM)
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(feature_map.num_fields * common.DIM, list(common.HIDDEN_UNITS), output_dim=1)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1e-4)
                with torch.no_grad():
                    module.weight[0] = 0
            elif isinstance(module, nn.Linear):  # as the library's `reset_parameters`
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    module.bias.data.fill_(0)

    def forward(self, columns: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the logits, float32 [batch, 1]."""
        vectors = self.embedding(columns)  # [batch, num_fields, dim]
        return self.fm(columns, vectors) + self.mlp(vectors.flatten(start_dim=1))


def make_feature_map(arrays: common.Arrays) -> FeatureMap:
    """Describes the fields in FuxiCTR's terms."""
    feature_map = FeatureMap("movielens", ".")
    encoders = {"mean": "layers.MaskedAveragePooling()", "sum": "layers.MaskedSumPooling()"}
    for field in arrays.fields:
        form = {"type": "categorical", "source": "", "vocab_size": field.num_ids, "padding_idx": 0}
        if field.length > 1:
            form |= {"type": "sequence", "max_len": field.length, "feature_encoder": encoders[field.pooling]}
        if field.table != field.name:
            form["share_embedding"] = field.table
        feature_map.features[field.name] = form
    for index in range(arrays.train["numbers"].shape[1]):
        feature_map.features[f"number_{index}"] = {"type": "numeric", "source": ""}
    feature_map.num_fields = feature_map.get_num_fields()
    return feature_map


def train_and_score(arrays: common.Arrays, seed: int) -> common.Array:
    """Returns the eval rows' click-through rates after the last epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = DeepFM(make_feature_map(arrays))
    optimizer = torch.optim.Adam(model.parameters(), common.LEARNING_RATE)
    train, labels = _tensors(arrays, arrays.train), torch.from_numpy(arrays.train["labels"])
    model.train()
    for _ in range(common.NUM_EPOCHS):
        for rows in torch.randperm(len(labels)).split(common.BATCH_SIZE):
            logits = model({name: column[rows] for name, column in train.items()})[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return torch.sigmoid(model(_tensors(arrays, arrays.eval)).double()).numpy()


def _tensors(arrays: common.Arrays, rows: dict[str, common.Array]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(column.copy()) for name, column in common.inputs(arrays, rows).items()}


if __name__ == "__main__":
    common.run(train_and_score)
