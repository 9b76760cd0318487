"""Bring your own faces, as a table: path,label[,split][,subject][,group_<name>...][,p_<expression>...], a row per face.

Paths are relative to the file's folder. Labels are names from the vocabulary; numbers are refused, since every owner
numbers differently. subject is the person; a group_ column (group_gender, say) is an attribute to judge by, or under
the names group_film, group_sequence and group_picture what faces were taken from together. An empty cell is unknown.
The p_ columns are a label distribution or vote counts, one column for each class that is a label; they are normalised
to sum 1. The note names the columns that are none of these. Without a split column rows are divided 80 / 10 / 10, or for
cross-validation into ten folds (as many as subjects, where these are fewer): by subject where that is known, else within
each class with a fixed seed. Split "all" gives all rows.
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
from mien.lab.datasets.folder import FOLDS, SEED, SHARES, SPLIT_NAMES, folded
from mien.lab.datasets.official import checked
from mien.lab.datasets.splitting import by_subject, stratified

COLUMNS = "path,label[,split][,subject][,group_<name>...][,p_<expression>...]"


@dataclass(frozen=True)
class _Table:
    """The file's columns: names and labels (canonical words) of N rows, splits (N) or None, groups of N values, votes (N,
    K) or None over `voted`, and the headers of those that mean nothing here."""

    names: list[str]
    labels: list[str]
    splits: list[str] | None
    groups: dict[str, tuple[str, ...]]
    voted: tuple[str, ...]
    votes: np.ndarray | None
    unused: list[str]


def load(root: Path, *, split: str, fold: int | None = None, allow_partial: bool = False) -> FaceDataset:
    """One split of the table at `root` (the CSV file itself). Folds count from 1: test is the fold, train the others.

    Raises DataError for a missing column, unknown labels or splits (all of them listed), a number that is none, a row
    without votes, pictures that are not there (not with `allow_partial`), or a fold of rows that a split column divides.
    """
    if split not in (*SPLITS, "all"):
        raise DataError(f"csv has no split {split!r}: expected one of {', '.join(SPLITS)}, all")
    table = _read(root)
    classes = tuple(name for name in EXPRESSIONS if name in table.labels or name in table.voted)
    labels = np.array([classes.index(word) for word in table.labels], np.int64)
    rows, divided = _rows(table, labels, split, fold)
    votes = None if table.votes is None else _votes(table.voted, table.votes, classes)
    data = dataset(
        Listing(FaceFiles(str(root.parent), tuple(table.names)), labels, table.groups, votes=votes).rows(rows),
        name="csv",
        split=split,
        label_rule="label column",
        classes=classes,
        allow_partial=allow_partial,
        note="; ".join(filter(None, (divided, _unused(table.unused)))),
    )
    data = replace(data, note="; ".join(filter(None, (data.note, _disagreement(data)))))
    return checked(data, None, where=root, allow_partial=allow_partial)


def _read(file: Path) -> _Table:
    if not file.is_file():
        raise DataError(f"{file}: no such file; --data csv wants --root FILE, a table with columns {COLUMNS}")
    reader = csv.reader(io.StringIO(read_text(file), newline=""))
    header = [name.strip().lower() for name in next(reader, [])]
    if "path" not in header or "label" not in header:
        raise DataError(f"{file}: columns {', '.join(header) or 'none'}; expected {COLUMNS}")
    numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    ragged = [line for line, row in numbered if len(row) != len(header)]
    if ragged:
        raise DataError(
            f"{file}: lines {some(ragged)} do not have the header's {len(header)} cells; quote cells with commas in them"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{file}: more than one column is called {', '.join(twice)}; expected each once")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    names = _paths(file, lines, columns["path"])
    labels = _resolved(file, "label", columns["label"])
    voted = _voted(file, header, labels)
    attributes = _attributes(file, header)
    used = ("path", "label", "split", *voted, *attributes.values())
    return _Table(
        names,
        labels,
        _splits(file, columns["split"]) if "split" in header else None,
        {attribute: tuple(columns[name]) for attribute, name in attributes.items()},
        tuple(voted.values()),
        _numbers(file, np.array(lines), [columns[name] for name in voted]) if voted else None,
        [name for name in header if name not in used],
    )


def _paths(file: Path, lines: list[int], cells: list[str]) -> list[str]:
    """The pictures' names, "/" between parts. Raises DataError where one is empty or stands in two rows."""
    names = [cell.replace("\\", "/") for cell in cells]
    place: dict[str, int] = {}
    for line, name in zip(lines, names, strict=True):
        if not name:
            raise DataError(f"{file}, line {line}: no path; expected a picture in every row")
        if name in place:
            raise DataError(
                f"{file}, lines {place[name]} and {line}: {name!r} twice; expected a row per face: keep one of them, and what "
                "several people saw in it as votes in p_ columns"
            )
        place[name] = line
    return names


def _voted(file: Path, header: list[str], labels: list[str]) -> dict[str, str]:
    """p_ column -> its expression. Raises DataError when two are of one expression, or a label has none."""
    names = [name for name in header if name.startswith("p_")]
    resolved = _resolved(file, "column", [name.removeprefix("p_") for name in names])
    same = [name for name, expression in zip(names, resolved, strict=True) if resolved.count(expression) > 1]
    if same:
        raise DataError(f"{file}: columns {', '.join(same)} are votes for one expression; expected one column for each")
    without = [f"p_{name}" for name in EXPRESSIONS if name in labels and name not in resolved]
    if names and without:
        raise DataError(f"{file}: labels without votes; expected a p_ column for every label: add {', '.join(without)}")
    return dict(zip(names, resolved, strict=True))


def _attributes(file: Path, header: list[str]) -> dict[str, str]:
    """Attribute of a face -> the column that tells it."""
    if "subject" in header and "group_subject" in header:
        raise DataError(f"{file}: columns subject and group_subject mean the same; expected one of them")
    return {name.removeprefix("group_"): name for name in header if name == "subject" or name.startswith("group_")}


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


def _numbers(file: Path, lines: np.ndarray, columns: list[list[str]]) -> np.ndarray:
    """(N, K) float64, not negative and not all 0 in a row. lines: (N,) where the rows stand. Raises DataError naming those with
    something else."""
    try:
        values = np.array(columns, np.float64).T
    except ValueError as error:
        raise DataError(
            f"{file}: a p_ column holds something that is no number ({error}); write 0 where there is no vote"
        ) from None
    wrong = np.flatnonzero((~np.isfinite(values) | (values < 0)).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{file}, lines {some(lines[wrong])}: p_ values {values[wrong[0]].tolist()}, expected finite numbers >= 0"
        )
    empty = np.flatnonzero(values.sum(axis=1) == 0)
    if len(empty):
        raise DataError(
            f"{file}, lines {some(lines[empty])}: p_ values sum to 0, expected a vote in every row; give the label's column 1 "
            "where nobody voted"
        )
    return values


def _votes(voted: tuple[str, ...], numbers: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """(N, K) float32 over `classes`, rows summing to 1."""
    votes = np.zeros((len(numbers), len(classes)))
    votes[:, [classes.index(name) for name in voted]] = numbers
    return (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)


def _disagreement(data: FaceDataset) -> str:
    """A note on the rows whose label is not the likeliest class, or one of these, of their votes."""
    if data.votes is None:
        return ""
    rows = int((data.votes[np.arange(len(data)), data.labels] < data.votes.max(axis=1)).sum())
    return f"the label is not the likeliest p_ class in {rows:,} of {len(data):,} rows" if rows else ""


def _unused(names: list[str]) -> str:
    return f"columns not used: {some(map(repr, names), 12)} (an attribute is called group_<name>)" if names else ""


def _rows(table: _Table, labels: np.ndarray, split: str, fold: int | None) -> tuple[np.ndarray, str]:
    """Rows of `split`, and a note on how they were chosen where the table does not say."""
    if fold is not None and table.splits is not None:
        raise DataError(f"csv: fold {fold} of rows that a split column divides: leave --fold out, or drop the column")
    if fold is None and split == "all":
        return np.arange(len(labels)), ""
    if table.splits is not None:
        return np.flatnonzero(np.array(table.splits, str) == split), ""
    subjects = _subjects(table)
    if fold is not None:
        return folded(labels, split, fold, name="csv", subjects=subjects)
    if subjects is None:
        part = stratified(labels, SHARES, seed=SEED)[SPLITS.index(split)]
        return part, f"divided {SHARES} within each class with seed {SEED}"
    first, valid, test, *others = by_subject(subjects, FOLDS)
    parts = {"train": np.sort(np.concatenate([first, *others])), "valid": valid, "test": test}
    if not len(parts[split]):
        raise DataError(
            f"csv: of {len(set(subjects))} subjects none is left for {split}; give the rows a split column, or pass --fold K"
        )
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in parts.items())
    return parts[split], f"divided by subject into {counts} rows"


def _subjects(table: _Table) -> list[str] | None:
    """The subject of each row, a row without one alone under its name; None where none is known."""
    told = table.groups.get("subject", ())
    return [subject or name for subject, name in zip(told, table.names, strict=True)] if any(told) else None
