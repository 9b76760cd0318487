"""FER-2013 (Goodfellow et al., 2013): 35,887 grey faces of 48x48 px, seven expressions, one hard label each.

Layouts, as their owners ship them, looked for in `root` and in `root`/fer2013 (or `root` is the file itself):
- ``fer2013.csv``: columns emotion, pixels, Usage (also .gz, .xz, .zst, .zip);
- ``icml_face_data.csv``, the competition's file: the same columns in another order, with leading spaces in their names;
- the Kaggle image folders ``train/<class>/`` and ``test/<class>/``, whose test is public + private (7,178) and is named so.
"""

import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from mien import writing
from mien.errors import DataError
from mien.expressions import BASIC, FER2013, canonical
from mien.lab.datasets.dataset import AbsentSplitError, FaceDataset, fingerprint
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset
from mien.lab.datasets.folder import pictures_of_classes

USAGE = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
PUBLIC_PRIVATE = "public+private"  # Ad-Corre's test set, and the Kaggle folders'
COUNTS = {"train": 28_709, "valid": 3_589, "test": 3_589, PUBLIC_PRIVATE: 7_178}
SIDE = 48
# Where MTCNN's five points lie in a Training face, as fractions of the side: mean over the 3,449 of 4,000 sampled faces that
# were detected (benchmarks/results/template.json; left eye, right eye, nose, left and right mouth corner).
TEMPLATE: tuple[tuple[float, float], ...] = (
    (0.3195, 0.3844), (0.6827, 0.3768), (0.4993, 0.5950), (0.3516, 0.7847), (0.6551, 0.7796),
)  # fmt: skip
_NAMES = ("fer2013.csv", "icml_face_data.csv")
_SUFFIXES = ("", ".xz", ".gz", ".bz2", ".zst", ".zip")
# What reading a cached file raises that is not there, damaged or somebody else's.
_NOT_TO_BE_HAD = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
_CODES = {code: BASIC.index(canonical(word)) for code, word in FER2013.items()}


@dataclass(frozen=True)
class Rows:
    """The whole file, decoded: pixels (N, 48, 48) uint8, labels (N,) int64 in canonical order, usage (N,) str."""

    pixels: np.ndarray
    labels: np.ndarray
    usage: np.ndarray


def load(
    root: Path, *, split: str, protocol: str | None = None, allow_partial: bool = False, cache: bool = True
) -> FaceDataset:
    """One split: "train", "valid" (PublicTest), "test" (PrivateTest) or "public+private" (also: protocol="ad-corre", split="test").

    Raises DataError when nothing is found, a row is malformed, or the split's count is not the official one and
    `allow_partial` is False.
    """
    split = wanted_split(split, protocol)
    file = find_csv(root)
    if file is None:
        return _from_folders(root, split, allow_partial)
    rows = read_csv(file, cache=cache)
    chosen = rows_of(rows, split)
    check_count(f"fer2013 {split} in {file}", len(chosen), COUNTS[split], allow_partial)
    pixels = rows.pixels[chosen]
    ids = tuple(f"{row:05d}" for row in chosen)
    return FaceDataset(
        name="fer2013",
        split=split,
        label_rule="fer2013",
        classes=BASIC,
        labels=rows.labels[chosen],
        ids=ids,
        read=lambda i: np.repeat(pixels[i][:, :, None], 3, axis=2),
        fingerprint=fingerprint(ids, rows.labels[chosen], hashlib.sha256(pixels.tobytes()).hexdigest()),
    )


def wanted_split(split: str, protocol: str | None) -> str:
    """Resolve the split's name under a protocol; refuse what FER-2013 does not have."""
    if protocol not in (None, "ad-corre"):
        raise DataError(f"fer2013 has no protocol {protocol!r}: expected none, or ad-corre (test = public + private)")
    if protocol == "ad-corre" and split == "test":
        return PUBLIC_PRIVATE
    if split not in COUNTS:
        raise DataError(f"fer2013 has no split {split!r}: expected one of {', '.join(COUNTS)}")
    return split


def rows_of(rows: Rows, split: str) -> np.ndarray:
    """Positions of the split's rows in the file, in the file's order."""
    usages = [USAGE["valid"], USAGE["test"]] if split == PUBLIC_PRIVATE else [USAGE[split]]
    return np.flatnonzero(np.isin(rows.usage, usages))


def check_count(what: str, found: int, official: int, allow_partial: bool) -> None:
    """Refuse a split whose row count is not the official one, naming both numbers."""
    if found == 0:
        raise AbsentSplitError(
            f"{what}: no row of this split is there; check the file's Usage column or choose another split"
        )
    if found != official and not allow_partial:
        raise DataError(
            f"{what}: {found:,} rows, the official count is {official:,}; get the complete file, or pass --allow-partial "
            "to go on with what is there"
        )


def csv_in(root: Path) -> Path | None:
    """The CSV under `root` (or `root` itself), or None."""
    if root.is_file():
        return root
    places = (
        folder / (name + suffix) for folder in (root, root / "fer2013") for name in _NAMES for suffix in _SUFFIXES
    )
    return next((place for place in places if place.is_file()), None)


def holds_folders(root: Path) -> bool:
    """Whether `root` holds the Kaggle folders and no CSV."""
    return csv_in(root) is None and any((folder / "train").is_dir() for folder in (root, root / "fer2013"))


def find_csv(root: Path) -> Path | None:
    """The CSV under `root` (or `root` itself), or None when `root` holds the Kaggle folders instead. Raises DataError when it
    holds neither."""
    if found := csv_in(root):
        return found
    if holds_folders(root):
        return None
    raise DataError(
        f"fer2013: neither {' nor '.join(_NAMES)} (plain, {', '.join(_SUFFIXES[1:])}) nor train/<class>/ folders under {root}; "
        "pass --root the folder that holds them"
    )


def read_csv(file: Path, *, cache: bool = True) -> Rows:
    """Decode the whole CSV, or take it from the cache, which is keyed by the file's SHA-256."""
    where = cache_folder() if cache else None
    if where is None:
        return _decode(file)
    cached = where / f"fer2013-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}.npz"
    with contextlib.suppress(*_NOT_TO_BE_HAD), cached.open("rb") as kept, np.load(kept, allow_pickle=False) as held:
        return Rows(held["pixels"], held["labels"], held["usage"])
    rows = _decode(file)
    with contextlib.suppress(OSError):  # a home that takes nothing costs the time, not the rows
        cached.parent.mkdir(parents=True, exist_ok=True)
        with writing.whole(cached) as partial, partial.open("wb") as held:
            np.savez(held, pixels=rows.pixels, labels=rows.labels, usage=rows.usage)
    return rows


def cache_folder() -> Path | None:
    """Where decoded datasets are kept: $MIEN_CACHE, else $XDG_CACHE_HOME/mien, else ~/.cache/mien; in `datasets` there. None for a
    user who has no home."""
    try:
        base = os.environ.get("MIEN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mien"
    except RuntimeError:
        return None
    return Path(base) / "datasets"


def _decode(file: Path) -> Rows:
    pixels, labels, usage = [], [], []
    with open_text(file) as lines:
        reader = csv.reader(lines)
        columns = {name.strip().lower(): i for i, name in enumerate(next(reader, []))}
        for name in ("emotion", "pixels", "usage"):
            if name not in columns:
                raise DataError(
                    f"{file}: no column {name!r} (found {', '.join(columns)}); expected emotion, pixels, Usage"
                )
        for number, row in enumerate(reader, start=2):
            if not row:  # a blank line, as editors leave one at the end
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{file}, line {number}: {len(row)} cells, expected {len(columns)}: {', '.join(columns)}"
                )
            pixels.append(_pixels(row[columns["pixels"]], file, number))
            labels.append(_label(row[columns["emotion"]], file, number))
            usage.append(_usage(row[columns["usage"]], file, number))
    return Rows(np.array(pixels, np.uint8).reshape(-1, SIDE, SIDE), np.array(labels, np.int64), np.array(usage, str))


def _pixels(text: str, file: Path, number: int) -> np.ndarray:
    plain = text.isascii() and text.replace(" ", "").isdigit()
    values = np.fromstring(text, np.int64, sep=" ") if plain else np.empty(0, np.int64)
    if len(values) != SIDE * SIDE or values.min() < 0 or values.max() > 255:
        raise DataError(f"{file}, line {number}: {len(values)} pixel values, expected {SIDE * SIDE} integers in 0-255")
    return values.astype(np.uint8)


def _label(text: str, file: Path, number: int) -> int:
    if not text.strip().isdecimal() or int(text) not in _CODES:
        raise DataError(f"{file}, line {number}: emotion {text!r}, expected a code in 0-6")
    return _CODES[int(text)]


def _usage(text: str, file: Path, number: int) -> str:
    if text.strip() not in USAGE.values():
        raise DataError(f"{file}, line {number}: usage {text!r}, expected one of {', '.join(USAGE.values())}")
    return text.strip()


def open_text(file: Path) -> IO[str]:
    """Open a plain or compressed (.gz, .xz, .bz2, .zst, .zip with one CSV inside) text file; a byte order mark is skipped."""
    suffix = file.suffix.lower()
    if suffix == ".zip":
        return io.TextIOWrapper(_zip_member(file), "utf-8-sig", newline="")
    if suffix == ".zst":
        return io.TextIOWrapper(_zstd(file), "utf-8-sig", newline="")
    openers: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
    return openers.get(suffix, open)(file, "rt", encoding="utf-8-sig", newline="")


def _zip_member(file: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(file)
    names = [
        name
        for name in archive.namelist()
        if name.lower().endswith(".csv") and not name.rpartition("/")[2].startswith(".")  # macOS adds "._" files
    ]
    if len(names) != 1:
        raise DataError(f"{file}: {len(names)} CSV files inside, expected exactly one")
    return archive.open(names[0])


def _zstd(file: Path) -> IO[bytes]:
    try:
        import zstandard
    except ImportError:
        raise DataError(
            f"{file}: reading .zst needs zstandard; run `pip install zstandard`, or unpack it first"
        ) from None
    return zstandard.open(file, "rb")


def _from_folders(root: Path, split: str, allow_partial: bool) -> FaceDataset:
    """The Kaggle image folders. There is no valid: its rows are inside test, which is public + private."""
    base = root if (root / "train").is_dir() else root / "fer2013"
    if split not in ("train", PUBLIC_PRIVATE):
        raise DataError(
            f"fer2013 image folders in {base} have no split {split!r}: their test folder is public + private (7,178 rows); "
            f"ask for {PUBLIC_PRIVATE!r} (to train, pass --select-on holdout), or use fer2013.csv"
        )
    folder = base / ("train" if split == "train" else "test")
    if not folder.is_dir():
        raise AbsentSplitError(f"{folder}: no such folder; expected one folder per expression in it")
    names, labels = pictures_of_classes(base, folder, BASIC)
    check_count(f"fer2013 {split} in {base}", len(names), COUNTS[split], allow_partial)
    return dataset(
        Listing(FaceFiles(str(base), names), labels),
        name="fer2013",
        split=split,
        label_rule="fer2013",
        classes=BASIC,
        allow_partial=allow_partial,
    )
