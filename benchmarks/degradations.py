"""What damage to a picture costs: PublicTest under blur, noise, JPEG, darkness, occlusion, rotation, scale and low resolution,
and FER-2013's own crops beside crops that our detector makes again.

The damage is done to the 48x48 px rows, seeded, and both heads are scored on every row. The rows are what selected the model.

    python benchmarks/degradations.py --root DIR [--model FILE.onnx]      (writes benchmarks/results/degradations.json)
"""

import datetime
import io
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import public_test
from PIL import Image, ImageFilter

from mien.classifier import Classifier
from mien.faces.align import cut
from mien.faces.mtcnn import Mtcnn
from mien.lab.protocol import commit

SEED = 0
UPSAMPLED = 4  # as in template.py: 192 px leave MTCNN's pyramid room to choose
PADDING = 12  # px of the row on every side, edge repeated: a canvas around faces that fill their frame

Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Degradation:
    """kind and strength: what the table calls it. damage: a face (48, 48) uint8 and random numbers -> the damaged face."""

    kind: str
    strength: str
    damage: Damage


def blurred(sigma: float) -> Damage:
    """Gaussian, sigma in px."""
    return lambda face, random: np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(deviation: float) -> Damage:
    """Gaussian, standard deviation in grey levels of 255."""
    return lambda face, random: np.clip(face + random.normal(0, deviation, face.shape), 0, 255).astype(np.uint8)


def compressed(quality: int) -> Damage:
    """One JPEG of this quality."""

    def damage(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(face).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return damage


def darkened(factor: float) -> Damage:
    """Light times `factor`, in whole grey levels."""
    return lambda face, random: (face * factor).astype(np.uint8)


def occluded(side: float) -> Damage:
    """A square of one random grey at a random place wholly inside; side as a fraction of the picture's."""

    def damage(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
        made, length = face.copy(), round(side * len(face))
        top, left = random.integers(0, len(face) - length + 1, 2)
        made[top : top + length, left : left + length] = random.integers(0, 256)
        return made

    return damage


def rotated(degrees: float) -> Damage:
    """About the centre, to a random side, edge pixels repeated outside."""

    def damage(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return _turned(face, degrees * random.choice((-1, 1)), 1.0)

    return damage


def scaled(factor: float) -> Damage:
    """The face larger (over 1) or smaller (under 1) in the same frame, edge pixels repeated outside."""
    return lambda face, random: _turned(face, 0.0, factor)


def coarse(side: int) -> Damage:
    """Down to side x side px and up again."""

    def damage(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
        small = Image.fromarray(face).resize((side, side), Image.Resampling.BOX)
        return np.asarray(small.resize(face.shape[::-1], Image.Resampling.BILINEAR))

    return damage


def _turned(face: np.ndarray, degrees: float, factor: float) -> np.ndarray:
    """Rotated and scaled about the centre on a padded copy, so that the outside is edge pixels and not black."""
    height, width = face.shape
    padded = Image.fromarray(np.pad(face, ((height, height), (width, width)), mode="edge"))
    t, centre = np.deg2rad(degrees), (1.5 * width, 1.5 * height)
    a, b = np.cos(t) / factor, np.sin(t) / factor
    c, f = centre[0] - a * width / 2 - b * height / 2, centre[1] + b * width / 2 - a * height / 2
    return np.asarray(
        padded.transform((width, height), Image.Transform.AFFINE, (a, b, c, -b, a, f), Image.Resampling.BILINEAR)
    )


DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation("blur", "sigma 1 px", blurred(1.0)),
    Degradation("blur", "sigma 2 px", blurred(2.0)),
    Degradation("noise", "deviation 15 of 255", noisy(15)),
    Degradation("noise", "deviation 30 of 255", noisy(30)),
    Degradation("JPEG", "quality 30", compressed(30)),
    Degradation("JPEG", "quality 10", compressed(10)),
    Degradation("darkness", "light x 0.4", darkened(0.4)),
    Degradation("darkness", "light x 0.15", darkened(0.15)),
    Degradation("occlusion", "square of 0.3 of the side", occluded(0.3)),
    Degradation("occlusion", "square of 0.5 of the side", occluded(0.5)),
    Degradation("rotation", "15 degrees", rotated(15)),
    Degradation("rotation", "30 degrees", rotated(30)),
    Degradation("scale", "face x 0.75", scaled(0.75)),
    Degradation("scale", "face x 1.3", scaled(1.3)),
    Degradation("resolution", "24 px", coarse(24)),
    Degradation("resolution", "16 px", coarse(16)),
)


def damaged(faces: np.ndarray, degradation: Degradation) -> np.ndarray:
    """(N, 48, 48) uint8 -> the same, damaged; row i's random numbers depend on SEED and i only."""
    return np.stack([degradation.damage(face, np.random.default_rng((SEED, row))) for row, face in enumerate(faces)])


def made_again(faces: np.ndarray, model: Classifier) -> list[np.ndarray | None]:
    """The crop that the reader would cut from each row seen as a photograph: RGB uint8 as the card says, None for no face.

    The row is enlarged onto a canvas of its own edge pixels; MTCNN finds the face, its largest one is aligned.
    """
    detector = Mtcnn(min_face=UPSAMPLED * faces.shape[1] / 2)
    return [_crop(face, detector, model) for face in faces]


def _crop(face: np.ndarray, detector: Mtcnn, model: Classifier) -> np.ndarray | None:
    padded = np.pad(face, PADDING, mode="edge")
    size = (padded.shape[1] * UPSAMPLED, padded.shape[0] * UPSAMPLED)
    canvas = np.asarray(Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC).convert("RGB"))
    found = detector.detect(canvas)
    return cut(canvas, found[:1], crop=model.card.crop, input=model.card.input)[0] if found else None


def crops_compared(
    public: public_test.PublicTest, model: Classifier, own: Mapping[str, np.ndarray], crops: list[np.ndarray | None]
) -> dict[str, Any]:
    """Coverage of the detector, and accuracy on the rows that it covers: FER-2013's own crops beside the re-made ones."""
    covered = np.array([crop is not None for crop in crops])
    again = {head: np.zeros_like(values) for head, values in own.items()}
    for head, values in public_test.answers(model, [crop for crop in crops if crop is not None]).items():
        again[head][covered] = values
    default = model.card.default_head
    same = own[default].argmax(axis=1) == again[default].argmax(axis=1)
    return {
        "coverage": float(covered.mean()),
        "own_uncovered": public_test.judged(public, model.card, own, kept=~covered) if not covered.all() else None,
        "own_covered": public_test.judged(public, model.card, own, kept=covered),
        "remade": public_test.judged(public, model.card, again, kept=covered),
        "same_answer": float(same[covered].mean()),
    }


def measured(model: Classifier, root: Path) -> dict[str, Any]:
    public = public_test.load(root)
    own = public_test.answers(model, public.faces)
    rows = []
    for degradation in DEGRADATIONS:
        answered = public_test.answers(model, damaged(public.faces, degradation))
        accuracies = {n: f["accuracy"] for n, f in public_test.judged(public, model.card, answered).items()}
        rows.append({"kind": degradation.kind, "strength": degradation.strength, **accuracies})
        print(rows[-1], flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "model_sha256": model.sha256,
        "seed": SEED,
        "commit": commit(),
        "plain": public_test.judged(public, model.card, own),
        "degradations": rows,
        "mean": {name: statistics.mean(row[name] for row in rows) for name in public_test.NAMES},
        "crops": crops_compared(public, model, own, made_again(public.faces, model)),
    }


def main() -> None:
    options = public_test.options(__doc__)
    found = measured(Classifier(options.model, threads=options.threads), options.root)
    (options.results / "degradations.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print({key: found[key] for key in ("plain", "mean", "crops")})


if __name__ == "__main__":
    main()
