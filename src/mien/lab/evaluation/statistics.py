"""How sure a number is: bootstrap, normal and Wilson intervals over rows, t-intervals over seeds. No torch.

A bootstrap that draws rows costs N draws a replicate. Every metric here depends on the rows only through counts of a
few hundred cells (class x prediction, or class x bin x correct), so the counts are drawn directly, from a multinomial:
the same distribution, and a million rows cost what a thousand do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.evaluation.eval_needed import needs_eval

REPLICATES = 2000  # Monte-Carlo error of a 2.5 % quantile's level: sqrt(.025 * .975 / 2000) = 0.35 points
ALPHA = 0.05  # a p value from here on is no difference
LEVEL = 1 - ALPHA
LEVEL_WORDS = f"{100 * LEVEL:g} %"
FEWEST_CLUSTERS = 10  # of which what a test by cluster would see is told: of fewer its distribution is too coarse
ONE_CLUSTER = "one cluster, whose rows say nothing of others"  # how an interval that holds all values came about
PROFILES = 5000  # above this many distinct clusters a multinomial over them costs more than drawing rows


@dataclass(frozen=True)
class Interval:
    """value with its two-sided interval [low, high] at `level`, in the unit of the value. how: the method, in words."""

    value: float
    low: float
    high: float
    level: float
    how: str


@dataclass(frozen=True)
class SeedSummary:
    """Runs that differ only in their seed. sd: sample standard deviation (n - 1). sd, low, high are None for one
    run."""

    runs: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def replicate_counts(
    cells: np.ndarray,
    size: int,
    *,
    strata: np.ndarray | None = None,
    clusters: Sequence[str] | np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> np.ndarray:
    """(B, size) int64: how often each cell occurs in B resamples of the rows. cells: (N,) int64 in [0, size).

    Without clusters, the rows of each stratum (N,) are resampled among themselves. With clusters (N,), whole clusters
    are drawn with replacement and strata are not used, since a cluster may cross them; a row with cluster "" is its
    own. Raises UsageError where both are given.
    """
    if strata is not None and clusters is not None:
        raise UsageError("resample within strata or by clusters, not both: a cluster may cross strata")
    generator = np.random.default_rng(seed)
    if clusters is not None:
        return _cluster_counts(cells, size, np.asarray(clusters), replicates, generator)
    groups = np.zeros(len(cells), np.int64) if strata is None else strata
    drawn = np.zeros((replicates, size), np.int64)
    for group in np.unique(groups):
        counts = np.bincount(cells[groups == group], minlength=size)
        drawn += generator.multinomial(counts.sum(), counts / counts.sum(), size=replicates)
    return drawn


def _cluster_counts(
    cells: np.ndarray, size: int, clusters: np.ndarray, replicates: int, generator: np.random.Generator
) -> np.ndarray:
    """Clusters with the same cells are interchangeable, so where few differ the draw is a multinomial over those; where
    many do, clusters are drawn one by one and their rows weighted, which costs N a replicate."""
    codes = cluster_codes(clusters)
    contents, multiplicity = _profiles(cells, codes)
    if len(contents) > PROFILES:
        return _drawn_one_by_one(cells, size, codes, replicates, generator)
    profiles = np.zeros((len(contents), size))
    for profile, members in zip(profiles, contents, strict=True):
        np.add.at(profile, members, 1)
    weights = generator.multinomial(multiplicity.sum(), multiplicity / multiplicity.sum(), size=replicates)
    return np.rint(weights.astype(np.float64) @ profiles).astype(np.int64)


def _profiles(cells: np.ndarray, codes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The distinct contents of the clusters, each as its sorted cells, and how many clusters have each."""
    order = np.lexsort((cells, codes))
    sizes = np.bincount(codes)[codes[order]]
    contents: list[np.ndarray] = []
    multiplicity = []
    for members in np.unique(sizes):
        distinct, times = np.unique(cells[order][sizes == members].reshape(-1, members), axis=0, return_counts=True)
        contents.extend(distinct)
        multiplicity.append(times)
    return contents, np.concatenate(multiplicity)


def _drawn_one_by_one(
    cells: np.ndarray, size: int, codes: np.ndarray, replicates: int, generator: np.random.Generator
) -> np.ndarray:
    groups = int(codes.max()) + 1
    drawn = np.empty((replicates, size), np.int64)
    for row in drawn:
        weights = np.bincount(generator.integers(groups, size=groups), minlength=groups)
        row[:] = np.rint(np.bincount(cells, weights=weights[codes], minlength=size))
    return drawn


def cluster_codes(clusters: np.ndarray) -> np.ndarray:
    """(N,) names -> (N,) int64 from 0 without gaps; every "" becomes a cluster of its own."""
    names, codes = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    alone = np.flatnonzero(names[codes] == "")
    codes = codes.copy()
    codes[alone] = len(names) + np.arange(len(alone))
    return np.unique(codes, return_inverse=True)[1]


def percentile_interval(
    value: float,
    draws: np.ndarray,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    how: str,
) -> Interval:
    """The percentile bootstrap interval: the (1 - LEVEL) / 2 quantiles on both sides of the finite draws (B,). Drawn by cluster it
    is expanded (Hesterberg 2015, "What Teachers Should Know about the Bootstrap"), as that of few clusters is too narrow: the
    level on each side is Phi(-sqrt(G / (G - 1)) t_{G-1}). Raises DataError where no draw is finite."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        raise DataError("no bootstrap replicate gave a number: this metric needs more rows or more classes")
    tail = (1 - LEVEL) / 2
    if clusters is not None:
        count = cluster_count(clusters)
        tail = NormalDist().cdf(-float(np.sqrt(count / (count - 1))) * quantile(clusters))
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(value, float(low), float(high), LEVEL, how)


def mean_interval(values: np.ndarray, *, clusters: Sequence[str] | np.ndarray | None = None) -> Interval:
    """Normal interval of a mean of rows (N,): mean +- z sd / sqrt(N), by the central limit theorem; with clusters, sd
    / sqrt(N) is sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2) / N, and z Student's t of G - 1 degrees of freedom."""
    mean = float(values.mean())
    reach = quantile(clusters) * standard_error(values, clusters)
    return Interval(mean, mean - reach, mean + reach, LEVEL, "normal" if clusters is None else "t, by cluster")


def standard_error(values: np.ndarray, clusters: Sequence[str] | np.ndarray | None = None) -> float:
    """Of the mean of rows (N,), as in `mean_interval`."""
    codes = np.arange(len(values)) if clusters is None else cluster_codes(np.asarray(clusters))
    sums = np.bincount(codes, weights=values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(sums) / max(1, len(sums) - 1))) / len(values)


def share_interval(right: np.ndarray, clusters: Sequence[str] | np.ndarray | None = None) -> Interval:
    """Wilson's (1927) interval of a share of rows (N,), each 0 or 1, which holds its level for few rows and near 0 and 1, where
    the normal one does not. With clusters, N is divided by the design effect: the variance by cluster over that of as many
    independent rows, at least 1, and z is Student's t of G - 1 degrees of freedom; of one cluster anything is possible.
    Where all rows are alike the effect cannot be estimated, and each cluster counts as one row."""
    count, share = len(right), float(right.mean())
    clusters = clusters if shared(clusters) else None
    if clusters is not None and cluster_count(clusters) < 2:
        return Interval(share, 0.0, 1.0, LEVEL, ONE_CLUSTER)
    z = quantile(clusters)
    alone = share * (1 - share) / count
    if clusters is None:
        effect = 1.0
    elif alone == 0:
        effect = count / cluster_count(clusters)
    else:
        effect = max(1.0, standard_error(right, clusters) ** 2 / alone)
    n = count / effect
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * float(np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)) / (1 + z**2 / n)
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Interval(share, low, high, LEVEL, "Wilson" if clusters is None else "Wilson, by cluster")


def shared(clusters: Sequence[str] | np.ndarray | None) -> bool:
    """Whether any two rows are of one cluster."""
    return clusters is not None and cluster_count(clusters) < len(clusters)


def cluster_count(clusters: Sequence[str] | np.ndarray) -> int:
    """G, the number of clusters that rows (N,) are of; a row with cluster "" is its own."""
    return int(cluster_codes(np.asarray(clusters)).max(initial=-1)) + 1


def quantile(clusters: Sequence[str] | np.ndarray | None) -> float:
    """How many standard errors an interval at LEVEL reaches to either side: the normal's quantile, by cluster that of Student's t
    with one degree of freedom fewer than clusters, of which there are two or more."""
    if clusters is None:
        return NormalDist().inv_cdf((1 + LEVEL) / 2)
    return student_quantile((1 + LEVEL) / 2, cluster_count(clusters) - 1)


def seed_summary(values: Sequence[float]) -> SeedSummary:
    """Mean, sample standard deviation and the Student t interval mean +- t_{n-1} sd / sqrt(n) over runs. Raises DataError where
    there are none."""
    if not len(values):
        raise DataError("no runs to summarise: give the value of at least one run")
    numbers = np.asarray(values, np.float64)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return SeedSummary(1, mean, None, None, None)
    deviation = float(numbers.std(ddof=1))
    error = student_quantile((1 + LEVEL) / 2, len(numbers) - 1) * deviation / np.sqrt(len(numbers))
    return SeedSummary(len(numbers), mean, deviation, mean - float(error), mean + float(error))


def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t with `freedom` degrees of freedom."""
    return float(_scipy_stats().t.ppf(probability, freedom))


def student_tail(value: float, freedom: float) -> float:
    """Both tails of Student's t beyond +-`value`, which is 0 or more."""
    return float(2 * _scipy_stats().t.sf(value, freedom))


def _scipy_stats() -> Any:
    with needs_eval("intervals"):
        from scipy import stats
    return stats
