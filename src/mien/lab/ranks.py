"""What the processes ("ranks") of one training exchange: rows, sums and decisions.

Alone, without a process group, every function gives back what it was given: a loss or a network that calls one is the same
code on one process and on a thousand.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from mien.errors import MienError


def count() -> int:
    """How many ranks train together: 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own() -> int:
    """This process's rank, from 0."""
    return dist.get_rank() if count() > 1 else 0


def gathered(rows: Tensor) -> Tensor:
    """(n, ...) of every rank -> (count * n, ...), in the order of the ranks and the same bits on each of them.

    Every rank must bring the same shape. The gradient rule (`_Gathered`) is for a loss that every rank computes alike from
    the gathered rows.
    """
    if count() == 1:
        return rows
    if not (rows.requires_grad and torch.is_grad_enabled()):
        return _all_rows(rows)
    found: Tensor = _Gathered.apply(rows)
    return found


def summed(values: Tensor) -> Tensor:
    """The sum over the ranks of a tensor of the same shape on each. No gradient passes."""
    if count() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def decided(decide: Callable[[], Any]) -> Any:
    """What rank 0's `decide` returns, on every rank; where it raises a MienError, every rank raises it."""
    if count() == 1:
        return decide()
    told: list[Any] = [None, None]
    if own() == 0:
        try:
            told[0] = decide()
        except MienError as error:
            told[1] = error
    dist.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    return told[0]


def told_by_all(value: Any) -> list[Any]:
    """Every rank's `value` (plain, picklable data), in the order of the ranks."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def _all_rows(rows: Tensor) -> Tensor:
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


class _Gathered(torch.autograd.Function):
    """All ranks' rows. Backward: the own rows' part of the gradient, times the number of ranks.

    Each rank holds the gradient with respect to every row already, since each computes the same loss from the same rows:
    nothing is exchanged. Times the number of ranks, because DistributedDataParallel then divides the sum over the ranks by
    it (see `training/distributed.py`).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        return _all_rows(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        start = own() * ctx.rows
        return gradient[start : start + ctx.rows] * count()
