"""EfficientFace (Zhao, Liu and Zhou 2021), the network that ResFace follows: ShuffleNet-V2 (Ma et al. 2018) with a
29-channel stem, depthwise local features and a channel-spatial modulator. 1,275,293 parameters, 7 classes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import linear_head
from mien.lab.networks.modulator import Combine, Modulator
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d
from mien.lab.networks.patches import split_quarters, stitch_quarters
from mien.lab.options import Options

STEM = 29
STAGES = ((4, 4), (8, 8), (16, 4))  # channels in stems, units: 116, 232, 464
LAST = 1024


@dataclass(frozen=True)
class EfficientFace(Options):
    """width: factor on all channel counts. local, modulator: the two parts that it adds to ShuffleNet-V2. combine: the
    released code multiplies the modulator's two logits."""

    width: float = 1.0
    local: bool = True
    modulator: bool = True
    combine: Combine = "multiply"

    minimum_size = 16

    def build(self, shape: Shape) -> Network:
        check_size("efficientface", shape.size, self.minimum_size)
        return EfficientFaceNetwork(self, shape)


def _depthwise(channels: int, filters: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, groups=channels, bias=False)
    return [conv, BatchNorm2d(filters)]


def _pointwise(channels: int, filters: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, filters, 1, bias=False), BatchNorm2d(filters), nn.ReLU()]


def _shuffle(maps: Tensor) -> Tensor:
    """Interleave the two halves of the channels."""
    first, second = maps.chunk(2, dim=1)
    return torch.stack((first, second), dim=2).flatten(1, 2)


class Unit(nn.Module):
    """ShuffleNet-V2's unit: at stride 1 half of the channels pass untouched; at stride 2 both branches work."""

    def __init__(self, channels: int, filters: int, *, stride: int) -> None:
        super().__init__()
        half = filters // 2
        worked = half if stride == 1 else channels
        self.side = None
        if stride == 2:
            self.side = nn.Sequential(*_depthwise(channels, channels, 2), *_pointwise(channels, half))
        self.main = nn.Sequential(*_pointwise(worked, half), *_depthwise(half, half, stride), *_pointwise(half, half))

    def forward(self, maps: Tensor) -> Tensor:
        if self.side is None:
            kept, worked = maps.chunk(2, dim=1)
            return _shuffle(torch.cat((kept, self.main(worked)), dim=1))
        return _shuffle(torch.cat((self.side(maps), self.main(maps)), dim=1))


def _stage(channels: int, filters: int, units: int) -> nn.Sequential:
    rest = (Unit(filters, filters, stride=1) for _ in range(units - 1))
    return nn.Sequential(Unit(channels, filters, stride=2), *rest)


class LocalFeatures(nn.Module):
    """One pair of depthwise convolutions per quarter: (N, stem, H, W) -> (N, 4 stem, H / 2, W / 2), rounded up."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.extractors = nn.ModuleList(
            nn.Sequential(*_depthwise(channels, filters, 2), nn.ReLU(), *_depthwise(filters, filters, 1), nn.ReLU())
            for _ in range(4)
        )

    def forward(self, maps: Tensor) -> Tensor:
        quarters = zip(self.extractors, split_quarters(maps), strict=True)
        return stitch_quarters(extract(quarter) for extract, quarter in quarters)


class EfficientFaceNetwork(Network):
    """Attention: "modulator" as (N, C, h, w), where the modulator is there."""

    def __init__(self, options: EfficientFace, shape: Shape) -> None:
        super().__init__()
        stem = max(4, round(STEM * options.width))
        conv = nn.Conv2d(shape.channels, stem, 3, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(conv, BatchNorm2d(stem), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
        channels = [stem, *(stem * factor for factor, _ in STAGES)]
        self.stage2, self.stage3, self.stage4 = (
            _stage(channels[i], channels[i + 1], units) for i, (_, units) in enumerate(STAGES)
        )
        self.local = LocalFeatures(stem, channels[1]) if options.local else None
        self.modulator = Modulator(channels[1], combine=options.combine) if options.modulator else None
        last = max(16, round(LAST * options.width))
        self.last = nn.Sequential(*_pointwise(channels[-1], last))
        self.head = linear_head(last, shape)
        self.feature_dim = self.head.feature_dim

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        stem, seen = self.stem(images), {}
        maps = self.stage2(stem)
        if self.modulator is not None:
            maps, seen["modulator"] = self.modulator(maps)
        if self.local is not None:
            maps = maps + self.local(stem)
        maps = self.last(self.stage4(self.stage3(maps)))
        output: NetworkOutput = self.head(maps.mean(dim=(2, 3)))
        return replace(output, attention=seen) if attention else output
