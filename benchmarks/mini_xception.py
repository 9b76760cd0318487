"""mini-Xception (Arriaga, Valdenegro-Toro and Plöger, 2017, arXiv:1710.07557, figure 3), as a shape to time beside ours.

Random weights: only the arithmetic and the file size mean anything. 58,423 numbers with the norms' running statistics, as
Keras counts them; grey 64x64 in, seven probabilities out, which is what the installable readers built on it use.
"""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

SIDE = 64  # px, the published input; the network takes any side
WIDTHS = (16, 32, 64, 128)
CLASSES = 7


class _Block(nn.Module):
    """Two separable convolutions and a 3x3 max pooling at stride 2, beside a strided 1x1 shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))
        self.main = nn.Sequential(
            *_separable(before, after), nn.ReLU(), *_separable(after, after), nn.MaxPool2d(3, stride=2, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.shortcut(x)


def _separable(before: int, after: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, after, 1, bias=False),
        nn.BatchNorm2d(after),
    ]


class MiniXception(nn.Module):
    """(N, 1, side, side) -> (N, 7) probabilities."""

    def __init__(self) -> None:
        super().__init__()
        stem = [nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]  # no padding, as the authors' code
        stem += [nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        blocks = [_Block(before, after) for before, after in zip((8, *WIDTHS), WIDTHS, strict=False)]
        self.trunk = nn.Sequential(*stem, *blocks)
        self.last = nn.Conv2d(WIDTHS[-1], CLASSES, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.last(self.trunk(images)).mean(dim=(2, 3)), dim=1)


def numbers(network: nn.Module) -> int:
    """Weights and running statistics: what Keras calls parameters."""
    held = [*network.parameters(), *(b for name, b in network.named_buffers() if not name.endswith("batches_tracked"))]
    return sum(tensor.numel() for tensor in held)


def write(path: Path, *, side: int = SIDE) -> Path:
    """The shape with seeded random weights as an ONNX file of a dynamic batch."""
    torch.manual_seed(0)
    network = MiniXception().eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            network, (torch.zeros(2, 1, side, side),), str(path), dynamo=True, input_names=["images"],
            output_names=["probabilities"], opset_version=20, external_data=False,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, verbose=False,
        )  # fmt: skip
    return path
