"""Xception (Chollet 2017) as Keras ships it, Ad-Corre's backbone: 20,861,480 parameters without its top, counting
BatchNorm's running statistics as Keras does.

The stem's two convolutions have no padding; everything else keeps the size. The D tags: methods/ad_corre.py.
"""

import re
from dataclasses import dataclass, replace

from torch import Tensor, nn

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import linear_head
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d
from mien.lab.networks.pointwise import Pointwise
from mien.lab.options import Options

STEM = (32, 64)
ENTRY = (128, 256, 728)
MIDDLE = 8  # blocks of three separable convolutions at 728 channels
EXIT = (1024, 1536, 2048)
EPSILON, MOMENTUM = 1e-3, 0.01  # Keras' BatchNormalization in this model: momentum 0.99 there is 0.01 in torch

# The public PyTorch Xception's names (timm's legacy_xception) and ours. Its blocks 1 to 12 are in `_block_name`.
PUBLIC = {
    "conv1.weight": "stem.0.weight",
    "bn1.": "stem.1.",
    "conv2.weight": "stem.3.weight",
    "bn2.": "stem.4.",
    "conv3.conv1.": "exit.1.",
    "conv3.pointwise.": "exit.2.",
    "bn3.": "exit.3.",
    "conv4.conv1.": "exit.5.",
    "conv4.pointwise.": "exit.6.",
    "bn4.": "exit.7.",
}


@dataclass(frozen=True)
class Xception(Options):
    """width: factor on all channel counts. dropout: before the classifier."""

    width: float = 1.0
    dropout: float = 0.5

    minimum_size = 16

    def build(self, shape: Shape) -> Network:
        check_size("xception", shape.size, self.minimum_size)
        return XceptionNetwork(self, shape)


def _norm(channels: int) -> BatchNorm2d:
    return BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def _separable(channels: int, filters: int) -> list[nn.Module]:
    """Depthwise 3x3, pointwise 1x1, BN."""
    return [
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, filters, 1, bias=False),
        _norm(filters),
    ]


class EntryBlock(nn.Module):
    """Two separable convolutions, a 3x3 max pooling at stride 2, and a strided 1x1 shortcut."""

    def __init__(self, channels: int, filters: int, *, widen_first: bool = True, relu_first: bool = True) -> None:
        super().__init__()
        mid = filters if widen_first else channels
        self.main = nn.Sequential(
            *([nn.ReLU()] if relu_first else []),
            *_separable(channels, mid),
            nn.ReLU(),
            *_separable(mid, filters),
            nn.MaxPool2d(3, stride=2, padding=1),  # D7: centred windows, Keras shifts them by one on even sizes
        )
        self.shortcut = nn.Sequential(Pointwise(channels, filters, stride=2), _norm(filters))

    def forward(self, maps: Tensor) -> Tensor:
        total: Tensor = self.main(maps) + self.shortcut(maps)
        return total


class MiddleBlock(nn.Module):
    """Three ReLU and separable convolutions, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [layer for _ in range(3) for layer in (nn.ReLU(), *_separable(channels, channels))]
        self.main = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        total: Tensor = maps + self.main(maps)
        return total


class XceptionNetwork(Network):
    """Stages for `freeze`: "stem", "entry", "middle", "exit". It has no attention maps."""

    def __init__(self, options: Xception, shape: Shape) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(8, round(channels * options.width))

        first, second = (wide(c) for c in STEM)
        self.stem = nn.Sequential(
            *(nn.Conv2d(shape.channels, first, 3, stride=2, bias=False), _norm(first), nn.ReLU()),
            *(nn.Conv2d(first, second, 3, bias=False), _norm(second), nn.ReLU()),
        )
        one, two, three = (wide(c) for c in ENTRY)
        self.entry = nn.Sequential(
            EntryBlock(second, one, relu_first=False), EntryBlock(one, two), EntryBlock(two, three)
        )
        self.middle = nn.Sequential(*(MiddleBlock(three) for _ in range(MIDDLE)))
        four, five, six = (wide(c) for c in EXIT)
        self.exit = nn.Sequential(
            EntryBlock(three, four, widen_first=False),
            *_separable(four, five),
            nn.ReLU(),
            *_separable(five, six),
            nn.ReLU(),
        )
        self.head = linear_head(six, shape, dropout=options.dropout)
        self.feature_dim = self.head.feature_dim

    def adopt(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The public PyTorch Xception's tensors under this network's names; all others as they are."""
        if "block1.rep.0.conv1.weight" not in weights:
            return weights
        return {_own_name(name): value for name, value in weights.items()}

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        maps = self.exit(self.middle(self.entry(self.stem(images))))
        output: NetworkOutput = self.head(maps.mean(dim=(2, 3)))
        return replace(output, attention={}) if attention else output


def _own_name(name: str) -> str:
    block = re.fullmatch(r"block(\d+)\.(.*)", name)
    if block:
        return _block_name(int(block[1]), block[2])
    return next((ours + name.removeprefix(theirs) for theirs, ours in PUBLIC.items() if name.startswith(theirs)), name)


def _block_name(block: int, name: str) -> str:
    """Our name of a tensor of theirs in block 1 to 12: there a separable convolution is one module, here it is two in a row."""
    entry, middle = block - 1, block - 1 - len(ENTRY)
    place = f"entry.{entry}" if middle < 0 else f"middle.{middle}" if middle < MIDDLE else "exit.0"
    name = re.sub(r"^skip\.", "shortcut.0.", re.sub(r"^skipbn\.", "shortcut.1.", name))
    layer = re.fullmatch(r"rep\.(\d+)\.(?:(conv1|pointwise)\.)?(.*)", name)
    if layer:
        relu_first = int(block > 1)
        before = (int(layer[1]) - relu_first) // 3  # separable convolutions before this one, each with norm and ReLU
        within = {"conv1": 0, "pointwise": 1, None: 2}[layer[2]]
        name = f"main.{relu_first + 4 * before + within}.{layer[3]}"
    return f"{place}.{name}"
