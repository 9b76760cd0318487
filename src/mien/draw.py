"""Readings drawn on their pictures: a box, the expression, and a bar for each class.

Type is sized by the picture and by the face, and a small picture is enlarged first, so that the copy can be read at any
size. Beside its pixels a copy carries one comment, that mien made it: no EXIF, no position.
"""

import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont
from PIL.PngImagePlugin import PngInfo

from mien import writing
from mien.images import MADE, SUFFIXES
from mien.reader import Face, Reading

SMALLEST_SIDE = 600  # px: a smaller picture is enlarged by a whole factor until its shorter side reaches this
LARGEST_FACTOR = 8
LARGEST_SIDE = 16_000  # px: a picture is not enlarged beyond this
JPEG_SIDE = 65_500  # px: libjpeg's JPEG_MAX_DIMENSION (jmorecfg.h)
NAME_BYTES = 255  # of a file's name on the usual file systems
UP, ROOT = "__up__", "__root__"  # in the path of a copy, for .. and for where an absolute path starts
_SPECIAL = re.compile(rf"_*({UP}|{ROOT}.*)$")  # a folder of that name gets one more _
SMALLEST_TYPE = 11  # px
JPEG_QUALITY = 92
GAP, BAR, PERCENT, ROW = 0.4, 3.2, 2.9, 1.3  # of the panel, in multiples of the type's size

INK = (255, 255, 255)
PLATE = (16, 18, 22)
TRACK = (58, 62, 70)
COLOURS: dict[str, tuple[int, int, int]] = {  # Okabe and Ito's palette, told apart by colour-blind readers, too
    "neutral": (187, 187, 187),
    "happy": (240, 228, 66),
    "sad": (86, 180, 233),
    "surprise": (230, 159, 0),
    "fear": (204, 121, 167),
    "disgust": (0, 158, 115),
    "anger": (213, 94, 0),
    "contempt": (0, 114, 178),
}


@dataclass(frozen=True)
class Rectangle:
    """A place on the copy, px."""

    left: float
    top: float
    width: float
    height: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        return (self.left, self.top, self.left + self.width, self.top + self.height)

    def meets(self, other: "Rectangle") -> bool:
        """Whether the two share an area."""
        (a, b, c, d), (e, f, g, h) = self.box, other.box
        return a < g and e < c and b < h and f < d


def annotate(image: np.ndarray, reading: Reading) -> Image.Image:
    """A copy of the RGB uint8 picture (H, W, 3) with its reading drawn on it: a box and a label for each face, and bars where they
    hide neither another face nor another's bars."""
    factor = enlargement(image.shape[1], image.shape[0])
    picture = Image.fromarray(image)
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    places = [_place(face, factor) for face in reading]
    canvas = ImageDraw.Draw(picture)
    layouts = [_layout(face, place, size=picture.size) for face, place in zip(reading, places, strict=True)]
    panels: list[Rectangle] = []
    for number, (face, (font, panel)) in enumerate(zip(reading, layouts, strict=True)):
        if not any(map(panel.meets, (*places[:number], *places[number + 1 :], *panels))):
            _draw_bars(canvas, face, panel, font)
            panels.append(panel)
    for face, place, (font, _) in zip(reading, places, layouts, strict=True):  # above all bars
        _draw_face(canvas, face, place, font, size=picture.size)
    return picture


def enlargement(width: int, height: int) -> int:
    """By how much the copy is larger than the picture: 1 from SMALLEST_SIDE on, and where LARGEST_SIDE forbids more."""
    wanted = math.ceil(SMALLEST_SIDE / min(width, height))
    return max(1, min(LARGEST_FACTOR, wanted, LARGEST_SIDE // max(width, height)))


def save(picture: Image.Image, path: Path) -> Path:
    """Write a copy as its suffix says, JPEG or PNG. What is too long for a JPEG becomes NAME.jpg.png. Gives the path."""
    if max(picture.size) > JPEG_SIDE and path.suffix.lower() in (".jpg", ".jpeg"):
        path = path.with_name(f"{path.name}.png")
    write(picture, path, form="PNG" if path.suffix.lower() == ".png" else "JPEG")
    return path


def write(picture: Image.Image, path: Path, *, form: str) -> None:
    """Write a picture that mien made, as "JPEG" or "PNG", with a comment that says so: `images.in_folder` leaves it out."""
    text = PngInfo()
    text.add_text("Comment", MADE)
    with writing.whole(path) as partial:  # each form takes what is its own
        picture.save(partial, form, quality=JPEG_QUALITY, comment=MADE, pnginfo=text)


def copy_paths(sources: Iterable[Path], folder: Path) -> list[Path]:
    """A path in `folder` for the annotated copy of each source: no two alike, none of them a source.

    JPEGs stay JPEGs, everything else becomes PNG. Names are compared without case, as some file systems do. A long name
    is cut.
    """
    sources = list(sources)
    taken = {os.path.realpath(source).lower() for source in sources}
    paths = []
    numbers: Counter[str] = Counter()  # how often each name was asked for
    for source in sources:
        path = _free_path(source, Path(os.path.realpath(folder)), taken, numbers)
        taken.add(str(path).lower())
        paths.append(folder / path.name)
    return paths


def no_copy(copy: Path, error: OSError) -> str:
    """Why a copy could not be written, and what to do."""
    return f"its copy {copy} cannot be written ({error.strerror or error}); check that folder or choose another -o"


def copy_below(folder: Path, source: str) -> Path:
    """Where the annotated copy of `source` lies in `folder`: under the path as it is spelt, so that no two copies are alike. What
    is no JPEG or PNG by its name, and what could be the copy of such a file, becomes NAME.png."""
    path = Path(source)
    parts = [
        UP if part == ".." else f"_{part}" if _SPECIAL.match(part) else part
        for part in path.relative_to(path.anchor).parts
    ]
    above = [f"{ROOT}{path.drive.rstrip(':')}"] if path.anchor else []
    kept = path.suffix.lower() in (".jpg", ".jpeg", ".png") and Path(path.stem).suffix.lower() not in SUFFIXES
    stem, ending = (path.stem, path.suffix) if kept else (path.name, ".png")
    strange = path.suffix.lower() not in SUFFIXES  # NAME.png is then a name that another picture may well have
    if strange or (name := _name(stem, ending)) != f"{stem}{ending}":  # too long: cut, but like no other
        name = _name(stem, f"-{zlib.crc32(os.fsencode(path.name)):08x}{ending}")
    return folder.joinpath(*above, *parts[:-1], name)


def _free_path(source: Path, folder: Path, taken: set[str], numbers: Counter[str]) -> Path:
    suffix = ".jpg" if source.suffix.lower() in (".jpg", ".jpeg", ".jfif") else ".png"
    asked = f"{source.stem}{suffix}".lower()
    while True:
        numbers[asked] += 1
        number = f"-{numbers[asked]}" if numbers[asked] > 1 else ""
        path = folder / _name(source.stem, f"-mien{number}{suffix}")
        if not {str(path).lower(), f"{path}.png".lower()} & taken:  # `save` may append .png
            return path


def _name(stem: str, ending: str) -> str:
    """Both together, the stem cut so that a file may be called so, and .png appended."""
    while len(os.fsencode(f"{stem}{ending}.png")) > NAME_BYTES:
        stem = stem[:-1]
    return f"{stem}{ending}"


def _place(face: Face, factor: int) -> Rectangle:
    x1, y1, x2, y2 = (edge * factor for edge in face.box)
    return Rectangle(x1, y1, x2 - x1, y2 - y1)


def _draw_face(
    canvas: ImageDraw.ImageDraw, face: Face, place: Rectangle, font: FreeTypeFont, *, size: tuple[int, int]
) -> None:
    """Box and label."""
    line = max(2, round(font.size / 7))
    canvas.rectangle(_whole(place), outline=PLATE, width=line + 2)
    canvas.rectangle(_whole(place), outline=COLOURS.get(face.expression, INK), width=line)
    _draw_label(canvas, face, place, font, size=size)


def _layout(face: Face, place: Rectangle, *, size: tuple[int, int]) -> tuple[FreeTypeFont, Rectangle]:
    """The type, and where the bars go: right of the box, else on the side with more room, in smaller type if need be.

    The type suits the face, but is never too small or too large to be read on the whole picture.
    """
    shorter = min(size)
    smallest = max(shorter / 50, SMALLEST_TYPE)
    wanted = min(max(place.height / 14, smallest), shorter / 24)
    gap = wanted * GAP
    right, left = size[0] - (place.left + place.width) - gap, place.left - gap
    width, _ = _panel_size(face, _font(wanted))
    font = _font(max(smallest, wanted * min(1.0, max(right, left) / width)))
    width, height = _panel_size(face, font)
    start = place.left + place.width + gap if right >= min(left, width) else left - width
    return font, Rectangle(_inside(start, width, size[0]), _inside(place.top, height, size[1]), width, height)


def _font(size: float) -> FreeTypeFont:
    font = ImageFont.load_default(size=max(1, math.floor(size)))
    return cast(FreeTypeFont, font)  # with a size it is always FreeType's


def _ink_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Light or dark type, whichever stands out from `colour` (ITU-R 601 luma)."""
    red, green, blue = colour
    return PLATE if 0.299 * red + 0.587 * green + 0.114 * blue > 100 else INK


def _panel_size(face: Face, font: FreeTypeFont) -> tuple[float, float]:
    """Width and height of the bars' panel, px: gap, names, gap, bar, percent, gap."""
    width = _names_width(face, font) + font.size * (3 * GAP + BAR + PERCENT)
    return width, font.size * (ROW * len(face.probabilities) + 0.5)


def _names_width(face: Face, font: FreeTypeFont) -> float:
    return max(font.getlength(name) for name in face.probabilities)


def _draw_label(
    canvas: ImageDraw.ImageDraw, face: Face, place: Rectangle, font: FreeTypeFont, *, size: tuple[int, int]
) -> None:
    """The expression and its probability on a plate above the box, or inside its top where there is no room."""
    text = f"{face.expression} {face.confidence:.0%}"
    pad = font.size * 0.35
    width, height = canvas.textlength(text, font=font) + 2 * pad, font.size * 1.5
    top = place.top - height if place.top >= height else max(place.top, 0)
    plate = Rectangle(_inside(place.left, width, size[0]), top, width, height)
    colour = COLOURS.get(face.expression, INK)
    canvas.rectangle(_whole(plate), fill=colour)
    canvas.text((plate.left + pad, plate.top + height / 2), text, fill=_ink_on(colour), font=font, anchor="lm")


def _draw_bars(canvas: ImageDraw.ImageDraw, face: Face, panel: Rectangle, font: FreeTypeFont) -> None:
    """One row for each class: name, bar, percent."""
    em = font.size
    canvas.rectangle(_whole(panel), fill=PLATE)
    left, right = panel.left + em * GAP, panel.left + panel.width - em * GAP
    start = left + _names_width(face, font) + em * GAP
    for row, (name, value) in enumerate(face.probabilities.items()):
        middle = panel.top + em * (0.25 + ROW * (row + 0.5))
        canvas.text((left, middle), name, fill=INK, font=font, anchor="lm")
        track = Rectangle(start, middle - em * 0.31, em * BAR, em * 0.62)
        canvas.rectangle(_whole(track), fill=TRACK)
        filled = Rectangle(track.left, track.top, track.width * value, track.height)
        if round(filled.width) >= 1:
            canvas.rectangle(_whole(filled), fill=COLOURS.get(name, INK))
        canvas.text((right, middle), f"{value:.0%}", fill=INK, font=font, anchor="rm")


def _inside(start: float, length: float, limit: float) -> float:
    """`start` moved so that `length` px from it lie within 0..limit, as far as they fit."""
    return max(0.0, min(start, limit - length))


def _whole(place: Rectangle) -> tuple[int, int, int, int]:
    """The corner pixels that the rectangle covers, for Pillow, which counts the last one in."""
    x1, y1, x2, y2 = (round(edge) for edge in place.box)
    return (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
