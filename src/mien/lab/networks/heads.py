"""The ends of the networks: from the pooled vector to features, logits and, when a loss asks, k parallel embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.batch import NetworkOutput
from mien.lab.networks.network import Shape

EMBEDDING_DIM = 256  # Ad-Corre, section III: every embedding has 256 values


class LinearHead(nn.Module):
    """Pooled vector (N, D) -> logits (N, K). The features are the pooled vector itself."""

    def __init__(self, pooled: int, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.feature_dim = pooled
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(pooled, classes)

    def forward(self, pooled: Tensor) -> NetworkOutput:
        return NetworkOutput(self.classify(self.dropout(pooled)), pooled)


class FeatureHead(nn.Module):
    """Pooled vector (N, D) -> features (N, d) by a linear layer -> logits (N, K); dropout before each linear layer.

    activation: "none" keeps the features' signs free, as centre losses want; "relu" follows the feature, not part of it.
    """

    def __init__(
        self, pooled: int, features: int, classes: int, *, dropout: float = 0.0, activation: str = "none"
    ) -> None:
        super().__init__()
        self.feature_dim = features
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.Linear(pooled, features)
        self.activation = nn.ReLU() if activation == "relu" else nn.Identity()
        self.classify = nn.Linear(features, classes)

    def forward(self, pooled: Tensor) -> NetworkOutput:
        features = self.embed(self.dropout(pooled))
        return NetworkOutput(self.classify(self.dropout(self.activation(features))), features)


class EmbeddingHead(nn.Module):
    """Ad-Corre's head: k parallel linear embeddings, each L2-normalised, concatenated, dropout, classifier.

    Pooled vector (N, D) -> embeddings (N, k, 256), features (N, 256 k), logits (N, K).
    """

    def __init__(self, pooled: int, embeddings: int, classes: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.feature_dim = embeddings * EMBEDDING_DIM
        self.embed = nn.ModuleList(nn.Linear(pooled, EMBEDDING_DIM) for _ in range(embeddings))
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(self.feature_dim, classes)

    def forward(self, pooled: Tensor) -> NetworkOutput:
        embeddings = torch.stack([F.normalize(embed(pooled), dim=1) for embed in self.embed], dim=1)
        features = embeddings.flatten(1)
        return NetworkOutput(self.classify(self.dropout(features)), features, embeddings)


Head = LinearHead | FeatureHead | EmbeddingHead


def linear_head(pooled: int, shape: Shape, *, dropout: float | None = None) -> LinearHead | EmbeddingHead:
    """A classifier on the pooled vector, or the k-embedding head when the shape asks for embeddings. dropout: None is none in the
    former, and Ad-Corre's in the latter."""
    if shape.embeddings:
        own = {} if dropout is None else {"dropout": dropout}
        return EmbeddingHead(pooled, shape.embeddings, shape.classes, **own)
    return LinearHead(pooled, shape.classes, dropout=dropout or 0.0)
