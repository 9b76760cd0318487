"""Small pictures by the thousand for benchmarks/scale.py and scaling_reading.py: nobody's, or two public portraits.

Drawn faces (mien.lab.datasets.synthetic) on smooth backdrops, about half of which the detector takes for faces; views of
matplotlib's portrait of Grace Hopper and scikit-image's of Eileen Collins (both public domain), whose faces it finds, so
that every stage of reading has work; and windows of scikit-image's photographs without a face. The same seed and number
give the same picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from mien import demo, images
from mien.faces.detect import Box
from mien.faces.mtcnn import Mtcnn
from mien.lab.datasets import synthetic

FACES = 1000  # drawn once, used in turn
SIDE = 64  # px of a drawn face
FOLDER = 1000  # files in one folder
FACELESS = ("coffee", "chelsea", "rocket")  # of skimage.data


@dataclass(frozen=True)
class Kind:
    """One kind of picture. width, height: px. share: fraction of a run's pictures."""

    name: str
    width: int
    height: int
    share: float

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


# Of a run: small, so that 100,000 are read in minutes. A photograph's face is at least MIN_FACE tall.
RUN: tuple[Kind, ...] = (
    Kind("drawn", 96, 96, 0.40),
    Kind("drawn", 128, 96, 0.25),
    Kind("drawn", 160, 120, 0.20),
    Kind("photograph", 112, 112, 0.10),
    Kind("photograph", 144, 120, 0.05),
)
# Of the fit only: pictures without a face, and what a web page or a camera gives.
OTHERS: tuple[Kind, ...] = (
    Kind("faceless", 96, 96, 0.0),
    Kind("faceless", 320, 240, 0.0),
    Kind("faceless", 640, 480, 0.0),
    Kind("drawn", 320, 240, 0.0),
    Kind("photograph", 320, 240, 0.0),
    Kind("drawn", 640, 480, 0.0),
    Kind("photograph", 640, 480, 0.0),
    Kind("photograph", 1280, 960, 0.0),
)


class Painter:
    """Makes pictures of any kind."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        drawn = synthetic.load(split="train", spec=synthetic.Spec(rows=(FACES, 1, 1), side=SIDE, seed=seed))
        self._drawn = [Image.fromarray(drawn.read(row)) for row in range(len(drawn))]
        portraits = (images.load(demo.photograph()), skimage.data.astronaut())
        finder = Mtcnn()
        self._portraits = [(Image.fromarray(pixels), finder.detect(pixels)[0].box) for pixels in portraits]

        self._faceless = [Image.fromarray(getattr(skimage.data, name)()) for name in FACELESS]

    def paint(self, kind: Kind, number: int) -> Image.Image:
        random = np.random.default_rng((self._seed, number))
        if kind.name == "drawn":
            return self._face_on_backdrop(kind, number, random)
        if kind.name == "faceless":
            return _window(self._faceless[number % len(self._faceless)], kind, random)
        portrait, face = self._portraits[number % len(self._portraits)]
        return _view(portrait, face, kind, random)

    def _face_on_backdrop(self, kind: Kind, number: int, random: np.random.Generator) -> Image.Image:
        backdrop = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        picture = backdrop.resize((kind.width, kind.height), Image.Resampling.BICUBIC)
        side = int(random.integers(44, min(kind.width, kind.height) - 8))
        place = (int(random.integers(0, kind.width - side)), int(random.integers(0, kind.height - side)))
        picture.paste(self._drawn[number % len(self._drawn)].resize((side, side)), place)
        return picture


def _window(photograph: Image.Image, kind: Kind, random: np.random.Generator) -> Image.Image:
    """A window of 0.5 to 1 of the photograph's height, or less where that would be wider than it is."""
    height = min(random.uniform(0.5, 1) * photograph.height, photograph.width * kind.height / kind.width)
    width = height * kind.width / kind.height
    left, top = random.uniform(0, photograph.width - width), random.uniform(0, photograph.height - height)
    return photograph.resize((kind.width, kind.height), box=(left, top, left + width, top + height))


def _view(portrait: Image.Image, face: Box, kind: Kind, random: np.random.Generator) -> Image.Image:
    """A window of the portrait about the face, so that the face is 0.42 to 0.55 of the picture's height."""
    x1, y1, x2, y2 = face
    height = min((y2 - y1) / random.uniform(0.42, 0.55), portrait.height, portrait.width * kind.height / kind.width)
    width = height * kind.width / kind.height
    left = np.clip((x1 + x2 - width) / 2 + random.uniform(-0.1, 0.1) * width, 0, portrait.width - width)
    top = np.clip((y1 + y2 - height) / 2 + random.uniform(-0.1, 0.1) * height, 0, portrait.height - height)
    return portrait.resize((kind.width, kind.height), box=(left, top, left + width, top + height))


def kinds(count: int, among: Sequence[Kind] = RUN, *, seed: int) -> list[Kind]:
    """`count` kinds in random order, each as often as its share says, to within one picture."""
    bounds = np.round(np.cumsum([kind.share for kind in among]) * count).astype(int)
    order = np.searchsorted(bounds, np.arange(count), side="right")
    return [among[index] for index in np.random.default_rng((seed, 1)).permutation(order)]


def write(folder: Path, wanted: Sequence[Kind], *, seed: int) -> Iterator[Path]:
    """Write a JPEG of each kind into numbered folders, giving each path when it is there."""
    painter = Painter(seed=seed)
    for number, kind in enumerate(wanted):
        path = folder / f"{number // FOLDER:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        painter.paint(kind, number).save(path, quality=90)
        yield path
