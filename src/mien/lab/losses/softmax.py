"""Cross-entropy, plain (LBAN-IL eq. 6) and weighted by class (weighted-cluster paper, eqs. 1 and 6)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.inputs import full_precision, inputs
from mien.lab.losses.loss import Loss, Task
from mien.lab.options import Options

Reduction = Literal["wmean", "mean", "sum"]


@dataclass(frozen=True)
class Softmax(Options):
    """weight: factor on the term. smoothing: label smoothing in [0, 1)."""

    weight: float = 1.0
    smoothing: float = 0.0

    embeddings = 0

    def build(self, task: Task) -> Loss:
        return SoftmaxLoss(self)


class SoftmaxLoss(Loss):
    """Term "softmax": mean cross-entropy of the batch."""

    def __init__(self, options: Softmax) -> None:
        super().__init__()
        self.options = options

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with full_precision(output.logits):
            data = inputs(output, batch)
            loss = F.cross_entropy(data.logits, data.labels, label_smoothing=self.options.smoothing)
            return {"softmax": self.options.weight * loss}


@dataclass(frozen=True)
class WeightedSoftmax(Options):
    """weight: factor on the term. reduction: divide the sum by the batch's summed weights ("wmean"), by its size
    ("mean"), or not at all ("sum", as eq. 1 is printed)."""

    weight: float = 1.0
    reduction: Reduction = "wmean"

    embeddings = 0

    def build(self, task: Task) -> Loss:
        return WeightedSoftmaxLoss(self, task)


def class_weights(counts: tuple[int, ...]) -> Tensor:
    """W_j = N_min / N_j (eq. 6): (K,) float32 in (0, 1]. Raises UsageError for a class without training rows."""
    if min(counts) < 1:
        raise UsageError(
            f"class counts {counts}: class {counts.index(min(counts))} has no training rows, so W_j = N_min / N_j is "
            "undefined; train on a dataset that has every class, or use an unweighted loss"
        )
    return torch.tensor([min(counts) / count for count in counts])


def reduce_weighted(values: Tensor, weights: Tensor, reduction: Reduction) -> Tensor:
    """Sum of already weighted `values` (N,) over the normaliser that `reduction` names; `weights` (N,) are W_{y_i}."""
    if reduction == "wmean":
        return values.sum() / weights.sum()
    return values.mean() if reduction == "mean" else values.sum()


class WeightedSoftmaxLoss(Loss):
    """Term "weighted_softmax" (eq. 1). Buffer `weights`: (K,), W_j."""

    weights: Tensor

    def __init__(self, options: WeightedSoftmax, task: Task) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("weights", class_weights(task.class_counts))

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with full_precision(output.logits):
            data = inputs(output, batch)
            return {"weighted_softmax": self.options.weight * self.value(data.logits, data.labels)}

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The unweighted-by-options term, a scalar."""
        each = self.weights.to(logits.dtype)[labels]
        entropies = each * F.cross_entropy(logits, labels, reduction="none")
        return reduce_weighted(entropies, each, self.options.reduction)
