"""Scores: the only thing that tables, figures and comparisons read. One .npz with its protocol inside. No torch."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mien import writing
from mien.errors import DataError

SCORES, METRICS = "scores.npz", "metrics.json"  # the files of an evaluation: its rows, and what they come to
PROTOCOL_FIELDS: tuple[str, ...] = (
    "dataset", "data_fingerprint", "split", "label_rule", "selection_rule", "seed", "views", "head", "model_sha256",
    "command", "commit",
)  # fmt: skip
GROUP = "group_"  # before an attribute's name in the file
# What reading another file, or part of one, raises: absent, cut off, empty, an .npy, fields that are missing.
_DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, TypeError, ValueError, KeyError)


@dataclass(frozen=True)
class Scores:
    """labels: (N,) int64 (kept so, whatever integers are given), index the columns of probabilities (N, C) float32 (rows sum to
    1). classes: C names. ids: (N,) str. features: (N, D) float32 or None. votes: (N, C) float32 or None. clusters: (N,) str or
    None: the subject, sequence or picture that rows share ("" for a row of its own), which intervals draw together. groups:
    attribute (gender, say) -> (N,) str, "" where unknown. protocol: how the numbers came about."""

    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    ids: np.ndarray
    protocol: Mapping[str, Any]
    features: np.ndarray | None = None
    votes: np.ndarray | None = None
    clusters: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 2 or not np.issubdtype(self.labels.dtype, np.integer):
            raise DataError(
                f"labels of type {self.labels.dtype}, probabilities of shape {self.probabilities.shape}: expected integers and "
                "(rows, classes)"
            )
        rows, columns = self.probabilities.shape
        if len(self.labels) != rows or len(self.ids) != rows or len(self.classes) != columns:
            raise DataError(
                f"scores disagree: {len(self.labels)} labels, {len(self.ids)} ids, {len(self.classes)} classes for "
                f"probabilities {self.probabilities.shape}"
            )
        named = {GROUP + name: values for name, values in self.groups.items()}
        held = {"features": self.features, "votes": self.votes, "clusters": self.clusters, **named}
        for name, value in held.items():
            if value is not None and len(value) != rows:
                raise DataError(f"scores disagree: {len(value)} rows of {name} for {rows} of probabilities")
        if self.votes is not None and self.votes.shape != self.probabilities.shape:
            raise DataError(f"scores disagree: votes {self.votes.shape} for probabilities {self.probabilities.shape}")
        object.__setattr__(self, "labels", self.labels.astype(np.int64))
        object.__setattr__(self, "ids", self.ids.astype(str))
        missing = [field for field in PROTOCOL_FIELDS if field not in self.protocol]
        if missing:
            raise DataError(f"the protocol of these scores lacks {', '.join(missing)}")

    @property
    def predictions(self) -> np.ndarray:
        """(N,) int64: the most probable class of each row."""
        return self.probabilities.argmax(axis=1)

    def save(self, path: Path) -> None:
        held: dict[str, Any] = {
            "labels": self.labels.astype(np.int64),
            "probabilities": self.probabilities.astype(np.float32),
            "classes": np.array(self.classes),
            "ids": self.ids.astype(str),
            "protocol": np.array(json.dumps(dict(self.protocol), sort_keys=True)),
        }
        for name, value in (("features", self.features), ("votes", self.votes)):
            if value is not None:
                held[name] = value.astype(np.float32)
        if self.clusters is not None:
            held["clusters"] = self.clusters.astype(str)
        held |= {GROUP + name: values.astype(str) for name, values in self.groups.items()}
        with writing.whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **held)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read a scores file. Raises DataError naming the file and what is wrong with it."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                held = {name: data[name] for name in data.files}
            return cls(
                labels=held["labels"],
                probabilities=held["probabilities"],
                classes=tuple(str(name) for name in held["classes"]),
                ids=held["ids"],
                protocol=json.loads(str(held["protocol"])),
                features=held.get("features"),
                votes=held.get("votes"),
                clusters=held.get("clusters"),
                groups={name.removeprefix(GROUP): held[name] for name in held if name.startswith(GROUP)},
            )
        except (*_DAMAGE, DataError) as error:
            raise DataError(f"{path}: not a scores file ({error}); write one with `mien evaluate`") from None
