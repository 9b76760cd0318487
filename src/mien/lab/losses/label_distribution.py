"""Label-distribution learning (ResFace, eqs. 3.4-3.5): the target is a distribution over classes, not one class.

    L = -scale / (N K) sum_i sum_m q_im log p_im

with q from a frozen teacher (the paper's label-distribution generator, eq. 3.4) or from people's votes (FER+).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.inputs import full_precision, inputs
from mien.lab.losses.loss import Loss, Task
from mien.lab.losses.taught import Taught, distribution
from mien.lab.options import Options


@dataclass(frozen=True)
class LabelDistribution(Options):
    """source: "teacher" or "votes". scale: factor on the term; 1 is the paper's mean over all N K entries, K makes it
    the usual soft cross-entropy."""

    source: Literal["teacher", "votes"] = "teacher"
    scale: float = 1.0

    embeddings = 0

    def build(self, task: Task) -> Loss:
        if self.source == "teacher":
            if task.teacher is None:
                raise UsageError(
                    "label-distribution loss: source='teacher' needs a teacher; pass --teacher PATH (train one with "
                    "`mien train ldg`), or use --set loss.source=votes on a dataset with votes (ferplus)"
                )
            return TeacherLoss(self, task.teacher)
        if not task.has_votes:
            raise UsageError(
                "label-distribution loss: source='votes' needs a dataset with votes; pass --data ferplus, or use "
                "--set loss.source=teacher with --teacher PATH"
            )
        return VotesLoss(self)


def soft_cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """-(1/K) sum_m q_im log p_im per row (eq. 3.5): (N,)."""
    return -(targets * logits.log_softmax(dim=1)).mean(dim=1)


class VotesLoss(Loss):
    """Term "label_distribution" from `batch.votes`. Rows without votes are left out of the mean and get no gradient."""

    def __init__(self, options: LabelDistribution) -> None:
        super().__init__()
        self.options = options

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with full_precision(output.logits):
            data = inputs(output, batch)
            votes = self._checked(data.votes, data.logits)
            voted = votes.sum(dim=1) > 0
            each = torch.where(voted, soft_cross_entropies(data.logits, votes), 0.0)
            return {"label_distribution": self.options.scale * each.sum() / voted.sum().clamp_min(1)}

    @staticmethod
    def _checked(votes: Tensor | None, logits: Tensor) -> Tensor:
        if votes is None:
            raise UsageError("label-distribution loss: the batch has no votes; pass --data ferplus")
        if votes.shape != logits.shape:
            raise UsageError(
                f"label-distribution loss: votes of shape {tuple(votes.shape)} for logits of shape "
                f"{tuple(logits.shape)}; train on the classes that were voted on"
            )
        return votes


class TeacherLoss(Taught):
    """Term "label_distribution" from a frozen teacher, which sees the student's pictures."""

    def __init__(self, options: LabelDistribution, teacher: nn.Module) -> None:
        super().__init__(teacher)
        self.options = options

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        targets = distribution(self.answers(batch).logits)  # q of eq. 3.4
        with full_precision(output.logits):
            logits = inputs(output, batch).logits
            if targets.shape != logits.shape:
                raise UsageError(
                    f"label-distribution loss: the teacher knows {targets.shape[1]} classes, the student "
                    f"{logits.shape[1]}; train a teacher on the same classes"
                )
            return {"label_distribution": self.options.scale * soft_cross_entropies(logits, targets).mean()}
