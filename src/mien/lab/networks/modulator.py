"""The channel-spatial modulator of ResFace (eqs. 3.1-3.2) and EfficientFace: a bottleneck attention module (BAM).

F_mod = F * sigmoid(Z_c + Z_s), with r = 16 and dilation 4 (Park et al. 2018).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from mien.lab.networks.norm import BatchNorm1d, BatchNorm2d

REDUCTION = 16
DILATION = 4

Combine = Literal["add", "multiply"]


class Modulator(nn.Module):
    """combine: how channel and spatial logits meet before the sigmoid: "add" (ResFace eq. 3.1) or "multiply" (the
    released EfficientFace code)."""

    def __init__(self, channels: int, *, combine: Combine = "add") -> None:
        super().__init__()
        mid = max(1, channels // REDUCTION)
        self.channel = nn.Sequential(nn.Linear(channels, mid), BatchNorm1d(mid), nn.ReLU(), nn.Linear(mid, channels))
        self.spatial = nn.Sequential(
            *(nn.Conv2d(channels, mid, 1), BatchNorm2d(mid), nn.ReLU()),
            *(_dilated(mid), BatchNorm2d(mid), nn.ReLU()),
            *(_dilated(mid), BatchNorm2d(mid), nn.ReLU()),
            nn.Conv2d(mid, 1, 1),
        )
        self.combine = combine

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> the modulated maps and Z in (0, 1), both of that shape."""
        by_channel = self.channel(maps.mean(dim=(2, 3)))[:, :, None, None]
        by_place = self.spatial(maps)
        logits = by_channel + by_place if self.combine == "add" else by_channel * by_place
        weights = torch.sigmoid(logits)  # Eq. 3.1
        return maps * weights, weights  # Eq. 3.2


def _dilated(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=DILATION, dilation=DILATION)
