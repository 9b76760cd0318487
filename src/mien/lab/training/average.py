"""An exponential moving average of a network's weights and statistics."""

import copy

import torch
from torch import Tensor, nn

from mien.lab.networks import Network


class Average(nn.Module):
    """decay per step, warmed up as min(decay, (1 + t) / (10 + t)) so that the random start is forgotten quickly.

    The average is what is validated and exported. BatchNorm's running statistics are averaged like weights.
    """

    steps: Tensor

    def __init__(self, network: Network, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.network: Network = copy.deepcopy(network).requires_grad_(False).eval()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._counted: int | None = None  # the same, known without asking an accelerator; None: it must be asked
        self.register_load_state_dict_post_hook(_count_anew)

    @torch.no_grad()
    def update(self, network: Network) -> None:
        t = self._counted = (int(self.steps) if self._counted is None else self._counted) + 1
        self.steps += 1
        weight = 1 - min(self.decay, (1 + t) / (10 + t))
        pairs = list(zip(_state(self.network), _state(network), strict=True))
        floats = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], weight)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)

    def train(self, mode: bool = True) -> "Average":
        """Always in eval mode."""
        return super().train(False)


def _count_anew(average: nn.Module, _: object) -> None:
    """What is loaded brings its own number of steps."""
    average._counted = None  # type: ignore[assignment]


def _state(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
