"""Centre, island and islets loss (LBAN-IL, section 3.3, eqs. 1-6), each on top of a softmax loss.

    L_C   = 1/2 sum_i ||x_i - c_{y_i}||^2                     centre loss (Wen et al. 2016); mean over the batch by default
    L_cos = sum_{j != k} (cos(c_j, c_k) + 1)                  island loss's pair term (Cai et al. 2018), ordered pairs
    L_p   = exp(-1/2 sum_{j < k} ||c_j - c_k||)               eq. 1, unordered pairs
    L     = L_softmax + weight * (L_C + pull * L_cos + push * L_p)       eqs. 2, 3, 5

The D tags refer to methods/lban_il.py.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.centres import CentreInit, Centres, class_means
from mien.lab.losses.inputs import Inputs, full_precision, inputs
from mien.lab.losses.loss import Loss, Task
from mien.lab.losses.softmax import WeightedSoftmax, WeightedSoftmaxLoss
from mien.lab.options import Options

CentreUpdate = Literal["paper", "autograd"]
Classification = Literal["softmax", "weighted-softmax"]
PairReduction = Literal["sum", "mean"]
NORM_FLOOR = 1e-8  # a cosine with a zero vector is 0/0


@dataclass(frozen=True)
class Islets(Options):
    """The islets loss; its defaults are the paper's.

    weight: lambda of eq. 5. pull: lambda1, on the pair cosines; 0 makes it a centre loss (with push 0). push: lambda2, on
    L_p. alpha: the centres' rate (D7: unstated, centre loss's 0.5). reduction: L_C over the batch as "mean" (D8) or "sum"
    (as eq. 3 implies). lp_reduction: the 21 distances inside L_p's exponent as "sum" (eq. 1) or "mean" (D9: with "sum"
    L_p is 0 in float32 as soon as centres lie 8 to 10 apart). centre_update: "paper" moves centres by eq. 4, "autograd"
    by the gradient of the loss divided by `weight`. centre_init, centre_deviation: where centres start (D10).
    classification: the softmax loss beside it.
    """

    weight: float = 0.6
    pull: float = 0.2
    push: float = 0.9
    alpha: float = 0.5
    reduction: Literal["mean", "sum"] = "mean"
    lp_reduction: PairReduction = "sum"
    centre_update: CentreUpdate = "paper"
    centre_init: CentreInit = "normal"
    centre_deviation: float = 0.01
    classification: Classification = "softmax"

    embeddings = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pull and not self.centre_deviation:  # a class that the first batch lacks would stay at 0
            raise UsageError(
                f"{type(self).__name__}: centre_deviation={self.centre_deviation!r}: expected a number above 0 beside "
                f"pull={self.pull!r}: a centre at 0 has no cosine, and eq. 4 then throws it far away"
            )

    def build(self, task: Task) -> Loss:
        return IsletsLoss(self, task)


@dataclass(frozen=True)
class Island(Islets):
    """The island loss: L_C + pull * L_cos."""

    push: float = 0.0


@dataclass(frozen=True)
class Centre(Islets):
    """The centre loss alone."""

    pull: float = 0.0
    push: float = 0.0


def centre_term(features: Tensor, labels: Tensor, centres: Tensor, *, reduction: str) -> Tensor:
    """L_C: half the squared distance of each feature to its class's centre, summed or averaged over the batch."""
    each = 0.5 * (features - centres[labels]).square().sum(dim=1)
    return each.sum() if reduction == "sum" else each.mean()


def pair_cosines(centres: Tensor) -> Tensor:
    """L_cos: sum over ordered pairs j != k of cos(c_j, c_k) + 1."""
    directions = centres / centres.norm(dim=1, keepdim=True).clamp_min(NORM_FLOOR)
    cosines = directions @ directions.T + 1
    return cosines.sum() - cosines.diagonal().sum()


def _pair_distances(centres: Tensor) -> Tensor:
    """||c_j - c_k|| for j < k: (K (K - 1) / 2,). Its gradient at equal centres is 0, not NaN."""
    first, second = torch.triu_indices(len(centres), len(centres), offset=1, device=centres.device)
    return torch.linalg.vector_norm(centres[first] - centres[second], dim=1)


def pair_penalty(centres: Tensor, *, reduction: str) -> Tensor:
    """L_p of eq. 1: exp(-1/2 * the sum or the mean of the pair distances)."""
    distances = _pair_distances(centres)
    return torch.exp(-0.5 * (distances.sum() if reduction == "sum" else distances.mean()))


class IsletsLoss(Loss):
    """Terms "softmax" or "weighted_softmax", "centre", and where their factors are not 0 "island" and "islets".

    In the "paper" mode the last two move only the centres (by eq. 4, in `after_step`) and carry no gradient.
    """

    def __init__(self, options: Islets, task: Task) -> None:
        super().__init__()
        self.options = options
        self.centres = Centres(
            task.classes,
            task.feature_dim,
            learn=options.centre_update == "autograd",
            deviation=options.centre_deviation,
            init=options.centre_init,
        )
        weighted = options.classification == "weighted-softmax"
        self.weighted = WeightedSoftmaxLoss(WeightedSoftmax(), task) if weighted else None

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with full_precision(output.logits):
            data = inputs(output, batch)
            self.centres.start(data)
            return self._classification(data) | self._clustering(data)

    def _classification(self, data: Inputs) -> dict[str, Tensor]:
        if self.weighted is not None:
            return {"weighted_softmax": self.weighted.value(data.logits, data.labels)}
        return {"softmax": F.cross_entropy(data.logits, data.labels)}  # Eq. 6

    def _clustering(self, data: Inputs) -> dict[str, Tensor]:
        options = self.options
        centres = self.centres.value.to(data.features.dtype)
        terms = {"centre": centre_term(data.features, data.labels, centres, reduction=options.reduction)}  # Eq. 3
        if options.pull:
            terms["island"] = options.pull * pair_cosines(centres)
        if options.push:
            terms["islets"] = options.push * pair_penalty(centres, reduction=options.lp_reduction)  # Eqs. 1, 2
        return {name: options.weight * term for name, term in terms.items()}  # Eq. 5

    @torch.no_grad()
    def after_step(self, output: NetworkOutput, batch: Batch) -> None:
        if self.options.centre_update == "autograd":
            if self.options.weight:
                self.centres.step_from_grad(self.options.alpha / self.options.weight)
            return
        with full_precision(output.logits):
            data = inputs(output, batch)
            self.centres.value.sub_(self.options.alpha * self.centre_step(data.features, data.labels))

    def centre_step(self, features: Tensor, labels: Tensor) -> Tensor:
        """Delta c of eq. 4: (K, D)."""
        options, centres = self.options, self.centres.value.to(features.dtype)
        means, counts = class_means(features, labels, len(centres))
        step = (counts / (1 + counts))[:, None] * (centres - means)
        if options.pull:
            step = step + options.pull * _island_step(centres)
        if options.push:
            step = step + options.push * _islets_step(centres, options.lp_reduction)
        return step

    @torch.enable_grad()
    def diagnostics(self) -> dict[str, float]:
        """L_p, the norm of its gradient over the centres, and 1.0 where L_p is below float32's normal range."""
        if not self.options.push:
            return {}
        centres = self.centres.value.detach().clone().requires_grad_()
        penalty = pair_penalty(centres, reduction=self.options.lp_reduction)
        (gradient,) = torch.autograd.grad(penalty, centres)
        value = penalty.item()
        return {
            "islets_lp": value,
            "islets_lp_gradient": gradient.norm().item(),
            "islets_lp_underflow": float(value < math.ldexp(1.0, -126)),
        }


def _island_step(centres: Tensor) -> Tensor:
    """Second term of eq. 4 without lambda1: 1/(K-1) sum_{k != j} [c_k/(|c_j||c_k|) - (c_j.c_k) c_j/(|c_j|^3 |c_k|)]."""
    norms = centres.norm(dim=1, keepdim=True).clamp_min(NORM_FLOOR)
    directions = centres / norms
    cosines = directions @ directions.T
    others = directions.sum(dim=0) - directions
    along = (cosines.sum(dim=1) - cosines.diagonal())[:, None] * directions
    return (others - along) / norms / (len(centres) - 1)


def _islets_step(centres: Tensor, reduction: str) -> Tensor:
    """Third term of eq. 4 without lambda2: -1/(2K) sum_{k != j} (c_j - c_k)/|c_j - c_k| * L_p."""
    classes = len(centres)
    apart = centres[:, None] - centres[None]
    lengths = torch.linalg.vector_norm(apart, dim=2, keepdim=True)
    directions = torch.where(lengths > 0, apart / lengths.clamp_min(torch.finfo(centres.dtype).tiny), 0.0)
    step = -directions.sum(dim=1) * pair_penalty(centres, reduction=reduction) / (2 * classes)
    return step if reduction == "sum" else step / (classes * (classes - 1) / 2)
