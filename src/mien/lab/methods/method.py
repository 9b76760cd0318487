"""What a method is: plain frozen data that says what a paper combines, how it trains it, and what it printed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mien.errors import UsageError
from mien.lab.evaluation.evaluate import VIEWS
from mien.lab.losses import LossOptions
from mien.lab.networks import NetworkOptions
from mien.lab.options import check_fields


@dataclass(frozen=True)
class Augment:
    """Random geometry as one affine warp, then light: every draw depends on (seed, epoch, sample id) alone. Then two pictures in
    one, drawn for whole batches by (seed, epoch, step).

    flip: probability of a mirror image. rotate: degrees, uniform in +-. scale: (low, high) zoom of the face, uniform;
    independent_axes: draw it for x and y apart. shift: fraction of the side, uniform in +-; it also moves a random resized
    crop. aspect: (low, high) ratio of a random resized crop. area: (low, high) fraction of the area that a random resized
    crop keeps, or None. shear: degrees. brightness, contrast: uniform in +- of this fraction. cutout: probability of one
    grey square; cutout_size: its side as a (low, high) fraction of the picture's. blur, noise: probability of a Gaussian
    blur / of Gaussian noise. fill: how pixels from outside are made: "border", "zeros" or "reflection". mixup, cutmix:
    probability that a batch is mixed in this way, at most 1 together; mix_alpha: a of the Beta(a, a) that the shares are
    drawn from, above 0.
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
    fill: Literal["border", "zeros", "reflection"] = "border"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_alpha: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        _check("augment.", self, _augment_rules(self))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run besides the data. `--set key=value` replaces one field, type checked;
    nested fields are written with a dot: `--set loss.weight=0.3`, `--set augment.rotate=10`.

    size: side of the network's input, px. resize: the picture is first brought to this side and a random (test: centre or
    ten-crop) window of `size` is cut from it; None means `size` itself. channels: 1 grey, 3 RGB. mean, std: on the 0-1
    scale, one for all channels or one for each. optimiser: "sgd" (Nesterov if `nesterov`), "adam" or "adamw". schedule:
    "constant", "cosine" (after a linear rise over the first `warmup` of the run, a fraction of it), "steps" (lr times the
    factor of the last milestone at or before the epoch, from `milestones`). milestones: (epoch, factor) pairs, epochs from
    0. decay: after s optimiser steps lr is also divided by 1 + decay * s (Keras' time decay). ema: decay per step of the
    averaged weights that are evaluated and exported, 0 for none. sam_rho: how far uphill sharpness-aware minimisation takes
    its gradients (`training.sharpness`), as 0.05; 0 for none. views: "single", "flip" or "tencrop" at test. sizes:
    progressive image size as (from fraction of the run, side px) pairs, empty for none. frozen: names of network stages
    that do not train. label_rule: how FER+ votes become labels, None for the dataset's own default. early_stop: epochs
    without a better one after which the run ends, 0 for never.
    """

    network: NetworkOptions
    loss: LossOptions
    size: int
    channels: int = 1
    resize: int | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    augment: Augment = field(default_factory=Augment)
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_norms: bool = True
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    milestones: tuple[tuple[int, float], ...] = ()
    warmup: float = 0.0
    decay: float = 0.0
    batch: int = 64
    epochs: int = 100
    ema: float = 0.0
    clip: float = 0.0
    sam_rho: float = 0.0
    views: str = "single"
    sizes: tuple[tuple[float, int], ...] = ()
    frozen: tuple[str, ...] = ()
    label_rule: str | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    early_stop: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        _check("", self, _recipe_rules(self))


Rule = tuple[str, bool, str]  # a field, whether its value can be meant, and what is expected of it


def _check(prefix: str, options: Any, rules: Iterable[Rule]) -> None:
    for name, holds, expected in rules:
        if not holds:
            raise UsageError(f"{prefix}{name}={getattr(options, name)!r}: expected {expected}")


def _augment_rules(options: Augment) -> list[Rule]:
    area = options.area is None or _range(options.area, most=1)
    return [
        *_within(options, ("flip", "cutout", "blur", "noise", "mixup", "cutmix"), "a probability from 0 to 1"),
        (
            "cutmix",
            options.mixup + options.cutmix <= 1,
            "1 at most together with augment.mixup, as one batch is mixed in one way",
        ),
        ("mix_alpha", 0 < options.mix_alpha < math.inf, "a number above 0, as 1 for all shares alike"),
        *_within(options, ("shift", "brightness", "contrast"), "a fraction from 0 to 1"),
        ("rotate", 0 <= options.rotate <= 180, "degrees from 0 to 180"),
        ("shear", 0 <= options.shear < 90, "degrees from 0, under 90"),
        ("scale", _range(options.scale), "(low, high) above 0, as (0.8, 1.2)"),
        ("aspect", _range(options.aspect), "(low, high) above 0, as (0.75, 1.33)"),
        ("area", area, "(low, high) above 0, to 1, as (0.5, 1.0), or None"),
        ("cutout_size", _range(options.cutout_size, most=1), "(low, high) above 0, to 1, as (0.2, 0.4)"),
    ]


def _recipe_rules(recipe: Recipe) -> list[Rule]:
    lengths = (1, recipe.channels)
    per_channel = f"1 number, or one for each of {recipe.channels} channels"
    nesterov = recipe.optimiser == "sgd" and recipe.nesterov
    resized = recipe.resize is None or recipe.resize >= recipe.size
    milestones = _steps(recipe.milestones, lambda n: isinstance(n, int) and n >= 0, lambda factor: factor > 0)
    sizes = _steps(recipe.sizes, lambda part: 0 <= part < 1, lambda side: isinstance(side, int) and side > 0)
    return [
        ("resize", resized, f"None, or the size of {recipe.size} px at least"),
        ("mean", _numbers(recipe.mean) and len(recipe.mean) in lengths, per_channel),
        ("std", _numbers(recipe.std) and len(recipe.std) in lengths and min(recipe.std) > 0, f"{per_channel}, above 0"),
        ("lr", 0 < recipe.lr < math.inf, "a number above 0"),
        ("momentum", 0 <= recipe.momentum < 1, "a number from 0, under 1"),
        ("momentum", not nesterov or recipe.momentum > 0, "a number above 0, as nesterov is set"),
        *(
            (name, 0 <= getattr(recipe, name) < math.inf, "0 or more")
            for name in ("weight_decay", "decay", "clip", "sam_rho")
        ),
        ("milestones", milestones, "(epoch, factor) pairs, epochs rising, as ((30, 0.1), (60, 0.01)), or ()"),
        ("warmup", 0 <= recipe.warmup < 1, "a fraction of the run from 0, under 1, as 0.05"),
        ("batch", recipe.batch >= 1, "1 or more"),
        ("epochs", recipe.epochs >= 1, "1 or more"),
        ("ema", 0 <= recipe.ema < 1, "0 for none, or a decay under 1, as 0.998"),
        ("views", recipe.views in VIEWS, f"one of {', '.join(VIEWS)}"),
        (
            "sizes",
            sizes,
            "(fraction of the run, side px) pairs, fractions rising, as ((0.0, 32), (0.5, 48)), or ()",
        ),
        (
            "frozen",
            all(isinstance(name, str) for name in recipe.frozen),
            "names of stages, as ('stem', 'layer1'), or ()",
        ),
        ("early_stop", recipe.early_stop >= 0, "0 for never, or epochs without a better one"),
    ]


def _within(options: Any, names: Iterable[str], expected: str) -> list[Rule]:
    return [(name, 0 <= getattr(options, name) <= 1, expected) for name in names]


def _numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, int | float) and math.isfinite(n) for n in value)


def _range(value: Any, most: float = math.inf) -> bool:
    return _numbers(value) and len(value) == 2 and 0 < value[0] <= value[1] <= most


def _steps(value: Any, start: Callable[[Any], bool], then: Callable[[Any], bool]) -> bool:
    """Whether `value` is a tuple of pairs whose first numbers rise. start, then: of the first and the second of each."""
    if not isinstance(value, tuple) or not all(_numbers(pair) and len(pair) == 2 for pair in value):
        return False
    starts = [pair[0] for pair in value]
    return starts == sorted(set(starts)) and all(start(first) and then(second) for first, second in value)


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
    deviations: "D1" -> what differs from the paper or which reading was chosen, and why. starts_from: whose weights the paper's
    networks start from where a row does not say, "" for a random start."""

    name: str
    title: str
    citation: str
    summary: str
    recipes: Mapping[str, Recipe]
    variants: Mapping[str, Variant]
    published: tuple[Published, ...]
    deviations: Mapping[str, str]
    starts_from: str = ""
