"""Answers about the rows of a training split by networks that had not learnt from them, as a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien import writing
from mien.errors import DataError, UsageError


@dataclass(frozen=True)
class CrossFitted:
    """ids: N names of rows. probabilities: head -> (N, K) float32, rows sum to 1. classes: head -> its K names. default_head:
    the one of the dataset's classes. facts: how the answers came about."""

    ids: tuple[str, ...]
    probabilities: Mapping[str, np.ndarray]
    classes: Mapping[str, tuple[str, ...]]
    default_head: str
    facts: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """As a .npz, whole or not at all. Raises UsageError for another name."""
        check_name(path)
        told = {"facts": dict(self.facts), "default_head": self.default_head, "classes": dict(self.classes)}
        held: dict[str, Any] = {head: values.astype(np.float32) for head, values in self.probabilities.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing.whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, ids=np.array(self.ids, str), card=np.array(json.dumps(told)), **held)

    @classmethod
    def load(cls, path: Path) -> "CrossFitted":
        """Raises DataError when the file is something else, or damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                held = {name: arrays[name] for name in arrays.files}
            told = json.loads(str(held.pop("card")))
            ids = tuple(map(str, held.pop("ids")))
            classes = {head: tuple(names) for head, names in told["classes"].items()}
            default, facts = told["default_head"], told["facts"]
            shapes = {head: (len(ids), len(names)) for head, names in classes.items()}
            if default not in classes or {head: values.shape for head, values in held.items()} != shapes:
                raise ValueError("its arrays are not those that it names")
        except Exception as error:  # whatever a damaged archive makes numpy and zipfile raise
            raise DataError(
                f"{path}: not answers about left-out rows ({error}); write them with `mien cross-fit`"
            ) from None
        return cls(ids, held, classes, default, facts)


def check_name(path: Path) -> None:
    """Raises UsageError for a file name that does not end in .npz."""
    if path.suffix != ".npz":
        raise UsageError(f"-o {path}: expected a file name that ends in .npz")
