"""A FER-2013 and FER+ of a few rows, written in the official layout: grey noise with stripes for each class."""

import csv
from pathlib import Path

import numpy as np

from mien.expressions import FERPLUS_COLUMNS

USAGES = ("Training", "PublicTest", "PrivateTest")
# FER-2013's code (angry, disgust, fear, happy, sad, surprise, neutral) -> the FER+ column that most people would choose
COLUMN = [FERPLUS_COLUMNS.index(w) for w in ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")]


def write(root: Path, *, train: int = 140, valid: int = 42, test: int = 42, seed: int = 0) -> Path:
    """Write root/fer2013/fer2013.csv and root/ferplus/fer2013new.csv; returns root."""
    random = np.random.default_rng(seed)
    counts = dict(zip(USAGES, (train, valid, test), strict=True))
    usages = [usage for usage, count in counts.items() for _ in range(count)]
    codes = [i % 7 for i in range(len(usages))]
    (root / "fer2013").mkdir(parents=True)
    (root / "ferplus").mkdir()
    with (root / "fer2013" / "fer2013.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["emotion", "pixels", "Usage"])
        for code, usage in zip(codes, usages, strict=True):
            rows.writerow([code, " ".join(map(str, face(code, random).ravel())), usage])
    with (root / "ferplus" / "fer2013new.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Usage", "Image name", *FERPLUS_COLUMNS])
        for index, (code, usage) in enumerate(zip(codes, usages, strict=True)):
            votes = [0] * 10
            votes[COLUMN[code]], votes[(COLUMN[code] + 1) % 8] = 7, 3
            rows.writerow([usage, f"fer{index:07d}.png", *votes])
    return root


def face(code: int, random: np.random.Generator) -> np.ndarray:
    """(48, 48) uint8: noise, and stripes whose number tells the class."""
    stripes = 80 * np.sin(2 * np.pi * (2 + 3 * code) * np.arange(48) / 48)
    return np.clip(128 + stripes[:, None] + random.normal(0, 12, (48, 48)), 0, 255).astype(np.uint8)
