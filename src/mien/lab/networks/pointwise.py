"""1x1 convolutions that skip pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pointwise(nn.Conv2d):
    """A 1x1 convolution of any stride, without padding or bias: (N, channels, H, W) -> (N, filters, H / stride rounded up, ...).

    Where gradients are wanted, the pixels between are left out before a convolution of stride 1: of a strided one torch 2.13's own
    backward pass writes beyond its memory on a CPU, where the maps are channels_last and the channels few (12 of 35 pictures of
    40 px), which ends the process or harms other numbers."""

    def __init__(self, channels: int, filters: int, *, stride: int) -> None:
        super().__init__(channels, filters, 1, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(input)
        down, across = self.stride
        return F.conv2d(input[..., ::down, ::across], self.weight)
