"""The contract of every network: a frozen dataclass of options that builds a module for a given shape."""

from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor, nn

from mien.errors import UsageError
from mien.lab.batch import NetworkOutput


@dataclass(frozen=True)
class Shape:
    """channels: 1 or 3. classes: K >= 2. size: side of the square input, px. embeddings: how many parallel embeddings (k)
    the loss asks for, 0 for none; a network that gets k > 0 grows the k-embedding head (Ad-Corre, section 5.1)."""

    channels: int
    classes: int
    size: int
    embeddings: int = 0

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UsageError(f"channels={self.channels}: a network takes 1 (grey) or 3 (RGB) channels")
        if self.classes < 2:
            raise UsageError(f"classes={self.classes}: a classifier needs at least 2")
        if self.embeddings < 0:
            raise UsageError(f"embeddings={self.embeddings}: expected 0 (none) or a positive count")


class Network(nn.Module):
    """Base of the networks: what the trainer, the exporter and the losses rely on."""

    feature_dim: int
    frozen: tuple[str, ...] = ()
    own: tuple[str, ...] = ()  # how the names begin that a checkpoint of the network's public backbone need not have

    def freeze(self, stages: tuple[str, ...]) -> None:
        """Stop the named stages (child modules, e.g. "stem", "layer1") from learning, for good: their parameters need no
        gradient and their BatchNorm stays in eval mode, also after `train()`. Raises UsageError for an unknown stage."""
        children = dict(self.named_children())
        for name in stages:
            if name not in children:
                raise UsageError(f"unknown network stage {name!r}: this network has {', '.join(children)}")
            children[name].requires_grad_(False)
        self.frozen = tuple(dict.fromkeys(self.frozen + stages))
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def adopt(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors under this network's names, where it knows more of them than `pretrained.RENAMES` does: as of a
        smaller network of its kind, or of another program's."""
        return weights

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        """images: (N, channels, size, size) float32. attention=True fills `NetworkOutput.attention`."""
        raise NotImplementedError


class NetworkOptions(Protocol):
    """A frozen dataclass of one network's options. `minimum_size` is the smallest input side it takes, px."""

    @property
    def minimum_size(self) -> int: ...

    def build(self, shape: Shape) -> Network: ...


def check_size(name: str, size: int, minimum: int) -> None:
    """Refuse an input side under the network's minimum, naming both."""
    if size < minimum:
        raise UsageError(f"{name}: input size {size} px is under its minimum of {minimum} px; choose a larger size")
