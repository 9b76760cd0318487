"""The one place where a loss obtains its tensors: widened to float32 or more, labels beside them.

Batch-wide quantities (class means, counts, correlations) are computed from what `inputs` returns. In a run over several
processes the trainer gathers before it calls the loss, so that what is here is the whole batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mien.lab.batch import Batch, NetworkOutput


@dataclass(frozen=True)
class Inputs:
    """logits (N, K), features (N, D), embeddings (N, k, E) or None, labels (N,) int64, votes (N, K) or None."""

    logits: Tensor
    features: Tensor
    labels: Tensor
    embeddings: Tensor | None = None
    votes: Tensor | None = None


def widen(values: Tensor) -> Tensor:
    """float32, or float64 where it already is."""
    return values if values.dtype == torch.float64 else values.float()


def inputs(output: NetworkOutput, batch: Batch) -> Inputs:
    """What a loss computes from, in float32 or wider also under autocast."""
    logits = widen(output.logits)
    return Inputs(
        logits=logits,
        features=widen(output.features),
        labels=batch.labels,
        embeddings=None if output.embeddings is None else widen(output.embeddings),
        votes=None if batch.votes is None else batch.votes.to(logits),
    )


def full_precision(values: Tensor) -> torch.autocast:
    """A context in which autocast is off on the device of `values`."""
    return torch.autocast(device_type=values.device.type, enabled=False)
