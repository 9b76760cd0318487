"""Bring your own faces, as folders: one directory per expression, with or without train/valid/test above them.

Sub-folders of an expression's directory (one per person, say) are read, too. Without train/valid/test the pictures are
divided 80 / 10 / 10 within each class, with a fixed seed. With train and test but no valid, a tenth of train becomes
valid. Directory names go through the vocabulary ("angry" and "Anger" are one class), so the alphabetical order of
folders never decides a label.
"""

from collections.abc import Callable, Container
from pathlib import Path

import numpy as np

from mien.errors import DataError, LabelError
from mien.expressions import EXPRESSIONS, canonical
from mien.lab.datasets.dataset import SPLITS, AbsentSplitError, FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset, folders_in, pictures_in, pictures_under, some
from mien.lab.datasets.official import checked
from mien.lab.datasets.splitting import stratified

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
SHARES = (0.8, 0.1, 0.1)
SEED = 0


def load(root: Path, *, split: str) -> FaceDataset:
    """One split of the pictures under `root`. Groups: folder (the directory that the picture lies in).

    Raises DataError when a directory's name is no expression, two of them mean the same, or a split is empty.
    """
    if split not in SPLITS:
        raise DataError(f"folder has no split {split!r}: expected one of {', '.join(SPLITS)}")
    given: dict[str, str] = {}
    for name in folders_in(root):
        part = SPLIT_NAMES.get(name.lower())
        if part in given:
            raise DataError(f"{root}: directories {given[part]!r} and {name!r} both mean {part}; merge them")
        if part is not None:
            given[part] = name
    tree = {part: class_folders(root / name) for part, name in given.items()} or {"all": class_folders(root)}
    classes = tuple(name for name in EXPRESSIONS if any(name in folders for folders in tree.values()))
    source = split if split in tree else "train" if "train" in tree else "all"
    if source not in tree or (split == "test" and source == "train"):
        raise AbsentSplitError(
            f"{root}: folders {', '.join(given.values())} but none for {split}; add it, or drop the split folders"
        )
    names, labels = _listed(root, given.get(source, ""), tree[source], classes, pictures_under)
    rows, note = _divided(labels, split, source, tree.keys())
    files = FaceFiles(str(root), tuple(names[i] for i in rows))
    groups = {"folder": tuple(name.rpartition("/")[0] for name in files.names)}
    data = dataset(
        Listing(files, labels[rows], groups),
        name="folder",
        split=split,
        label_rule="folder names",
        classes=classes,
        allow_partial=False,
        note=note,
    )
    return checked(data, None, where=root, allow_partial=False)


def class_folders(folder: Path) -> dict[str, str]:
    """Canonical expression -> directory name. Raises DataError listing the names that are no expression."""
    found: dict[str, str] = {}
    unknown = []
    for name in folders_in(folder):
        try:
            expression = canonical(name)
        except LabelError:
            unknown.append(name)
            continue
        if expression in found:
            raise DataError(
                f"{folder}: directories {found[expression]!r} and {name!r} both mean {expression}; merge them"
            )
        found[expression] = name
    if unknown or not found:
        told = f"unknown expressions {some(unknown, 12)}" if unknown else "no directory per expression"
        raise DataError(f"{folder}: {told}; expected directories named {', '.join(EXPRESSIONS)} or an alias of these")
    return found


def pictures_of_classes(root: Path, base: Path, classes: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names relative to `root` and labels (N,) int64 over `classes` of the pictures in `base`, directly in one directory
    per expression, as owners ship them. Raises DataError for a directory whose expression is not among the classes."""
    folders = class_folders(base)
    strange = [f"{directory!r}" for expression, directory in folders.items() if expression not in classes]
    if strange:
        raise DataError(f"{base}: directories {some(strange)}; expected {', '.join(classes)} or an alias of these")
    names, labels = _listed(root, base.relative_to(root).as_posix(), folders, classes, pictures_in)
    return tuple(names), labels


def _listed(
    root: Path, above: str, folders: dict[str, str], classes: tuple[str, ...], pictures: Callable[[Path], list[str]]
) -> tuple[list[str], np.ndarray]:
    """Names relative to root, and labels, class after class. pictures: the names that count in a directory."""
    names: list[str] = []
    labels: list[int] = []
    for expression, directory in folders.items():
        relative = f"{above}/{directory}" if above else directory
        files = pictures(root / relative)
        names += [f"{relative}/{file}" for file in files]
        labels += [classes.index(expression)] * len(files)
    return names, np.array(labels, np.int64)


def _divided(labels: np.ndarray, split: str, source: str, given: Container[str]) -> tuple[np.ndarray, str]:
    """Rows of `split` within the rows of the folder that it comes from, and a note on how they were chosen."""
    if source == "all":
        part = stratified(labels, SHARES, seed=SEED)[SPLITS.index(split)]
        return part, f"divided {SHARES} within each class with seed {SEED}"
    if source == "train" and "valid" not in given:
        train, valid = stratified(labels, (0.9, 0.1), seed=SEED)
        return (
            train if split == "train" else valid
        ), f"valid is a tenth of train, drawn within each class with seed {SEED}"
    return np.arange(len(labels)), ""
