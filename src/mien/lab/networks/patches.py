"""Quarter patches: how ResFace and EfficientFace look at a face's four local regions with separate weights."""

from collections.abc import Iterable

import torch
from torch import Tensor


def split_quarters(maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, C, H, W) -> its four quarters, row by row. The first rows and columns are an even count, so that the quarters'
    halves (rounded up) add up to the whole's half; 56 x 56 gives four of 28 x 28."""
    top, left = first_part(maps.shape[-2]), first_part(maps.shape[-1])
    upper, lower = maps[..., :top, :], maps[..., top:, :]
    return upper[..., :left], upper[..., left:], lower[..., :left], lower[..., left:]


def first_part(side: int) -> int:
    """How many of `side` rows (at least 3) go to the first half: an even number, half of them or one more."""
    return 2 * ((side + 3) // 4)


def stitch_quarters(quarters: Iterable[Tensor]) -> Tensor:
    """The inverse of `split_quarters` for quarters of any matching sizes."""
    one, two, three, four = quarters
    return torch.cat((torch.cat((one, two), dim=-1), torch.cat((three, four), dim=-1)), dim=-2)
