"""What a network costs: parameters by kind, and multiply-accumulates (MACs) of one picture."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mien.lab.networks.network import Network, Shape


@dataclass(frozen=True)
class Counts:
    """trainable: parameters that learn. fixed: weights that never do (frozen parameters, fixed filters held as buffers).
    statistics: BatchNorm's running means and variances. macs: multiply-accumulates of convolutions and linear layers
    for one picture, fixed filters included."""

    trainable: int
    fixed: int
    statistics: int
    macs: int

    @property
    def weights(self) -> int:
        """All weights, learnable or not."""
        return self.trainable + self.fixed

    @property
    def keras_total(self) -> int:
        """What Keras calls total parameters: the running statistics count, too."""
        return self.trainable + self.fixed + self.statistics


def count(network: Network, shape: Shape) -> Counts:
    """Count `network` as it is now (frozen stages count as fixed) for one picture of `shape`."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    held = sum(b.numel() for m in network.modules() if not isinstance(m, _BatchNorm) for b in _saved_buffers(m))
    return Counts(trainable, frozen + held, statistics(network), macs(network, shape))


def statistics(network: Network) -> int:
    """Numbers in BatchNorm's running means and variances, which Keras counts as parameters."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    return sum(b.numel() for m in norms for b in (m.running_mean, m.running_var) if b is not None)


def _saved_buffers(module: nn.Module) -> list[Tensor]:
    """A module's own buffers that its state dict keeps; constants of an input layer are not weights."""
    skipped = module._non_persistent_buffers_set
    return [b for name, b in module.named_buffers(recurse=False) if name not in skipped]


@torch.no_grad()
def macs(network: Network, shape: Shape) -> int:
    """Multiply-accumulates of one picture, counted by forward hooks while the network runs once in eval mode."""
    total = 0

    def add(module: nn.Module, taken: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal total
        total += _module_macs(module, taken[0], made)

    hooks = [m.register_forward_hook(add) for m in network.modules() if _counted(m)]
    modes = {m: m.training for m in network.modules()}
    try:
        network.eval()
        device = next(network.parameters()).device
        network(torch.zeros(1, shape.channels, shape.size, shape.size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return total


def _counted(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))


def _module_macs(module: nn.Module, taken: Tensor, made: Tensor) -> int:
    """Per weight, one multiplication for every output position (input position of a transposed convolution)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Linear):
        return weight.numel() * (made.numel() // made.shape[-1])
    positions = taken if isinstance(module, nn.ConvTranspose2d) else made
    return weight.numel() * positions.shape[-1] * positions.shape[-2]
