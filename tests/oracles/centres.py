"""Slow loops for the centre, island, islets and weighted-cluster losses and their centre updates, in float64."""

import torch
from torch import Tensor


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return sum((a[d] - b[d]) * (a[d] - b[d]) for d in range(len(a)))  # type: ignore[return-value]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return sum(a[d] * b[d] for d in range(len(a)))  # type: ignore[return-value]


def _norm(a: Tensor) -> Tensor:
    return torch.sqrt(_dot(a, a))


def centre(features: Tensor, labels: Tensor, centres: Tensor, *, reduction: str) -> Tensor:
    """LBAN-IL eq. 3: 1/2 sum_i ||x_i - c_{y_i}||^2, or its batch mean."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(labels)):
        total = total + 0.5 * _squared(features[i], centres[int(labels[i])])
    return total if reduction == "sum" else total / len(labels)


def pair_cosines(centres: Tensor) -> Tensor:
    """The island loss's pair term: sum over ordered pairs j != k of cos(c_j, c_k) + 1."""
    total = torch.zeros((), dtype=torch.float64)
    for j in range(len(centres)):
        for k in range(len(centres)):
            if j != k:
                total = total + _dot(centres[j], centres[k]) / (_norm(centres[j]) * _norm(centres[k])) + 1
    return total


def pair_penalty(centres: Tensor, *, reduction: str) -> Tensor:
    """LBAN-IL eq. 1 over unordered pairs: exp(-1/2 sum ||c_j - c_k||), or with the mean distance."""
    total, pairs = torch.zeros((), dtype=torch.float64), 0
    for j in range(len(centres)):
        for k in range(j + 1, len(centres)):
            total = total + torch.sqrt(_squared(centres[j], centres[k]))
            pairs += 1
    return torch.exp(-0.5 * (total if reduction == "sum" else total / pairs))


def islets_step(
    features: Tensor, labels: Tensor, centres: Tensor, *, pull: float, push: float, reduction: str
) -> Tensor:
    """LBAN-IL eq. 4: Delta c_j, term by term."""
    classes, rows = len(centres), []
    penalty = pair_penalty(centres, reduction=reduction)
    inside = 1.0 if reduction == "sum" else 1.0 / (classes * (classes - 1) / 2)
    for j in range(classes):
        members = [i for i in range(len(labels)) if int(labels[i]) == j]
        row = torch.zeros_like(centres[j])
        for i in members:
            row = row + (centres[j] - features[i]) / (1 + len(members))
        for k in range(classes):
            if k == j:
                continue
            norm_j, norm_k = _norm(centres[j]), _norm(centres[k])
            bracket = centres[k] / (norm_j * norm_k)
            bracket = bracket - _dot(centres[j], centres[k]) * centres[j] / (norm_j**3 * norm_k)
            row = row + pull / (classes - 1) * bracket
            apart = centres[j] - centres[k]
            row = row - push / (2 * classes) * inside * apart / _norm(apart) * penalty
        rows.append(row)
    return torch.stack(rows)


def separation(centres: Tensor, j: int) -> Tensor:
    """D_j = sum_{l != j} ||c_l - c_j||^2 of the weighted-cluster loss."""
    total = torch.zeros((), dtype=torch.float64)
    for other in range(len(centres)):
        if other != j:
            total = total + _squared(centres[other], centres[j])
    return total


def weighted_cluster(
    features: Tensor, labels: Tensor, centres: Tensor, counts: tuple[int, ...], *, alpha: float, reduction: str
) -> Tensor:
    """Weighted-cluster paper eq. 4: 1/2 sum_i W_{y_i} ||x_i - c_{y_i}||^2 / (D_{y_i} + alpha)."""
    total, weights = torch.zeros((), dtype=torch.float64), 0.0
    for i in range(len(labels)):
        y = int(labels[i])
        w = min(counts) / counts[y]
        total = total + 0.5 * w * _squared(features[i], centres[y]) / (separation(centres, y) + alpha)
        weights += w
    return total / {"sum": 1.0, "mean": float(len(labels)), "wmean": weights}[reduction]


def weighted_cluster_step(
    features: Tensor,
    labels: Tensor,
    centres: Tensor,
    counts: tuple[int, ...],
    *,
    alpha: float,
    gamma: float,
    update: str,
) -> Tensor:
    """What is subtracted from the centres, eqs. 8-9: with the sign corrected and the whole step towards the mean capped
    at 1 ("paper"), as printed, or averaged by 1/(1 + n_j) ("normalised")."""
    rows = []
    for j in range(len(centres)):
        members = [i for i in range(len(labels)) if int(labels[i]) == j]
        row = torch.zeros_like(centres[j])
        if update == "normalised":
            for i in members:
                row = row + gamma * (centres[j] - features[i]) / (1 + len(members))
            rows.append(row)
            continue
        each = gamma * (min(counts) / counts[j]) / (separation(centres, j) + alpha)
        if update == "paper" and members:
            each = torch.clamp(each, max=1.0 / len(members))
        for i in members:
            row = row + each * (centres[j] - features[i]) * (-1 if update == "as_printed" else 1)
        rows.append(row)
    return torch.stack(rows)
