"""The losses by name. A loss's options are a frozen dataclass whose `build` makes the module."""

from mien.lab.losses.ad_corre import AdCorre
from mien.lab.losses.cosine import Cosine
from mien.lab.losses.islets import Centre, Island, Islets
from mien.lab.losses.label_distribution import LabelDistribution
from mien.lab.losses.loss import Loss as Loss
from mien.lab.losses.loss import LossOptions as LossOptions
from mien.lab.losses.loss import Task as Task
from mien.lab.losses.softmax import Softmax, WeightedSoftmax
from mien.lab.losses.two_heads import TwoHeads
from mien.lab.losses.weighted_cluster import WeightedCluster

LOSSES: dict[str, type[LossOptions]] = {
    "softmax": Softmax,
    "weighted-softmax": WeightedSoftmax,
    "cosine": Cosine,
    "centre": Centre,
    "island": Island,
    "islets": Islets,
    "weighted-cluster": WeightedCluster,
    "label-distribution": LabelDistribution,
    "ad-corre": AdCorre,
    "two-heads": TwoHeads,
}
