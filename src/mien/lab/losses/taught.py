"""A loss that asks a frozen teacher about the student's own batch."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from mien.lab import ranks
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.inputs import widen
from mien.lab.losses.loss import Loss


class Taught(Loss):
    """A teacher is a module that answers a Batch of N rows with a NetworkOutput. It follows the loss from device to device, but is
    neither among its parameters nor in its state dict."""

    def __init__(self, teacher: nn.Module | None) -> None:
        super().__init__()
        # in a tuple, so that it is no submodule
        self._held: tuple[nn.Module, ...] = () if teacher is None else (teacher.requires_grad_(False).eval(),)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> Self:
        for teacher in self._held:
            teacher._apply(fn)
        return super()._apply(fn, *args)

    @property
    def asks(self) -> bool:
        """Whether there is a teacher to ask."""
        return bool(self._held)

    @torch.no_grad()
    def answers(self, batch: Batch) -> NetworkOutput:
        """The teacher's output for this rank's rows, in eval mode. Must not be asked without a teacher."""
        (teacher,) = self._held
        output: NetworkOutput = teacher.eval()(batch)
        return output


def distribution(logits: Tensor) -> Tensor:
    """A teacher's logits as distributions over the whole batch: pictures stay with their rank, answers do not. (N, K), rows
    sum to 1."""
    return ranks.gathered(widen(logits).softmax(dim=1))
