"""Sharpness-aware minimisation (Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021):
a step goes down the gradient that is found rho uphill of the weights, so that it looks for minima with a flat surrounding."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Uphill:
    """Moves a network's weights by rho along their gradient, and back. One `back` for each `climb`."""

    def __init__(self, network: nn.Module, rho: float) -> None:
        self.network, self.rho = network, rho
        self._moved: list[tuple[nn.Parameter, Tensor]] = []  # and where each came from
        self._still: list[_BatchNorm] = []  # whose running statistics wait for `back`

    def climb(self, loss: Tensor) -> None:
        """To w + rho g / |g| with g the gradient of `loss` by all trained weights w (equation 2 with p = 2); where g is 0 nothing
        moves. Until `back`, BatchNorm's running statistics stay as they are. The graph of `loss` is spent."""
        weights = [p for p in self.network.parameters() if p.requires_grad]
        with torch.autocast(
            loss.device.type, enabled=False
        ):  # else products that the loss took in float32 are bfloat16 here
            found = torch.autograd.grad(loss, weights, allow_unused=True)
        pairs = [(weight, gradient) for weight, gradient in zip(weights, found, strict=True) if gradient is not None]
        norm = torch.stack([gradient.norm() for _, gradient in pairs]).norm()
        scale = self.rho / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        self._moved = [(weight, weight.detach().clone()) for weight, _ in pairs]
        with torch.no_grad():
            for weight, gradient in pairs:
                weight.add_(gradient * scale)
        torch.clear_autocast_cache()  # which holds the weights as they were
        self._still = [m for m in self.network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        for m in self._still:
            m.track_running_stats = False

    @torch.no_grad()
    def back(self) -> None:
        """To where the weights were, bit for bit."""
        for weight, before in self._moved:
            weight.copy_(before)
        for m in self._still:
            m.track_running_stats = True
        self._moved, self._still = [], []
