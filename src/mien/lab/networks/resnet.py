"""ResNet-18, ResNet-50 and SE-ResNet-50 (He et al. 2016; Hu et al. 2018) with a 512-d feature before the classifier.

The blocks' parameter names are torchvision's and VGGFace2-pytorch's, so that their checkpoints load (pretrained.py).
SE-ResNet-50 has 27,092,216 parameters and ResNet-50 24,561,224, 8 classes, as the weighted-cluster paper uses them.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import FeatureHead, Head, linear_head
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d, Vggface2Input
from mien.lab.networks.pointwise import Pointwise
from mien.lab.options import Options

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
PLANES = (64, 128, 256, 512)
SE_REDUCTION = 16

Stride = Literal["first", "second"]


@dataclass(frozen=True)
class ResNet50(Options):
    """A ResNet's options.

    width: factor on all channel counts. head: size of the linear feature layer, 0 for none (the features are then the
    pooled vector). head_activation: what stands between that layer and the classifier. stem: "imagenet" (7x7 stride 2
    and max pooling) or "small" (3x3 stride 1, for pictures under about 64 px). input_norm: "recipe" leaves the recipe's
    mean and deviation alone; "vggface2" puts BGR minus VGGFace2's mean in front (the recipe's are then 0 and 1).
    stride: which convolution of a bottleneck strides, and where the stem's pooling begins: "first" as caffe and VGGFace2,
    "second" as torchvision. dropout: before each linear layer of the head; a head of embeddings takes Ad-Corre's where it is 0.
    """

    width: float = 1.0
    head: int = 512
    head_activation: Literal["none", "relu"] = "none"
    stem: Literal["imagenet", "small"] = "imagenet"
    input_norm: Literal["recipe", "vggface2"] = "recipe"
    stride: Stride = "first"
    dropout: float = 0.0

    @property
    def depth(self) -> int:
        return 50

    @property
    def excitation(self) -> bool:
        """Whether blocks end in squeeze-and-excitation."""
        return False

    @property
    def minimum_size(self) -> int:
        return 16 if self.stem == "imagenet" else 8

    def build(self, shape: Shape) -> Network:
        check_size("resnet", shape.size, self.minimum_size)
        return ResNetNetwork(self, shape)


@dataclass(frozen=True)
class SeResNet50(ResNet50):
    """SE-ResNet-50; the options of ResNet50."""

    @property
    def excitation(self) -> bool:
        return True


@dataclass(frozen=True)
class ResNet18(ResNet50):
    """ResNet-18; the options of ResNet50 (`stride` means nothing to its basic blocks)."""

    @property
    def depth(self) -> int:
        return 18


def _shortcut(channels: int, filters: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == filters:
        return None
    return nn.Sequential(Pointwise(channels, filters, stride=stride), BatchNorm2d(filters))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: (N, channels, H, W) -> (N, planes, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, channels: int, planes: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.downsample = _shortcut(channels, planes, stride)

    def forward(self, maps: Tensor) -> Tensor:
        found = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        return F.relu(found + (maps if self.downsample is None else self.downsample(maps)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and optionally SE with r = 16: (N, channels, H, W) -> (N, 4 planes, H / stride, W / stride)."""

    expansion = 4

    def __init__(
        self, channels: int, planes: int, *, stride: int, stride_in: Stride = "first", excitation: bool = False
    ) -> None:
        super().__init__()
        filters = planes * self.expansion
        first, second = (stride, 1) if stride_in == "first" else (1, stride)
        self.conv1 = Pointwise(channels, planes, stride=first)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=second, padding=1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, filters, 1, bias=False)
        self.bn3 = BatchNorm2d(filters)
        squeezed = max(1, filters // SE_REDUCTION)
        self.conv4 = nn.Conv2d(filters, squeezed, 1) if excitation else None
        self.conv5 = nn.Conv2d(squeezed, filters, 1) if excitation else None
        self.downsample = _shortcut(channels, filters, stride)

    def forward(self, maps: Tensor) -> Tensor:
        found = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps))))))
        found = self._excited(self.bn3(self.conv3(found)))
        return F.relu(found + (maps if self.downsample is None else self.downsample(maps)))

    def _excited(self, maps: Tensor) -> Tensor:
        if self.conv4 is None or self.conv5 is None:
            return maps
        squeezed = maps.mean(dim=(2, 3), keepdim=True)
        return maps * torch.sigmoid(self.conv5(F.relu(self.conv4(squeezed))))


def scaled_planes(width: float) -> tuple[int, ...]:
    """The four stages' planes at a width factor, at least 4 each."""
    return tuple(max(4, round(p * width)) for p in PLANES)


def stages(options: ResNet50, channels: int) -> tuple[list[nn.Sequential], list[int]]:
    """layer1..layer4 for a stem of `channels`, and the channels that each gives."""
    layers, given = [], []
    for i, (planes, count) in enumerate(zip(scaled_planes(options.width), BLOCKS[options.depth], strict=True)):
        blocks: list[nn.Module] = []
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            block = _block(options, channels, planes, stride)
            blocks.append(block)
            channels = planes * block.expansion
        layers.append(nn.Sequential(*blocks))
        given.append(channels)
    return layers, given


def _block(options: ResNet50, channels: int, planes: int, stride: int) -> BasicBlock | Bottleneck:
    if options.depth == 18:
        return BasicBlock(channels, planes, stride=stride)
    return Bottleneck(channels, planes, stride=stride, stride_in=options.stride, excitation=options.excitation)


class Stem(nn.Sequential):
    """The "imagenet" stem halves twice: 7x7 stride 2, BN, ReLU, 3x3 max pooling stride 2. "small" keeps the size. caffe: the
    pooling's first window begins at the first pixel and the last one is cut off."""

    def __init__(self, channels: int, filters: int, *, kind: str, caffe: bool = False) -> None:
        super().__init__()
        small = kind == "small"
        kernel = 3 if small else 7
        self.conv = nn.Conv2d(channels, filters, kernel, stride=1 if small else 2, padding=kernel // 2, bias=False)
        self.norm = BatchNorm2d(filters)
        self.act = nn.ReLU()
        if not small:
            self.pool = nn.MaxPool2d(3, stride=2, padding=0 if caffe else 1, ceil_mode=caffe)


class ResNetNetwork(Network):
    """Stages for `freeze`: "stem", "layer1" to "layer4". It has no attention maps."""

    def __init__(self, options: ResNet50, shape: Shape) -> None:
        super().__init__()
        vggface2 = options.input_norm == "vggface2"
        self.standardise = Vggface2Input(shape.channels) if vggface2 else nn.Identity()
        stem = scaled_planes(options.width)[0]
        self.stem = Stem(
            shape.channels, stem, kind=options.stem, caffe=options.depth == 50 and options.stride == "first"
        )
        (self.layer1, self.layer2, self.layer3, self.layer4), given = stages(options, stem)
        self.head = _head(options, shape, given[-1])
        self.feature_dim = self.head.feature_dim

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        maps = self.stem(self.standardise(images))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        output: NetworkOutput = self.head(maps.mean(dim=(2, 3)))
        return replace(output, attention={}) if attention else output


def _head(options: ResNet50, shape: Shape, pooled: int) -> Head:
    if options.head and not shape.embeddings:
        return FeatureHead(
            pooled, options.head, shape.classes, dropout=options.dropout, activation=options.head_activation
        )
    return linear_head(pooled, shape, dropout=options.dropout or None)
