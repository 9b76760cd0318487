"""mien-small: the network of the bundled model. Plain 3x3 convolutions, since they are what CPUs run best.

Four stages of Conv3x3-BN-ReLU, each halved by a 2x2 max pooling, plain or with a blur against aliasing (Zhang, 2019,
arXiv:1904.11486). A convolution that keeps its width adds its input before the ReLU (He et al., 2016, arXiv:1512.03385), which a
runtime fuses into the convolution. Two linear heads read one global average: the dataset's classes, and FER-2013's seven.

A deeper network may go on from a shallower one of the same widths (`--pretrained`): the convolutions it has more start with their
norm's scale at zero, so that with their shortcut they give back what they are given (Goyal et al., 2017, arXiv:1706.02677,
section 5.1), and the first features are the shallower network's.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import ModelError, UsageError
from mien.expressions import BASIC
from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import EmbeddingHead
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.options import check_fields


@dataclass(frozen=True)
class MienSmall:
    """widths: channels of the stages. depths: convolutions per stage. enlarge: factor by which the picture is enlarged (bilinear)
    before the first convolution. pooling: "max", or "max-blur", the maxima of all 2x2 windows, blurred before they are halved.
    dropout: before the heads. second_head: add FER-2013's seven classes as the head "fer2013" (a network with k embeddings has
    one head only)."""

    widths: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (1, 2, 2, 2)
    enlarge: float = 1.0
    pooling: Literal["max", "max-blur"] = "max"
    dropout: float = 0.3
    second_head: bool = True

    def __post_init__(self) -> None:
        for name in ("widths", "depths"):
            counts = getattr(self, name)
            if not (isinstance(counts, tuple) and counts and all(isinstance(n, int) and n > 0 for n in counts)):
                raise UsageError(f"network.{name}={counts!r}: expected a whole number above 0 for each stage")
        if len(self.widths) != len(self.depths):
            raise UsageError(
                f"network.widths={self.widths} and network.depths={self.depths}: expected as many of each, one for each stage"
            )
        check_fields(self)

    @property
    def minimum_size(self) -> int:
        return math.ceil(2 ** len(self.widths) / self.enlarge)

    def build(self, shape: Shape) -> Network:
        check_size("mien-small", shape.size, self.minimum_size)
        return _MienSmall(self, shape)


class _MienSmall(Network):
    def __init__(self, options: MienSmall, shape: Shape) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = shape.channels
        for width, depth in zip(options.widths, options.depths, strict=True):
            stages += [
                _Convolution(before, width),
                *(_Convolution(width, width) for _ in range(depth - 1)),
                _pooling(options.pooling),
            ]
            before = width
        self.enlarge = options.enlarge
        self.trunk = nn.Sequential(*stages[:-1])  # no pooling before the global average
        self.feature_dim = before
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(before, shape.classes)
        self.embeddings = None
        if shape.embeddings:
            self.embeddings = EmbeddingHead(before, shape.embeddings, shape.classes, dropout=options.dropout)
            self.feature_dim = self.embeddings.feature_dim
        self.head_fer2013 = nn.Linear(before, len(BASIC)) if options.second_head else None

    def adopt(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A shallower network's tensors in the places of this one's stages, and zeros for the scales of what is added. Raises
        ModelError for a network of as many stages that is deeper in one of them."""
        mine = self.state_dict()
        given, wanted = _stages(weights), _stages(mine)
        if len(given) != len(wanted):
            return weights  # another network
        pairs = list(zip(given, wanted, strict=True))
        if any(len(theirs) > len(ours) for theirs, ours in pairs):
            theirs_deep, ours_deep = tuple(map(len, given)), tuple(map(len, wanted))
            raise ModelError(
                f"the checkpoint's stages have {theirs_deep} convolutions, this network's {ours_deep}: it cannot go on from a "
                f"deeper one; pass --set 'network.depths={theirs_deep}'"
            )
        places = {place: ours[i] for theirs, ours in pairs for i, place in enumerate(theirs)}
        added = [f"trunk.{place}.norm.weight" for theirs, ours in pairs for place in ours[len(theirs) :]]
        moved = {_PLACE.sub(lambda at: f"trunk.{places[int(at[1])]}.", name): value for name, value in weights.items()}
        return moved | {name: torch.zeros_like(mine[name]) for name in added}

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        if self.enlarge != 1:
            images = F.interpolate(images, size=(round(images.shape[-1] * self.enlarge),) * 2, mode="bilinear")
        features = self.trunk(images).mean(dim=(2, 3))  # (N, D)
        if self.embeddings is not None:
            return replace(self.embeddings(features), attention={} if attention else None)
        dropped = self.dropout(features)
        heads = {"fer2013": self.head_fer2013(dropped)} if self.head_fer2013 is not None else None
        return NetworkOutput(self.head(dropped), features, attention={} if attention else None, heads=heads)


class _Convolution(nn.Module):
    """ReLU(BN(conv3x3(x))), with x added before the ReLU where the width stays."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.residual = before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.convolution(x))
        return torch.relu(x + y if self.residual else y)


def _pooling(kind: str) -> nn.Module:
    """Halves the sides. The blur averages what there is of the 3x3 maxima around each 2x2 window's own, all alike where Zhang
    weighs them by binomials: no border is made up."""
    if kind == "max":
        return nn.MaxPool2d(2)
    return nn.Sequential(nn.MaxPool2d(2, stride=1), nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False))


_PLACE = re.compile(r"^trunk\.(\d+)\.")


def _stages(names: Iterable[str]) -> list[list[int]]:
    """The places in `trunk` of each stage's convolutions; a place without weights is the pooling between two stages."""
    places = sorted({int(found[1]) for found in map(_PLACE.match, names) if found})
    stages: list[list[int]] = []
    for place in places:
        if stages and stages[-1][-1] == place - 1:
            stages[-1].append(place)
        else:
            stages.append([place])
    return stages
