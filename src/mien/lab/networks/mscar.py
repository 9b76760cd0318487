"""MSCAR: a residual network of multi-scale convolutions with channel attention (Wang and Zhang 2023, Figs. 1-4).

48 x 48 x 1 -> conv 64 -> pool -> SE -> R1 128 -> pool -> R2 256 -> pool -> R3 512 -> global average -> classifier.
The paper gives no widths; those here are our reading (D1 of methods/mscar.py). 4,303,496 parameters for 8 classes.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import linear_head
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d, SampleStandardise
from mien.lab.options import Options

REDUCTION = 8  # r of section 2.1
CHANNELS = (64, 128, 256, 512)  # stem, R1, R2, R3 at width 1 (D1)


@dataclass(frozen=True)
class Mscar(Options):
    """MSCAR's options.

    width: factor on all channel counts. bn, se: which of the two follow each convolution of the multi-scale module (the
    ablation of Table 3). combine: how they are "in parallel" (D2): their "sum", "serial" SE(BN(u)), or "concat" of both.
    standardise: "samplewise" puts each picture to mean 0, deviation 1 in front of the network (D5), "none" leaves it.
    """

    width: float = 1.0
    bn: bool = True
    se: bool = True
    combine: Literal["sum", "serial", "concat"] = "sum"
    standardise: Literal["samplewise", "none"] = "samplewise"

    minimum_size = 8  # three poolings by 2

    def build(self, shape: Shape) -> Network:
        check_size("mscar", shape.size, self.minimum_size)
        return MscarNetwork(self, shape)


class SqueezeExcite(nn.Module):
    """Channel attention (eqs. 1-3): global average, c -> c/r -> c without bias (eq. 2), sigmoid, scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(1, channels // REDUCTION), bias=False)
        self.excite = nn.Linear(max(1, channels // REDUCTION), channels, bias=False)

    def gate(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1) in (0, 1)."""
        squeezed = F.relu(self.squeeze(maps.mean(dim=(2, 3))))  # Eq. 1
        return torch.sigmoid(self.excite(squeezed))[:, :, None, None]  # Eq. 2

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.gate(maps)  # Eq. 3


class AttendedConv(nn.Module):
    """A convolution, then "BN and SE in parallel" (Fig. 2), then ReLU. Output channels: `out_channels`."""

    def __init__(self, channels: int, filters: int, *, kernel: int, options: Mscar) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, padding=kernel // 2)
        self.norm = BatchNorm2d(filters) if options.bn else None
        self.attend = SqueezeExcite(filters) if options.se else None
        self.combine = options.combine
        doubled = options.combine == "concat" and options.bn and options.se
        self.out_channels = 2 * filters if doubled else filters

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self._combined(self.conv(maps)))

    def _combined(self, maps: Tensor) -> Tensor:
        if self.norm is None or self.attend is None:
            only = self.norm or self.attend
            return maps if only is None else only(maps)
        if self.combine == "serial":
            return self.attend(self.norm(maps))
        if self.combine == "concat":
            return torch.cat((self.norm(maps), self.attend(maps)), dim=1)
        return self.norm(maps) + self.attend(maps)  # D2


class MultiScale(nn.Module):
    """Four branches of `filters`/4 channels each (Fig. 2): 1x1; 1x1-3x3; 1x1-5x5; max pool-1x1; concatenated."""

    def __init__(self, channels: int, filters: int, options: Mscar) -> None:
        super().__init__()

        def conv(inputs: int, kernel: int) -> AttendedConv:
            return AttendedConv(inputs, filters // 4, kernel=kernel, options=options)

        self.point = conv(channels, 1)
        mid = self.point.out_channels
        self.three = nn.Sequential(conv(channels, 1), conv(mid, 3))
        self.five = nn.Sequential(conv(channels, 1), conv(mid, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(channels, 1))
        self.out_channels = 4 * mid

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([branch(maps) for branch in (self.point, self.three, self.five, self.pool)], dim=1)


class ResidualModule(nn.Module):
    """R(ci -> co) of Fig. 3: multi-scale module, conv 3x3, BN, SE, plus a projected shortcut, ReLU."""

    def __init__(self, channels: int, filters: int, options: Mscar) -> None:
        super().__init__()
        self.multi = MultiScale(channels, filters, options)
        self.conv = nn.Conv2d(self.multi.out_channels, filters, 3, padding=1, bias=False)
        self.norm = BatchNorm2d(filters)
        self.attend = SqueezeExcite(filters)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, bias=False), BatchNorm2d(filters))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(N, ci, H, W) -> output (N, co, H, W) and the attention gate (N, co, 1, 1)."""
        found = self.norm(self.conv(self.multi(maps)))
        gate = self.attend.gate(found)
        return F.relu(found * gate + self.shortcut(maps)), gate


class MscarNetwork(Network):
    """Fig. 4. Attention: the channel gates "stem", "r1", "r2", "r3", each (N, C, 1, 1)."""

    def __init__(self, options: Mscar, shape: Shape) -> None:
        super().__init__()
        stem, *filters = (max(8, 8 * round(c * options.width / 8)) for c in CHANNELS)
        self.standardise = SampleStandardise() if options.standardise == "samplewise" else nn.Identity()
        self.maps = nn.Identity()  # where Grad-CAM looks
        self.stem = nn.Sequential(
            nn.Conv2d(shape.channels, stem, 3, padding=1, bias=False), BatchNorm2d(stem), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.attend = SqueezeExcite(stem)
        self.r1 = ResidualModule(stem, filters[0], options)
        self.r2 = ResidualModule(filters[0], filters[1], options)
        self.r3 = ResidualModule(filters[1], filters[2], options)
        self.head = linear_head(filters[2], shape)
        self.feature_dim = self.head.feature_dim

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        maps = self.stem(self.standardise(images))
        gates = {"stem": self.attend.gate(maps)}
        maps = maps * gates["stem"]
        maps, gates["r1"] = self.r1(maps)
        maps, gates["r2"] = self.r2(F.max_pool2d(maps, 2))  # D3: the poolings lie between the residual modules
        maps, gates["r3"] = self.r3(F.max_pool2d(maps, 2))
        output = self.head(self.maps(maps).mean(dim=(2, 3)))
        return replace(output, attention=gates) if attention else output
