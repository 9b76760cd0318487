"""Every layout that a dataset comes in, read back: each picture must carry the label that it was drawn with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mien.errors import DataError, UsageError
from mien.expressions import BASIC, EXPRESSIONS
from mien.lab import datasets
from mien.lab.datasets import layouts
from mien.lab.datasets.dataset import FaceDataset

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

ROWS = 40


@dataclass(frozen=True)
class Case:
    """How a layout is asked for. splits: what is asked -> the drawn splits that must come back. classes: as drawn."""

    name: str
    splits: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...] = BASIC
    side: int = 48
    options: Mapping[str, str] = field(default_factory=dict)
    file: str = ""


THREE = {"train": ("train",), "valid": ("valid",), "test": ("test",)}
TWO = {"train": ("train",), "test": ("test",)}
CASES = {
    "fer2013": Case("fer2013", THREE),
    "fer2013/icml": Case("fer2013", THREE),
    "fer2013/folders": Case("fer2013", {"train": ("train",), "public+private": ("valid", "test")}),
    "rafdb": Case("rafdb", TWO),
    "rafdb/owner-codes": Case("rafdb", TWO),
    "rafdb/affectnet-codes": Case("rafdb", TWO),
    "affectnet": Case("affectnet", {"train": ("train",), "valid": ("valid",)}, classes=EXPRESSIONS),
    "affectnet/2021": Case("affectnet", {"train": ("train",), "valid": ("valid",)}, classes=EXPRESSIONS),
    "sfew": Case("sfew", {"train": ("train",), "valid": ("valid",)}),
    "expw": Case("expw", {"all": ("train",)}, side=104),
    "folder": Case("folder", THREE),
    "csv": Case("csv", THREE, file="faces.csv"),
}


def drawn(case: Case, splits: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    """Grey pixels (N, side, side) and expressions of what the writer drew."""
    parts = [layouts.faces(split, rows=ROWS, classes=case.classes, side=case.side) for split in splits]
    pixels = np.stack([part.read(i)[..., 1] for part in parts for i in range(len(part))])
    return pixels, [part.classes[label] for part in parts for label in part.labels]


def load(case: Case, root: Path, split: str) -> FaceDataset:
    return datasets.load(case.name, root / case.file, split=split, allow_partial=True, **case.options)


@pytest.mark.parametrize("layout", CASES)
def test_every_picture_keeps_the_label_it_was_drawn_with(layout: str, tmp_path: Path) -> None:
    case = CASES[layout]
    layouts.write(layout, tmp_path, rows=ROWS)
    for split, sources in case.splits.items():
        pixels, words = drawn(case, sources)
        data = load(case, tmp_path, split)
        assert len(data) == len(words)
        claimed = set()
        for sample in data:
            assert sample.image.dtype == np.uint8
            assert sample.image.shape == (case.side, case.side, 3)
            distance = np.abs(pixels.astype(float) - sample.image[..., 1]).mean(axis=(1, 2))
            nearest = int(distance.argmin())
            assert distance[nearest] < 6, "the picture is not one of those that were drawn"
            assert data.classes[sample.label] == words[nearest]
            claimed.add(nearest)
        assert len(claimed) == len(words), "a drawn face is missing"


@pytest.mark.parametrize("layout", CASES)
def test_ids_are_distinct_and_the_fingerprint_repeats(layout: str, tmp_path: Path) -> None:
    case = CASES[layout]
    layouts.write(layout, tmp_path, rows=ROWS)
    split = next(iter(case.splits))
    first, again = load(case, tmp_path, split), load(case, tmp_path, split)
    assert len(set(first.ids)) == len(first)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != first[1:].fingerprint


# Any number of rows is right for folder and csv; SFEW's official counts are upper bounds.
COUNTED = [layout for layout in layouts.LAYOUTS if layout not in ("folder", "csv", "sfew")]


@pytest.mark.parametrize("layout", COUNTED)
def test_small_copies_are_refused_unless_partial_is_allowed(layout: str, tmp_path: Path) -> None:
    name = layout.split("/")[0]
    layouts.write(layout, tmp_path, rows=ROWS)
    split = "all" if name in ("expw", "ckplus") else "train"
    with pytest.raises(DataError, match=r"official.*--allow-partial"):
        datasets.load(name, tmp_path, split=split)


def test_writing_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        layouts.write("rafdb", tmp_path)


def test_unknown_layouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rafdb/owner-codes"):
        layouts.write("rafdb/mine", tmp_path)
