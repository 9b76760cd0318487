"""Cross-entropy on both label sets of the same faces: FER+'s vote distribution and FER-2013's hard label; and on a teacher's
answers about the same pictures, where there is one."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import UsageError
from mien.expressions import BASIC
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.inputs import widen
from mien.lab.losses.loss import Loss, Task
from mien.lab.losses.taught import Taught, distribution
from mien.lab.options import Options


@dataclass(frozen=True)
class TwoHeads(Options):
    """votes_weight, labels_weight: of the two terms. smoothing: label smoothing of the hard labels (Szegedy et al., 2016,
    arXiv:1512.00567). balance: b >= 0; a row with hard label c counts n_c^-b in the mean over the batch, so 0 counts all
    rows alike and 1 all classes. teacher_weight: of the cross-entropy to a frozen teacher's probabilities for the student's own
    pictures, summed over both heads (distillation at temperature 1: Hinton et al., 2015, arXiv:1503.02531); 0 needs no teacher.
    teacher_flip: the teacher's answer is the mean of those about a picture and about its mirror image."""

    votes_weight: float = 1.0
    labels_weight: float = 1.0
    smoothing: float = 0.1
    balance: float = 0.0
    teacher_weight: float = 0.0
    teacher_flip: bool = False

    embeddings = 0

    def build(self, task: Task) -> Loss:
        if not task.has_votes:
            raise UsageError(
                "loss two-heads needs votes: train on --data ferplus by --label-rule joint, or choose another --loss"
            )
        if any(task.class_counts[len(BASIC) :]):
            raise UsageError(
                f"loss two-heads: its second head answers FER-2013's {len(BASIC)} classes, the labels are of more; train on "
                "--data ferplus by --label-rule joint, or choose another --loss"
            )
        if self.teacher_flip and not self.teacher_weight:
            raise UsageError(
                "loss two-heads: teacher_flip asks a teacher; set teacher_weight above 0, too, or leave it out"
            )
        for weight in ("votes_weight", "labels_weight"):
            if not getattr(self, weight) and not self.teacher_weight:
                raise UsageError(
                    f"loss two-heads: with {weight}=0 and no teacher nothing trains that head; set {weight} above 0, or "
                    "teacher_weight and a --teacher"
                )
        if self.teacher_weight and task.teacher is None:
            raise UsageError(
                "loss two-heads: teacher_weight > 0 needs a teacher; pass --teacher RUN, or --teacher FILE.onnx of mien"
            )
        return _TwoHeads(self, task)


class _TwoHeads(Taught):
    weights: Tensor  # (K,), the largest is 1

    def __init__(self, options: TwoHeads, task: Task) -> None:
        super().__init__(task.teacher if options.teacher_weight else None)
        self.options = options
        self._seen: tuple[Tensor, Tensor] | None = None  # the pictures last taught about, and both their views
        counts = torch.tensor(task.class_counts, dtype=torch.float64).clamp(min=1)  # an absent class is never asked for
        weights = (counts / counts.min()) ** -options.balance
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        if output.heads is None or "fer2013" not in output.heads or batch.votes is None:
            raise UsageError("loss two-heads needs a network with the head 'fer2013' and a batch with votes")
        with torch.autocast(batch.images.device.type, enabled=False):
            logits, second = widen(output.logits), widen(output.heads["fer2013"])
            voted = batch.votes.sum(dim=1)  # 1, or 0 where the row has no usable votes
            soft = -(batch.votes * F.log_softmax(logits, dim=1)).sum() / voted.sum().clamp(min=1)
            each = F.cross_entropy(second, batch.labels, label_smoothing=self.options.smoothing, reduction="none")
            counted = self.weights.to(each.dtype)[batch.labels]
            hard = (counted * each).sum() / counted.sum()
            terms = {"votes": self.options.votes_weight * soft, "labels": self.options.labels_weight * hard}
            if self.options.teacher_weight:
                taught = self._taught(logits, second, batch)
                terms["teacher"] = self.options.teacher_weight * taught
        return terms

    def _taught(self, logits: Tensor, second: Tensor, batch: Batch) -> Tensor:
        """The mean over rows of the cross-entropies of both heads to the teacher's."""
        answer = self.answers(self._both_views(batch) if self.options.teacher_flip else batch)
        if answer.heads is None or "fer2013" not in answer.heads:
            raise UsageError("loss two-heads: the teacher has no head 'fer2013'; train one as mien-small is trained")
        pairs = ((answer.logits, logits), (answer.heads["fer2013"], second))
        each = [-(self._targets(told).to(own) * F.log_softmax(own, dim=1)).sum(dim=1) for told, own in pairs]
        return torch.stack(each).sum(dim=0).mean()

    def _targets(self, told: Tensor) -> Tensor:
        """The teacher's logits as distributions (N, K), of both views their mean."""
        if not self.options.teacher_flip:
            return distribution(told)
        return (distribution(told[::2]) + distribution(told[1::2])) / 2

    def _both_views(self, batch: Batch) -> Batch:
        """2N rows: each picture and, behind it, its mirror image, so that several processes hold them in the order of one. The same
        tensor as before for the same pictures, as for a mixed batch's second labels, so that the teacher need not compute
        again."""
        if self._seen is None or self._seen[0] is not batch.images:
            self._seen = (batch.images, torch.stack([batch.images, batch.images.flip(-1)], dim=1).flatten(0, 1))
        return Batch(self._seen[1], batch.labels.repeat_interleave(2), None, batch.ids.repeat_interleave(2))
