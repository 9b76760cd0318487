"""From photograph to expression: missed faces, false faces and flipped expressions over all photographs at hand.

Grace Hopper (matplotlib), the astronaut (scikit-image) and the portraits under MIEN_SHARED or ../shared; each as it is and with
the damage of detector.py: blurred, noisy, dark, flat, grey, JPEG quality 10, resized, turned; and scikit-image's pictures
without a face. The default reader reads them. A flip is a damaged copy that is read otherwise than the photograph itself.

    python benchmarks/photographs.py [--photos FOLDER] [--model FILE.onnx]      (writes benchmarks/results/photographs.json)
"""

import argparse
import datetime
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import public_test
import skimage.data
from detector import FACELESS, View, copies, is_right

from mien import demo, images
from mien.classifier import bundled_model
from mien.faces.detect import Detection
from mien.faces.mtcnn import Mtcnn
from mien.lab.protocol import commit
from mien.reader import Face, Reader

RESULTS = Path(__file__).parent / "results"
SMALLEST = 20  # px: the known face of a photograph is looked for from here, below what the reader looks for
KINDS = ("plain", "blurred", "noisy", "dark", "flat", "grey", "JPEG 10", "resized", "turned")


@dataclass(frozen=True)
class Portrait:
    """What a person sees in a photograph. expressions: every answer that a person could defend, the first one likeliest.
    others: whether more people stand in the background, whose boxes are then not false."""

    expressions: tuple[str, ...]
    others: bool
    why: str


# Written down by looking at the photographs, before the model read them.
SEEN: dict[str, Portrait] = {
    "hopper": Portrait(("neutral", "happy"), False, "composed, corners of the mouth slightly up"),
    "astronaut": Portrait(("happy",), False, "broad smile with teeth"),
    "obama.jpg": Portrait(("happy",), False, "broad smile with teeth"),
    "obama-240p.jpg": Portrait(("happy",), False, "the same smile, a small picture"),
    "obama_partial_face2.jpg": Portrait(("happy",), False, "the same smile, the face cut by the picture's edge"),
    "biden.jpg": Portrait(("neutral", "anger", "sad"), False, "stern, lips pressed, brows low"),
    "32bit.png": Portrait(
        ("neutral", "surprise", "anger", "fear"),
        True,
        "speaking, mouth open, brow raised, looking aside; people behind",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One copy read. kind: one of KINDS, or "no face" for a picture without one. expression: of the known face, None where
    it was missed or there is none. false: boxes that are no known face."""

    portrait: str
    kind: str
    view: str
    expression: str | None
    false: int


def portraits(folder: Path | None) -> dict[str, np.ndarray]:
    """Name -> RGB uint8 (H, W, 3)."""
    found = {"hopper": images.load(demo.photograph()), "astronaut": skimage.data.astronaut()}
    for path in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
        if path.suffix.lower() in images.SUFFIXES:
            found[path.name] = images.load(path)
    return found


def outcomes(reader: Reader, pictures: Mapping[str, np.ndarray]) -> Iterator[Outcome]:
    """Every copy of every portrait, then the pictures without a face."""
    known = Mtcnn(min_face=SMALLEST)
    for name, image in pictures.items():
        face = max(known.detect(image), key=lambda found: found.score * found.area)
        for view in copies(name, image, face.box):
            yield outcome(view, name, reader.read(view.image).faces, others=name in SEEN and SEEN[name].others)
    for name in FACELESS:
        faces = reader.read(images.load(getattr(skimage.data, name)())).faces
        yield Outcome(name, "no face", name, None, len(faces))


def outcome(view: View, name: str, faces: Sequence[Face], *, others: bool) -> Outcome:
    """What came of one copy. The known face is the rightly placed box of the highest score."""
    placed = [face for face in faces if is_right(Detection(face.box, face.detection_score, face.landmarks), view)]
    best = max(placed, key=lambda face: face.detection_score, default=None)
    false = 0 if others else len(faces) - (best is not None)
    return Outcome(
        name, kind_of(view.name.removeprefix(f"{name} ")), view.name, best.expression if best else None, false
    )


def kind_of(change: str) -> str:
    """ "30 degrees" -> turned, "70 px" -> resized, the rest is its own name."""
    return {"degrees": "turned", "px": "resized"}.get(change.rpartition(" ")[2], change)


def counted(found: Sequence[Outcome]) -> dict[str, Any]:
    """Counts by kind, names of what went wrong, and the plain photographs beside what a person reads in them."""
    plain = {one.portrait: one.expression for one in found if one.kind == "plain"}
    flips = [one for one in found if one.expression is not None and one.expression != plain.get(one.portrait)]
    missed = [one for one in found if one.expression is None and one.kind != "no face"]
    kinds = Counter(one.kind for one in found)
    tallies = {
        "missed": Counter(one.kind for one in missed),
        "flips": Counter(one.kind for one in flips),
        "false": Counter({kind: sum(one.false for one in found if one.kind == kind) for kind in kinds}),
    }
    return {
        "kinds": {
            kind: {"pictures": kinds[kind], **{what: tally[kind] for what, tally in tallies.items()}}
            for kind in (*KINDS, "no face")
            if kinds[kind]
        },
        "missed": [one.view for one in missed],
        "false": [one.view for one in found if one.false],
        "flips": {one.view: f"{plain[one.portrait]} -> {one.expression}" for one in flips},
        "read": [read_as(name, expression) for name, expression in plain.items()],
    }


def read_as(name: str, expression: str | None) -> dict[str, Any]:
    """A plain photograph: what was read, what a person reads in it (None where nobody wrote that down), whether they agree."""
    seen = SEEN.get(name)
    expected = None if seen is None else list(seen.expressions)
    agrees = None if expected is None else expression in expected
    return {"photograph": name, "read": expression, "a_person": expected, "agrees": agrees}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=public_test.shared_folder() / "photos")
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    reader = Reader(options.model)
    found = {
        "date": datetime.date.today().isoformat(),
        "model_sha256": reader.classifier.sha256,
        "commit": commit(),
        **counted(list(outcomes(reader, portraits(options.photos)))),
    }
    (options.results / "photographs.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
