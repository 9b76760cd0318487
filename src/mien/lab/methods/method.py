"""What a method is: plain frozen data that says what a paper combines, how it trains it, and what it printed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mien.errors import UsageError
from mien.lab.losses import LossOptions
from mien.lab.networks import NetworkOptions


@dataclass(frozen=True)
class Augment:
    """Random geometry as one affine warp, then light: every draw depends on (seed, epoch, sample id) alone. Then two pictures in
    one, drawn for whole batches by (seed, epoch, step).

    flip: probability of a mirror image. rotate: degrees, uniform in +-. scale: (low, high) zoom of the face, uniform;
    independent_axes: draw it for x and y apart. shift: fraction of the side, uniform in +-. aspect: (low, high) ratio of a
    random resized crop. area: (low, high) fraction of the area that a random resized crop keeps, or None. shear: degrees.
    brightness, contrast: uniform in +- of this fraction. cutout: probability of one grey square; cutout_size: its side as a
    (low, high) fraction of the picture's. blur, noise: probability of a Gaussian blur / of Gaussian noise.
    fill: how pixels from outside are made: "border", "zeros" or "reflection". mixup, cutmix: probability that a batch is mixed
    in this way, at most 1 together; mix_alpha: a of the Beta(a, a) that the shares are drawn from, above 0.
    """

    flip: float = 0.0
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    independent_axes: bool = False
    shift: float = 0.0
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    cutout: float = 0.0
    cutout_size: tuple[float, float] = (0.2, 0.4)
    blur: float = 0.0
    noise: float = 0.0
    fill: str = "border"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_alpha: float = 1.0

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or self.mixup + self.cutmix > 1:
            raise UsageError(
                f"augment.mixup={self.mixup:g} and augment.cutmix={self.cutmix:g}: expected probabilities of 0 or more that sum to "
                "1 at most, since a batch is mixed in one way"
            )
        if self.mix_alpha <= 0:
            raise UsageError(
                f"augment.mix_alpha={self.mix_alpha:g}: expected a number above 0, as 1 for all shares alike"
            )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run besides the data. `--set key=value` replaces one field, type checked;
    nested fields are written with a dot: `--set loss.weight=0.3`, `--set augment.rotate=10`.

    size: side of the network's input, px. resize: the picture is first brought to this side and a random (test: centre or
    ten-crop) window of `size` is cut from it; None means `size` itself. channels: 1 grey, 3 RGB. mean, std: per channel on
    the 0-1 scale. optimiser: "sgd" (Nesterov if `nesterov`), "adam" or "adamw". schedule: "constant", "cosine" (after
    `warmup` epochs), "steps" (lr times the factor of the last milestone at or before the epoch, from `milestones`).
    milestones: (epoch, factor) pairs, epochs from 0. decay: after s optimiser steps lr is also divided by 1 + decay * s
    (Keras' time decay). ema: decay per step of the averaged weights that are evaluated and
    exported, 0 for none. views: "single", "flip" or "tencrop" at test. sizes: progressive image size as (from fraction of
    the run, side px) pairs, empty for none. frozen: names of network stages that do not train.
    """

    network: NetworkOptions
    loss: LossOptions
    size: int
    channels: int = 1
    resize: int | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    augment: Augment = field(default_factory=Augment)
    optimiser: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_norms: bool = True
    schedule: str = "constant"
    milestones: tuple[tuple[int, float], ...] = ()
    warmup: float = 0.0
    decay: float = 0.0
    batch: int = 64
    epochs: int = 100
    ema: float = 0.0
    clip: float = 0.0
    views: str = "single"
    sizes: tuple[tuple[float, int], ...] = ()
    frozen: tuple[str, ...] = ()
    label_rule: str | None = None
    precision: str = "float32"
    early_stop: int = 0


@dataclass(frozen=True)
class Published:
    """One printed number. table: "Table 2" or "Fig. 6". row, column: as the paper names them. value: as printed.
    unit: "%", "fraction", "M" (10^6 parameters), "MFLOPs" or "count". dataset, metric: in our names, or "" when it is neither.
    variant: our key in `Method.variants` when the row is one of them. quoted: the work it is quoted from, "" for the
    paper's own result. note: what is odd about it."""

    table: str
    row: str
    column: str
    value: float
    unit: str = "%"
    dataset: str = ""
    metric: str = ""
    variant: str = ""
    quoted: str = ""
    note: str = ""


@dataclass(frozen=True)
class Variant:
    """One configuration that the paper reports: its network and loss, and its printed parameter count if any."""

    network: NetworkOptions
    loss: LossOptions
    channels: int
    size: int
    classes: int
    note: str = ""


@dataclass(frozen=True)
class Method:
    """One paper. recipes: preset name ("paper", "cpu", and per-dataset ones like "paper/fer2013") -> Recipe.
    deviations: "D1" -> what differs from the paper or which reading was chosen, and why."""

    name: str
    title: str
    citation: str
    summary: str
    recipes: Mapping[str, Recipe]
    variants: Mapping[str, Variant]
    published: tuple[Published, ...]
    deviations: Mapping[str, str]
