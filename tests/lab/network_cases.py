"""Every network at a width and size that a test can afford."""

from mien.lab.networks import Network, NetworkOptions, Shape
from mien.lab.networks.efficientface import EfficientFace
from mien.lab.networks.efficientnet_lite import EfficientNetLite
from mien.lab.networks.lban import Lban
from mien.lab.networks.mscar import Mscar
from mien.lab.networks.resface import ResFace
from mien.lab.networks.resnet import ResNet18, ResNet50, SeResNet50
from mien.lab.networks.vgg import Vgg19
from mien.lab.networks.xception import Xception

# Name in NETWORKS -> options, input side in px.
SMALL: dict[str, tuple[NetworkOptions, int]] = {
    "lban": (Lban(width=0.1), 40),
    "vgg19": (Vgg19(width=0.1), 32),
    "resnet18": (ResNet18(width=0.125), 32),
    "resnet50": (ResNet50(width=0.125), 32),
    "se-resnet50": (SeResNet50(width=0.125), 32),
    "resface": (ResFace(width=0.125), 32),
    "efficientface": (EfficientFace(width=0.25), 32),
    "efficientnet-lite": (EfficientNetLite(width=0.1), 32),
    "mscar": (Mscar(width=0.125), 16),
    "xception": (Xception(width=0.05), 32),
}


def small(name: str, shape: Shape | None = None) -> Network:
    """The small network called `name`, 7 classes of grey pictures unless `shape` says otherwise."""
    options, size = SMALL[name]
    return options.build(shape or Shape(1, 7, size))
