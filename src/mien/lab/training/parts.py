"""Rows of a training split that a run does not learn from: a fixed tenth to choose the epoch by, or one of several parts, which
other runs learn from. The divisions are the same for every run and seed, and exact copies of a picture stay together."""

from dataclasses import dataclass

import numpy as np

from mien.errors import UsageError
from mien.lab.datasets import FaceDataset
from mien.lab.evaluation.leaks import HASHED_ROWS, pixel_hashes

HOLDOUT_SHARE = 0.1  # of the training split, per class
_SEED = 20_130_101


@dataclass(frozen=True)
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
        """Of "1/3"."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal()):
            raise UsageError(f"part {text!r}: expected K/N, as 1/3: the first of three equal parts")
        return cls(int(number), int(of))

    def rows(self, data: FaceDataset) -> np.ndarray:
        """(n,) the sorted positions of its rows in a training split. Every class is dealt out evenly."""
        dealt = np.empty(len(data), np.int64)
        place = 0
        for pictures in _pictures_by_class(data):
            for rows in pictures:
                dealt[rows] = place % self.of
                place += 1
        return np.flatnonzero(dealt == self.number - 1)


def holdout_ids(data: FaceDataset) -> tuple[str, ...]:
    """The ids of the fixed tenth of a training split, stratified by class. FER-2013's Training has 1,236 surplus copies, which
    stay on one side with their originals."""
    chosen: list[int] = []
    for label, pictures in enumerate(_pictures_by_class(data)):
        held = np.cumsum([len(rows) for rows in pictures])
        wanted = round(HOLDOUT_SHARE * int((data.labels == label).sum()))
        chosen += [row for rows in pictures[: np.searchsorted(held, wanted, side="right")] for row in rows]
    return tuple(data.ids[i] for i in sorted(chosen))


def _pictures_by_class(data: FaceDataset) -> list[list[list[int]]]:
    """Class -> its pictures in a fixed random order, each with its rows. A picture belongs to the class of its first row."""
    random = np.random.default_rng(_SEED)
    pictures = _pictures(data)
    labels = np.array([data.labels[rows[0]] for rows in pictures], np.int64)
    return [
        [pictures[i] for i in random.permutation(np.flatnonzero(labels == label))] for label in range(len(data.classes))
    ]


def _pictures(data: FaceDataset) -> list[list[int]]:
    """The rows of each distinct picture, in the order of their first rows; above HASHED_ROWS rows each row is one."""
    if len(data) > HASHED_ROWS:
        return [[row] for row in range(len(data))]
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(pixel_hashes(data)):
        rows.setdefault(name, []).append(row)
    return list(rows.values())
