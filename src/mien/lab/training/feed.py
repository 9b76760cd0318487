"""From a FaceDataset to batches: pixels decoded once into memory while they fit, lazily otherwise.

Over several ranks, the n-th batches of all of them are together the rows of the n-th batch of one process, split contiguously.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mien.card import InputSpec
from mien.errors import UsageError
from mien.lab import ranks
from mien.lab.batch import Batch
from mien.lab.datasets import FaceDataset
from mien.lab.training.randomness import permutation

IN_MEMORY = 2 * 1024**3  # bytes of decoded pixels up to which a dataset is kept in memory


class Pictures(Dataset[Batch]):
    """Batches of uint8 pictures (N, C, S, S) as float32 in 0-1, not yet augmented or normalised."""

    def __init__(self, data: FaceDataset, spec: InputSpec) -> None:
        self.data, self.spec = data, spec
        size = len(data) * len(spec.mean) * spec.height * spec.width
        self._pixels = self._decode(range(len(data))) if size <= IN_MEMORY else None
        self._labels = torch.from_numpy(data.labels)
        self._votes = None if data.votes is None else torch.from_numpy(data.votes)

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        ids = torch.as_tensor(rows, dtype=torch.int64)
        pixels = self._decode(rows) if self._pixels is None else self._pixels[ids]
        votes = None if self._votes is None else self._votes[ids]
        return Batch(pixels.float() / 255, self._labels[ids], votes, ids)

    def _decode(self, rows: Sequence[int]) -> torch.Tensor:
        spec = self.spec
        held = np.empty((len(rows), len(spec.mean), spec.height, spec.width), np.uint8)
        for start in range(0, len(rows), 256):
            part = rows[start : start + 256]
            held[start : start + len(part)] = spec.pixels([self.data.read(i) for i in part])
        return torch.from_numpy(held)


class EpochSampler(Sampler[int]):
    """This rank's rows of every full batch, in an order that depends on (seed, epoch) alone. Lightning calls `set_epoch`."""

    def __init__(self, count: int, seed: int, *, batch: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0
        self.batches, self.batch, self.share = count // batch, batch, _share(batch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = permutation(self.seed, self.epoch, self.count)[: self.batches * self.batch]
        return iter(order.reshape(self.batches, -1, self.share)[:, ranks.own()].ravel().tolist())

    def __len__(self) -> int:
        return self.batches * self.share


def _share(batch: int) -> int:
    """How many rows of a batch each rank takes. Raises UsageError where they do not divide."""
    share, rest = divmod(batch, ranks.count())
    if rest:
        raise UsageError(
            f"a batch of {batch} rows does not divide by {ranks.count()} processes; choose --set batch=N with a multiple of "
            f"{ranks.count()} (a training set smaller than a batch is one batch), or another --devices"
        )
    return share


def training_loader(data: FaceDataset, spec: InputSpec, *, batch: int, seed: int) -> DataLoader[Batch]:
    """Shuffled full batches; the last, incomplete one is left out (other rows each epoch) unless it is the only one."""
    sampler = EpochSampler(len(data), seed, batch=min(batch, len(data)))
    pinned = torch.cuda.is_available()
    return DataLoader(
        Pictures(data, spec), batch_size=sampler.share, sampler=sampler, collate_fn=_as_is, pin_memory=pinned
    )


def ordered_loader(data: FaceDataset, spec: InputSpec, *, batch: int = 256) -> DataLoader[Batch]:
    """Every row once, in the dataset's order. Over several ranks each takes a contiguous part, none of them padded. Raises
    UsageError for fewer rows than ranks."""
    if len(data) < ranks.count():
        raise UsageError(
            f"{data.name} {data.split}: {len(data)} rows for {ranks.count()} processes; use fewer --devices"
        )
    if ranks.count() > 1:
        data = data.subset(np.array_split(np.arange(len(data)), ranks.count())[ranks.own()])
    return DataLoader(Pictures(data, spec), batch_size=batch, collate_fn=_as_is)


def sample_loader(data: FaceDataset, spec: InputSpec, *, rows: int, batch: int = 256) -> DataLoader[Batch]:
    """`rows` of the rows, or all where there are fewer, evenly over the dataset: the same on every rank."""
    chosen = np.linspace(0, len(data) - 1, min(rows, len(data))).astype(int)
    return DataLoader(Pictures(data.subset(chosen), spec), batch_size=batch, collate_fn=_as_is)


def _as_is(batch: Any) -> Any:
    """`Pictures.__getitems__` already gives a whole batch."""
    return batch
