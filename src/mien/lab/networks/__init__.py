"""The networks by name. A network's options are a frozen dataclass whose `build` makes the module.

    NETWORKS["mscar"]().build(Shape(channels=1, classes=8, size=48))

Every module takes (N, channels, size, size) float32 and returns a `NetworkOutput`; `module(images, attention=True)` also
returns its attention maps by name (an empty dict where it has none); `module.feature_dim` is D.
"""

from mien.lab.networks.efficientface import EfficientFace
from mien.lab.networks.efficientnet_lite import EfficientNetLite
from mien.lab.networks.lban import Lban
from mien.lab.networks.mien_small import MienSmall
from mien.lab.networks.mscar import Mscar
from mien.lab.networks.network import Network as Network
from mien.lab.networks.network import NetworkOptions as NetworkOptions
from mien.lab.networks.network import Shape as Shape
from mien.lab.networks.resface import ResFace
from mien.lab.networks.resnet import ResNet18, ResNet50, SeResNet50
from mien.lab.networks.vgg import Vgg19
from mien.lab.networks.xception import Xception

NETWORKS: dict[str, type[NetworkOptions]] = {
    "lban": Lban,
    "vgg19": Vgg19,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
    "se-resnet50": SeResNet50,
    "resface": ResFace,
    "efficientface": EfficientFace,
    "efficientnet-lite": EfficientNetLite,
    "mscar": Mscar,
    "xception": Xception,
    "mien-small": MienSmall,
}
