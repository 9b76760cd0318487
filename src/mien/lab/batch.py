"""What goes into a network and a loss, and what comes out: the currency of the lab."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """images: (N, C, H, W) float32, normalised. labels: (N,) int64, indices into the dataset's classes.
    votes: (N, K) float32 vote distribution, rows sum to 1 (or are all zero where a picture has no usable votes), or None.
    ids: (N,) int64, the rows' positions in the dataset; augmentation draws its randomness from them."""

    images: Tensor
    labels: Tensor
    votes: Tensor | None
    ids: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; ids stay where they are, since only randomness is drawn from them."""
        votes = None if self.votes is None else self.votes.to(device, non_blocking=True)
        images, labels = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.labels))
        return replace(self, images=images, labels=labels, votes=votes)

    def pin_memory(self) -> "Batch":
        """The same batch where a GPU can take it from while it computes (a DataLoader's pin_memory)."""
        votes = None if self.votes is None else self.votes.pin_memory()
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory(), votes=votes)


@dataclass(frozen=True)
class NetworkOutput:
    """logits: (N, K). features: (N, D), the vector before the classifier. embeddings: (N, k, E), L2-normalised, or None.
    attention: name -> map (N, C or 1, h, w), or None unless asked for. heads: logits (N, K') of further named heads, or None.
    """

    logits: Tensor
    features: Tensor
    embeddings: Tensor | None = None
    attention: Mapping[str, Tensor] | None = None
    heads: Mapping[str, Tensor] | None = None
