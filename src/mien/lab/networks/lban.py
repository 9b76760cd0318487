"""LBAN: the local binary attention network (LBAN-IL, sections 3.1-3.2, Table 2) and its relatives.

stem 64 -> T1 -> LBAB 128 -> T2 -> LBAB 256 -> T3 -> LBAB 512 -> average pooling -> 128-d feature -> classes, where T are
stride-2 blocks. A block (LBSL) is a fixed ternary 3x3 convolution with a learnable 1x1, a standard 3x3 convolution, and
a projected skip. 19,630,279 learnable and 11,132,928 fixed weights at 80 x 80 x 3. The D tags: methods/lban_il.py.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import EmbeddingHead, FeatureHead
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d
from mien.lab.networks.pointwise import Pointwise
from mien.lab.options import Options

CHANNELS = (64, 128, 256, 512)  # stem and the three stages, section 3.2
SAMPLINGS = (2, 1, 0)  # down- and up-samplings of the three attention branches, section 3.2
FEATURE_DIM = 128
POOL = 5  # D5


@dataclass(frozen=True)
class Lban(Options):
    """LBAN's options; each row of Tables 1 and 2 is one setting (methods/lban_il.py, VARIANTS).

    width: factor on all channel counts; the feature keeps its 128. block: "lbsl", or "plain" (two 3x3 convolutions, Table 1's "no
    LBSL"). standard, skip: the LBSL's standard convolution and skip. fixed: the LBC's 3x3 is fixed; False lets it learn.
    attention: the encoder-decoder branch. skip_mode: "project_all" has a 1x1 convolution in every skip (D2),
    "project_if_needed" only where channels or stride change. upsample_kernel: 4 or 2 (D4). pooling: "average5" is 5x5
    at stride 1, "average2" 2x2 at stride 2 (D5). filter_seed: draws the fixed filters.
    """

    width: float = 1.0
    block: Literal["lbsl", "plain"] = "lbsl"
    standard: bool = True
    skip: bool = True
    fixed: bool = True
    attention: bool = True
    skip_mode: Literal["project_all", "project_if_needed"] = "project_all"
    upsample_kernel: Literal[2, 4] = 4
    pooling: Literal["average5", "average2"] = "average5"
    dropout: float = 0.5
    filter_seed: int = 0

    minimum_size = 33  # three halvings, rounded up, must leave the 5 x 5 map that the tail pools

    def build(self, shape: Shape) -> Network:
        check_size("lban", shape.size, self.minimum_size)
        return LbanNetwork(self, shape)


class FixedConv2d(nn.Conv2d):
    """A ternary 3x3 convolution that never learns: half of its weights are 0, the others +1 or -1 with equal odds.

    The weights are a buffer: saved and moved with the network, unknown to the optimiser.
    """

    def __init__(self, channels: int, filters: int, *, stride: int, generator: torch.Generator) -> None:
        super().__init__(channels, filters, 3, stride=stride, padding=1, bias=False)
        shape = self.weight.shape
        del self.weight
        self.register_buffer("weight", ternary(shape.numel(), generator).view(shape))


def ternary(count: int, generator: torch.Generator) -> Tensor:
    """`count` values: exactly half of them (rounded up) 0, the rest +1 or -1, in random order."""
    values = torch.randint(0, 2, (count,), generator=generator, device="cpu").float() * 2 - 1
    values[torch.randperm(count, generator=generator, device="cpu")[: (count + 1) // 2]] = 0.0
    return values


@dataclass(frozen=True)
class _Plan:
    """What every block is built from."""

    options: Lban
    generator: torch.Generator


def _conv_norm(channels: int, filters: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, filters, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, BatchNorm2d(filters))


class LocalBinaryConv(nn.Sequential):
    """LBC: fixed (or learning, for the daggers of Table 2) 3x3, ReLU, learnable 1x1, BN, ReLU."""

    def __init__(self, channels: int, filters: int, *, stride: int, plan: _Plan) -> None:
        binary: nn.Module
        if plan.options.fixed:
            binary = FixedConv2d(channels, filters, stride=stride, generator=plan.generator)
        else:
            binary = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        super().__init__(binary, nn.ReLU(), *_conv_norm(filters, filters, 1), nn.ReLU())


class Block(nn.Module):
    """LBSL, or the plain residual block that stands in for it: (N, ci, H, W) -> (N, co, H / stride rounded up, ...)."""

    def __init__(self, channels: int, filters: int, *, stride: int, plan: _Plan) -> None:
        super().__init__()
        options = plan.options
        if options.block == "plain":  # D6
            self.local: nn.Module = nn.Sequential(*_conv_norm(channels, filters, 3, stride), nn.ReLU())
        else:
            self.local = LocalBinaryConv(channels, filters, stride=stride, plan=plan)
        standard = options.standard or options.block == "plain"
        self.standard = _conv_norm(filters, filters, 3) if standard else nn.Identity()
        self.skip = self._skip(channels, filters, stride, options) if options.skip else None

    @staticmethod
    def _skip(channels: int, filters: int, stride: int, options: Lban) -> nn.Module:
        if options.skip_mode == "project_if_needed" and channels == filters and stride == 1:
            return nn.Identity()
        return nn.Sequential(Pointwise(channels, filters, stride=stride), BatchNorm2d(filters))  # D2

    def forward(self, maps: Tensor) -> Tensor:
        found = self.standard(self.local(maps))
        return F.relu(found if self.skip is None else found + self.skip(maps))


class AttentionBlock(nn.Module):
    """LBAB: a trunk block T and an encoder-decoder mask M; the output is (1 + M) * T (D1).

    An upsampled map is cropped to its skip, which it exceeds by a row and a column where the skip's side is odd.
    """

    def __init__(self, channels: int, samplings: int, *, plan: _Plan) -> None:
        super().__init__()
        levels = max(1, samplings)  # D3

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(Block(channels, channels, stride=1, plan=plan) for _ in range(levels))

        self.trunk = Block(channels, channels, stride=1, plan=plan)
        self.attend = plan.options.attention
        if not self.attend:
            return
        self.encoder, self.decoder = blocks(), blocks()
        kernel = plan.options.upsample_kernel
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(channels, channels, kernel, stride=2, padding=(kernel - 2) // 2, bias=False)
            for _ in range(samplings)
        )
        self.mask = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(N, C, H, W) -> the output, the trunk T and the mask M in (0, 1), all of that shape; no mask without attention."""
        trunk = self.trunk(maps)
        if not self.attend:
            return trunk, trunk, None
        decoded = self._hourglass(maps) if len(self.upsample) else self._flat(maps)
        mask = torch.sigmoid(self.mask(F.relu(decoded)))
        return (1 + mask) * trunk, trunk, mask

    def _hourglass(self, maps: Tensor) -> Tensor:
        skips = []
        for encode in self.encoder:
            skips.append(maps)
            maps = encode(F.max_pool2d(maps, 2, ceil_mode=True))
        for decode, upsample, skip in zip(self.decoder, self.upsample, reversed(skips), strict=True):
            maps = upsample(decode(maps))[..., : skip.shape[-2], : skip.shape[-1]] + skip
        return maps

    def _flat(self, maps: Tensor) -> Tensor:
        """The third LBAB samples nothing: one encoder and one decoder block with a skip between them."""
        encoded = self.encoder[0](maps)
        return self.decoder[0](encoded) + encoded


def _pooled_side(size: int, pooling: str) -> int:
    """Side of the map after the tail's pooling, for an input side of `size` px."""
    side = size
    for _ in range(3):
        side = (side + 1) // 2
    return side - POOL + 1 if pooling == "average5" else side // 2


class LbanNetwork(Network):
    """Attention: the masks "lbab1", "lbab2", "lbab3", each (N, C, h, w) in (0, 1), and of the first block what Fig. 6 shows beside
    its mask: "lbab1 trunk" T and "lbab1 output" (1 + M) T."""

    def __init__(self, options: Lban, shape: Shape) -> None:
        super().__init__()
        plan = _Plan(options, torch.Generator().manual_seed(options.filter_seed))
        stem, *stages = (max(8, round(c * options.width)) for c in CHANNELS)
        self.stem = nn.Sequential(*_conv_norm(shape.channels, stem, 3), nn.ReLU())
        inputs = (stem, *stages[:-1])
        for i, (channels, filters, samplings) in enumerate(zip(inputs, stages, SAMPLINGS, strict=True), start=1):
            self.add_module(f"transition{i}", Block(channels, filters, stride=2, plan=plan))
            self.add_module(f"lbab{i}", AttentionBlock(filters, samplings, plan=plan))
        self.maps = nn.ReLU()  # where Grad-CAM looks
        self.pool = nn.AvgPool2d(POOL, stride=1) if options.pooling == "average5" else nn.AvgPool2d(2)
        self.head = _head(options, shape, stages[-1])
        self.feature_dim = self.head.feature_dim

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        maps = self.stem(images)
        seen: dict[str, Tensor] = {}
        for i in range(1, len(SAMPLINGS) + 1):
            maps = self.get_submodule(f"transition{i}")(maps)
            maps, trunk, mask = self.get_submodule(f"lbab{i}")(maps)
            if mask is not None:
                seen |= {f"lbab{i}": mask} if i > 1 else {"lbab1 trunk": trunk, "lbab1": mask, "lbab1 output": maps}
        pooled = self.pool(self.maps(maps))
        by_mean = isinstance(self.head, EmbeddingHead)
        output = self.head(pooled.mean(dim=(2, 3)) if by_mean else pooled.flatten(1))
        return replace(output, attention=seen) if attention else output


def _head(options: Lban, shape: Shape, channels: int) -> FeatureHead | EmbeddingHead:
    """The 128-d feature of the flattened map, or k embeddings of its mean."""
    if shape.embeddings:
        return EmbeddingHead(channels, shape.embeddings, shape.classes, dropout=options.dropout)
    side = _pooled_side(shape.size, options.pooling)
    return FeatureHead(channels * side * side, FEATURE_DIM, shape.classes, dropout=options.dropout)
