"""The front of the detectors: a picture in, `Detection`s out. `load(name)` makes one of `NAMES`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mien.errors import UsageError

NAMES: tuple[str, ...] = ("mtcnn", "whole", "yunet")
MIN_FACE = 40  # px of the original picture; below that a 48 px model sees mostly invented detail
NO_SEARCH = "is of a search, and --detector whole searches nothing: choose another detector"  # of --min-face

Box = tuple[float, float, float, float]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Detection:
    """One face in one picture.

    box: xyxy px of the picture, float; it may reach beyond the picture's edge where the face does.
    score: the detector's own confidence, 0-1.
    landmarks: (x, y) px of left eye, right eye, nose, left and right mouth corner, left and right as seen in the
    picture;
        None where the detector does not look for them.
    """

    box: Box
    score: float
    landmarks: Points | None

    @property
    def area(self) -> float:
        """Square px of the box."""
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


class Detector(Protocol):
    """What the reader asks of a detector. It keeps no state between pictures and may be called from several threads."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        """RGB uint8 (H, W, 3) -> its faces, the largest first; [] when there is none."""
        ...


class Whole:
    """For pictures that are face crops already: the whole picture is the one face."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[:2]
        return [Detection((0.0, 0.0, float(width), float(height)), 1.0, None)]


def load(
    name: str = "mtcnn", *, min_face: float = MIN_FACE, threads: int = 1, providers: Sequence[str] | None = None
) -> Detector:
    """The detector called `name`; "yunet:FILE" is YuNet from that ONNX file instead of the installed one. min_face: the
    shortest face side to look for, px of the original picture.

    Raises UsageError for an unknown name, DetectorError where its weights are missing or changed.
    """
    if name == "whole":
        return Whole()
    if name == "mtcnn":
        from mien.faces.mtcnn import Mtcnn

        return Mtcnn(min_face=min_face, threads=threads, providers=providers)
    kind, _, file = name.partition(":")
    if kind == "yunet":
        from mien.faces.yunet import Yunet

        return Yunet(file or None, min_face=min_face, threads=threads, providers=providers)
    raise UsageError(f"unknown detector {name!r}: expected one of {', '.join(NAMES)}")


def identity(name: str) -> str:
    """What a record calls the detector: its name, with the SHA-256 of its file in place of the path, where another may come to
    lie."""
    kind, _, file = name.partition(":")
    return f"{kind}:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}" if file else name
