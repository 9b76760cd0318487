"""Normalisation: BatchNorm that survives a batch of one value per channel, and the input layers that papers put in front.

torch's BatchNorm raises when a training batch leaves one value per channel (one image, 1 x 1 map): its variance is
undefined. These subclasses then normalise with the running statistics and say so once, as a `SingleValueBatchWarning`.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SingleValueBatchWarning(UserWarning):
    """A training batch had one value per channel, so BatchNorm used its running statistics."""


def _running(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    """Normalise with the running statistics, without updating them, and say so."""
    warnings.warn(
        "a training batch has one value per channel: BatchNorm uses its running statistics for it; "
        "use a batch of at least 2 images, or drop the last incomplete batch",
        SingleValueBatchWarning,
        stacklevel=3,
    )
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d on (N, C, H, W) that uses running statistics when N * H * W is 1 in training."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return _running(self, input)
        return super().forward(input)


class BatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d on (N, C) that uses running statistics when N is 1 in training."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return _running(self, input)
        return super().forward(input)


class SampleStandardise(nn.Module):
    """Each picture to mean 0 and standard deviation 1 over its own pixels (Keras' samplewise_center and _std_normalization).

    (N, C, H, W) -> the same shape. The deviation is floored at 1e-6, so that a constant picture becomes 0.
    """

    def forward(self, images: Tensor) -> Tensor:
        centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
        variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
        return centred / variance.clamp_min(1e-12).sqrt()


class Vggface2Input(nn.Module):
    """0-1 RGB to what VGGFace2's SE-ResNet-50 was trained on: BGR on the 0-255 scale minus a mean, no deviation.

    (N, 1 or 3, H, W) -> the same shape. A grey picture loses the mean of the three means.
    """

    BGR_MEAN = (91.4953, 103.8827, 131.0912)  # VGGFace2-pytorch's data set class

    mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        mean = torch.tensor(self.BGR_MEAN)
        if channels == 1:
            mean = mean.mean(dim=0, keepdim=True)
        self.register_buffer("mean", mean.view(1, channels, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.flip(1) * 255.0 - self.mean
