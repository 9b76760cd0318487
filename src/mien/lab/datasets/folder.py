"""Bring your own faces, as folders: one directory per expression, with or without train/valid/test above them.

Sub-folders of an expression's directory (one per person, say) are read, too. Without train/valid/test the pictures are
divided 80 / 10 / 10, or for cross-validation into ten folds, within each class, with a fixed seed; split "all" gives them
undivided. With train and test but no valid, a tenth of train becomes valid. Directory names go through the vocabulary
("angry" and "Anger" are one class), so the alphabetical order of folders never decides a label.
"""

from collections.abc import Callable, Container, Sequence
from pathlib import Path

import numpy as np

from mien.errors import DataError, LabelError
from mien.expressions import EXPRESSIONS, canonical
from mien.lab.datasets.dataset import SPLITS, AbsentSplitError, FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset, folders_in, pictures_in, pictures_under, some
from mien.lab.datasets.official import checked
from mien.lab.datasets.splitting import by_subject, dealt, fold_rows, stratified

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
SHARES = (0.8, 0.1, 0.1)  # tenths, so that by subject they are folds, too
FOLDS = 10
SEED = 0


def load(root: Path, *, split: str, fold: int | None = None) -> FaceDataset:
    """One split of the pictures under `root`. Folds count from 1: test is the fold, train the others. Groups: folder (the
    directories below the expression's that the picture lies in, "" for none).

    Raises DataError when a directory's name is no expression, two of them mean the same, a split is empty, pictures lie where they
    would be in no split or the wrong one, or a fold is asked for of what folders divide.
    """
    if split not in (*SPLITS, "all"):
        raise DataError(f"folder has no split {split!r}: expected one of {', '.join(SPLITS)}, all")
    given: dict[str, str] = {}
    for name in folders_in(root):
        part = SPLIT_NAMES.get(name.lower())
        if part in given:
            raise DataError(f"{root}: directories {given[part]!r} and {name!r} both mean {part}; merge them")
        if part is not None:
            given[part] = name
    if given and (fold is not None or split == "all"):
        raise DataError(
            f"{root}: folders {', '.join(given.values())} divide the pictures: leave --fold out and choose one of these splits, "
            "or drop the split folders"
        )
    beside = [name for name in folders_in(root) if _expression(name)] if given else []
    if beside:
        raise DataError(
            f"{root}: directories {some(beside, 12)} lie beside the split folders {', '.join(given.values())}, so that their "
            f"pictures are in no split; move them into one, e.g. {next(iter(given.values()))}/{beside[0]}"
        )
    tree = {part: class_folders(root / name) for part, name in given.items()} or {"all": class_folders(root)}
    classes = tuple(name for name in EXPRESSIONS if any(name in folders for folders in tree.values()))
    source = split if split in tree else "train" if "train" in tree else "all"
    if source not in tree or (split == "test" and source == "train"):
        raise AbsentSplitError(
            f"{root}: folders {', '.join(given.values())} but none for {split}; add it, or drop the split folders"
        )
    names, labels = _listed(root, given.get(source, ""), tree[source], classes, pictures_under)
    if not given:
        _no_splits_below(root, names)
    if fold is not None:
        rows, note = folded(labels, split, fold, name="folder")
    else:
        rows, note = _divided(labels, split, source, tree.keys())
    files = FaceFiles(str(root), tuple(names[i] for i in rows))
    above = 2 if source in given else 1  # the split's and the expression's directory, which are no group
    groups = {"folder": tuple("/".join(name.split("/")[above:-1]) for name in files.names)}
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


def _no_splits_below(root: Path, names: Sequence[str]) -> None:
    """Raises DataError for train/valid/test below an expression, whose pictures would be divided anew. names: of the pictures,
    from the expression's directory on."""
    found: dict[str, set[str]] = {}
    for parts in (name.split("/") for name in names):
        if len(parts) > 2 and parts[1].lower() in SPLIT_NAMES:
            found.setdefault(parts[0], set()).add(parts[1])
    for directory, splits in found.items():
        if len(splits) > 1:
            raise DataError(
                f"{root / directory}: split folders {', '.join(sorted(splits))} lie below the expression's, where they divide "
                f"nothing; put the splits above the expressions, e.g. {min(splits)}/{directory}"
            )


def _expression(name: str) -> str | None:
    """The expression that a directory's name means, None for none."""
    try:
        return canonical(name)
    except LabelError:
        return None


def class_folders(folder: Path) -> dict[str, str]:
    """Canonical expression -> directory name. Raises DataError listing the names that are no expression."""
    found: dict[str, str] = {}
    unknown = []
    for name in folders_in(folder):
        expression = _expression(name)
        if expression is None:
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
    if split == "all":
        return np.arange(len(labels)), ""
    if source == "all":
        part = stratified(labels, SHARES, seed=SEED)[SPLITS.index(split)]
        return part, f"divided {SHARES} within each class with seed {SEED}"
    if source == "train" and "valid" not in given:
        train, valid = stratified(labels, (0.9, 0.1), seed=SEED)
        return (
            train if split == "train" else valid
        ), f"valid is a tenth of train, drawn within each class with seed {SEED}"
    return np.arange(len(labels)), ""


def folded(
    labels: np.ndarray, split: str, fold: int, *, name: str, subjects: Sequence[str] | None = None
) -> tuple[np.ndarray, str]:
    """Rows of `split` in this fold of FOLDS, or of as many as subjects where these are fewer, and a note on it. subjects: of each
    row, where they are known, so that no subject is in two folds. Raises DataError for a single subject, or a fold that there is
    not."""
    if subjects is None:
        parts, how = dealt(labels, FOLDS, seed=SEED), f"dealt out within each class with seed {SEED}"
    else:
        people = len(set(subjects))
        if people < 2:
            raise DataError(f"{name}: one subject, {subjects[0]}: folds by subject need two or more; leave --fold out")
        parts, how = by_subject(subjects, min(FOLDS, people)), "by subject"
    return fold_rows(parts, split, fold, name=name), f"fold {fold} of {len(parts)}, {how}"
