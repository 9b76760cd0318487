"""`mien data check`: what is in a dataset's folder, compared with what its owner shipped, before anybody believes it.

Wrong counts of a split that is there, a class that train has no row of, pictures that cannot be read and labels that
cannot be understood make the check fail. A split that is absent, and duplicates, are reported without failing: some
owners ship both.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mien.errors import DataError, MienError
from mien.expressions import BASIC
from mien.lab import datasets
from mien.lab.datasets import affectnet, align_dataset, ckplus, duplicates, expw, fer2013, ferplus, rafdb, sfew, shards
from mien.lab.datasets.dataset import SPLITS, AbsentSplitError, FaceDataset
from mien.lab.datasets.duplicates import Duplicates, Signature
from mien.lab.datasets.official import Official, differences

# Goodfellow et al. 2013, counted in fer2013.csv; sums over splits are Ad-Corre's Table 1. Order: BASIC.
_FER = {
    "train": (4_965, 7_215, 4_830, 3_171, 4_097, 436, 3_995),
    "valid": (607, 895, 653, 415, 496, 56, 467),
    "test": (626, 879, 594, 416, 528, 55, 491),
}
_FER2013 = "Goodfellow et al. 2013: 28,709 + 3,589 + 3,589 rows"


@dataclass(frozen=True)
class View:
    """One split as the check loads it, with its official counts if there are any."""

    split: str
    official: Official | None = None
    label_rule: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something that is wrong. kind: "data" (layout, labels), "counts" or "file". row: an id, or "" for the whole
    split."""

    kind: str
    split: str
    row: str
    message: str


@dataclass(frozen=True)
class Report:
    """What was found. splits: the data that could be loaded. absent: split -> why it is not there. sizes: (width,
    height) px -> pictures. rows: (split, row) of every picture that could be read; duplicates count in these. fails:
    any problem."""

    name: str
    root: str
    views: tuple[View, ...]
    splits: Mapping[str, FaceDataset]
    absent: Mapping[str, str]
    problems: tuple[Problem, ...]
    sizes: Mapping[tuple[int, int], int]
    rows: tuple[tuple[str, int], ...]
    duplicates: Duplicates

    @property
    def fails(self) -> bool:
        return bool(self.problems)

    def label(self, position: int) -> str:
        """The class of a picture, by its position in `rows`."""
        split, row = self.rows[position]
        return self.splits[split].classes[self.splits[split].labels[row]]

    def conflicting(self, positions: Iterable[int]) -> bool:
        """Whether these pictures carry more than one label."""
        return len({self.label(position) for position in positions}) > 1

    def across(self, positions: Iterable[int]) -> bool:
        """Whether these pictures lie in more than one split."""
        return len({self.rows[position][0] for position in positions}) > 1


@dataclass
class _Scan:
    """What reading every picture leaves behind."""

    problems: list[Problem] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    rows: list[tuple[str, int]] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)


def check(name: str, root: Path | None, *, progress: Callable[[int, int], None] | None = None) -> Report:
    """Load every split, compare its counts, read every picture, find duplicates. `progress(done, of)` counts pictures.

    Raises UsageError when the name is unknown, DataError when nothing of the dataset is there.
    """
    datasets.refuse_what_is_not_there(name, root)
    views = _views(name, root)
    scan, splits, absent = _Scan(), {}, {}
    for view in views:
        try:
            splits[view.split] = _load(name, root, view)
        except AbsentSplitError as error:
            absent[view.split] = str(error)
        except DataError as error:
            if str(error) not in {problem.message for problem in scan.problems}:
                scan.problems.append(Problem("data", view.split, "", str(error)))
    if not splits and not scan.problems:
        raise DataError(f"nothing of {name} was found. " + " ".join(dict.fromkeys(absent.values())))
    for view in views:
        if view.split in splits:
            scan.problems.extend(_count_problems(splits[view.split], view.official))
    scan.problems.extend(_unlearnable(splits))
    _read_all(splits, scan, progress)
    found = duplicates.find(scan.signatures)
    problems, rows = tuple(scan.problems), tuple(scan.rows)
    return Report(name, str(root or ""), views, splits, absent, problems, dict(scan.sizes), rows, found)


def _views(name: str, root: Path | None) -> tuple[View, ...]:
    """The splits to look at. Where folds are drawn from one set of faces, that set is looked at once, as "all"."""
    if root is not None and (root / datasets.ALIGNED).is_file():
        return _views(name, align_dataset.original(root, name))
    if root is not None and shards.is_packed(root):
        return tuple(View(split) for split in shards.splits(root))
    match name:
        case "fer2013":
            return _fer2013_views(root)
        case "ferplus":
            counts = zip(SPLITS, ferplus.COUNTS["majority"], strict=True)
            return tuple(View(s, Official(s, None, "FER+ release, rule majority", total=n)) for s, n in counts)
        case "rafdb" | "rafdb-compound":
            official = rafdb.OFFICIAL if name == "rafdb" else rafdb.OFFICIAL_COMPOUND
            return tuple(View(split, counts) for split, counts in official.items())
        case "affectnet" if root is not None:
            options = {"label_rule": "8-class", "protocol": "official"}
            return tuple(View(s, affectnet.official(root, split=s, **options), **options) for s in ("train", "valid"))
        case "sfew":
            return tuple(View(split, counts) for split, counts in sfew.OFFICIAL.items())
        case "expw":
            return (View("all", expw.OFFICIAL["every"], protocol="every"),)
        case "ckplus":
            return (View("all", ckplus.official("8-class"), label_rule="8-class"),)
        case _:
            return tuple(View(split) for split in SPLITS)


def _fer2013_views(root: Path | None) -> tuple[View, ...]:
    merged = tuple(public + private for public, private in zip(_FER["valid"], _FER["test"], strict=True))
    folders = fer2013.PUBLIC_PRIVATE in datasets.splits("fer2013", root)
    counts = {"train": _FER["train"], fer2013.PUBLIC_PRIVATE: merged} if folders else _FER
    return tuple(View(s, Official(s, dict(zip(BASIC, n, strict=True)), _FER2013)) for s, n in counts.items())


def _load(name: str, root: Path | None, view: View) -> FaceDataset:
    return datasets.load(
        name, root, split=view.split, label_rule=view.label_rule, protocol=view.protocol,
        allow_partial=view.official is not None,  # else nothing would tell that pictures are absent
    )  # fmt: skip


def _count_problems(data: FaceDataset, official: Official | None) -> list[Problem]:
    wrong = [] if official is None else differences(data, official)
    note = f" ({data.note})" if data.note else ""
    return [
        Problem("counts", data.split, "", f"{name}: {found:,} rows, officially {count:,}{note}")
        for name, found, count in wrong
    ]


def _unlearnable(splits: Mapping[str, FaceDataset]) -> list[Problem]:
    """The classes that a split has rows of and train has none of."""
    if "train" not in splits:
        return []
    learnt = {name for name, count in _counted(splits["train"])}
    return [
        Problem("counts", split, "", f"{name}: {count:,} rows, none in train; add some to train, or drop the class")
        for split, data in splits.items()
        for name, count in _counted(data)
        if name not in learnt
    ]


def _counted(data: FaceDataset) -> list[tuple[str, int]]:
    """(class, rows) of the classes that have rows."""
    return [(name, count) for name, count in zip(data.classes, data.class_counts, strict=True) if count]


def _read_all(splits: Mapping[str, FaceDataset], scan: _Scan, progress: Callable[[int, int], None] | None) -> None:
    """Decode every picture once: its size and signature, or the reason why it cannot be read."""
    total, done = sum(map(len, splits.values())), 0
    for split, data in splits.items():
        for row in range(len(data)):
            try:
                image = data.read(row)
            except MienError as error:
                scan.problems.append(Problem("file", split, data.ids[row], str(error)))
            else:
                scan.sizes[(image.shape[1], image.shape[0])] += 1
                scan.rows.append((split, row))
                scan.signatures.append(duplicates.signature(image))
            done += 1
            if progress is not None:
                progress(done, total)
