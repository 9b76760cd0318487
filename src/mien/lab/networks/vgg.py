"""VGG19 with batch normalisation (Simonyan and Zisserman 2015) and a 128-d feature: LBAN-IL's baseline.

20,298,567 parameters at 80 x 80 x 3 and 7 classes, the 20.3 M of its Table 2.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from mien.lab.batch import NetworkOutput
from mien.lab.networks.heads import EmbeddingHead, FeatureHead
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.norm import BatchNorm2d
from mien.lab.options import Options

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions before each pooling
FEATURE_DIM = 128  # LBAN-IL, section 4.2


@dataclass(frozen=True)
class Vgg19(Options):
    """width: factor on the channel counts. dropout: before each of the two linear layers, with embeddings before the
    classifier."""

    width: float = 1.0
    dropout: float = 0.5

    minimum_size = 32  # five poolings by 2

    def build(self, shape: Shape) -> Network:
        check_size("vgg19", shape.size, self.minimum_size)
        return Vgg19Network(self, shape)


def _convolutions(channels: int, width: float) -> tuple[nn.Sequential, int]:
    """The feature extractor and the channels that it gives."""
    layers: list[nn.Module] = []
    for filters, count in STAGES:
        filters = max(8, round(filters * width))
        for _ in range(count):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), BatchNorm2d(filters), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers), channels


class Vgg19Network(Network):
    """The flattened last map feeds the 128-d feature layer. It has no attention maps."""

    def __init__(self, options: Vgg19, shape: Shape) -> None:
        super().__init__()
        self.features, channels = _convolutions(shape.channels, options.width)
        self.head: EmbeddingHead | FeatureHead
        if shape.embeddings:
            self.head = EmbeddingHead(channels, shape.embeddings, shape.classes, dropout=options.dropout)
        else:
            side = shape.size // 32
            self.head = FeatureHead(channels * side * side, FEATURE_DIM, shape.classes, dropout=options.dropout)
        self.feature_dim = self.head.feature_dim

    def forward(self, images: Tensor, attention: bool = False) -> NetworkOutput:
        maps = self.features(images)
        by_mean = isinstance(self.head, EmbeddingHead)
        output: NetworkOutput = self.head(maps.mean(dim=(2, 3)) if by_mean else maps.flatten(1))
        return replace(output, attention={}) if attention else output
