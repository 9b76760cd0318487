"""The contract of every loss: a frozen dataclass of options that builds a module for a given task."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from mien.lab.batch import Batch, NetworkOutput


@dataclass(frozen=True)
class Task:
    """What a loss must know to be built. class_counts: training rows per class, in class order. feature_dim: D.
    teacher: a frozen network giving target distributions, or None (a loss that asks one derives from taught.Taught).
    has_votes: whether batches carry votes."""

    class_counts: tuple[int, ...]
    feature_dim: int
    teacher: nn.Module | None = None
    has_votes: bool = False

    @property
    def classes(self) -> int:
        return len(self.class_counts)


class Loss(nn.Module):
    """`forward` returns named terms, already weighted: the trainer adds them up and logs each.

    A loss owns its state (centres, confusion history) and that state's update rule. The trainer never hands a loss's
    parameters to its optimiser: it calls `after_step` once after each optimiser step, under no_grad, with what the step began with.
    `forward` is asked up to four times a step (about mixed pictures' labels, and anew uphill: `sam_rho`) and must leave the state.
    All arithmetic is in float32 or wider, also under autocast.
    """

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def after_step(self, output: NetworkOutput, batch: Batch) -> None:
        """Update the loss's own state from the batch just trained on (detached outputs). Default: nothing."""

    def diagnostics(self) -> dict[str, float]:
        """Numbers to log once an epoch (e.g. whether the islets penalty underflowed). Default: none."""
        return {}


class LossOptions(Protocol):
    """A frozen dataclass of one loss's options. `embeddings` is how many parallel embeddings it asks of the network."""

    @property
    def embeddings(self) -> int: ...

    def build(self, task: Task) -> Loss: ...
