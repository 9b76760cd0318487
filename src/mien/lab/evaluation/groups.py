"""Accuracy by gender, age, ethnicity or any other attribute, with the largest gap. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mien.errors import DataError
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import LEVEL, REPLICATES, Interval, mean_interval, percentile_interval

FEWEST = 30  # a group with fewer rows is shown but takes no part in the gap


@dataclass(frozen=True)
class Group:
    """One value of an attribute. accuracy, balanced: fractions; balanced is the mean recall over the classes it has."""

    value: str
    rows: int
    accuracy: Interval
    balanced: float


@dataclass(frozen=True)
class Gap:
    """Best minus worst accuracy among the groups with at least FEWEST rows. p: how often groups of these sizes show at
    least this gap when all share one accuracy. The interval is of these two groups, chosen after looking, so it leans
    outwards."""

    best: str
    worst: str
    interval: Interval
    p: float


@dataclass(frozen=True)
class GroupTable:
    """attribute: its name. unknown: rows without a value, which are in no group. gap: None with fewer than two
    groups."""

    attribute: str
    groups: tuple[Group, ...]
    unknown: int
    gap: Gap | None


def by_group(
    scores: Scores,
    values: Sequence[str],
    *,
    attribute: str,
    clusters: Sequence[str] | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = 0,
) -> GroupTable:
    """Accuracy per value of an attribute (N values, "" where unknown), with normal intervals (by cluster where
    given)."""
    if len(values) != len(scores.labels):
        raise DataError(f"{len(values)} values of {attribute} for {len(scores.labels)} rows: pass one for each row")
    names = np.asarray(values).astype(str)
    right = (scores.predictions == scores.labels).astype(np.float64)
    sampled = None if clusters is None else np.asarray(clusters).astype(str)
    groups = tuple(
        Group(
            value=str(name),
            rows=int((names == name).sum()),
            accuracy=mean_interval(
                right[names == name], clusters=None if sampled is None else sampled[names == name], level=level
            ),
            balanced=_balanced(scores.labels[names == name], right[names == name]),
        )
        for name in np.unique(names)
        if name
    )
    gap = _gap(groups, replicates=replicates, level=level, seed=seed)
    return GroupTable(attribute, groups, int((names == "").sum()), gap)


def _balanced(labels: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _gap(groups: Sequence[Group], *, replicates: int, level: float, seed: int) -> Gap | None:
    large = sorted((group for group in groups if group.rows >= FEWEST), key=lambda group: group.accuracy.value)
    if len(large) < 2:
        return None
    worst, best = large[0], large[-1]
    generator = np.random.default_rng(seed)
    sides = [generator.binomial(g.rows, g.accuracy.value, replicates) / g.rows for g in (best, worst)]
    value = best.accuracy.value - worst.accuracy.value
    interval = percentile_interval(
        value, sides[0] - sides[1], level=level, how=f"bootstrap of both groups, {replicates} replicates, seed {seed}"
    )
    return Gap(best.value, worst.value, interval, _chance_of_gap(large, value, generator, replicates))


def _chance_of_gap(groups: Sequence[Group], gap: float, generator: np.random.Generator, replicates: int) -> float:
    sizes = np.array([group.rows for group in groups])
    pooled = float(np.dot(sizes, [group.accuracy.value for group in groups]) / sizes.sum())
    draws = generator.binomial(sizes, pooled, (replicates, len(sizes))) / sizes
    return float(((draws.max(axis=1) - draws.min(axis=1) >= gap - 1e-12).sum() + 1) / (replicates + 1))


def group_tables(
    scores: Scores, groups: Mapping[str, Sequence[str]], *, clusters: Sequence[str] | None = None
) -> list[GroupTable]:
    """One table per attribute of a dataset's `groups`; identities (subject, sequence) are clusters, not groups."""
    identities = ("subject", "sequence", "id")
    return [
        by_group(scores, values, attribute=name, clusters=clusters)
        for name, values in groups.items()
        if name not in identities and any(values)
    ]


def rows_of(table: GroupTable) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of a table as text, the gap last, for `report.report(tables=...)` and the console."""
    head = (table.attribute, "rows", "accuracy, %", "95 % interval", "mean recall, %")
    rows: list[tuple[str, ...]] = [
        (
            group.value,
            f"{group.rows:,}",
            _per_cent(group.accuracy.value),
            _span(group.accuracy),
            _per_cent(group.balanced),
        )
        for group in table.groups
    ]
    if table.unknown:
        rows.append(("unknown", f"{table.unknown:,}", "", "", ""))
    if table.gap is not None:
        gap = table.gap
        name = f"gap: {gap.best} - {gap.worst}"
        rows.append((name, "", _per_cent(gap.interval.value), _span(gap.interval), f"chance of such a gap {gap.p:.3g}"))
    return head, rows


def _per_cent(value: float) -> str:
    return f"{100 * value:.2f}"


def _span(interval: Interval) -> str:
    return f"{_per_cent(interval.low)} to {_per_cent(interval.high)}"
