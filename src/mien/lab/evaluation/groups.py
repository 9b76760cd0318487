"""Accuracy by gender, age, ethnicity or any other attribute, with the largest gap. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.errors import DataError
from mien.lab.datasets.dataset import IDENTITIES
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import (
    FEWEST_CLUSTERS,
    LEVEL_WORDS,
    REPLICATES,
    Interval,
    cluster_codes,
    cluster_count,
    percentile_interval,
    share_interval,
    shared,
    standard_error,
)

# A group with fewer rows or clusters is shown but takes no part in the gap: by convention, as so few say little of a group.
FEWEST = 30
SEED = 0  # of the draws


@dataclass(frozen=True)
class Group:
    """One value of an attribute. accuracy, balanced: fractions; balanced is the mean recall over the classes it has."""

    value: str
    rows: int
    accuracy: Interval
    balanced: float


@dataclass(frozen=True)
class Gap:
    """Best minus worst accuracy among the groups with at least FEWEST rows, and FEWEST_CLUSTERS clusters where rows share
    some. p: how often groups of these sizes show at least this gap when all share one accuracy. The interval is of these two
    groups, chosen after looking, so it leans outwards."""

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
    values: Sequence[str] | np.ndarray,
    *,
    attribute: str,
    clusters: Sequence[str] | np.ndarray | None = None,
    replicates: int = REPLICATES,
) -> GroupTable:
    """Accuracy per value of an attribute (N values, "" where unknown), with Wilson's intervals. clusters: (N,) names of what was
    sampled together; where rows share one, intervals and gap are by cluster. Raises DataError unless each row has a value."""
    if len(values) != len(scores.labels):
        raise DataError(f"{len(values)} values of {attribute} for {len(scores.labels)} rows: pass one for each row")
    names = np.asarray(values).astype(str)
    right = (scores.predictions == scores.labels).astype(np.float64)
    sampled = np.asarray(clusters).astype(str) if shared(clusters) else None
    groups, samples = [], []
    for name in filter(None, np.unique(names).tolist()):
        mine = names == name
        sample = _Sample(right[mine], None if sampled is None else sampled[mine])
        accuracy = share_interval(sample.right, sample.clusters)
        groups.append(Group(name, int(mine.sum()), accuracy, _balanced(scores.labels[mine], sample.right)))
        samples.append(sample)
    gap = _gap(groups, samples, replicates=replicates)
    return GroupTable(attribute, tuple(groups), int((names == "").sum()), gap)


@dataclass(frozen=True)
class _Sample:
    """One group's rows: right (n,) 0 or 1, and their clusters, None where no two rows of the table share one."""

    right: np.ndarray
    clusters: np.ndarray | None

    @property
    def is_large(self) -> bool:
        enough = self.clusters is None or cluster_count(self.clusters) >= FEWEST_CLUSTERS
        return enough and len(self.right) >= FEWEST

    def redrawn(self, generator: np.random.Generator, replicates: int) -> np.ndarray:
        """(B,) accuracies of samples of as many rows, or clusters, drawn with replacement."""
        if self.clusters is None:
            return generator.binomial(len(self.right), self.right.mean(), replicates) / len(self.right)
        codes = cluster_codes(self.clusters)
        hits, sizes = np.bincount(codes, weights=self.right), np.bincount(codes)
        even = np.full(len(sizes), 1 / len(sizes))
        drawn = (generator.multinomial(len(sizes), even) for _ in range(replicates))
        return np.array([counts @ hits / (counts @ sizes) for counts in drawn])

    def if_all_shared(self, accuracy: float, generator: np.random.Generator, replicates: int) -> np.ndarray:
        """(B,) accuracies of such a group where the true one is `accuracy`: binomial, by cluster Student's t of its own error."""
        if self.clusters is None:
            return generator.binomial(len(self.right), accuracy, replicates) / len(self.right)
        noise = generator.standard_t(cluster_count(self.clusters) - 1, replicates)
        return accuracy + standard_error(self.right, self.clusters) * noise


def _balanced(labels: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _gap(groups: Sequence[Group], samples: Sequence[_Sample], *, replicates: int) -> Gap | None:
    large = [(group, sample) for group, sample in zip(groups, samples, strict=True) if sample.is_large]
    if len(large) < 2:
        return None
    large.sort(key=lambda pair: pair[0].accuracy.value)
    (worst, lower), (best, upper) = large[0], large[-1]
    generator = np.random.default_rng(SEED)
    sides = [sample.redrawn(generator, replicates) for sample in (upper, lower)]
    value = best.accuracy.value - worst.accuracy.value
    how = f"bootstrap of both groups, {replicates} replicates, seed {SEED}"
    fewer = (
        None
        if upper.clusters is None or lower.clusters is None
        else min(upper.clusters, lower.clusters, key=cluster_count)
    )
    interval = percentile_interval(value, sides[0] - sides[1], clusters=fewer, how=how)
    chance = _chance_of_gap([sample for _, sample in large], value, generator, replicates)
    return Gap(best.value, worst.value, interval, chance)


def _chance_of_gap(samples: Sequence[_Sample], gap: float, generator: np.random.Generator, replicates: int) -> float:
    pooled = float(np.concatenate([sample.right for sample in samples]).mean())
    draws = np.stack([sample.if_all_shared(pooled, generator, replicates) for sample in samples])
    return float(((draws.max(axis=0) - draws.min(axis=0) >= gap - 1e-12).sum() + 1) / (replicates + 1))


def attributes(groups: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Those of a dataset's `groups` that rows are judged by: known of some, and none of IDENTITIES, which are clusters."""
    return {name: np.asarray(values) for name, values in groups.items() if name not in IDENTITIES and any(values)}


def group_tables(scores: Scores) -> list[GroupTable]:
    """One table per attribute of the scores."""
    return [
        by_group(scores, values, attribute=name, clusters=scores.clusters) for name, values in scores.groups.items()
    ]


def table_of(facts: Mapping[str, Any]) -> GroupTable:
    """The table that `dataclasses.asdict` took apart."""
    gap = facts["gap"]
    return GroupTable(
        facts["attribute"],
        tuple(Group(**{**group, "accuracy": Interval(**group["accuracy"])}) for group in facts["groups"]),
        facts["unknown"],
        None if gap is None else Gap(**{**gap, "interval": Interval(**gap["interval"])}),
    )


def rows_of(table: GroupTable) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of a table as text, the gap last, for `report.report(tables=...)` and the console."""
    head = (table.attribute, "rows", "accuracy, %", f"{LEVEL_WORDS} interval", "mean recall, %")
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
