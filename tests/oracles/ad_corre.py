"""Slow loops for Ad-Corre's three discriminators and its adaptive attention map, in float64."""

import torch
from torch import Tensor


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 1 with the squares that its denominator lacks in print: Pearson's correlation of two vectors."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((a[d] - mean_a) * (b[d] - mean_b) for d in range(len(a)))
    square_a = sum((a[d] - mean_a) ** 2 for d in range(len(a)))
    square_b = sum((b[d] - mean_b) ** 2 for d in range(len(b)))
    return product / torch.sqrt(square_a * square_b + 1e-12)


def class_weights(history: list[tuple[list[int], list[int]]], classes: int) -> list[float]:
    """Eq. 7: w(c) = 1 - CONF[c, c] + 1e-6, CONF the row-normalised confusions of (labels, predictions) batches."""
    weights = []
    for c in range(classes):
        seen = right = 0
        for labels, predictions in history:
            for label, prediction in zip(labels, predictions, strict=True):
                if label == c:
                    seen += 1
                    right += int(prediction == c)
        weights.append(1 - (right / seen if seen else 0.0) + 1e-6)
    return weights


def feature_discriminator(embeddings: Tensor, labels: Tensor, weights: list[float], *, neg_target: float) -> Tensor:
    """Eqs. 3-9: 1/(k n^2) sum_l sum_{i != j} (w_i + w_j) |phi_ij - corr(e_il, e_jl)|."""
    n, k, _ = embeddings.shape
    total = torch.zeros((), dtype=torch.float64)
    for m in range(k):
        for i in range(n):
            for j in range(n):
                if i == j:  # Eq. 6
                    continue
                yi, yj = int(labels[i]), int(labels[j])
                phi = 1.0 if yi == yj else neg_target
                gap = abs(phi - correlation(embeddings[i, m], embeddings[j, m]))
                total = total + (weights[yi] + weights[yj]) * gap
    return total / (k * n * n)


def mean_discriminator(embeddings: Tensor, labels: Tensor, classes: int, *, neg_target: float) -> Tensor:
    """Eq. 10: 1/(k K^2) sum over embeddings and ordered pairs of present classes of |target - corr of class means|."""
    k = embeddings.shape[1]
    total = torch.zeros((), dtype=torch.float64)
    for m in range(k):
        means = {}
        for c in range(classes):
            members = [embeddings[i, m] for i in range(len(labels)) if int(labels[i]) == c]
            if members:
                means[c] = sum(members) / len(members)
        for c in means:
            for d in means:
                if c != d:
                    total = total + abs(neg_target - correlation(means[c], means[d]))
    return total / (k * classes * classes)


def embedding_discriminator(embeddings: Tensor, *, neg_target: float) -> Tensor:
    """Eq. 11: 1/(n k^2) sum over samples and ordered pairs of embeddings of |target - corr|."""
    n, k, _ = embeddings.shape
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        for a in range(k):
            for b in range(k):
                if a != b:
                    total = total + abs(neg_target - correlation(embeddings[i, a], embeddings[i, b]))
    return total / (n * k * k)
