"""One training step over several ranks that means what the same step means on one.

A global batch of B rows at N ranks is the B rows that one process would see, split contiguously (`feed.EpochSampler`). Let
z_r be what the network makes of rank r's rows and L(z_1, ..., z_N) the loss of the whole batch. One process follows

    dL/dw = sum_r (dz_r/dw)^T dL/dz_r.                                                                         (1)

Averaging the gradients of per-rank losses, as plain data parallelism does, gives something else as soon as L is no mean over
rows: with correlations, class means, or a normaliser that depends on the labels. Here instead

1. every rank gathers all z and labels and computes the same L from them (`over_ranks`). The losses are the code that one process
   runs. What they keep (centres, confusion history, virtual batches) is updated from the gathered rows, by the same arithmetic
   on every rank, so that it stays equal without being sent;
2. the gather's backward hands rank r its own dL/dz_r times N (`ranks.gathered`). Autograd makes the r-th term of (1) times N
   out of it, and DistributedDataParallel's mean over the ranks, sum / N, is (1) exactly. The factor stands in the gather and not
   on the loss, since the gradients of learnt centres do not pass the gather: every rank has the whole of them, and their mean
   is right as it is;
3. BatchNorm uses the whole batch's statistics (`GlobalBatchNorm`). It makes z_r depend on the other ranks' rows, and its
   backward sums the two statistics' gradients over the ranks, as (1) asks. All the gradients that meet there carry the same
   factor N. torch's SyncBatchNorm does this on GPUs only and refuses CPU tensors; this one serves both;
4. dropout draws its mask for the whole batch from the step's seed, which is equal on all ranks, and each rank takes its own rows'
   part (`GlobalDropout`): the mask that one process would draw, whatever N is. Augmentation draws by (seed, epoch, sample id);
5. the optimiser, the averaged weights and the schedule then see equal numbers on every rank.

Buffers are not broadcast before each forward pass, as DistributedDataParallel does by default: they are equal already.
"""

from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mien.lab import ranks
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.inputs import widen

_BUFFERS = "forward_sync_buffers"  # torch 2.13's name for broadcast_buffers
if _BUFFERS not in signature(DistributedDataParallel).parameters:
    _BUFFERS = "broadcast_buffers"
# static_graph: which parameters get a gradient is the same in every step, and a head that the loss does not read gets none.
DDP_OPTIONS: dict[str, Any] = {"static_graph": True, _BUFFERS: False}


def over_ranks(output: NetworkOutput, batch: Batch) -> tuple[NetworkOutput, Batch]:
    """The whole batch's output and labels from this rank's rows; alone, both as they are.

    `images` and `ids` stay the rank's own: no loss computes from them but by a teacher, whose answers it gathers.
    """
    if ranks.count() == 1:
        return output, batch
    whole = NetworkOutput(
        logits=ranks.gathered(widen(output.logits)),
        features=ranks.gathered(widen(output.features)),
        embeddings=None if output.embeddings is None else ranks.gathered(widen(output.embeddings)),
        heads={name: ranks.gathered(widen(logits)) for name, logits in (output.heads or {}).items()} or None,
    )
    votes = None if batch.votes is None else ranks.gathered(batch.votes)
    return whole, replace(batch, labels=ranks.gathered(batch.labels), votes=votes)


def convert(network: nn.Module) -> None:
    """Put the whole batch's BatchNorm and dropout in place of the network's own. Names, weights and state stay."""
    for name, child in list(network.named_children()):
        if isinstance(child, _BatchNorm):
            setattr(network, name, GlobalBatchNorm(child))
        elif isinstance(child, nn.Dropout):
            setattr(network, name, GlobalDropout(child.p).train(child.training))
        else:
            convert(child)


class GlobalDropout(nn.Dropout):
    """Dropout by this rank's part of the mask that one process would draw for the whole batch."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not self.p:
            return input
        rows, start = len(input), ranks.own() * len(input)
        mask = F.dropout(input.new_ones(rows * ranks.count(), *input.shape[1:]), self.p, training=True)
        return input * mask[start : start + rows]


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm over all ranks' rows, for the CPU (gloo) and the GPU. Every rank must bring a batch of the same shape.

    It takes the weights and statistics of `norm` over, the same tensors under the same names.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
        )
        for name, value in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
            setattr(self, name, value)
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Rows first, channels second, whatever comes after."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        count = ranks.count() * input.numel() // input.shape[1]
        mean, variance = statistics(input)
        self._remember(mean, variance * count / (count - 1))
        found: Tensor = _Normalise.apply(input, self.weight, self.bias, mean, variance, self.eps)
        return found

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as nn.BatchNorm does: by `momentum`, or to the mean of all batches without one."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), weight)
        self.running_var.lerp_(variance.to(self.running_var), weight)


@torch.no_grad()
def statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """(n, C, ...) on each rank -> mean (C,) and biased variance (C,) over all ranks' rows, float32 or wider.

    The variance is the mean of the ranks' variances plus the variance of their means (Chan et al. 1983), which does not lose
    digits as a sum of squares would.
    """
    wide = widen(values)
    if wide.is_cpu:  # what nn.BatchNorm's own kernel does there, 3 to 40 times faster than var_mean
        mean, variance = torch.batch_norm_update_stats(wide, None, None, 0.0)
    else:
        variance, mean = torch.var_mean(wide, dim=[0, *range(2, wide.ndim)], correction=0)
    found = ranks.gathered(torch.stack([mean, variance])[None])  # (N, 2, C)
    means, variances = found[:, 0], found[:, 1]
    return means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, correction=0)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are the whole batch's.

    Backward, with x^ the normalised value and sums over the whole batch of n values:
    dx = weight / deviation * (dy - sum(dy) / n - x^ sum(dy x^) / n). The gradients of weight and bias are the rank's own sums,
    which DistributedDataParallel adds up.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return F.batch_norm(values, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, inverse = ctx.saved_tensors
        _, along, total = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, None, None, mean, inverse, True, ctx.eps, [False, True, True]
        )  # this rank's sum(dy x^) and sum(dy)
        sums = ranks.summed(torch.stack([total, along])) / (ranks.count() * values.numel() // values.shape[1])
        shape = (1, -1, *(1 for _ in values.shape[2:]))
        scale = inverse if weight is None else inverse * weight
        slope = -scale * inverse * sums[1]  # of dx in x
        offset = -scale * sums[0] - slope * mean
        wide = widen(gradient) * scale.view(shape) + torch.addcmul(offset.view(shape), widen(values), slope.view(shape))
        affine = weight is not None
        return wide.to(values.dtype), along if affine else None, total if affine else None, None, None, None
