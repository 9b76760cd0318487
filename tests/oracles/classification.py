"""Slow loops for cross-entropy, weighted cross-entropy, cosine and label-distribution losses, in float64.

Each function takes tensors that may require gradients and returns a scalar tensor; every sum is written out.
"""

import torch
from torch import Tensor


def softmax_row(row: Tensor) -> list[Tensor]:
    """exp(z_c) / sum_k exp(z_k) for one row of logits."""
    exponentials = [torch.exp(value) for value in row]
    total = sum(exponentials)
    return [value / total for value in exponentials]


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """LBAN-IL eq. 6, batch mean; with label smoothing the target is (1 - s) one-hot + s / K."""
    n, classes = logits.shape
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        p = softmax_row(logits[i])
        for c in range(classes):
            target = smoothing / classes + (1 - smoothing if c == int(labels[i]) else 0.0)
            total = total - target * torch.log(p[c])
    return total / n


def weighted_cross_entropy(logits: Tensor, labels: Tensor, counts: tuple[int, ...], *, reduction: str) -> Tensor:
    """Weighted-cluster paper eqs. 1 and 6: - sum_i W_{y_i} log p_{i, y_i}, W_j = N_min / N_j."""
    total = torch.zeros((), dtype=torch.float64)
    weights = 0.0
    for i in range(len(labels)):
        y = int(labels[i])
        w = min(counts) / counts[y]
        total = total - w * torch.log(softmax_row(logits[i])[y])
        weights += w
    return total / {"sum": 1.0, "mean": float(len(labels)), "wmean": weights}[reduction]


def cosine(logits: Tensor, labels: Tensor) -> Tensor:
    """MSCAR eq. 4: -(y . p) / (|y| |p|) per sample, batch mean."""
    n, classes = logits.shape
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        p = softmax_row(logits[i])
        y = [1.0 if c == int(labels[i]) else 0.0 for c in range(classes)]
        dot = sum(y[c] * p[c] for c in range(classes))
        length_p = torch.sqrt(sum(p[c] * p[c] for c in range(classes)))
        length_y = sum(value * value for value in y) ** 0.5
        total = total - dot / (length_y * length_p)
    return total / n


def cosine_of_the_batch(logits: Tensor, labels: Tensor) -> Tensor:
    """MSCAR eq. 4 with all entries of the batch as one vector."""
    dot = squares = torch.zeros((), dtype=torch.float64)
    for i in range(len(labels)):
        p = softmax_row(logits[i])
        dot = dot + p[int(labels[i])]
        for value in p:
            squares = squares + value * value
    return -dot / (len(labels) ** 0.5 * torch.sqrt(squares))


def label_distribution(logits: Tensor, targets: Tensor) -> Tensor:
    """ResFace eq. 3.5: -1/(N K) sum_i sum_m q_im log p_im, over the rows whose target is not all zero."""
    n, classes = logits.shape
    total = torch.zeros((), dtype=torch.float64)
    used = 0
    for i in range(n):
        if float(targets[i].sum()) == 0.0:
            continue
        used += 1
        p = softmax_row(logits[i])
        for m in range(classes):
            total = total - targets[i, m] * torch.log(p[m])
    return total / (max(used, 1) * classes)


def teacher_distribution(teacher_logits: Tensor) -> Tensor:
    """ResFace eq. 3.4: the softmax of the teacher's output, row by row."""
    return torch.stack([torch.stack(softmax_row(row)) for row in teacher_logits])
