"""The front door: a picture in, a `Reading` out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mien import images
from mien.classifier import Classifier
from mien.errors import ModelError, UsageError
from mien.expressions import EXPRESSIONS
from mien.faces import align, detect
from mien.faces.detect import MIN_FACE, Box, Detection, Detector, Points

if TYPE_CHECKING:
    import pandas

    from mien.tables import Row

UNSURE = "unsure"  # the expression of a face whose likeliest one is less probable than the reader's `abstain_below`


@dataclass(frozen=True)
class Face:
    """One face and the expression it shows.

    box: xyxy px of the picture. landmarks: (x, y) px of left eye, right eye, nose, left and right mouth corner as seen
    in the picture, or None. expression: the likeliest, or "unsure" where the reader abstains. detection_score,
    confidence: 0-1; confidence is the probability of the likeliest expression, also of an "unsure" face.
    probabilities: by expression, in the model's order; they sum to 1.
    """

    box: Box
    landmarks: Points | None
    detection_score: float
    expression: str
    confidence: float
    probabilities: dict[str, float] = field(hash=False)


@dataclass(frozen=True)
class Reading(Sequence[Face]):
    """The faces of one picture, the largest first.

    source: the path as given, or the kind of object, e.g. "<ndarray>". width, height: px of the upright picture.
    """

    source: str
    width: int
    height: int
    faces: tuple[Face, ...]

    @property
    def status(self) -> str:
        """ "ok", or "no face" when there is none."""
        return "ok" if self.faces else "no face"

    def rows(self) -> list["Row"]:
        """The rows of the tables that mien writes, one for each face, or one that says "no face"."""
        from mien import tables

        return tables.rows(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists and numbers, for JSON."""
        return {**asdict(self), "status": self.status, "faces": [_plain(face) for face in self.faces]}

    def to_pandas(self) -> "pandas.DataFrame":
        """`rows` as a table. Raises UsageError where pandas is not installed."""
        from mien import adapters

        return adapters.to_pandas(self)

    def to_deepface(self) -> list[dict[str, Any]]:
        """What `DeepFace.analyze(..., actions=["emotion"])` returns; see `mien.adapters`."""
        from mien import adapters

        return adapters.to_deepface(self)

    def to_fer(self) -> list[dict[str, Any]]:
        """What `FER().detect_emotions` returns; see `mien.adapters`."""
        from mien import adapters

        return adapters.to_fer(self)

    def __len__(self) -> int:
        return len(self.faces)

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Face, ...]: ...
    def __getitem__(self, index: int | slice) -> Face | tuple[Face, ...]:
        return self.faces[index]


@dataclass(frozen=True)
class UnreadableFile(Reading):
    """What `mien.read_folder` gives for a file that cannot be read: a reading without faces or size, whose row says why."""

    width: int = 0
    height: int = 0
    faces: tuple[Face, ...] = ()
    reason: str = field(kw_only=True)

    @property
    def status(self) -> str:
        """ "error: reason", as in the tables."""
        return f"error: {self.reason}"


class Reader:
    """A detector and a model, loaded once and used for any number of pictures, from any number of threads. Sent to another process
    (pickled), it loads the same files there."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        detector: str | Detector = "mtcnn",
        min_face: float = MIN_FACE,
        threads: int = 1,
        providers: Sequence[str] | None = None,
        max_pixels: int = images.MAX_PIXELS,
        abstain_below: float = 0.0,
    ) -> None:
        """model: an .onnx file that mien exported; None is the bundled one. detector: one of
        `mien.faces.detect.NAMES`, or anything with its `detect`. min_face: the shortest face side to look for, px of
        the original picture. threads: for each network. providers: ONNX Runtime's execution providers, None for the
        CPU. max_pixels: larger pictures are refused. abstain_below: a face whose likeliest expression has a lower
        probability (0-1) is called "unsure"; its confidence and probabilities stay. `mien evaluate --report` draws
        what that costs and buys.

        Raises ModelError, DetectorError or UsageError, each saying what to do.
        """
        if threads < 1:
            raise UsageError(f"threads={threads}: expected 1 or more")
        if not max_pixels >= 1:
            raise UsageError(f"max_pixels={max_pixels}: expected 1 or more")
        if not 0 <= abstain_below <= 1:
            raise UsageError(f"abstain_below={abstain_below}: expected a probability from 0 (always answer) to 1")
        if isinstance(detector, str):
            detector = detect.load(detector, min_face=min_face, threads=threads, providers=providers)
        self.detector = detector
        self.classifier = Classifier(model, threads=threads, providers=providers)
        if strange := [label for label in self.classifier.card.head().labels if label not in EXPRESSIONS]:
            raise ModelError(
                f"{self.classifier.path}: answers with {strange[0]!r}, expected of {', '.join(EXPRESSIONS)}; "
                "`mien evaluate` judges it"
            )
        self.max_pixels = max_pixels
        self.abstain_below = abstain_below

    def read(self, image: images.Source, *, color: str = "rgb", source: str | None = None) -> Reading:
        """Find the faces of one picture and read their expressions.

        color: the channel order of a numpy array, "rgb" or "bgr". source: what the reading calls the picture instead
        of its path. Raises ImageError for what cannot be read, UsageError for a folder, a video or a URL.
        """
        pixels = images.load(image, color=color, max_pixels=self.max_pixels)
        found = self.detector.detect(pixels)
        height, width = pixels.shape[:2]
        name = images.name_of(image) if source is None else source
        return Reading(name, width, height, self.classify(pixels, found))

    def read_many(self, pictures: Iterable[images.Source], *, color: str = "rgb") -> Iterator[Reading]:
        """One reading for each picture, in order, as they are asked for. Raises what `read` raises, at that picture, and can then
        be asked for the next; UsageError for a path or an open file alone, whose letters or lines would be taken for pictures, or
        for an array of one picture, whose rows would be."""
        if isinstance(pictures, str | bytes | os.PathLike) or hasattr(pictures, "read"):
            raise UsageError(
                f"{images.name_of(pictures)}: expected several pictures; call read for one, mien.read_folder for a folder"  # type: ignore[arg-type]
            )
        if isinstance(pictures, np.ndarray) and pictures.ndim in (2, 3):
            raise UsageError(
                f"an array of shape {pictures.shape} is one picture: expected several, as a list or (N, H, W, 3); call read for one"
            )
        return map(partial(self.read, color=color), pictures)  # a generator would end where it raised

    def classify(self, image: np.ndarray, found: Sequence[Detection]) -> tuple[Face, ...]:
        """The expressions of faces that are found already, in their order: one batch. image: RGB uint8 (H, W, 3)."""
        card = self.classifier.card
        crops = align.cut(image, found, crop=card.crop, input=card.input)
        return self.faces(found, self.classifier.predict(crops).probabilities[card.default_head])

    def faces(self, found: Sequence[Detection], probabilities: np.ndarray) -> tuple[Face, ...]:
        """Detections joined with their rows of the default head's probabilities, (N, C) float."""
        labels = self.classifier.card.head().labels
        return tuple(_face(one, labels, row, self.abstain_below) for one, row in zip(found, probabilities, strict=True))


def read(
    image: images.Source,
    *,
    model: str | Path | None = None,
    detector: str = "mtcnn",
    min_face: float = MIN_FACE,
    threads: int = 1,
    max_pixels: int = images.MAX_PIXELS,
    abstain_below: float = 0.0,
    color: str = "rgb",
) -> Reading:
    """Find the faces of one picture and read their expressions; the arguments are those of `Reader` and `Reader.read`.

    The readers of the last few combinations of arguments stay loaded, so calling this in a loop costs nothing more. A model file
    that is replaced on disk needs a new `Reader`.
    """
    return _reader(model, detector, min_face, threads, max_pixels, abstain_below).read(image, color=color)


@lru_cache(maxsize=4)
def _reader(
    model: str | Path | None, detector: str, min_face: float, threads: int, max_pixels: int, abstain_below: float
) -> Reader:
    return Reader(
        model,
        detector=detector,
        min_face=min_face,
        threads=threads,
        max_pixels=max_pixels,
        abstain_below=abstain_below,
    )


def _plain(face: Face) -> dict[str, Any]:
    points = None if face.landmarks is None else [list(point) for point in face.landmarks]
    return {**asdict(face), "box": list(face.box), "landmarks": points}


def _face(found: Detection, labels: Sequence[str], row: np.ndarray, abstain_below: float) -> Face:
    probabilities = {label: float(value) for label, value in zip(labels, row, strict=True)}
    likeliest = max(probabilities, key=probabilities.__getitem__)
    confidence = probabilities[likeliest]
    expression = UNSURE if confidence < abstain_below else likeliest
    return Face(found.box, found.landmarks, found.score, expression, confidence, probabilities)
