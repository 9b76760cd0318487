"""The centres that centre, island, islets and weighted-cluster losses share: one vector per class, held by the loss."""

from typing import Literal

import torch
from torch import Tensor, nn

from mien.lab.losses.inputs import Inputs

CentreInit = Literal["normal", "batch-means"]


class Centres(nn.Module):
    """`value`: (K, D) float32, one centre per class.

    learn=False holds them as a buffer that the loss moves by its paper's rule; learn=True as a parameter that receives
    gradients and that `step_from_grad` moves. init: "normal" draws N(0, deviation^2); "batch-means" then replaces the
    centres of the classes in the first training batch by their feature means.
    """

    value: Tensor
    started: Tensor

    def __init__(
        self, classes: int, dim: int, *, learn: bool, deviation: float = 0.01, init: CentreInit = "normal"
    ) -> None:
        super().__init__()
        self.init = init
        drawn = deviation * torch.randn(classes, dim)
        if learn:
            self.value = nn.Parameter(drawn)
        else:
            self.register_buffer("value", drawn)
        self.register_buffer("started", torch.tensor(init == "normal"))

    @torch.no_grad()
    def start(self, data: Inputs) -> None:
        """On the first training batch with init="batch-means": put the centres of present classes on their means."""
        if self.init == "normal" or not self.training or bool(self.started):
            return
        means, counts = class_means(data.features.detach(), data.labels, len(self.value))
        self.value.copy_(torch.where((counts > 0)[:, None], means.to(self.value.dtype), self.value))
        self.started.fill_(True)

    @torch.no_grad()
    def step_from_grad(self, rate: float) -> None:
        """value <- value - rate * gradient, then forget the gradient. Without a gradient nothing moves."""
        if self.value.grad is not None:
            self.value.sub_(rate * self.value.grad)
            self.value.grad = None


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Means (K, D) and counts (K,) of the features (N, D) by label; a class without rows has mean 0 and count 0."""
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, features)
    counts = torch.bincount(labels, minlength=classes).to(features.dtype)
    return sums / counts.clamp_min(1)[:, None], counts
