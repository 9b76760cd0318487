"""Packed datasets: tar files in WebDataset's naming and, beside them, an index that makes any row one read away.

In a pack: ``pack.json`` (what was packed, under which rule), and per split ``train-000000.tar`` ... holding
``<key>.jpg`` (or .png), ``<key>.cls`` and ``<key>.json`` per face, ``train.index.npy`` and ``train.ids.txt``. The index
is mapped, not loaded, and a row's picture is read and decoded when it is asked for: resident memory is the ids and
labels, about 100 bytes a row.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Literal

import numpy as np

from mien import images
from mien.errors import DataError, ImageError
from mien.lab.datasets.dataset import AbsentSplitError, FaceDataset
from mien.lab.datasets.face_files import read_object, read_text
from mien.lab.datasets.fer2013 import PUBLIC_PRIVATE

MANIFEST = "pack.json"
VERSION = 1
INDEX = np.dtype([("shard", "<i4"), ("offset", "<i8"), ("length", "<i4"), ("label", "<i4")])
_REMEDY = "pack the dataset again"
_ABOUT = ("rows", "label_rule", "classes", "fingerprint", "note")  # of each split in pack.json


@dataclass(frozen=True)
class Shards:
    """A `read` for FaceDataset. index: (N,) of INDEX, mapped from its file. Shards are opened when first read from,
    once per process: a copy that goes to another process opens its own. They are closed when this is dropped."""

    folder: Path
    split: str
    index: np.ndarray
    _open: dict[tuple[int, int], BinaryIO] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __call__(self, row: int) -> np.ndarray:
        """The face, RGB uint8 (H, W, 3). Raises DataError naming the shard when it cannot be read or decoded."""
        data = self.encoded(row)
        try:
            return images.load(data)
        except ImageError as error:
            raise DataError(f"{self._path(row)}, row {row}: cannot be decoded ({error}); {_REMEDY}") from None

    def encoded(self, row: int) -> bytes:
        """The picture file's bytes. Raises DataError when the shard cannot be opened or ends before them."""
        _, offset, length, _ = self.index[row].tolist()
        data = os.pread(self._file(row).fileno(), length, offset)
        if len(data) != length:
            raise DataError(f"{self._path(row)}: row {row} ends after {len(data):,} of {length:,} bytes; {_REMEDY}")
        return data

    def _path(self, row: int) -> Path:
        return self.folder / shard_name(self.split, int(self.index[row]["shard"]))

    def _file(self, row: int) -> BinaryIO:
        key = (os.getpid(), int(self.index[row]["shard"]))  # after a fork the child opens its own
        if key not in self._open:
            try:
                self._open[key] = self._path(row).open("rb", buffering=0)
            except OSError as error:
                raise DataError(f"{self._path(row)}: cannot be opened ({error.strerror}); {_REMEDY}") from None
        return self._open[key]

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "split": self.split}

    def __setstate__(self, state: dict[str, object]) -> None:
        folder, split = Path(str(state["folder"])), str(state["split"])
        self.__dict__.update(folder=folder, split=split, _open={})
        self.__dict__["index"] = _index(folder, split)

    def __del__(self) -> None:
        for file in self._open.values():
            file.close()


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def is_packed(root: Path) -> bool:
    return (root / MANIFEST).is_file()


def splits(root: Path) -> tuple[str, ...]:
    """The splits that were packed."""
    return tuple(_manifest(root)["splits"])


def load(
    root: Path,
    *,
    split: str,
    name: str | None = None,
    label_rule: str | None = None,
    protocol: str | None = None,
    fold: int | None = None,
) -> FaceDataset:
    """One split of a pack, equal to what was packed: same ids, labels, votes, groups and fingerprint.

    Options that were given must be those that it was packed with. Raises DataError when they are not, when the split
    was not packed, or when a file of the pack is damaged.
    """
    manifest = _manifest(root)
    if name not in (None, manifest["name"]):
        raise DataError(f"{root} holds {manifest['name']} packed, asked for {name}; name the right --data or --root")
    told = {"protocol": protocol, "fold": fold}
    wrong = [
        f"{key} {manifest.get(key)!r}, asked for {value!r}"
        for key, value in told.items()
        if value not in (None, manifest.get(key))
    ]
    if wrong:
        raise DataError(f"{root} was packed with {'; '.join(wrong)}; pack it again, or leave the option out")
    if split == "test" and "test" not in manifest["splits"] and PUBLIC_PRIVATE in manifest["splits"]:
        split = PUBLIC_PRIVATE  # what that protocol's test is called
    if split not in manifest["splits"]:
        raise AbsentSplitError(f"{root}: split {split!r} was not packed; it holds {', '.join(manifest['splits'])}")
    about = manifest["splits"][split]
    lacking = [key for key in _ABOUT if key not in about]
    if lacking:
        raise DataError(f"{root / MANIFEST}: split {split!r} lacks {', '.join(lacking)}; {_REMEDY}")
    if label_rule not in (None, about["label_rule"]):
        raise DataError(
            f"{root} was packed with label rule {about['label_rule']!r}, asked for {label_rule!r}; pack it again"
        )
    index = _index(root, split)
    ids = tuple(read_text(root / f"{split}.ids.txt").split("\n")[:-1])  # a name may hold other line breaks
    if not len(index) == len(ids) == about["rows"]:
        raise DataError(
            f"{root}: {split} has {len(index):,} index rows, {len(ids):,} ids and "
            f"{about['rows']:,} packed rows; pack it again"
        )
    if not np.isin(index["label"], np.arange(len(about["classes"]))).all():
        raise DataError(f"{root}: {split} has labels that are none of its {len(about['classes'])} classes; {_REMEDY}")
    return FaceDataset(
        name=manifest["name"],
        split=split,
        label_rule=about["label_rule"],
        classes=tuple(about["classes"]),
        labels=index["label"].astype(np.int64),
        ids=ids,
        read=Shards(root, split, index),
        fingerprint=about["fingerprint"],
        votes=_votes(root, split, len(index)),
        groups=_groups(root, split, len(index)),
        note=about["note"],
    )


def _manifest(root: Path) -> dict[str, Any]:
    manifest = read_object(root / MANIFEST, keys=("version", "name", "splits"), remedy=_REMEDY)
    if manifest["version"] != VERSION:
        raise DataError(f"{root / MANIFEST}: version {manifest['version']!r}, this mien reads {VERSION}; {_REMEDY}")
    if not isinstance(manifest["splits"], dict):
        raise DataError(f"{root / MANIFEST}: splits are no JSON object; {_REMEDY}")
    return manifest


def _index(root: Path, split: str) -> np.ndarray:
    """(N,) of INDEX, mapped."""
    path = root / f"{split}.index.npy"
    index = _array(path, "r")
    if index.dtype != INDEX:
        raise DataError(f"{path}: columns {index.dtype}, expected {INDEX}; {_REMEDY}")
    return index


def _array(path: Path, mapped: Literal["r"] | None) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode=mapped, allow_pickle=False)
    except (OSError, ValueError, EOFError, TokenError) as error:  # the last of a damaged header
        raise DataError(f"{path}: cannot be read ({error}); {_REMEDY}") from None
    return array


def _votes(root: Path, split: str, rows: int) -> np.ndarray | None:
    path = root / f"{split}.votes.npy"
    if not path.is_file():
        return None
    votes = _array(path, None)
    if votes.shape[:1] != (rows,):
        raise DataError(f"{path}: shape {votes.shape}, expected {rows:,} rows; {_REMEDY}")
    return votes


def _groups(root: Path, split: str, rows: int) -> dict[str, tuple[str, ...]]:
    path = root / f"{split}.groups.json"
    if not path.is_file():
        return {}
    groups = read_object(path, remedy=_REMEDY)
    wrong = [name for name, values in groups.items() if not isinstance(values, list) or len(values) != rows]
    if wrong:
        raise DataError(f"{path}: {', '.join(wrong)} not of {rows:,} values; {_REMEDY}")
    return {name: tuple(values) for name, values in groups.items()}
