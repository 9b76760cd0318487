"""ExpW (Zhang et al., ICCV 2015 and IJCV 2018): 91,793 faces found on the web, seven expressions, no official split.

Layout: ``label/label.lst``, one face a line: image_name face_id_in_image face_box_top face_box_left face_box_right
face_box_bottom face_box_cofidence expression_label. The box is in the order **top, left, right, bottom**, and the owner
spells "cofidence". The file has no header; one is read when somebody added it. Pictures in ``image/origin``; several
faces may be cut from one picture.

Protocols: "lban-il" (default) takes the 41,748 faces of at least 100x100 px and runs ten folds of neighbouring rows
(LBAN-IL's paper); "shuffled" the same faces in shuffled folds; "every" all faces, 80 / 10 / 10 within each class. Split
"all" gives a protocol's faces undivided.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mien.errors import DataError
from mien.expressions import BASIC, EXPW, canonical
from mien.lab.datasets.dataset import SPLITS, FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset, numbers_of, read_text
from mien.lab.datasets.official import Official, checked
from mien.lab.datasets.splitting import contiguous, fold_rows, stratified

FOLDS = 10
AREA = 100 * 100  # px; "face area >= 100x100", read as the product of the sides
SHARES = (0.8, 0.1, 0.1)
SEED = 0
PROTOCOLS: tuple[str, ...] = ("lban-il", "shuffled", "every")
_LARGE = Official(
    "all",
    {
        "anger": 2_280,
        "disgust": 1_950,
        "fear": 627,
        "happy": 12_453,
        "sad": 6_158,
        "surprise": 3_924,
        "neutral": 14_356,
    },
    "LBAN-IL, section 4.1: 41,748 faces",
)
_EVERY = Official(
    "all",
    {
        "anger": 3_671,
        "disgust": 3_995,
        "fear": 1_088,
        "happy": 30_537,
        "sad": 10_559,
        "surprise": 7_060,
        "neutral": 34_883,
    },
    "the owner's label.lst: 91,793 faces",
)
OFFICIAL: Mapping[str, Official] = {"lban-il": _LARGE, "shuffled": _LARGE, "every": _EVERY}
_COLUMNS = (
    "image_name", "face_id_in_image", "face_box_top", "face_box_left", "face_box_right", "face_box_bottom",
    "face_box_cofidence", "expression_label",
)  # fmt: skip


@dataclass(frozen=True)
class _Face:
    """One line: the picture, the number of the face in it, box edges in px, and the position of the label in BASIC."""

    picture: str
    number: str
    top: float
    left: float
    right: float
    bottom: float
    label: int


def load(
    root: Path, *, split: str, protocol: str | None = None, fold: int | None = None, allow_partial: bool = False
) -> FaceDataset:
    """One split. Folds count from 1: test is the fold, train the other nine; "every" has train, valid, test and no
    folds. Groups: picture (the file that the face was cut from).

    Raises DataError for a line that cannot be understood, a fold that is missing or out of range, missing pictures, or
    counts per class that are not the official ones (the last two not with `allow_partial`).
    """
    protocol = protocol or "lban-il"
    if protocol not in PROTOCOLS:
        raise DataError(f"expw has no protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    whole = dataset(
        _listing(root, 0 if protocol == "every" else AREA),
        name="expw",
        split="all",
        label_rule="expw",
        classes=BASIC,
        allow_partial=allow_partial,
        note=f"protocol {protocol}" + ("" if fold is None else f", fold {fold} of {FOLDS}"),
    )
    whole = checked(whole, OFFICIAL[protocol], where=root, allow_partial=allow_partial)
    if split == "all":
        return whole
    return whole.subset(_rows(whole.labels, split, protocol, fold), split=split)


def _rows(labels: np.ndarray, split: str, protocol: str, fold: int | None) -> np.ndarray:
    if protocol == "every":
        if split not in SPLITS or fold is not None:
            raise DataError(
                f"expw --protocol every: split {split!r}, fold {fold}; expected one of {', '.join(SPLITS)} and no fold"
            )
        return stratified(labels, SHARES, seed=SEED)[SPLITS.index(split)]
    order = np.arange(len(labels))
    if protocol == "shuffled":
        order = np.random.default_rng(SEED).permutation(order)
    return np.sort(order[fold_rows(contiguous(len(labels), FOLDS), split, fold, name="expw")])


def _listing(root: Path, area: int) -> Listing:
    file = next((f for f in (root / "label" / "label.lst", root / "label.lst") if f.is_file()), None)
    if file is None:
        raise DataError(f"{root}: no label/label.lst; pass --root the unpacked ExpW folder")
    pictures = next((p for p in ("image/origin", "origin", "image") if (root / p).is_dir()), "image/origin")
    faces = [face for face in _faces(file) if (face.right - face.left) * (face.bottom - face.top) >= area]
    boxes = np.array([(f.left, f.top, f.right, f.bottom) for f in faces], np.float32).reshape(-1, 4)
    return Listing(
        FaceFiles(str(root), tuple(f"{pictures}/{face.picture}" for face in faces), boxes),
        np.array([face.label for face in faces], np.int64),
        {"picture": tuple(face.picture for face in faces)},
        tuple(f"{face.picture}#{face.number}" for face in faces),
    )


def _faces(file: Path) -> list[_Face]:
    lines = [line.strip() for line in read_text(file).splitlines()]
    start = 1 if lines and lines[0].startswith(_COLUMNS[0]) else 0
    columns = tuple(lines[0].replace("confidence", "cofidence").split()) if start else _COLUMNS
    if set(columns) != set(_COLUMNS):
        raise DataError(f"{file}: header {lines[0]!r}, expected the columns {' '.join(_COLUMNS)}")
    return [
        _face(dict(zip(columns, line.rsplit(maxsplit=7), strict=False)), f"{file}, line {number}: {line!r}")
        for number, line in enumerate(lines[start:], start=start + 1)
        if line
    ]


def _face(cells: dict[str, str], where: str) -> _Face:
    if len(cells) != len(_COLUMNS):
        raise DataError(f"{where}: {len(cells)} cells, expected {' '.join(_COLUMNS)}")
    try:
        top, left, right, bottom = numbers_of(cells[f"face_box_{side}"] for side in ("top", "left", "right", "bottom"))
        word = EXPW[int(cells["expression_label"])]
    except (ValueError, KeyError):
        raise DataError(f"{where}: expected a box in px and a label in 0-6") from None
    if right <= left or bottom <= top:
        raise DataError(f"{where}: the box is empty; its order is top, left, right, bottom")
    return _Face(cells["image_name"], cells["face_id_in_image"], top, left, right, bottom, BASIC.index(canonical(word)))
