"""Faces that lie in files: where each one is, and how row i becomes pixels when it is asked for."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mien import images
from mien.errors import DataError
from mien.lab.datasets.dataset import FaceDataset, fingerprint

MACOS = "__MACOSX"  # the folder that macOS' archives leave beside what they hold


@dataclass(frozen=True)
class FaceFiles:
    """N faces in files, a `read` for FaceDataset. folder: what names are relative to. names: N paths, "/" between
    parts. boxes: (N, 4) float32 xyxy px in the whole picture, or None when the files are faces already."""

    folder: str
    names: tuple[str, ...]
    boxes: np.ndarray | None = None

    def __call__(self, row: int) -> np.ndarray:
        """The face, RGB uint8 (H, W, 3). Raises ImageError naming the file when it cannot be decoded, DataError
        when the box lies outside it."""
        picture = self.picture(row)
        return picture if self.boxes is None else _crop(picture, self.boxes[row], self.path(row))

    def path(self, row: int) -> Path:
        return Path(self.folder, self.names[row])

    def picture(self, row: int) -> np.ndarray:
        """The whole picture that row's face is in, RGB uint8 (H, W, 3)."""
        return images.load(self.path(row))

    def rows(self, rows: Iterable[int]) -> "FaceFiles":
        chosen = np.asarray(list(rows), np.int64)
        boxes = None if self.boxes is None else self.boxes[chosen]
        return FaceFiles(self.folder, tuple(self.names[i] for i in chosen), boxes)


def _crop(picture: np.ndarray, box: np.ndarray, path: Path) -> np.ndarray:
    """The part of the picture inside the box; what the box has outside the picture is left out."""
    height, width = picture.shape[:2]
    left, top, right, bottom = (round(float(edge)) for edge in box)
    face = picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if face.size == 0:
        raise DataError(
            f"{path}: face box left {left}, top {top}, right {right}, bottom {bottom} lies outside the "
            f"{width}x{height} picture; check the annotation file's column order"
        )
    return face


def pictures_in(folder: Path) -> list[str]:
    """Sorted names of the picture files directly in `folder`; hidden files and other kinds are passed over.

    Raises DataError when the folder is not there or cannot be listed.
    """
    return sorted(name for name in _names(folder) if Path(name).suffix.lower() in images.SUFFIXES)


def pictures_under(folder: Path) -> list[str]:
    """Sorted names, relative to `folder`, of the picture files in it and in all folders below it, hidden ones left out. Links
    to folders are followed, but not one to a folder that holds the link. Raises DataError as `pictures_in`."""
    return sorted(_under(folder, frozenset()))


def _under(folder: Path, above: frozenset[Path]) -> Iterator[str]:
    here = folder.resolve()
    if here in above:
        return
    for name in _names(folder):
        if Path(name).suffix.lower() in images.SUFFIXES:
            yield name
        elif (folder / name).is_dir():
            yield from (f"{name}/{below}" for below in _under(folder / name, above | {here}))


def folders_in(folder: Path) -> list[str]:
    """Sorted names of the folders directly in `folder`, hidden ones left out. Raises DataError when it cannot be
    listed."""
    return sorted(name for name in _names(folder) if (folder / name).is_dir())


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith((".", MACOS)))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check --root and what lies in it") from None


def missing(files: FaceFiles) -> list[str]:
    """The names that are not on disk; each folder is listed once, so that 400,000 rows take seconds."""
    present: dict[str, set[str]] = {}
    absent = []
    for name in files.names:
        parent, _, last = name.rpartition("/")
        if parent not in present:
            folder = Path(files.folder, parent)
            present[parent] = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if last not in present[parent]:
            absent.append(name)
    return absent


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark. Raises DataError when it is absent or cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check --root and the file's permissions") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def read_object(path: Path, *, keys: Iterable[str] = (), remedy: str) -> dict[str, Any]:
    """The JSON object in a file that mien wrote. Raises DataError that ends in the remedy when it is none or lacks a key."""
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds {type(found).__name__}, expected a JSON object; {remedy}")
    absent = [key for key in keys if key not in found]
    if absent:
        raise DataError(f"{path}: lacks {', '.join(absent)}; {remedy}")
    return found


def numbers_of(cells: Iterable[str]) -> list[float]:
    """Finite numbers. Raises ValueError for anything else, "nan" and "inf" among it."""
    found = [float(cell) for cell in cells]
    if not np.isfinite(found).all():
        raise ValueError(f"{found} are not all finite")
    return found


def some(items: Iterable[object], limit: int = 5) -> str:
    """The first few items for a message, and how many more there are."""
    listed = [str(item) for item in items]
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


@dataclass(frozen=True)
class Listing:
    """What a dataset's annotation says before any picture is opened: N faces in the owner's order. labels: (N,) int64
    over the dataset's classes. groups: attribute -> N values. ids: N names, the files' names when None. votes: (N, K)
    float32 or None."""

    files: FaceFiles
    labels: np.ndarray
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: tuple[str, ...] | None = None
    votes: np.ndarray | None = None

    def rows(self, rows: np.ndarray) -> "Listing":
        return Listing(
            self.files.rows(rows),
            self.labels[rows],
            {name: tuple(values[i] for i in rows) for name, values in self.groups.items()},
            None if self.ids is None else tuple(self.ids[i] for i in rows),
            None if self.votes is None else self.votes[rows],
        )


def dataset(
    listing: Listing,
    *,
    name: str,
    split: str,
    label_rule: str,
    classes: tuple[str, ...],
    allow_partial: bool,
    note: str = "",
) -> FaceDataset:
    """The listing as a dataset whose `read` is the listing's FaceFiles. Pictures that are not there are a DataError
    that names the first of them; with `allow_partial` their rows are left out and counted in the note."""
    absent = set(missing(listing.files))
    if absent and not allow_partial:
        raise DataError(
            f"{name} {split}: {len(absent):,} pictures are not in {listing.files.folder}: {some(sorted(absent))}; "
            "unpack the whole archive, or pass --allow-partial to go on with what is there"
        )
    if absent:
        listing = listing.rows(
            np.array([i for i, file in enumerate(listing.files.names) if file not in absent], np.int64)
        )
        note = f"{note}; {len(absent):,} pictures absent: {some(sorted(absent))}".removeprefix("; ")
    ids = listing.files.names if listing.ids is None else listing.ids
    return FaceDataset(
        name=name,
        split=split,
        label_rule=label_rule,
        classes=classes,
        labels=listing.labels,
        ids=ids,
        read=listing.files,
        fingerprint=fingerprint(ids, listing.labels, label_rule),
        votes=listing.votes,
        groups=listing.groups,
        note=note,
    )
