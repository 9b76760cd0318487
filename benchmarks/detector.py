"""Where MTCNN's thresholds and pyramid step come from: faces found and false boxes over degraded and turned portraits.

Grace Hopper (matplotlib), the astronaut (scikit-image) and the portraits under --photos, each also smaller, blurred,
noisy, dark, flat, grey, JPEG quality 10 and turned by 15, 30 and 45 degrees either way; and scikit-image's pictures
without a face. A box is right when its centre is within 0.35 of the known face's height and its height within a factor
of 1.8. Prints a row for each setting and writes benchmarks/results/detector.json.

    python benchmarks/detector.py [--photos FOLDER]
"""

import argparse
import datetime
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image, ImageEnhance, ImageFilter

from mien import demo, images
from mien.faces.detect import Box, Detection
from mien.faces.mtcnn import SCALE_STEP, THRESHOLDS, Mtcnn

FACELESS = ("coffee", "chelsea", "rocket", "page", "text", "coins", "moon", "brick", "grass", "gravel", "retina",
            "hubble_deep_field", "immunohistochemistry", "cell", "clock")  # fmt: skip
FACE_HEIGHTS = (45, 55, 70, 90, 120, 160)  # px
ANGLES = (-45, -30, -15, 15, 30, 45)  # degrees
LOWEST = 0.5  # boxes that O-net scores below are not even counted
SETTINGS = (  # minimum face px, P-net's threshold, R-net's threshold, pyramid step
    (40, 0.6, 0.7, 0.65), (40, 0.6, 0.7, 0.709), (40, 0.6, 0.7, 0.6), (40, 0.7, 0.7, 0.65), (40, 0.6, 0.8, 0.65),
    (20, 0.6, 0.7, 0.65), (20, 0.6, 0.7, 0.709),
)  # fmt: skip
RESULT = Path(__file__).parent / "results" / "detector.json"


@dataclass(frozen=True)
class View:
    """One degraded copy: RGB uint8 (H, W, 3), and the known face's centre and height in px, None for no face."""

    name: str
    image: np.ndarray
    centre: np.ndarray | None
    height: float


def views(photos: Path | None) -> list[View]:
    """Every copy of every portrait, then the pictures without a face."""
    portraits = {"hopper": images.load(demo.photograph()), "astronaut": skimage.data.astronaut()}
    for path in sorted(photos.iterdir()) if photos else ():
        if path.suffix.lower() in images.SUFFIXES:
            portraits[path.name] = images.load(path)
    known = [view for name, image in portraits.items() for view in copies(name, image)]
    return known + [View(name, images.load(getattr(skimage.data, name)()), None, 0) for name in FACELESS]


def copies(name: str, image: np.ndarray, box: Box | None = None) -> Iterator[View]:
    """The portrait and its degradations. box: of the known face; by default the best of the plain picture at stock
    settings."""
    x1, y1, x2, y2 = box or max(Mtcnn(min_face=80).detect(image), key=lambda face: face.score).box
    centre, height = np.array([x1 + x2, y1 + y2]) / 2, y2 - y1
    picture = Image.fromarray(image)
    for kind, copy in degraded(picture, height).items():
        yield View(f"{name} {kind}", np.asarray(copy), centre, height)
    for wanted in FACE_HEIGHTS:
        size = [round(side * wanted / height) for side in picture.size]
        copy = picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        yield View(f"{name} {wanted} px", np.asarray(copy), centre * wanted / height, wanted)
    for angle in ANGLES:
        copy = picture.rotate(angle, expand=True)
        t = np.deg2rad(angle)
        turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
        place = turn @ (centre - np.array(picture.size) / 2) + np.array(copy.size) / 2
        yield View(f"{name} {angle} degrees", np.asarray(copy), place, height)


def degraded(picture: Image.Image, height: float) -> dict[str, Image.Image]:
    """Copies of the same size. height: of the face, px."""
    noise = np.random.default_rng(0).normal(0, 25, (picture.height, picture.width, 3))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=10)
    return {
        "plain": picture,
        "blurred": picture.filter(ImageFilter.GaussianBlur(height / 25)),
        "noisy": Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)),
        "dark": ImageEnhance.Brightness(picture).enhance(0.3),
        "flat": ImageEnhance.Contrast(picture).enhance(0.3),
        "grey": picture.convert("L").convert("RGB"),
        "JPEG 10": Image.open(file).convert("RGB"),
    }


def is_right(found: Detection, view: View) -> bool:
    if view.centre is None:
        return False
    x1, y1, x2, y2 = found.box
    away = np.linalg.norm(np.array([x1 + x2, y1 + y2]) / 2 - view.centre)
    return bool(away < 0.35 * view.height and 1 / 1.8 < (y2 - y1) / view.height < 1.8)


def measure(cases: list[View], *, min_face: float, first: float, second: float, step: float) -> dict[str, Any]:
    """One setting of P-net's and R-net's thresholds and the pyramid's step, with every score that O-net gave."""
    detector = Mtcnn(min_face=min_face, thresholds=(first, second, LOWEST), scale_step=step)
    right, false = [], []
    for view in cases:
        found = detector.detect(view.image)
        if view.centre is not None:
            right.append(max((face.score for face in found if is_right(face, view)), default=0.0))
        false += [face.score for face in found if not is_right(face, view)]
    return {
        "min_face": min_face,
        "thresholds": [first, second],
        "step": step,
        "views": len(right),
        "faceless": len(cases) - len(right),
        "weakest_faces": [round(score, 3) for score in sorted(right)[:3]],
        "strongest_false": [round(score, 3) for score in sorted(false, reverse=True)[:3]],
        "found": {str(o): sum(score >= o for score in right) for o in (0.7, 0.85, 0.95)},
        "false": {str(o): sum(score >= o for score in false) for o in (0.7, 0.85, 0.95)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    cases = views(parser.parse_args().photos)
    table = []
    for min_face, first, second, step in SETTINGS:
        table.append(measure(cases, min_face=min_face, first=first, second=second, step=step))
        print(json.dumps(table[-1]))
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    chosen = {"thresholds": THRESHOLDS, "step": SCALE_STEP}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"date": date, "chosen": chosen, "settings": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
