"""The counts that a dataset's owner or the papers print, and the comparison of a loaded split with them."""

from collections.abc import Mapping
from dataclasses import dataclass

from mien.errors import DataError
from mien.lab.datasets.dataset import AbsentSplitError, FaceDataset


@dataclass(frozen=True)
class Official:
    """What one split has to hold. counts: class -> rows, or None where only the total was ever printed (then `total` is
    it). at_most: fewer rows are no error (SFEW's aligned faces: some pictures have none). source: where the counts are
    printed."""

    split: str
    counts: Mapping[str, int] | None
    source: str
    total: int | None = None
    at_most: bool = False

    @property
    def rows(self) -> int | None:
        """The total over all classes, or None where nothing was printed."""
        return self.total if self.counts is None else sum(self.counts.values())

    def agrees(self, found: int, official: int) -> bool:
        return 0 < found <= official if self.at_most else found == official


def differences(data: FaceDataset, official: Official) -> list[tuple[str, int, int]]:
    """(class or "all", rows found, official rows) wherever the two disagree."""
    rows = [] if official.rows is None else [("all", len(data), official.rows)]
    if official.counts is not None:
        found = dict(zip(data.classes, data.class_counts, strict=True))
        rows += [(name, found.get(name, 0), count) for name, count in official.counts.items()]
    return [row for row in rows if not official.agrees(row[1], row[2])]


def checked(data: FaceDataset, official: Official | None, *, where: object, allow_partial: bool) -> FaceDataset:
    """`data` itself when it has rows and its counts are the official ones (or `allow_partial`). Raises AbsentSplitError for no
    rows, DataError for other counts."""
    if len(data) == 0:
        told = f" ({data.note})" if data.note else ""
        without = " (to train without, pass --select-on holdout)" if data.split == "valid" else ""
        raise AbsentSplitError(
            f"{data.name} {data.split} in {where}: no labelled face{told}; check --root and the split's folder or rows{without}"
        )
    wrong = [] if official is None or allow_partial else differences(data, official)
    if wrong:
        told = "; ".join(f"{name} {found:,}, officially {count:,}" for name, found, count in wrong)
        raise DataError(
            f"{data.name} {data.split} in {where}: {told}. Get the complete data "
            f"(`mien data check {data.name}` says more), or pass --allow-partial to go on with what is there"
        )
    return data
