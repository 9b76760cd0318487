"""Drawn faces written the way each dataset's owner ships pictures: for trying a loader without the data, and its tests.

The counts are small, so the loaders need `allow_partial` for them. Whatever looks odd here is odd in the original:
misspelt file names and headers, labels counted from 1, boxes as top, left, right, bottom, numbers stored as strings.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mien.errors import UsageError
from mien.expressions import (
    AFFECTNET,
    BASIC,
    CKPLUS,
    COMPOUND,
    EXPRESSIONS,
    EXPW,
    FER2013,
    FERPLUS_COLUMNS,
    RAFDB,
    canonical,
)
from mien.lab.datasets.dataset import FaceDataset
from mien.lab.datasets.rafdb import LABELS
from mien.lab.datasets.synthetic import VOTERS, Spec, load

OFFSET = (40, 24)  # px, left and top of the face in a larger picture
FRAMES = 6  # of a CK+ sequence


def write(layout: str, root: Path, *, rows: int = 40, seed: int = 0) -> None:
    """Write `rows` training faces, and half as many for each other split, in one of LAYOUTS under `root`.

    Raises UsageError when there is no such layout, or `root` holds something already.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if root.exists() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty: writing a layout never overwrites; name a new folder")
    root.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout](root, rows, seed)


def faces(split: str, *, rows: int, seed: int = 0, classes: tuple[str, ...] = BASIC, side: int = 48) -> FaceDataset:
    """The faces that the writers write for one split: compare what a loader reads with these."""
    return load(split=split, spec=Spec(rows=(rows, rows // 2, rows // 2), side=side, classes=classes, seed=seed))


def _codes(codes: Mapping[int, str]) -> dict[str, int]:
    """Canonical expression -> the owner's code."""
    return {canonical(word): code for code, word in codes.items()}


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def _text(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _in_picture(face: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A larger grey picture with the face at OFFSET, and the face's box xyxy px; wider than high, so no edge fits
    another."""
    height, width = face.shape[:2]
    left, top = OFFSET
    picture = np.full((height + top + 8, width + left + 56, 3), 128, np.uint8)
    picture[top : top + height, left : left + width] = face
    return picture, (left, top, left + width, top + height)


def _table(path: Path, header: Sequence[str] | None, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*([header] if header else []), *rows])


# FER-2013 and FER+


def _fer_rows(rows: int, seed: int) -> list[tuple[int, str, str]]:
    """(code, usage, pixels) of the three splits, one after the other as in the file."""
    codes = _codes(FER2013)
    return [
        (codes[BASIC[sample.label]], usage, " ".join(map(str, sample.image[..., 1].ravel())))
        for split, usage in (("train", "Training"), ("valid", "PublicTest"), ("test", "PrivateTest"))
        for sample in faces(split, rows=rows, seed=seed)
    ]


def _fer2013(root: Path, rows: int, seed: int) -> None:
    table = [(code, pixels, usage) for code, usage, pixels in _fer_rows(rows, seed)]
    _table(root / "fer2013.csv", ("emotion", "pixels", "Usage"), table)


def _fer2013_icml(root: Path, rows: int, seed: int) -> None:
    _table(root / "icml_face_data.csv", ("emotion", " Usage", " pixels"), _fer_rows(rows, seed))


def _fer2013_folders(root: Path, rows: int, seed: int) -> None:
    words = {canonical(word): word for word in FER2013.values()}
    for split, folder in (("train", "train"), ("valid", "test"), ("test", "test")):
        for sample in faces(split, rows=rows, seed=seed):
            grey = sample.image[..., 1]
            _save(grey, root / folder / words[BASIC[sample.label]] / f"{sample.id}.png")


def _ferplus(root: Path, rows: int, seed: int) -> None:
    """Votes of ten for every row, names that are not row numbers, and an empty name for the last training row."""
    _fer2013(root, rows, seed)
    order = [BASIC.index(canonical(word)) if word != "contempt" else -1 for word in FERPLUS_COLUMNS[:8]]
    table: list[tuple[object, ...]] = []
    for split, usage in (("train", "Training"), ("valid", "PublicTest"), ("test", "PrivateTest")):
        votes = faces(split, rows=rows, seed=seed).votes
        assert votes is not None  # drawn faces have votes
        for row, share in enumerate(np.round(votes * VOTERS).astype(int)):
            name = "" if split == "train" and row == rows - 1 else f"fer{len(table) + 2:07d}.png"
            table.append((usage, name, *(share[column] if column >= 0 else 0 for column in order), 0, 0))
    _table(root / "fer2013new.csv", ("Usage", "Image name", *FERPLUS_COLUMNS), table)


# RAF-DB


def _rafdb(root: Path, rows: int, seed: int) -> None:
    codes = _codes(RAFDB)
    lines = []
    for split in ("train", "test"):
        for number, sample in enumerate(faces(split, rows=rows, seed=seed), start=1):
            stem = f"{split}_{number:05d}"
            lines.append(f"{stem}.jpg {codes[BASIC[sample.label]]}")
            _save(sample.image, root / "basic/Image/aligned" / f"{stem}_aligned.jpg")
            _save(_in_picture(sample.image)[0], root / "basic/Image/original" / f"{stem}.jpg")
            points = [f"{x}.5\t{y}.5" for x, y in ((18, 20), (30, 20), (24, 27), (19, 34), (29, 34))]
            attributes = [str(number % 3), str(number % 3), str(number % 5)]
            _text(root / "basic/Annotation/manual" / f"{stem}_manu_attri.txt", points + attributes)
    _text(root / "basic" / LABELS, lines)


def _rafdb_compound(root: Path, rows: int, seed: int) -> None:
    """Every blend is drawn as its second word's expression: the loader's business is the label, not the looks."""
    lines = []
    for split in ("train", "test"):
        for number, sample in enumerate(faces(split, rows=rows, seed=seed), start=1):
            lines.append(f"{split}_{number:04d}.jpg {1 + number % len(COMPOUND)}")
            _save(sample.image, root / "compound/Image/aligned" / f"{split}_{number:04d}_aligned.jpg")
    _text(root / "compound" / LABELS, lines)


def _rafdb_folders(root: Path, rows: int, seed: int, above: str, codes: Mapping[str, int]) -> None:
    for split in ("train", "test"):
        for number, sample in enumerate(faces(split, rows=rows, seed=seed), start=1):
            folder = root / above / split / str(codes[BASIC[sample.label]])
            _save(sample.image, folder / f"{split}_{number:05d}_aligned.jpg")


def _rafdb_owner_codes(root: Path, rows: int, seed: int) -> None:
    _rafdb_folders(root, rows, seed, "DATASET", _codes(RAFDB))


def _rafdb_affectnet_codes(root: Path, rows: int, seed: int) -> None:
    _rafdb_folders(root, rows, seed, "", _codes(AFFECTNET))


# AffectNet


def _affectnet(root: Path, rows: int, seed: int) -> None:
    """training.csv with its header, validation.csv without; every eighth row is followed by one that shows no
    expression."""
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    codes = _codes(AFFECTNET)
    for split, name in (("train", "training"), ("valid", "validation")):
        table: list[tuple[object, ...]] = []
        for number, sample in enumerate(faces(split, rows=rows, seed=seed, classes=EXPRESSIONS)):
            picture, (left, top, right, bottom) = _in_picture(sample.image)
            path = f"{number % 7}/{split}{number:06x}.jpg"
            _save(picture, root / "Manually_Annotated_Images" / path)
            box = (left, top, right - left, bottom - top)
            table.append((path, *box, "1.0;2.0", codes[EXPRESSIONS[sample.label]], 0.1, -0.2))
            if number % 8 == 0:
                table.append((f"0/none{number}.jpg", *["NULL"] * 5, 8 + number % 3, -2, -2))
        lists = root / "Manually_Annotated_file_lists" / f"{name}.csv"
        _table(lists, header.split(",") if split == "train" else None, table)


def _affectnet_2021(root: Path, rows: int, seed: int) -> None:
    """Labels are strings in train_set and integers in val_set."""
    codes = _codes(AFFECTNET)
    for split, folder in (("train", "train_set"), ("valid", "val_set")):
        for number, sample in enumerate(faces(split, rows=rows, seed=seed, classes=EXPRESSIONS)):
            _save(sample.image, root / folder / "images" / f"{number}.jpg")
            annotations = root / folder / "annotations"
            annotations.mkdir(exist_ok=True)
            code = codes[EXPRESSIONS[sample.label]]
            np.save(annotations / f"{number}_exp.npy", np.array(str(code) if split == "train" else code))
            np.save(annotations / f"{number}_val.npy", np.array("-2" if number % 9 == 0 else "0.25"))


# SFEW, ExpW, CK+


def _sfew(root: Path, rows: int, seed: int) -> None:
    words = {canonical(word): word.capitalize() for word in FER2013.values()}
    for split, folder in (("train", "Train/Train_Aligned_Faces"), ("valid", "Val/Val_Aligned_Faces_new")):
        for sample in faces(split, rows=rows, seed=seed):
            _save(sample.image, root / folder / words[BASIC[sample.label]] / f"Film{sample.label}_{sample.id}.png")
    for sample in faces("test", rows=rows, seed=seed):
        _save(sample.image, root / "Test/Test_Aligned_Faces" / f"{sample.id}.png")


def _expw(root: Path, rows: int, seed: int) -> None:
    """Large faces (104 px) first; every fourth is followed by a small one in the same picture. No header, as the owner
    ships it."""
    codes = _codes(EXPW)
    lines = []
    for number, sample in enumerate(faces("train", rows=rows, seed=seed, side=104)):
        picture, (left, top, right, bottom) = _in_picture(sample.image)
        name, code = f"web_face_{number}.jpg", codes[BASIC[sample.label]]
        _save(picture, root / "image/origin" / name)
        lines.append(f"{name} 0 {top} {left} {right} {bottom} 84.32 {code}")
        if number % 4 == 0:
            lines.append(f"{name} 1 4 2 34 20 51.08 {code}")
    _text(root / "label/label.lst", lines)


def _ckplus(root: Path, rows: int, seed: int) -> None:
    """`rows` sequences from rest to the full expression; every fifth is not labelled, and keeps an empty Emotion
    folder."""
    codes = _codes(CKPLUS)
    spec = Spec(rows=(rows, 1, 1), classes=EXPRESSIONS[1:], seed=seed, identities=12, pose=0, covered=0)
    frames = [load(split="train", spec=replace(spec, intensity=(t, t))) for t in np.linspace(0, 1, FRAMES)]
    for row in range(rows):
        subject = int(frames[0].groups["subject"][row].rpartition("-")[2])
        place = f"S{subject + 10:03d}/{row:03d}"
        stem = place.replace("/", "_")
        for number, frame in enumerate(frames, start=1):
            _save(frame.read(row), root / "cohn-kanade-images" / place / f"{stem}_{number:08d}.png")
        emotion = root / "Emotion" / place
        emotion.mkdir(parents=True)
        if row % 5 != 4:
            code = codes[spec.classes[int(frames[0].labels[row])]]
            _text(emotion / f"{stem}_{FRAMES:08d}_emotion.txt", [f"   {code:.7e}"])


# Bring your own


def _folder(root: Path, rows: int, seed: int) -> None:
    for split in ("train", "valid", "test"):
        for sample in faces(split, rows=rows, seed=seed):
            _save(sample.image, root / split / BASIC[sample.label] / f"{sample.id}.png")


def _csv(root: Path, rows: int, seed: int) -> None:
    table: list[tuple[object, ...]] = []
    for split in ("train", "valid", "test"):
        for sample in faces(split, rows=rows, seed=seed):
            assert sample.votes is not None  # drawn faces have votes
            _save(sample.image, root / "pictures" / f"{sample.id}.png")
            table.append((f"pictures/{sample.id}.png", BASIC[sample.label], split, *sample.votes.tolist()))
    _table(root / "faces.csv", ("path", "label", "split", *(f"p_{name}" for name in BASIC)), table)


LAYOUTS: Mapping[str, Callable[[Path, int, int], None]] = {
    "fer2013": _fer2013,
    "fer2013/icml": _fer2013_icml,
    "fer2013/folders": _fer2013_folders,
    "ferplus": _ferplus,
    "rafdb": _rafdb,
    "rafdb/owner-codes": _rafdb_owner_codes,
    "rafdb/affectnet-codes": _rafdb_affectnet_codes,
    "rafdb-compound": _rafdb_compound,
    "affectnet": _affectnet,
    "affectnet/2021": _affectnet_2021,
    "sfew": _sfew,
    "expw": _expw,
    "ckplus": _ckplus,
    "folder": _folder,
    "csv": _csv,
}
