"""How rows are divided where the owner does not say: stratified with a seed, contiguous folds, folds by subject."""

from collections.abc import Sequence

import numpy as np

from mien.errors import DataError


def stratified(labels: np.ndarray, shares: Sequence[float], *, seed: int) -> list[np.ndarray]:
    """Sorted row positions per part; every class is divided by `shares` (summing to 1), rounded to whole rows.

    A class with at least as many rows as parts has a row in every part whose share is not 0.
    """
    random = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        for part, chosen in zip(parts, np.split(rows, _bounds(len(rows), shares)), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in parts]


def _bounds(count: int, shares: Sequence[float]) -> np.ndarray:
    """Where to cut `count` rows; the last parts get at least one row each while the first keeps one."""
    sizes = np.round(np.array(shares) * count).astype(int)
    wanted = np.array(shares) > 0
    sizes = np.where(wanted & (count >= wanted.sum()), np.maximum(sizes, 1), sizes)
    sizes[0] = count - sizes[1:].sum()
    return np.cumsum(sizes)[:-1]


def dealt(labels: np.ndarray, folds: int, *, seed: int) -> list[np.ndarray]:
    """Sorted row positions per fold; every class is shuffled with the seed and dealt out evenly."""
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    return [np.sort(order[fold::folds]) for fold in range(folds)]


def contiguous(count: int, folds: int) -> list[np.ndarray]:
    """`folds` runs of neighbouring rows whose lengths differ by at most one."""
    return np.array_split(np.arange(count), folds)


def by_subject(subjects: Sequence[str], folds: int) -> list[np.ndarray]:
    """Row positions per fold: subjects sorted by name, every `folds`-th into the same fold, so no subject is in two
    folds."""
    place = {subject: number % folds for number, subject in enumerate(sorted(set(subjects)))}
    where = np.array([place[subject] for subject in subjects], np.int64)
    return [np.flatnonzero(where == fold) for fold in range(folds)]


def fold_rows(parts: Sequence[np.ndarray], split: str, fold: int | None, *, name: str) -> np.ndarray:
    """Rows of the split under cross-validation: test is the fold (counted from 1), train all the others, in order.

    Raises DataError when the fold is missing or out of range, or the split is neither.
    """
    if fold is None or not 1 <= fold <= len(parts):
        raise DataError(f"{name}: fold {fold}, expected 1 to {len(parts)}: cross-validation needs --fold")
    if split not in ("train", "test"):
        raise DataError(
            f"{name} has no split {split!r} under cross-validation: expected train, test, or all without --fold; to train, "
            "pass --select-on holdout"
        )
    if split == "test":
        return parts[fold - 1]
    return np.sort(np.concatenate([part for number, part in enumerate(parts, start=1) if number != fold]))
