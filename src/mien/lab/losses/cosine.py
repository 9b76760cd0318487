"""The cosine loss of MSCAR (eq. 4): minus the cosine between the one-hot label and the softmax output, batch mean."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.inputs import full_precision, inputs
from mien.lab.losses.loss import Loss, Task
from mien.lab.options import Options


@dataclass(frozen=True)
class Cosine(Options):
    """weight: factor on the term. over: one cosine per "sample" over the classes, averaged, or one over the whole "batch"
    as a single vector (D6 of methods/mscar.py).

    The value lies in [-1, 0]; -1 is a perfect prediction, -1/sqrt(K) a uniform one. Its gradient vanishes for confident
    mistakes (at a logit gap of 8 it is 3000 times smaller than cross-entropy's), so start small and keep BatchNorm.
    """

    weight: float = 1.0
    over: Literal["sample", "batch"] = "sample"

    embeddings = 0

    def build(self, task: Task) -> Loss:
        return CosineLoss(self)


class CosineLoss(Loss):
    """Term "cosine"."""

    def __init__(self, options: Cosine) -> None:
        super().__init__()
        self.options = options

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with full_precision(output.logits):
            data = inputs(output, batch)
            probabilities = data.logits.softmax(dim=1)
            chosen = probabilities.gather(1, data.labels[:, None])[:, 0]
            if self.options.over == "batch":
                cosine = chosen.sum() / (len(chosen) ** 0.5 * probabilities.norm())  # n one-hot rows have norm sqrt(n)
            else:
                cosine = (chosen / probabilities.norm(dim=1)).mean()  # Eq. 4; a one-hot vector has norm 1
            return {"cosine": -self.options.weight * cosine}
