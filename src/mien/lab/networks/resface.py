"""ResFace: a ResNet with local features and a channel-spatial modulator after stage 2 (ResFace, section 3).

conv1 with 29 channels -> layer1 -> layer2 ("Stage 2") -> F_mod + F_local -> layer3 -> layer4 -> global average. Its
variants: A the plain ResNet, B with the local-feature extractor, C with the modulator. The D tags: methods/resface.py.
"""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import linear_head
from mien.lab.networks.modulator import Combine, Modulator
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d
from mien.lab.networks.patches import split_quarters, stitch_quarters
from mien.lab.networks.resnet import ResNet18, ResNet50, Stem, stages
from mien.lab.options import Options

STEM = 29  # channels of conv1, section 3.1
LOCAL = 128  # channels of the local features, D2


@dataclass(frozen=True)
class ResFace(Options):
    """depth: 18 or 50. local: part B, the local-feature extractor. modulator: part C. combine: how the modulator's two
    logits meet (eq. 3.1 adds them). width: factor on the ResNet's and the local channels; conv1 keeps its 29."""

    depth: Literal[18, 50] = 18
    local: bool = True
    modulator: bool = True
    combine: Combine = "add"
    width: float = 1.0

    minimum_size = 16

    def build(self, shape: Shape) -> Network:
        check_size("resface", shape.size, self.minimum_size)
        return ResFaceNetwork(self, shape)


def _step(*layers: nn.Module, channels: int) -> list[nn.Module]:
    return [*layers, BatchNorm2d(channels), nn.ReLU()]


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)


class LocalExtractor(nn.Module):
    """Part B for one quarter: halved, halved again, and brought back by a transposed convolution (D2).

    (N, 29, h, w) -> (N, local, h / 2, w / 2), halves rounded up.
    """

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.halve = nn.Sequential(
            *_step(_depthwise(channels), channels=channels),
            *_step(nn.Conv2d(channels, filters, 1, bias=False), channels=filters),
        )
        self.halve_again = nn.Sequential(
            *_step(_depthwise(filters), channels=filters),
            *_step(nn.Conv2d(filters, filters, 1, bias=False), channels=filters),
        )
        upsample = nn.ConvTranspose2d(filters, filters, 2, stride=2, groups=filters, bias=False)
        self.back = nn.Sequential(*_step(upsample, channels=filters))

    def forward(self, maps: Tensor) -> Tensor:
        half = self.halve(maps)
        found: Tensor = self.back(self.halve_again(half))
        return found[..., : half.shape[-2], : half.shape[-1]]


class LocalFeatures(nn.Module):
    """Part B: one extractor per quarter of conv1's output, stitched, and for ResNet-50 widened by a shared 1x1."""

    def __init__(self, channels: int, filters: int, given: int) -> None:
        super().__init__()
        self.extractors = nn.ModuleList(LocalExtractor(channels, filters) for _ in range(4))
        self.widen = nn.Sequential()
        if filters != given:
            self.widen = nn.Sequential(*_step(nn.Conv2d(filters, given, 1, bias=False), channels=given))

    def forward(self, maps: Tensor) -> Tensor:
        quarters = zip(self.extractors, split_quarters(maps), strict=True)
        stitched: Tensor = self.widen(stitch_quarters(extract(quarter) for extract, quarter in quarters))
        return stitched


class ResFaceNetwork(Network):
    """Attention: "modulator", Z of eq. 3.1 as (N, C, h, w), where part C is there."""

    own = ("local.", "modulator.")

    def __init__(self, options: ResFace, shape: Shape) -> None:
        super().__init__()
        kind = ResNet18 if options.depth == 18 else ResNet50
        self.stem = Stem(shape.channels, STEM, kind="imagenet")
        layers, given = stages(kind(width=options.width, stride="second"), STEM)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        local = max(4, round(LOCAL * options.width))
        self.local = LocalFeatures(STEM, local, given[1]) if options.local else None
        self.modulator = Modulator(given[1], combine=options.combine) if options.modulator else None
        self.head = linear_head(given[-1], shape)
        self.feature_dim = self.head.feature_dim

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        stem, seen = self.stem(images), {}
        maps = self.layer2(self.layer1(stem))
        if self.modulator is not None:
            maps, seen["modulator"] = self.modulator(maps)
        if self.local is not None:
            maps = maps + self.local(stem)  # Eq. 3.3
        maps = self.layer4(self.layer3(maps))
        output: NetworkOutput = self.head(maps.mean(dim=(2, 3)))
        return replace(output, attention=seen) if attention else output
