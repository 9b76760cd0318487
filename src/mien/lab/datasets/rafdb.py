"""RAF-DB (Li, Deng and Du, CVPR 2017): 15,339 faces of seven expressions, and 3,954 of eleven compound ones.

The owner's layout, in `root` or in `root`/basic and `root`/compound:
- ``EmoLabel/list_patition_label.txt`` (spelt so), lines ``train_00001.jpg 5``, labels counted from 1;
- ``Image/aligned/train_00001_aligned.jpg`` (100x100), or else ``Image/original/train_00001.jpg`` (the whole picture);
- ``Annotation/manual/train_00001_manu_attri.txt``: five landmarks, then gender, race and age codes (become groups).
Copies of the basic set that other projects ship are read, too: ``DATASET/train/1..7`` (the owner's codes as folders)
and ``train/0..6`` (EfficientFace's copy: AffectNet's codes as folders).
There is no validation set. The papers test on `test`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mien.errors import DataError
from mien.expressions import AFFECTNET, BASIC, COMPOUND, RAFDB, canonical
from mien.lab.datasets.dataset import FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset, folders_in, pictures_in, read_text
from mien.lab.datasets.official import Official, checked

LABELS = "EmoLabel/list_patition_label.txt"
OFFICIAL: Mapping[str, Official] = {
    "train": Official(
        "train",
        {"surprise": 1290, "fear": 281, "disgust": 717, "happy": 4772, "sad": 1982, "anger": 705, "neutral": 2524},
        "the owner's partition list: 12,271 rows",
    ),
    "test": Official(
        "test",
        {"surprise": 329, "fear": 74, "disgust": 160, "happy": 1185, "sad": 478, "anger": 162, "neutral": 680},
        "the owner's partition list: 3,068 rows",
    ),
}
OFFICIAL_COMPOUND: Mapping[str, Official] = {
    "train": Official("train", None, "Li and Deng, IEEE TIP 2019: 3,162 of 3,954 rows train", total=3_162),
    "test": Official("test", None, "Li and Deng, IEEE TIP 2019: 792 of 3,954 rows test", total=792),
}
_GENDER = {"0": "male", "1": "female", "2": "unsure"}
_RACE = {"0": "Caucasian", "1": "African-American", "2": "Asian"}
_AGE = {"0": "0-3", "1": "4-19", "2": "20-39", "3": "40-69", "4": "70+"}
_ATTRIBUTES: tuple[tuple[str, dict[str, str]], ...] = (("gender", _GENDER), ("race", _RACE), ("age", _AGE))


def load(root: Path, *, split: str, allow_partial: bool = False) -> FaceDataset:
    """One split ("train" or "test") of the basic set, seven classes in canonical order.

    Raises DataError when the layout is not there, a label is no code of the owner's, pictures are missing, or the
    counts per class are not the official ones (the last two not with `allow_partial`).
    """
    _check_split("rafdb", split)
    listing = _copied(root, split) or _listing(
        _base(root, "basic"), split, {c: canonical(w) for c, w in RAFDB.items()}, BASIC
    )
    data = dataset(listing, name="rafdb", split=split, label_rule="basic", classes=BASIC, allow_partial=allow_partial)
    return checked(data, OFFICIAL[split], where=root, allow_partial=allow_partial)


def load_compound(root: Path, *, split: str, allow_partial: bool = False) -> FaceDataset:
    """One split ("train" or "test") of the compound set, its eleven classes in the owner's order; errors as `load`."""
    _check_split("rafdb-compound", split)
    classes = tuple(COMPOUND.values())
    data = dataset(
        _listing(_base(root, "compound"), split, COMPOUND, classes),
        name="rafdb-compound",
        split=split,
        label_rule="compound",
        classes=classes,
        allow_partial=allow_partial,
    )
    return checked(data, OFFICIAL_COMPOUND[split], where=root, allow_partial=allow_partial)


def _check_split(name: str, split: str) -> None:
    if split not in OFFICIAL:
        raise DataError(
            f"{name} has no split {split!r}: its owner ships train and test; to train, pass --select-on holdout"
        )


def _base(root: Path, part: str) -> Path:
    for folder in (root, root / part):
        if (folder / LABELS).is_file():
            return folder
    raise DataError(
        f"{root}: no {LABELS} (the owner spells it so) there or in {part}/; pass --root the unpacked RAF-DB folder"
    )


def _listing(base: Path, split: str, codes: Mapping[int, str], classes: tuple[str, ...]) -> Listing:
    """The split's rows in the owner's order."""
    stems, labels = [], []
    for number, line in enumerate(read_text(base / LABELS).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2 or not cells[1].isdigit() or int(cells[1]) not in codes:
            raise DataError(
                f"{base / LABELS}, line {number}: {line!r}, expected a file name and a label from 1 to {len(codes)}"
            )
        if cells[0].startswith(f"{split}_"):
            stems.append(cells[0].rpartition(".")[0])
            labels.append(classes.index(codes[int(cells[1])]))
    aligned = (base / "Image" / "aligned").is_dir()
    pattern = "Image/aligned/{}_aligned.jpg" if aligned else "Image/original/{}.jpg"
    files = FaceFiles(str(base), tuple(pattern.format(stem) for stem in stems))
    return Listing(files, np.array(labels, np.int64), _attributes(base, stems))


def _attributes(base: Path, stems: list[str]) -> dict[str, tuple[str, ...]]:
    """gender, race and age of every picture, "" where its file does not say; nothing when the annotation is not
    there."""
    folder = base / "Annotation" / "manual"
    if not folder.is_dir():
        return {}
    codes = [_codes(folder / f"{stem}_manu_attri.txt") for stem in stems]
    return {
        name: tuple(words.get(row[column], "") for row in codes) for column, (name, words) in enumerate(_ATTRIBUTES)
    }


def _codes(file: Path) -> list[str]:
    """The three codes on the last lines, after five lines of landmarks."""
    lines = read_text(file).split("\n") if file.is_file() else []
    codes = [line.strip() for line in lines if len(line.split()) == 1]
    return codes[:3] if len(codes) >= 3 else ["", "", ""]


def _copied(root: Path, split: str) -> Listing | None:
    """The copies with numbered folders, or None. 1..7 are the owner's codes, 0..6 are AffectNet's."""
    for base in (root / "DATASET" / split, root / split):
        folders = folders_in(base) if base.is_dir() else []
        for codes in (RAFDB, AFFECTNET):
            if folders and set(folders) <= {str(code) for code in codes} and _tells(folders, codes):
                return _numbered(root, base, folders, codes)
    return None


def _tells(folders: list[str], codes: Mapping[int, str]) -> bool:
    """Whether the folder that only one of the two copies has (0 or 7) agrees with these codes."""
    return ("0" in folders) != ("7" in folders) and ("7" in folders) == (codes is RAFDB)


def _numbered(root: Path, base: Path, folders: list[str], codes: Mapping[int, str]) -> Listing:
    names: list[str] = []
    labels: list[int] = []
    for folder in folders:
        files = pictures_in(base / folder)
        names += [(base / folder / file).relative_to(root).as_posix() for file in files]
        labels += [BASIC.index(canonical(codes[int(folder)]))] * len(files)
    return Listing(FaceFiles(str(root), tuple(names)), np.array(labels, np.int64))
