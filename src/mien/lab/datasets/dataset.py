"""What a dataset is to the rest of the lab: a plain sequence of labelled faces, decoded when asked for. No torch."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np

from mien.errors import DataError

SPLITS: tuple[str, ...] = ("train", "valid", "test")
IDENTITIES = ("subject", "film", "sequence", "picture")  # names of what rows were sampled together by, the widest first


class AbsentSplitError(DataError):
    """The dataset is there, this split of it is not: `mien data check` reports that without failing."""


@dataclass(frozen=True)
class Sample:
    """image: RGB uint8 (H, W, 3). label: index into the dataset's classes. votes: (K,) float32 summing to 1 (all zero where
    the picture has no usable votes), or None. id: stable name of the row. groups: attribute -> value."""

    image: np.ndarray
    label: int
    votes: np.ndarray | None
    id: str
    groups: Mapping[str, str]


@dataclass(frozen=True)
class FaceDataset(Sequence[Sample]):
    """One split of one dataset under one label rule.

    classes: the names that labels index (canonical order for the 7 or 8 expressions). labels: (N,) int64.
    votes: (N, K) float32 or None. ids: N stable names. groups: attribute -> N values ("" where unknown), e.g. gender, subject,
    sequence. read(i) decodes row i to RGB uint8 (H, W, 3). fingerprint: SHA-256 over ids and labels (and pixels, where they are
    held in memory), first 16 hex digits. note: what the loader wants protocols to say (rows dropped, ties counted).
    """

    name: str
    split: str
    label_rule: str
    classes: tuple[str, ...]
    labels: np.ndarray
    ids: tuple[str, ...]
    read: Callable[[int], np.ndarray]
    fingerprint: str
    votes: np.ndarray | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "FaceDataset": ...
    def __getitem__(self, index: int | slice) -> "Sample | FaceDataset":
        if isinstance(index, slice):
            return self.subset(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} in {self.name} {self.split}")
        index %= len(self)
        votes = None if self.votes is None else self.votes[index]
        groups = {name: values[index] for name, values in self.groups.items()}
        return Sample(self.read(index), int(self.labels[index]), votes, self.ids[index], groups)

    def subset(self, rows: np.ndarray, *, split: str | None = None) -> "FaceDataset":
        """The rows at these positions, in this order, as a dataset of its own."""
        rows = np.asarray(rows, np.int64)
        read = self.read
        rows_of = getattr(read, "rows", None)  # files stay files, with their paths and boxes
        ids = tuple(self.ids[i] for i in rows)
        return replace(
            self,
            split=self.split if split is None else split,
            labels=self.labels[rows],
            ids=ids,
            read=(lambda i: read(int(rows[i]))) if rows_of is None else rows_of(rows),
            fingerprint=fingerprint(ids, self.labels[rows], self.fingerprint),
            votes=None if self.votes is None else self.votes[rows],
            groups={name: tuple(values[i] for i in rows) for name, values in self.groups.items()},
        )

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Rows per class, in class order."""
        return tuple(int(n) for n in np.bincount(self.labels, minlength=len(self.classes)))


def fingerprint(ids: Sequence[str], labels: np.ndarray, *more: str) -> str:
    """16 hex digits that change when a row, its order, its label or `more` changes. Raises DataError for a name that is not
    UTF-8."""
    try:
        digest = hashlib.sha256("\n".join(ids).encode())
    except UnicodeEncodeError as error:
        name = next(name for name in ids if name.encode("utf-8", "replace").decode() != name)
        raise DataError(f"row {name!r}: its name is not UTF-8 ({error.reason}); rename the file") from None
    digest.update(np.ascontiguousarray(labels, np.int64).tobytes())
    for text in more:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:16]
