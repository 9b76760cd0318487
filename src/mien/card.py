"""ModelCard: what a model file must say of itself. Written at export, read at load, refused when incomplete.

The card is one JSON object under the metadata key ``mien.card`` of the ONNX file. Nothing about a model is guessed from
its name or its shapes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from mien.errors import ModelError
from mien.expressions import COMPOUND, EXPRESSIONS

SCHEMA = 1
METADATA_KEY = "mien.card"
_LABELS = {*EXPRESSIONS, *COMPOUND.values()}


@dataclass(frozen=True)
class Head:
    """One probability output of the graph.

    output: name of the graph's output, (N, len(labels)) float32, already divided by the temperature and softmaxed.
    labels: the expression of each column, in order.
    label_rule: how the training labels were made, e.g. "majority".
    temperature: the one inside the graph (> 0), recorded so that it can be undone.
    trained_on: dataset and split, in words.
    """

    output: str
    labels: tuple[str, ...]
    label_rule: str
    temperature: float
    trained_on: str


@dataclass(frozen=True)
class InputSpec:
    """What the graph's input expects: (N, C, height, width) float32 = (pixel / 255 - mean) / std.

    colour: "grey" (C = 1, ITU-R 601 luma) or "rgb" (C = 3). mean, std: C numbers on the 0-1 scale.
    """

    height: int
    width: int
    colour: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def prepare(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """RGB uint8 crops (H, W, 3) of any size -> the graph's input (N, C, height, width) float32."""
        pixels = self.pixels(crops).astype(np.float32) / np.float32(255)
        return self.normalise(pixels)

    def pixels(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """RGB uint8 crops (H, W, 3) of any size -> resized (N, C, height, width) uint8, not yet normalised."""
        channels = len(self.mean)
        batch = np.empty((len(crops), channels, self.height, self.width), np.uint8)
        for row, crop in zip(batch, crops, strict=True):
            picture = Image.fromarray(np.ascontiguousarray(crop))
            if channels == 1:
                picture = picture.convert("L")
            if picture.size != (self.width, self.height):
                picture = picture.resize((self.width, self.height), Image.Resampling.BILINEAR, reducing_gap=3.0)
            row[:] = np.asarray(picture).reshape(self.height, self.width, channels).transpose(2, 0, 1)
        return batch

    def normalise(self, unit: np.ndarray) -> np.ndarray:
        """(N, C, h, w) float32 in 0-1 -> the same minus mean over std."""
        mean = np.asarray(self.mean, np.float32).reshape(1, -1, 1, 1)
        std = np.asarray(self.std, np.float32).reshape(1, -1, 1, 1)
        return (unit - mean) / std


@dataclass(frozen=True)
class CropSpec:
    """How a face is cut out of a picture for this model.

    template: five points (left eye, right eye, nose, left and right mouth corner as seen in the picture), each (x, y) as
    fractions of the crop's width and height. margin: context added on every side, as a fraction of the crop's side.
    """

    template: tuple[tuple[float, float], ...]
    margin: float = 0.0


@dataclass(frozen=True)
class ModelCard:
    """The whole card. See design: "The card" in CONTRIBUTING.md.

    views: what one run of the graph looks at: "single", or e.g. "flip, mean of probabilities" (the picture and its mirror
    image; the temperatures are then fitted for the mean). weights: how the file stores them, float32, float16 or int8.
    Cards written before there was a choice lack both: single and float32. window: side in px of the centre of the input that the
    network sees, None for all of it.
    """

    heads: Mapping[str, Head]
    default_head: str
    input: InputSpec
    crop: CropSpec
    method: str
    seed: int
    commit: str
    licence: str
    schema: int = SCHEMA
    views: str = "single"
    weights: str = "float32"
    window: int | None = None

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ModelError("the model card is not valid: " + "; ".join(problems))

    def head(self, name: str | None = None) -> Head:
        """The head called `name`, or the default head. Raises ModelError naming the heads there are."""
        key = self.default_head if name is None else name
        if key not in self.heads:
            raise ModelError(f"the model has no head {key!r}: it has {', '.join(self.heads)}")
        return self.heads[key]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str) -> "ModelCard":
        """Parse a card; `source` is named in the ModelError that lists whatever is missing."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(
                f"{source}: the card under {METADATA_KEY!r} is not JSON ({error}); export the model again"
            ) from None
        missing = list(_missing(data))
        if missing:
            raise ModelError(
                f"{source}: the model card lacks {', '.join(missing)}; export the model again with `mien export`"
            )
        if data["schema"] != SCHEMA:
            raise ModelError(
                f"{source}: card schema {data['schema']!r}, this mien reads {SCHEMA}; export the model again"
            )
        try:
            return cls._from_dict(data)
        except ModelError as error:  # it contradicts itself
            raise ModelError(f"{source}: {error}; export the model again") from None
        except (TypeError, ValueError, KeyError, AttributeError) as error:  # a field of another kind, or one too many
            raise ModelError(f"{source}: the model card is not valid ({error}); export the model again") from None

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> "ModelCard":
        heads = {name: Head(**{**head, "labels": tuple(head["labels"])}) for name, head in data["heads"].items()}
        spec = data["input"]
        template = tuple((float(x), float(y)) for x, y in data["crop"]["template"])
        return cls(
            heads=heads,
            default_head=data["default_head"],
            input=InputSpec(**{**spec, "mean": tuple(spec["mean"]), "std": tuple(spec["std"])}),
            crop=CropSpec(template, float(data["crop"]["margin"])),
            **{key: data[key] for key in ("method", "seed", "commit", "licence", "schema")},
            **{key: data[key] for key in ("views", "weights", "window") if key in data},
        )


_FIELDS: dict[str, tuple[str, ...]] = {
    "": ("schema", "heads", "default_head", "input", "crop", "method", "seed", "commit", "licence"),
    "input": ("height", "width", "colour", "mean", "std"),
    "crop": ("template", "margin"),
}
_HEAD_FIELDS = ("output", "labels", "label_rule", "temperature", "trained_on")


def _missing(data: Any) -> list[str]:
    """Dotted names of the fields that a parsed card lacks."""
    if not isinstance(data, dict):
        return ["everything (it is not an object)"]
    found = []
    for part, fields in _FIELDS.items():
        holder = data if not part else data.get(part)
        if isinstance(holder, dict):
            found += [f"{part}.{field}".lstrip(".") for field in fields if field not in holder]
    heads = data.get("heads")
    for name, head in heads.items() if isinstance(heads, dict) else ():
        found += [f"heads.{name}.{field}" for field in _HEAD_FIELDS if not isinstance(head, dict) or field not in head]
    return found


def _problems(card: ModelCard) -> list[str]:
    """What contradicts itself in a complete card."""
    template = [value for point in card.crop.template for value in point]
    numbers = (*card.input.mean, *card.input.std, *template, card.crop.margin)
    channels = {"grey": 1, "rgb": 3}.get(card.input.colour)
    checks = [
        (card.default_head in card.heads, f"default head {card.default_head!r} is not among {', '.join(card.heads)}"),
        (channels is not None, f"input colour {card.input.colour!r}, expected grey or rgb"),
        (channels in (None, len(card.input.mean)), f"{len(card.input.mean)} means for colour {card.input.colour!r}"),
        (len(card.input.mean) == len(card.input.std), "mean and std differ in length"),
        (all(map(math.isfinite, numbers)), "a mean, std, template point or margin is not finite"),
        (card.crop.margin >= 0, f"margin {card.crop.margin}, expected 0 or more"),
        (all(s > 0 for s in card.input.std), "a std is not positive"),
        (card.input.height > 0 and card.input.width > 0, "input height and width must be positive"),
        (len(card.crop.template) == 5, f"{len(card.crop.template)} template points, expected 5"),
        (all(isinstance(h.output, str) for h in card.heads.values()), "a head's output is not a name"),
        (
            all(len(set(h.labels)) == len(h.labels) > 1 for h in card.heads.values()),
            "a head's labels repeat or are under 2",
        ),
        (
            not (strange := sorted({label for h in card.heads.values() for label in h.labels} - _LABELS)),
            f"labels {', '.join(map(repr, strange))}, expected of {', '.join(EXPRESSIONS)}, or of RAF-DB's compound classes",
        ),
        (all(h.temperature > 0 for h in card.heads.values()), "a temperature is not positive"),
    ]
    return [problem for holds, problem in checks if not holds]
