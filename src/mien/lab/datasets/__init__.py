"""The datasets by name. `load` reads one split as its owner ships it; nothing is ever downloaded. No torch."""

import csv
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from mien.errors import DataError, UsageError
from mien.lab.datasets import (
    affectnet,
    ckplus,
    csvfile,
    expw,
    fer2013,
    ferplus,
    folder,
    rafdb,
    sfew,
    shards,
    synthetic,
)
from mien.lab.datasets.dataset import SPLITS as SPLITS
from mien.lab.datasets.dataset import FaceDataset as FaceDataset
from mien.lab.datasets.dataset import Sample as Sample

# Name -> the options that it has besides the split.
OPTIONS: Mapping[str, frozenset[str]] = {
    "fer2013": frozenset(("protocol",)),
    "ferplus": frozenset(("label_rule",)),
    "rafdb": frozenset(),
    "rafdb-compound": frozenset(),
    "affectnet": frozenset(("label_rule", "protocol")),
    "sfew": frozenset(),
    "expw": frozenset(("protocol", "fold")),
    "ckplus": frozenset(("label_rule", "protocol", "fold")),
    "synthetic": frozenset(),
    "folder": frozenset(("fold",)),
    "csv": frozenset(("fold",)),
}
NAMES: tuple[str, ...] = tuple(OPTIONS)
ALIGNED = "align.json"  # what `mien data align` leaves in its output
# What a damaged file makes the readers of text, CSV and archives raise.
_DAMAGE = (OSError, UnicodeError, csv.Error, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)
_MODULES = {"rafdb-compound": rafdb, "csv": csvfile}  # where the name is not the module's


def about(name: str) -> str:
    """What the dataset is, in one line: the first of its file."""
    module = _MODULES.get(name) or import_module(f"{__name__}.{name}")
    return str(module.__doc__).partition("\n")[0]


def splits(name: str, root: Path | None, protocol: str | None = None) -> tuple[str, ...]:
    """The splits that the whole dataset at `root` is made of, in the owner's division or the protocol's; "all" where none is."""
    if name == "fer2013" and root is not None and fer2013.holds_folders(root):
        return ("train", fer2013.PUBLIC_PRIVATE)
    if name in ("expw", "ckplus"):
        return {"every": SPLITS, "mscar": ("train", "test")}.get(protocol or "", ("all",))
    if name in ("rafdb", "rafdb-compound"):
        return ("train", "test")
    if name == "affectnet" and protocol == "wcl":  # which draws a test split of its own
        return SPLITS
    return ("train", "valid") if name in ("affectnet", "sfew") else SPLITS


def refuse_what_is_not_there(name: str, root: Path | None) -> None:
    """Raise UsageError for a name that is no dataset, DataError for a root that is missing or does not exist."""
    if name not in NAMES:
        raise UsageError(f"unknown dataset {name!r}: expected one of {', '.join(NAMES)}")
    if root is None and name != "synthetic":
        raise DataError(f"{name} lies in files: pass --root the place where it lies")
    if root is not None and not root.exists():
        raise DataError(f"{root}: no such file or folder; pass --root the place where {name} lies")


@dataclass(frozen=True)
class _Asked:
    """The options of `load`."""

    split: str
    label_rule: str | None
    protocol: str | None
    fold: int | None
    allow_partial: bool


def load(
    name: str,
    root: Path | None,
    *,
    split: str,
    label_rule: str | None = None,
    protocol: str | None = None,
    fold: int | None = None,
    allow_partial: bool = False,
) -> FaceDataset:
    """One split of the dataset called `name` under `root` (None for synthetic, which needs none).

    A root that `mien data pack` or `mien data align` wrote is read as the dataset that it was made from. Options that a
    dataset does not have are refused by name.
    """
    refuse_what_is_not_there(name, root)
    if root is not None and (root / ALIGNED).is_file():
        return _aligned(name, root, _Asked(split, label_rule, protocol, fold, allow_partial))
    if root is not None and shards.is_packed(root):
        return shards.load(root, split=split, name=name, label_rule=label_rule, protocol=protocol, fold=fold)
    _refuse(name, label_rule=label_rule, protocol=protocol, fold=fold)
    if root is None or name == "synthetic":  # the only one that needs no root
        return synthetic.load(split=split)
    try:
        return _official(name, root, _Asked(split, label_rule, protocol, fold, allow_partial))
    except _DAMAGE as error:
        raise DataError(
            f"{name} under {root}: a file cannot be read ({type(error).__name__}: {error}); "
            "check its permissions, or copy or unpack it again"
        ) from error


def _official(name: str, root: Path, asked: _Asked) -> FaceDataset:
    """The dataset as its owner ships it."""
    split, rule, protocol, partial = asked.split, asked.label_rule, asked.protocol, asked.allow_partial
    match name:
        case "fer2013":
            return fer2013.load(root, split=split, protocol=protocol, allow_partial=partial)
        case "ferplus":
            return ferplus.load(root, split=split, label_rule=rule, allow_partial=partial)
        case "rafdb":
            return rafdb.load(root, split=split, allow_partial=partial)
        case "rafdb-compound":
            return rafdb.load_compound(root, split=split, allow_partial=partial)
        case "affectnet":
            return affectnet.load(root, split=split, label_rule=rule, protocol=protocol, allow_partial=partial)
        case "sfew":
            return sfew.load(root, split=split, allow_partial=partial)
        case "expw":
            return expw.load(root, split=split, protocol=protocol, fold=asked.fold, allow_partial=partial)
        case "ckplus":
            return ckplus.load(
                root, split=split, label_rule=rule, protocol=protocol, fold=asked.fold, allow_partial=partial
            )
        case "folder":
            return folder.load(root, split=split, fold=asked.fold)
        case _:
            return csvfile.load(root, split=split, fold=asked.fold, allow_partial=partial)


def _aligned(name: str, root: Path, asked: _Asked) -> FaceDataset:
    from mien.lab.datasets import align_dataset  # loads ONNX Runtime, which the other ways do not need

    return align_dataset.overlay(load(name, align_dataset.original(root, name), **asdict(asked)), root)


def _refuse(name: str, **options: object) -> None:
    given = [option for option, value in options.items() if value is not None and option not in OPTIONS[name]]
    if given:
        raise DataError(f"{name} has no {' or '.join(given)}; leave it out")
