"""Two pictures in one: mixup (Zhang et al., 2018, arXiv:1710.09412) and CutMix (Yun et al., 2019, arXiv:1905.04899).

Every row of a batch is mixed with the next one, the last with the first; batches are in random order. As in the papers' code,
one share is drawn for the whole batch, so that any loss can be weighed: share * loss(own labels) + (1 - share) * loss(next
labels). The share is taken as 0.5 or more, which leaves each row its own label as the main one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from mien.lab import ranks
from mien.lab.batch import Batch
from mien.lab.methods.method import Augment

_STREAM = 1  # not 0: numpy takes [seed, epoch, 0, 0] for [seed, epoch], from which the epoch's order is drawn


@dataclass(frozen=True)
class Mix:
    """share: how much of each picture stays its own, 0.5 to 1. box: (top, bottom, left, right), px, where the next row's
    picture is pasted; None blends the two everywhere."""

    share: float
    box: tuple[int, int, int, int] | None = None

    def pictures(self, images: Tensor) -> Tensor:
        """(n, C, H, W), this rank's rows -> the same, mixed with the next rows of the whole batch."""
        partners = _partners(images)
        if self.box is None:
            return self.share * images + (1 - self.share) * partners
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return mixed

    def terms(self, own: Mapping[str, Tensor], partners: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms of a loss, of which `partners` were computed from `next_labels`."""
        return {name: self.share * own[name] + (1 - self.share) * partners[name] for name in own}


def next_labels(batch: Batch) -> Batch:
    """The whole batch with each row's labels, and this rank's with their ids, replaced by the next row's."""
    votes = None if batch.votes is None else _next(batch.votes)
    return replace(batch, labels=_next(batch.labels), votes=votes, ids=_partners(batch.ids))


def draw(options: Augment, *, size: int, seed: int, epoch: int, step: int) -> Mix | None:
    """How the batch of pictures of side `size` at (seed, epoch, step) is mixed, equal on all ranks; None: not at all."""
    if not (options.mixup or options.cutmix):
        return None
    random = np.random.default_rng([seed, epoch, step, _STREAM])
    kind, share = random.random(), random.beta(options.mix_alpha, options.mix_alpha)
    share = max(share, 1 - share)
    if kind < options.mixup:
        return Mix(share)
    if kind < options.mixup + options.cutmix:
        return _box(share, random.random(2), size)
    return None


def _box(share: float, centre: np.ndarray, size: int) -> Mix:
    """A square of 1 - share of the picture about `centre` (0-1), cut at the edges; the share is what then remains."""
    half = np.sqrt(1 - share) * size / 2
    low = np.rint(np.clip(centre * size - half, 0, size)).astype(int)
    high = np.rint(np.clip(centre * size + half, 0, size)).astype(int)
    (top, left), (bottom, right) = low.tolist(), high.tolist()
    return Mix(1 - (bottom - top) * (right - left) / size**2, (top, bottom, left, right))


def _partners(rows: Tensor) -> Tensor:
    """This rank's rows -> the next rows of the whole batch."""
    return _next(ranks.gathered(rows))[ranks.own() * len(rows) :][: len(rows)]


def _next(rows: Tensor) -> Tensor:
    return rows.roll(-1, dims=0)
