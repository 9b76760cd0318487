"""Intervals for the area under the ROC curve: DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44).

The macro one-against-rest AUC is a mean of two-sample U statistics. Each row contributes to every class's statistic,
as a positive to its own and as a negative to the others; DeLong's components of a row, added with their weights, make
one number a row, and the variance of the macro AUC is the variance of the sum of those numbers, with the classes as
strata. For two classes this is DeLong's estimator itself.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from mien.errors import DataError
from mien.lab.evaluation.eval_needed import needs_eval
from mien.lab.evaluation.statistics import (
    LEVEL,
    ONE_CLUSTER,
    Interval,
    cluster_codes,
    cluster_count,
    quantile,
    student_tail,
)

ONE_ROW = "a class of one row, which says nothing of others"


def class_components(positive: np.ndarray, column: np.ndarray) -> np.ndarray:
    """(N,) float64: for a positive the fraction of negatives it beats, for a negative the fraction of positives that
    beat it, ties counting half (DeLong 1988, the components V10 and V01). positive: (N,) bool; column: (N,) scores."""
    ranks = _midranks(column)
    found = np.empty(len(column), np.float64)
    negatives, positives = int((~positive).sum()), int(positive.sum())
    found[positive] = (ranks[positive] - _midranks(column[positive])) / negatives
    found[~positive] = 1 - (ranks[~positive] - _midranks(column[~positive])) / positives
    return found


def _midranks(values: np.ndarray) -> np.ndarray:
    """1-based ranks; ties share the mean of their ranks."""
    with needs_eval("DeLong's intervals"):
        from scipy.stats import rankdata
    ranks: np.ndarray = rankdata(values)
    return ranks


def macro_components(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """The macro AUC over the classes that are present, and each row's weighted component (N,). Raises DataError for rows of
    fewer than two classes."""
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(f"AUC needs rows of two classes, found {len(present)}: evaluate a split with more")
    total, areas = np.zeros(len(labels)), []
    for index in present:
        positive = labels == index
        parts = class_components(positive, probabilities[:, index])
        areas.append(parts[positive].mean())
        total += np.where(positive, parts / positive.sum(), parts / (~positive).sum()) / len(present)
    return float(np.mean(areas)), total


def component_variance(
    components: np.ndarray, labels: np.ndarray, clusters: Sequence[str] | np.ndarray | None = None
) -> float:
    """Variance of the sum of the rows' components: sum over classes of n_k var_k; with clusters, the sum over clusters
    of their squared sums of class-centred components (Obuchowski 1997)."""
    centred = components.astype(np.float64).copy()
    variance = 0.0
    for index in np.unique(labels):
        rows = labels == index
        centred[rows] -= centred[rows].mean()
        count = int(rows.sum())
        variance += float((centred[rows] ** 2).sum()) * count / max(1, count - 1)
    if clusters is None:
        return variance
    sums = np.bincount(cluster_codes(np.asarray(clusters)), weights=centred)
    return float((sums**2).sum() * len(sums) / max(1, len(sums) - 1))


def auc_interval(
    labels: np.ndarray, probabilities: np.ndarray, *, clusters: Sequence[str] | np.ndarray | None = None
) -> Interval:
    """Macro one-against-rest AUC with its normal interval (by cluster Student's t) from DeLong's variance, clipped to [0, 1]. It
    is [0, 1] where a class has one row, whose variance nobody knows."""
    value, components = macro_components(labels, probabilities)
    if clusters is not None and cluster_count(clusters) < 2:
        return Interval(value, 0.0, 1.0, LEVEL, ONE_CLUSTER)
    if _fewest(labels) < 2:
        return Interval(value, 0.0, 1.0, LEVEL, ONE_ROW)
    error = quantile(clusters) * component_variance(components, labels, clusters) ** 0.5
    how = "DeLong" if clusters is None else "DeLong, t by cluster"
    return Interval(value, max(0.0, value - error), min(1.0, value + error), LEVEL, how)


def auc_difference(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
) -> tuple[Interval, float]:
    """second - first macro AUC on the same rows, its interval, and the two-sided p value of DeLong's paired test; by cluster both
    are of Student's t with one degree of freedom fewer than clusters. They say nothing of one cluster, of a class of one row, and
    where the rows of every class differ alike, so that the variance is 0."""
    before, after = macro_components(labels, first), macro_components(labels, second)
    value = after[0] - before[0]
    if clusters is not None and cluster_count(clusters) < 2:
        return Interval(value, -1.0, 1.0, LEVEL, ONE_CLUSTER), 1.0
    deviation = component_variance(after[1] - before[1], labels, clusters) ** 0.5
    if deviation == 0 and value == 0:
        return Interval(0.0, 0.0, 0.0, LEVEL, "DeLong, paired"), 1.0
    if deviation == 0 or _fewest(labels) < 2:
        return Interval(value, -1.0, 1.0, LEVEL, ONE_ROW if deviation else "no variance"), 1.0
    error = quantile(clusters) * deviation
    return Interval(value, value - error, value + error, LEVEL, "DeLong, paired"), _two_sided(
        value, deviation, clusters
    )


def _fewest(labels: np.ndarray) -> int:
    """Rows of the class that has the fewest, of those that are present; of two, each is the other's rest."""
    return int(np.unique(labels, return_counts=True)[1].min())


def _two_sided(value: float, deviation: float, clusters: Sequence[str] | np.ndarray | None) -> float:
    if clusters is None:
        return 2 * NormalDist().cdf(-abs(value) / deviation)
    return student_tail(abs(value) / deviation, cluster_count(clusters) - 1)
