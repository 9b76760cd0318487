"""The weighted-cluster loss with weighted softmax (weighted-cluster paper, eqs. 1, 4-9).

    L_ws = - sum_i W_{y_i} log p_{i, y_i}                                           eq. 1,  W_j = N_min / N_j (eq. 6)
    L_wc = 1/2 sum_i W_{y_i} ||x_i - c_{y_i}||^2 / (D_{y_i} + alpha),  D_j = sum_{l != j} ||c_l - c_j||^2       eq. 4
    L    = L_ws + weight * L_wc                                                     eq. 5

The D tags refer to methods/wcl.py.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.centres import CentreInit, Centres, class_means
from mien.lab.losses.inputs import full_precision, inputs
from mien.lab.losses.loss import Loss, Task
from mien.lab.losses.softmax import (
    Reduction,
    WeightedSoftmax,
    WeightedSoftmaxLoss,
    reduce_weighted,
)
from mien.lab.options import Options

ClusterUpdate = Literal["paper", "autograd", "as_printed", "normalised"]


class PrintedUpdateWarning(UserWarning):
    """The centre update is the one that is printed, which drives centres away from their samples."""


@dataclass(frozen=True)
class WeightedCluster(Options):
    """weight: lambda of eq. 5. alpha: the constant that keeps eq. 4's denominator from 0. gamma: the centres' rate.

    reduction: both terms over the batch's summed weights ("wmean"), its size ("mean") or nothing ("sum", as printed; D4).
    centre_update: "paper" is eqs. 8-9 with the sign corrected (D2); "as_printed" keeps the sign, moves centres away
    from their samples, and warns; "autograd" follows the full gradient of eq. 4 (use gamma <= 0.1 or class means:
    at gamma 1 it can run away); "normalised" averages c_j - x_i by 1/(1 + n_j) without 1/(D + alpha) (use gamma 0.5).
    centre_init, centre_deviation: where centres start (D3).
    """

    weight: float = 1.0
    alpha: float = 1.0
    gamma: float = 1.0
    reduction: Reduction = "wmean"
    centre_update: ClusterUpdate = "paper"
    centre_init: CentreInit = "normal"
    centre_deviation: float = 0.01

    embeddings = 0

    def build(self, task: Task) -> Loss:
        return WeightedClusterLoss(self, task)


def separations(centres: Tensor) -> Tensor:
    """D_j = sum_{l != j} ||c_l - c_j||^2: (K,)."""
    return (centres[:, None] - centres[None]).square().sum(dim=(1, 2))


class WeightedClusterLoss(Loss):
    """Terms "weighted_softmax" and "weighted_cluster"."""

    def __init__(self, options: WeightedCluster, task: Task) -> None:
        super().__init__()
        self.options = options
        self.softmax = WeightedSoftmaxLoss(WeightedSoftmax(reduction=options.reduction), task)
        self.centres = Centres(
            task.classes,
            task.feature_dim,
            learn=options.centre_update == "autograd",
            deviation=options.centre_deviation,
            init=options.centre_init,
        )
        if options.centre_update == "as_printed":
            warnings.warn(
                "centre_update='as_printed': eqs. 8-9 as printed are minus the gradient's numerator subtracted, so each "
                "centre moves away from its own samples and mean ||x - c||^2 grows; use centre_update='paper'",
                PrintedUpdateWarning,
                stacklevel=3,
            )

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with full_precision(output.logits):
            data = inputs(output, batch)
            self.centres.start(data)
            return {
                "weighted_softmax": self.softmax.value(data.logits, data.labels),
                "weighted_cluster": self.options.weight * self.cluster_term(data.features, data.labels),
            }

    def cluster_term(self, features: Tensor, labels: Tensor) -> Tensor:
        """L_wc of eq. 4, reduced."""
        centres = self.centres.value.to(features.dtype)
        weights = self.softmax.weights.to(features.dtype)[labels]
        distances = (features - centres[labels]).square().sum(dim=1)
        each = 0.5 * weights * distances / (separations(centres)[labels] + self.options.alpha)
        return reduce_weighted(each, weights, self.options.reduction)

    @torch.no_grad()
    def after_step(self, output: NetworkOutput, batch: Batch) -> None:
        if self.options.centre_update == "autograd":
            if self.options.weight:
                self.centres.step_from_grad(self.options.gamma / self.options.weight)
            return
        with full_precision(output.logits):
            data = inputs(output, batch)
            self.centres.value.sub_(self.centre_step(data.features, data.labels))

    def centre_step(self, features: Tensor, labels: Tensor) -> Tensor:
        """gamma * Delta c: (K, D), to be subtracted from the centres."""
        options, centres = self.options, self.centres.value.to(features.dtype)
        means, counts = class_means(features, labels, len(centres))
        if options.centre_update == "normalised":
            return (options.gamma * counts / (1 + counts))[:, None] * (centres - means)
        weights = self.softmax.weights.to(features.dtype)
        rates = options.gamma * weights * counts / (separations(centres) + options.alpha)  # Eqs. 8, 9
        if options.centre_update == "as_printed":
            return rates[:, None] * (means - centres)
        return rates.clamp_max(1)[:, None] * (centres - means)  # D2: sign corrected; a rate above 1 would overshoot

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """The mean of D_j: the centres' time constant is about (D + alpha) / 0.41 steps."""
        return {"weighted_cluster_separation": separations(self.centres.value).mean().item()}
