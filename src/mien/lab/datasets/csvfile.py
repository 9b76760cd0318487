"""Bring your own faces, as a table: path,label[,split][,p_<expression>...], one row per face.

Paths are relative to the file's folder. Labels are names from the vocabulary; numbers are refused, since every owner
numbers differently. The p_ columns are a label distribution or vote counts, one column per class; they are normalised
to sum 1. Without a split column rows are divided 80 / 10 / 10 within each class, with a fixed seed.
"""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mien.errors import DataError, LabelError
from mien.expressions import EXPRESSIONS, canonical
from mien.lab.datasets.dataset import SPLITS, FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset, read_text, some
from mien.lab.datasets.folder import SEED, SHARES, SPLIT_NAMES
from mien.lab.datasets.official import checked
from mien.lab.datasets.splitting import stratified


@dataclass(frozen=True)
class _Table:
    """The file's columns: names and labels (canonical words) of N rows, splits (N) or None, votes (N, K) or None over
    `voted`."""

    names: list[str]
    labels: list[str]
    splits: list[str] | None
    voted: tuple[str, ...]
    votes: np.ndarray | None


def load(root: Path, *, split: str) -> FaceDataset:
    """One split of the table at `root` (the CSV file itself).

    Raises DataError for a missing column, unknown labels or splits (all of them listed), a number that is none, or
    pictures that are not there.
    """
    if split not in SPLITS:
        raise DataError(f"csv has no split {split!r}: expected one of {', '.join(SPLITS)}")
    table = _read(root)
    classes = tuple(name for name in EXPRESSIONS if name in table.labels or name in table.voted)
    labels = np.array([classes.index(word) for word in table.labels], np.int64)
    rows = _rows(table, labels, split)
    data = dataset(
        Listing(FaceFiles(str(root.parent), tuple(table.names[i] for i in rows)), labels[rows]),
        name="csv",
        split=split,
        label_rule="label column",
        classes=classes,
        allow_partial=False,
        note="" if table.splits is not None else f"divided {SHARES} within each class with seed {SEED}",
    )
    if table.votes is not None:
        data = replace(data, votes=_votes(table.voted, table.votes, classes)[rows])
    return checked(data, None, where=root, allow_partial=False)


def _read(file: Path) -> _Table:
    if not file.is_file():
        raise DataError(
            f"{file}: no such file; --data csv wants --root FILE, a table with columns path,label[,split][,p_...]"
        )
    reader = csv.reader(io.StringIO(read_text(file), newline=""))
    header = [name.strip().lower() for name in next(reader, [])]
    if "path" not in header or "label" not in header:
        raise DataError(
            f"{file}: columns {', '.join(header) or 'none'}; expected path,label[,split][,p_<expression>...]"
        )
    rows = [[cell.strip() for cell in row] for row in reader if any(row)]
    ragged = [number for number, row in enumerate(rows, start=2) if len(row) != len(header)]
    if ragged:
        raise DataError(
            f"{file}: rows {some(ragged)} do not have the header's {len(header)} cells; quote cells with commas in them"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{file}: more than one column is called {', '.join(twice)}; expected each once")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    names = [name.replace("\\", "/") for name in columns["path"]]
    voted = [name for name in header if name.startswith("p_")]
    resolved = _resolved(file, "column", [name.removeprefix("p_") for name in voted])
    same = [name for name, expression in zip(voted, resolved, strict=True) if resolved.count(expression) > 1]
    if same:
        raise DataError(f"{file}: columns {', '.join(same)} are votes for one expression; expected one column for each")
    return _Table(
        names,
        _resolved(file, "label", columns["label"]),
        _splits(file, columns["split"]) if "split" in header else None,
        tuple(resolved),
        _numbers(file, [columns[name] for name in voted]) if voted else None,
    )


def _resolved(file: Path, what: str, words: list[str]) -> list[str]:
    """Canonical spellings. Raises DataError listing every word that is not in the vocabulary."""
    spelling: dict[str, str] = {}
    unknown = []
    for word in sorted(set(words)):
        try:
            spelling[word] = canonical(word)
        except LabelError:
            unknown.append(repr(word))
    if unknown:
        raise DataError(
            f"{file}: unknown {what} {some(unknown, 12)}; expected {', '.join(EXPRESSIONS)} or an alias of these"
        )
    return [spelling[word] for word in words]


def _splits(file: Path, words: list[str]) -> list[str]:
    unknown = sorted({repr(word) for word in words if word.lower() not in SPLIT_NAMES})
    if unknown:
        raise DataError(f"{file}: unknown split {some(unknown)}; expected one of {', '.join(SPLIT_NAMES)}")
    return [SPLIT_NAMES[word.lower()] for word in words]


def _numbers(file: Path, columns: list[list[str]]) -> np.ndarray:
    """(N, K) float64, not negative. Raises DataError naming the first line with something else."""
    try:
        values = np.array(columns, np.float64).T
    except ValueError as error:
        raise DataError(
            f"{file}: a p_ column holds something that is no number ({error}); write 0 where there is no vote"
        ) from None
    wrong = np.flatnonzero((~np.isfinite(values) | (values < 0)).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{file}, lines {some(wrong + 2)}: p_ values {values[wrong[0]].tolist()}, expected finite numbers >= 0"
        )
    return values


def _votes(voted: tuple[str, ...], numbers: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """(N, K) float32 over `classes`, rows summing to 1, or all zero where the file's row is."""
    votes = np.zeros((len(numbers), len(classes)))
    votes[:, [classes.index(name) for name in voted]] = numbers
    total = votes.sum(axis=1, keepdims=True)
    return (votes / np.where(total == 0, 1, total)).astype(np.float32)


def _rows(table: _Table, labels: np.ndarray, split: str) -> np.ndarray:
    if table.splits is None:
        return stratified(labels, SHARES, seed=SEED)[SPLITS.index(split)]
    return np.flatnonzero(np.array(table.splits, str) == split)
