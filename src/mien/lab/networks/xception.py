"""Xception (Chollet 2017) as Keras ships it, Ad-Corre's backbone: 20,861,480 parameters without its top, counting
BatchNorm's running statistics as Keras does.

The stem's two convolutions have no padding; everything else keeps the size. The D tags: methods/ad_corre.py.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import linear_head
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d
from mien.lab.options import Options

STEM = (32, 64)
ENTRY = (128, 256, 728)
MIDDLE = 8  # blocks of three separable convolutions at 728 channels
EXIT = (1024, 1536, 2048)
EPSILON, MOMENTUM = 1e-3, 0.01  # Keras' BatchNormalization in this model: momentum 0.99 there is 0.01 in torch


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
        self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride=2, bias=False), _norm(filters))

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

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        maps = self.exit(self.middle(self.entry(self.stem(images))))
        output: NetworkOutput = self.head(maps.mean(dim=(2, 3)))
        return replace(output, attention={}) if attention else output
