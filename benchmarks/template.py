"""The alignment template: the mean of MTCNN's five points over FER-2013's Training faces.

Prints it and writes benchmarks/results/template.json. A model's card carries these numbers, so that a face cut out of a
photograph is framed as the faces that the model was trained on.

    python benchmarks/template.py --root FOLDER_WITH_fer2013.csv[.xz] [--faces 4000] [--seed 0]
"""

import argparse
import csv
import datetime
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.faces.mtcnn import Mtcnn

SIDE = 48  # px of a FER-2013 face
UPSAMPLED = 4  # MTCNN's last network looks at 48 px crops itself: 192 px leave its pyramid room to choose
PADDING = 12  # px of the original on every side, edge repeated: faces that fill the frame get a border
SCORE = 0.9  # faces below are mostly drawings, profiles and crops that miss the face
RESULT = Path(__file__).parent / "results" / "template.json"


def training_faces(root: Path) -> Iterator[np.ndarray]:
    """Grey uint8 (48, 48) of each Training row of the official CSV under `root`, in order."""
    path = next(path for path in sorted(root.rglob("fer2013.csv*")))
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as file:
        for row in csv.DictReader(file):
            if row["Usage"] == "Training":
                yield np.array(row["pixels"].split(), np.uint8).reshape(SIDE, SIDE)


def five_points(detector: Mtcnn, face: np.ndarray) -> np.ndarray | None:
    """The best face's points (5, 2) as fractions of the frame's side, or None where none scores SCORE."""
    padded = np.pad(face, PADDING, mode="edge")
    side = padded.shape[0] * UPSAMPLED
    picture = Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
    found = detector.detect(np.asarray(picture))
    best = max(found, key=lambda detection: detection.score, default=None)
    if best is None or best.score < SCORE or best.landmarks is None:
        return None
    return (np.array(best.landmarks) / UPSAMPLED - PADDING) / SIDE


def measure(root: Path, *, faces: int, seed: int) -> dict[str, Any]:
    """The mean and the spread of the points over `faces` randomly chosen Training faces."""
    rows = list(training_faces(root))
    chosen = np.random.default_rng(seed).choice(len(rows), size=min(faces, len(rows)), replace=False)
    detector = Mtcnn(min_face=UPSAMPLED * SIDE / 2)
    found = [points for row in chosen if (points := five_points(detector, rows[row])) is not None]
    points = np.array(found)
    return {
        "template": np.round(points.mean(axis=0), 4).tolist(),
        "std": np.round(points.std(axis=0), 4).tolist(),
        "n": len(found),
        "tried": len(chosen),
        "detected": round(len(found) / len(chosen), 4),
        "score": SCORE,
        "seed": seed,
        "data": f"FER-2013 Training, {len(rows)} rows",
        "points": "left eye, right eye, nose, left, right mouth corner as seen in the picture; fractions of the side",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = measure(options.root, faces=options.faces, seed=options.seed)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
