"""Rows of a training split that a run does not learn from: a fixed tenth to choose the epoch by, or one of several parts, which
other runs learn from. The divisions are the same for every run and seed. What was sampled together stays together: a subject's,
film's, sequence's or picture's rows where a dataset knows them, else exact copies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import UsageError
from mien.lab.datasets.dataset import IDENTITIES, FaceDataset
from mien.lab.evaluation.leaks import HASHED_ROWS, pixel_hashes

HOLDOUT_SHARE = 0.1  # of the training split, per class
_SEED = 20_130_101


@dataclass(frozen=True, order=True)
class Part:
    """Part `number`, from 1, of `of` equal ones."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not (self.of >= 2 and 1 <= self.number <= self.of):
            raise UsageError(f"part {self}: expected K/N with N 2 or more and K from 1 to N, as 1/3")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Of "1/3". Raises UsageError for other words."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal()):
            raise UsageError(f"part {text!r}: expected K/N, as 1/3: the first of three equal parts")
        return cls(int(number), int(of))

    def rows(self, data: FaceDataset) -> np.ndarray:
        """(n,) the sorted positions of its rows in a training split. Every class is dealt out evenly where single
        pictures are dealt. Raises UsageError where there are fewer to deal than parts."""
        dealt = np.empty(len(data), np.int64)
        place = 0
        for _, units in _strata(data):
            for rows in units:
                dealt[rows] = place % self.of
                place += 1
        if place < self.of:
            raise UsageError(
                f"part {self}: {data.name} {data.split} has {place:,} {identity(data) or 'picture'}(s) to share out among "
                f"{self.of:,} parts; take a smaller N"
            )
        return np.flatnonzero(dealt == self.number - 1)


def may_know(facts: Mapping[str, Any]) -> list[str]:
    """Of a run's facts, the files that it began with ("--pretrained, FILE") or was taught by ("--teacher, FILE") which may have
    learnt the part that the run left out; of a mean of runs, which does not say what those began with, they themselves. A file
    has not where it learnt from the same rows, and neither it nor what went before it from others; others' weights are taken at
    their word."""
    if "averaged" in facts:
        return ["runs, of which it is the mean"]
    data = facts["data"]
    knowing = []
    for what in ("pretrained", "teacher"):
        of = facts[what] or []
        for origin in of if isinstance(of, list) else [of]:
            taken = what == "pretrained" and Path(origin["file"]).suffix not in (".ckpt", ".onnx")
            if not taken and any(origin.get(name) != data[name] for name in ("left_out", "fingerprint")):
                knowing.append(f"--{what}, {origin['file']}")
    return knowing


def holdout_ids(data: FaceDataset) -> tuple[str, ...]:
    """The ids of the fixed tenth of a training split, stratified by class where single pictures are drawn. FER-2013's Training
    has 1,236 surplus copies, which stay on one side with their originals; CK+'s subjects do, too. Of a few subjects, each with more
    than a tenth of the rows, the one that is nearest to a tenth is held out."""
    chosen: list[int] = []
    for rows_in_all, units in _strata(data):
        wanted = round(HOLDOUT_SHARE * rows_in_all)
        taken = _up_to(wanted, units, passing_over=identity(data) is not None)
        if not taken and len(units) > 1 and identity(data) is not None:
            taken = [min(units, key=lambda rows: abs(len(rows) - wanted))]
        chosen += [row for rows in taken for row in rows]
    return tuple(data.ids[i] for i in sorted(chosen))


def _up_to(wanted: int, units: list[list[int]], *, passing_over: bool) -> list[list[int]]:
    """The first units that hold `wanted` rows or fewer, up to the first that would be too much, or passing over those, as people
    may have very different numbers of rows."""
    taken, held = [], 0
    for rows in units:
        if held + len(rows) <= wanted:
            taken.append(rows)
            held += len(rows)
        elif not passing_over:
            break
    return taken


def identity(data: FaceDataset) -> str | None:
    """What rows stay together by: "subject", say; None where single pictures are drawn."""
    return next((name for name in IDENTITIES if any(data.groups.get(name, ()))), None)


def _strata(data: FaceDataset) -> list[tuple[int, list[list[int]]]]:
    """(rows, units in a fixed random order, each with its rows that stay together) for each class; one for all where a unit is
    a subject, film, sequence or picture of several faces, which may show several classes."""
    random = np.random.default_rng(_SEED)
    name = identity(data)
    if name is not None:
        units = _together(data.groups[name])
        return [(len(data), [units[i] for i in random.permutation(len(units))])]
    units = _together(pixel_hashes(data) if len(data) <= HASHED_ROWS else ("",) * len(data))
    labels = np.array([data.labels[rows[0]] for rows in units], np.int64)
    return [
        (
            int((data.labels == label).sum()),
            [units[i] for i in random.permutation(np.flatnonzero(labels == label))],
        )
        for label in range(len(data.classes))
    ]


def _together(names: Sequence[str]) -> list[list[int]]:
    """The rows of each name, in the order of their first rows; a row without a name is alone."""
    rows: dict[str | int, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name or row, []).append(row)
    return list(rows.values())
