"""Two models on the same rows: McNemar, the paired bootstrap, Holm, and what could have been seen. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.evaluation.eval_needed import needs_eval
from mien.lab.evaluation.metrics import accuracy, checked
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import (
    FEWEST_CLUSTERS,
    LEVEL,
    ONE_CLUSTER,
    REPLICATES,
    Interval,
    cluster_codes,
    cluster_count,
    percentile_interval,
    quantile,
    replicate_counts,
    standard_error,
    student_quantile,
    student_tail,
)

ROUNDING = 1e-12  # a standard error below is one of adding up
POWER = 0.8  # the chance of seeing a difference of the detectable size; Cohen 1988's convention


@dataclass(frozen=True)
class McNemar:
    """Rows by who is right: both, only the first, only the second, neither. p: exact, two-sided."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


@dataclass(frozen=True)
class Difference:
    """second - first of one number over runs, with its interval and two-sided p value. detectable: the smallest true difference
    that this design sees with about 80 % power at the same level, were it the only one tested, in the number's unit."""

    interval: Interval
    p: float
    detectable: float


def aligned(first: Scores, second: Scores) -> Scores:
    """`second` with its rows in the order of `first`. Raises DataError unless both hold the same rows, labels and
    classes."""
    for scores in (first, second):
        checked(scores)
    if first.classes != second.classes:
        raise DataError(f"other classes: {', '.join(first.classes)} against {', '.join(second.classes)}")
    if not np.array_equal(first.ids, second.ids):
        second = _reordered(first, second)
    different = np.flatnonzero(first.labels != second.labels)
    if len(different):
        row = different[0]
        raise DataError(
            f"{len(different)} rows have other labels, first {first.ids[row]}: {first.classes[first.labels[row]]} "
            f"against {second.classes[second.labels[row]]}; evaluate both under one label rule"
        )
    return second


def _reordered(first: Scores, second: Scores) -> Scores:
    order, other = np.argsort(first.ids, kind="stable"), np.argsort(second.ids, kind="stable")
    twice = next((name for scores in (first, second) if (name := _repeated(scores.ids)) is not None), None)
    if twice is not None:
        raise DataError(f"rows in another order, and two of them are called {twice}: evaluate both models on one split")
    if len(order) != len(other) or not np.array_equal(first.ids[order], second.ids[other]):
        missing = np.setdiff1d(first.ids, second.ids)
        extra = np.setdiff1d(second.ids, first.ids)
        raise DataError(
            f"not the same rows: {len(missing)} only in the first, {len(extra)} only in the second, for example "
            f"{[*missing, *extra][0]}; evaluate both models on one split"
        )
    rows = np.empty(len(order), np.int64)
    rows[order] = other
    return replace(
        second,
        labels=second.labels[rows],
        probabilities=second.probabilities[rows],
        ids=second.ids[rows],
        features=None if second.features is None else second.features[rows],
        votes=None if second.votes is None else second.votes[rows],
        clusters=None if second.clusters is None else second.clusters[rows],
        groups={name: values[rows] for name, values in second.groups.items()},
    )


def _repeated(ids: np.ndarray) -> str | None:
    names, counts = np.unique(ids, return_counts=True)
    return str(names[counts > 1][0]) if (counts > 1).any() else None


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Exact McNemar test of two (N,) bool vectors "this row is right". Under the null the b + c rows on which only one
    is right fall either way with probability 1/2: p = min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)])."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    both = int((first & second).sum())
    neither = len(first) - both - only_first - only_second
    return McNemar(both, only_first, only_second, neither, sign_test(only_first, only_second))


def clustered_p(first: np.ndarray, second: np.ndarray, clusters: Sequence[str] | np.ndarray) -> float:
    """Exact two-sided p of second - first over rows that share clusters ((N,) bool vectors "this row is right"): Fisher's
    randomisation test, in which under the null each cluster's net difference falls either way with probability 1/2. p is the
    chance of a sum as far from 0 as the one found. Where no two rows share a cluster this is McNemar's test."""
    codes = cluster_codes(np.asarray(clusters))
    nets = np.rint(np.bincount(codes, weights=second.astype(np.float64) - first)).astype(np.int64)
    reached = np.ones(1)  # the chances of the sums -total, -total + 2, ... total of the net differences so far
    for size, times in zip(*np.unique(np.abs(nets[nets != 0]), return_counts=True), strict=True):
        steps = np.zeros(size * times + 1)
        steps[::size] = _fair_coin(int(times))
        reached = np.convolve(reached, steps)
    far = np.abs(2 * np.arange(len(reached)) - (len(reached) - 1)) >= abs(int(nets.sum()))
    return float(min(1.0, reached[far].sum()))


def _fair_coin(tosses: int) -> np.ndarray:
    """(tosses + 1,) chances of each number of heads."""
    with needs_eval("paired tests"):
        from scipy.stats import binom
    chances: np.ndarray = binom.pmf(np.arange(tosses + 1), tosses, 0.5)
    return chances


def sign_test(less: int, more: int) -> float:
    """min(1, 2 P[Binomial(less + more, 1/2) <= min(less, more)]), exact; 1.0 when there is nothing to compare."""
    with needs_eval("paired tests"):
        from scipy.stats import binom
    return float(min(1.0, 2 * binom.cdf(min(less, more), less + more, 0.5))) if less + more else 1.0


def paired_difference(
    first: Scores, second: Scores, *, clusters: Sequence[str] | np.ndarray | None = None, seed: int = 0
) -> Interval:
    """second - first accuracy by the paired bootstrap: whole rows (truth, first guess, second guess) are redrawn, stratified by
    class or by cluster. Rows of one cluster say nothing of others. Raises DataError as `aligned` does."""
    second = aligned(first, second)
    size = len(first.classes)
    cells = (first.labels * size + first.predictions) * size + second.predictions
    observed = np.bincount(cells, minlength=size**3).reshape(1, size, size, size)
    value = float(_accuracy_difference(observed)[0])
    if clusters is not None and cluster_count(clusters) < 2:
        return Interval(value, -1.0, 1.0, LEVEL, ONE_CLUSTER)
    strata = first.labels if clusters is None else None
    drawn = replicate_counts(cells, size**3, strata=strata, clusters=clusters, seed=seed).reshape(-1, size, size, size)
    drawn_by = "stratified by class" if clusters is None else "by cluster"
    how = f"paired bootstrap, {drawn_by}, {REPLICATES} replicates, seed {seed}"
    return percentile_interval(value, _accuracy_difference(drawn), clusters=clusters, how=how)


def _accuracy_difference(cells: np.ndarray) -> np.ndarray:
    """(B, truth, first, second) counts -> (B,) accuracy of the second minus that of the first."""
    return accuracy(cells.sum(axis=-2)) - accuracy(cells.sum(axis=-1))


def detectable_clusters(first: np.ndarray, second: np.ndarray, clusters: Sequence[str] | np.ndarray) -> float | None:
    """The smallest accuracy difference that `clustered_p` sees on such rows with POWER, by the noncentral t distribution from the
    cluster-robust standard error of the difference of two (N,) bool vectors "this row is right". None where the difference
    would exceed the rows on which the two disagree, or these lie in fewer than FEWEST_CLUSTERS."""
    differences = second.astype(np.float64) - first
    disagree = first != second
    codes = cluster_codes(np.asarray(clusters))
    if len(np.unique(codes[disagree])) < FEWEST_CLUSTERS:
        return None
    reach = noncentrality(quantile(clusters), cluster_count(clusters) - 1)
    needed = reach * standard_error(differences, clusters)
    return needed if needed <= disagree.mean() else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: sorted upwards, p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)), j counted from 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = running
    return [float(p) for p in adjusted]


def detectable_rows(rows: int, discordant: float) -> float | None:
    """The smallest accuracy difference d that McNemar's test sees on `rows` rows when the two models disagree about
    correctness on a fraction `discordant` of them: d sqrt(N) = z_a sqrt(psi) + z_b sqrt(psi - d^2) (Connor 1987). None where
    even psi, which the difference cannot exceed, is not seen with POWER: the exact test needs so many rows on one side that
    2^(1 - m) is under 1 - LEVEL. Raises UsageError without rows, and for a fraction that is none."""
    if rows < 1 or not 0 <= discordant <= 1:
        raise UsageError(f"{rows} rows, discordant fraction {discordant}: expected at least one row and 0 to 1")
    with needs_eval("paired tests"):
        from scipy.stats import binom
    needed_rows = math.floor(1 - math.log2(1 - LEVEL)) + 1
    if binom.sf(needed_rows - 1, rows, discordant) < POWER:
        return None
    normal = NormalDist()
    outer, inner = normal.inv_cdf((1 + LEVEL) / 2), normal.inv_cdf(POWER)
    low, high = 0.0, discordant
    for _ in range(60):  # bisection to far below float32
        middle = (low + high) / 2
        needed = (outer * discordant**0.5 + inner * max(0.0, discordant - middle**2) ** 0.5) / rows**0.5
        low, high = (middle, high) if middle < needed else (low, middle)
    return high


def noncentrality(reach: float, freedom: float) -> float:
    """The true difference, in standard errors, that a t test sees with POWER when it calls a t beyond +-`reach` a difference."""
    with needs_eval("differences between seeds"):
        from scipy.optimize import brentq
        from scipy.stats import nct
    return float(brentq(lambda true: nct.sf(reach, freedom, true) - POWER, 0.0, 10 * (reach + 1)))


def seed_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """mean(second) - mean(first) over runs with Welch's t interval and p value, at least two runs a side. detectable: from the
    noncentral t distribution. Where the runs of each side are all alike, they say nothing of their variance, and so nothing of a
    difference: p is 1, the interval has no ends, and no difference is detectable. Raises UsageError for fewer runs."""
    if min(len(first), len(second)) < 2:
        raise UsageError(f"{len(first)} and {len(second)} runs: a difference between seeds needs at least 2 a side")
    sides = [np.asarray(values, np.float64) for values in (first, second)]
    value = float(sides[1].mean() - sides[0].mean())
    parts = [side.var(ddof=1) / len(side) for side in sides]
    error = float(sum(parts) ** 0.5)
    if error < ROUNDING:
        if abs(value) < ROUNDING:
            return Difference(Interval(0.0, 0.0, 0.0, LEVEL, "Welch"), 1.0, 0.0)
        return Difference(Interval(value, -math.inf, math.inf, LEVEL, "no variance"), 1.0, math.inf)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    reach = student_quantile((1 + LEVEL) / 2, freedom)
    p = student_tail(abs(value) / error, freedom)
    detectable = noncentrality(reach, freedom) * error
    return Difference(Interval(value, value - reach * error, value + reach * error, LEVEL, "Welch"), p, detectable)
