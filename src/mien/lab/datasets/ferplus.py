"""FER+ (Barsoum et al., 2016): ten crowd votes for each FER-2013 row, eight expressions plus unknown and NF (not a face).

``fer2013new.csv`` lies beside the FER-2013 file, or in a folder ferplus/ beside a folder fer2013/. The two are joined **by
row position**: the digits in "Image name" are not the row index and four names occur twice. Rows with an empty name were
removed from FER+ and are skipped. Which rows count, and what their label is, is the label rule: figures under different
rules are not comparable, so it is part of every protocol.
"""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mien.errors import DataError
from mien.expressions import EXPRESSIONS, FERPLUS_COLUMNS, canonical
from mien.lab.datasets import fer2013
from mien.lab.datasets.dataset import FaceDataset, fingerprint

JOINT = "joint"  # the label rule that learns from both label sets at once

# Rows kept from fer2013new.csv: (train, valid, test); None where it was never counted.
COUNTS: dict[str, tuple[int | None, ...]] = {
    "majority": (25_060, 3_199, 3_153),
    "argmax10": (28_389, 3_553, 3_546),
    "argmax8": (28_559, 3_579, 3_573),
    "distribution": (25_060, 3_199, 3_153),
    "probability": (27_956, 3_199, 3_153),
    "crossentropy": (27_956, 3_199, 3_153),
    "multi_target": (27_671, 3_199, 3_153),
    JOINT: (28_709, 3_589, 3_589),
}
DEFAULT_RULE = "majority"
_TRAIN_ONLY = ("probability", "crossentropy", "multi_target")  # the release evaluates every mode on majority rows
_ORDER = [
    FERPLUS_COLUMNS.index(word) for name in EXPRESSIONS for word in FERPLUS_COLUMNS[:8] if canonical(word) == name
]

Ruling = tuple[np.ndarray, np.ndarray, np.ndarray]  # keep (N,) bool, labels (N,) int64, distributions (N, 8) float32


def load(root: Path, *, split: str, label_rule: str | None = None, allow_partial: bool = False) -> FaceDataset:
    """One split under one rule (see COUNTS for the names; default "majority").

    "joint" keeps every FER-2013 row with its FER-2013 label and gives the FER+ distribution as votes (all zero where no
    expression got two votes): what a network with both heads trains on.
    Raises DataError when a file is absent, the two files' rows do not match, or a count is not the official one.
    """
    rule = DEFAULT_RULE if label_rule is None else label_rule
    if rule not in COUNTS:
        raise DataError(f"ferplus has no label rule {rule!r}: expected one of {', '.join(COUNTS)}")
    if split not in fer2013.USAGE:
        raise DataError(f"ferplus has no split {split!r}: expected one of {', '.join(fer2013.USAGE)}")
    rows = fer2013.read_csv(_faces_file(root))
    ballots, named = read_votes(_votes_file(root), rows.usage)
    chosen = fer2013.rows_of(rows, split)
    fer2013.check_count(f"fer2013 {split} under {root}", len(chosen), fer2013.COUNTS[split], allow_partial)
    kept, labels, votes, note = _ruled(rule, split, ballots[chosen], named[chosen], rows.labels[chosen])
    chosen = chosen[kept]
    official = COUNTS[rule][list(fer2013.USAGE).index(split)]
    if official is not None:
        fer2013.check_count(f"ferplus {split} by rule {rule!r} under {root}", len(chosen), official, allow_partial)
    pixels = rows.pixels[chosen]
    ids = tuple(f"{row:05d}" for row in chosen)
    return FaceDataset(
        name="ferplus",
        split=split,
        label_rule=rule,
        classes=EXPRESSIONS,
        labels=labels[kept],
        ids=ids,
        read=lambda i: np.repeat(pixels[i][:, :, None], 3, axis=2),
        fingerprint=fingerprint(ids, labels[kept], hashlib.sha256(pixels.tobytes()).hexdigest(), rule),
        votes=votes[kept],
        note=note,
    )


def _ruled(
    rule: str, split: str, ballots: np.ndarray, named: np.ndarray, hard: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Positions kept, labels, distributions and a note, under `rule` as it applies to this split."""
    if rule == JOINT:
        usable, _, votes = _distribution(ballots)
        return np.arange(len(hard)), hard, votes * (named & usable)[:, None], "labels are FER-2013's, votes FER+'s"
    applied = "majority" if rule in _TRAIN_ONLY and split != "train" else rule
    keep, labels, votes = RULES[applied](ballots)
    keep = keep & named
    notes = [f"{int((~named).sum())} unnamed rows skipped"]
    if applied != rule:
        notes.append(f"rule majority, as the release evaluates {rule}")
    if rule == "argmax8":
        notes.append(f"{int((_ties(ballots) & keep).sum())} ties went to the first in canonical order")
    return np.flatnonzero(keep), labels, votes, "; ".join(notes)


def _faces_file(root: Path) -> Path:
    beside = root.parent / "fer2013"
    only_votes = (root / "fer2013new.csv").is_file() and fer2013.csv_in(root) is None
    file = fer2013.find_csv(beside if only_votes and beside.is_dir() else root)
    if file is None:
        raise DataError(
            f"ferplus is joined to FER-2013 by row position: {root} holds image folders, it needs fer2013.csv"
        )
    return file


def _votes_file(root: Path) -> Path:
    folder = root.parent if root.is_file() else root
    places = [
        folder / "fer2013new.csv",
        folder / "ferplus" / "fer2013new.csv",
        folder.parent / "ferplus" / "fer2013new.csv",
    ]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"ferplus: no fer2013new.csv in {folder}, its ferplus/ or the ferplus/ beside it; pass --root their folder"
    )


def read_votes(file: Path, usage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Votes (N, 10) int64 in the release's column order and named (N,) bool, checked row by row against FER-2013's usage. Raises
    DataError where the two differ, or a row's votes are no whole numbers."""
    with fer2013.open_text(file) as lines:
        rows = [row for row in csv.reader(lines) if row]
    header = tuple(cell.strip() for cell in rows[0][2:]) if rows else ()
    if header != FERPLUS_COLUMNS:
        raise DataError(f"{file}: vote columns {', '.join(header)}; expected {', '.join(FERPLUS_COLUMNS)}")
    body = rows[1:]
    if len(body) != len(usage):
        raise DataError(
            f"{file}: {len(body):,} rows, FER-2013 beside it has {len(usage):,}; they are joined by row position"
        )
    wrong = next((i for i, row in enumerate(body) if row[0].strip() != usage[i]), None)
    if wrong is not None:
        raise DataError(
            f"{file}, line {wrong + 2}: usage {body[wrong][0]!r} where FER-2013 has {usage[wrong]!r}; the orders differ"
        )
    votes = np.array([_ballot(row, f"{file}, line {number}") for number, row in enumerate(body, start=2)], np.int64)
    return votes, np.array([bool(row[1].strip()) for row in body])


def _ballot(row: list[str], where: str) -> list[int]:
    """The ten counts of a row: usage, image name, votes."""
    counts = [cell.strip() for cell in row[2:]]
    if len(counts) != len(FERPLUS_COLUMNS) or not all(count.isdecimal() for count in counts):
        raise DataError(f"{where}: votes {', '.join(counts) or 'none'}; expected {len(FERPLUS_COLUMNS)} whole numbers")
    return [int(count) for count in counts]


# The rules. Each takes votes (N, 10) and keeps the release's outlier rule first where the release does.


def _without_singles(ballots: np.ndarray) -> np.ndarray:
    """A class with a single vote is an outlier and is set to zero, unknown and NF included (FER+ release)."""
    return np.where(ballots <= 1, 0, ballots)


def _expressions(ballots: np.ndarray) -> np.ndarray:
    """(N, 10) in the release's order -> (N, 8) in canonical order."""
    return ballots[:, _ORDER]


def _normalised(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    return (weights / np.where(total == 0, 1, total)).astype(np.float32)


def _distribution(ballots: np.ndarray) -> Ruling:
    """Every row on which an expression got two votes: unknown and NF cut, renormalised."""
    votes = _normalised(_expressions(_without_singles(ballots)))
    return votes.sum(axis=1) > 0, votes.argmax(axis=1), votes


def _majority(ballots: np.ndarray) -> Ruling:
    """Kept when the winner has more than half of the remaining votes and is an expression."""
    left = _without_singles(ballots)
    keep = (left.max(axis=1) > 0.5 * left.sum(axis=1)) & (left.argmax(axis=1) < 8)
    votes = _normalised(_expressions(left))
    return keep, votes.argmax(axis=1), votes


def _argmax10(ballots: np.ndarray) -> Ruling:
    """The winner of all ten columns (ties to the first in the release's order), kept if it is an expression."""
    winner = ballots.argmax(axis=1)
    position = np.array([_ORDER.index(c) if c in _ORDER else 0 for c in range(10)])
    return (winner < 8) & (ballots.sum(axis=1) > 0), position[winner], _normalised(_expressions(ballots))


def _argmax8(ballots: np.ndarray) -> Ruling:
    """The winner among the eight, ties to the first in canonical order; any expression vote is enough."""
    votes = _expressions(ballots)
    return votes.sum(axis=1) > 0, votes.argmax(axis=1), _normalised(votes)


def _ties(ballots: np.ndarray) -> np.ndarray:
    votes = _expressions(ballots)
    return (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1


def _crossentropy(ballots: np.ndarray) -> Ruling:
    """Top classes until 75 % of the votes or three classes are reached (equal counts enter together). Unknown or NF stops
    the search and does not count when an expression came before it. Dropped: half of the votes or less covered, more than
    three classes, or unknown or NF first."""
    left = _without_singles(ballots)
    return _kept_top(left, np.array([_top_classes(row) for row in left]), most=3)


def _multi_target(ballots: np.ndarray) -> Ruling:
    """Every class with at least 30 % of the votes is a target, all with equal weight; dropped when the targets cover half
    of the votes or less, or when unknown or NF leads."""
    left = _without_singles(ballots)
    keep, labels, votes = _kept_top(left, (left >= 0.3 * left.sum(axis=1, keepdims=True)) & (left > 0), most=10)
    return keep, labels, _normalised((votes > 0).astype(np.float64))


def _top_classes(row: np.ndarray) -> np.ndarray:
    """(10,) votes -> (10,) bool: the classes that `_crossentropy` takes."""
    taken = np.zeros(10, bool)
    while row[taken].sum() < 0.75 * row.sum() and taken.sum() < 3:
        top = np.where(taken, -1, row).max()
        level = np.flatnonzero((row == top) & ~taken)
        taken[level[level < 8]] = True
        if (level >= 8).any():
            taken[level[level >= 8][0]] = not taken.any()
            break
    return taken


def _kept_top(left: np.ndarray, taken: np.ndarray, most: int) -> Ruling:
    """Keep rows whose taken classes cover more than half of the votes, number at most `most`, and are led by an expression."""
    weights = np.where(taken, left, 0)
    covered = weights.sum(axis=1) > 0.5 * left.sum(axis=1)
    keep = covered & (taken.sum(axis=1) <= most) & (weights.argmax(axis=1) < 8)
    votes = _normalised(_expressions(weights))
    return keep, votes.argmax(axis=1), votes


RULES: dict[str, Callable[[np.ndarray], Ruling]] = {
    "majority": _majority,
    "distribution": _majority,
    "argmax10": _argmax10,
    "argmax8": _argmax8,
    "probability": _crossentropy,
    "crossentropy": _crossentropy,
    "multi_target": _multi_target,
}
