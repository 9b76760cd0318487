"""Several models on the same rows, side by side, with paired tests. No torch."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.evaluation.delong import auc_difference
from mien.lab.evaluation.intervals import intervals
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.paired import (
    McNemar,
    aligned,
    clustered_p,
    detectable_clusters,
    detectable_rows,
    holm,
    mcnemar,
    paired_difference,
)
from mien.lab.evaluation.paper_table import markdown_rows
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import ALPHA, Interval, shared
from mien.lab.evaluation.text import aligned_columns

METRICS: tuple[tuple[str, str], ...] = (
    ("accuracy", "accuracy, %"),
    ("balanced_accuracy", "Ave, %"),
    ("macro_f1", "macro F1, %"),
    ("ece", "ECE, %"),
)
FACTS: tuple[tuple[str, str, float], ...] = (  # key, heading, divisor
    ("parameters", "parameters, M", 1e6),
    ("macs", "MACs, M", 1e6),
    ("bytes", "file, MB", 1e6),
    ("ms_per_face", "ms a face", 1.0),
)
ECE_IS_BIASED = (
    "ECE of a finite sample is too high, a calibrated model's, too, and its interval more so: an upper bound"
)
CLUSTERED = (
    "rows share subjects, sequences or pictures: p (Holm) is of a randomisation test by cluster, McNemar's p takes no account of "
    "them"
)
SAME_PROTOCOL = ("dataset", "split", "label_rule", "data_fingerprint")


@dataclass(frozen=True)
class Model:
    """One compared model. spans: the metrics of METRICS with their intervals. classwise_ece: of the classes' own columns, a
    fraction. facts: keys of FACTS that are known."""

    name: str
    spans: Mapping[str, Interval]
    classwise_ece: float
    facts: Mapping[str, float]


@dataclass(frozen=True)
class PairedTest:
    """second - first. difference: of the accuracy, by the paired bootstrap. adjusted: McNemar's p after Holm over all
    pairs; where rows share clusters, `clustered_p` instead, as McNemar's test takes all rows to be independent.
    detectable: the smallest accuracy difference that this test would see on these rows, at about 80 % power, were it the only one;
    None where it would see none, as the models answer too few rows differently, or rows of fewer than FEWEST_CLUSTERS.
    auc: difference of the macro AUC and its p by DeLong's paired test."""

    first: str
    second: str
    difference: Interval
    mcnemar: McNemar
    adjusted: float
    detectable: float | None
    auc: tuple[Interval, float]

    @property
    def verdict(self) -> str:
        if self.adjusted >= ALPHA:
            return "no difference beyond noise"
        return f"{self.second if self.difference.value > 0 else self.first} is better"


@dataclass(frozen=True)
class Comparison:
    """rows: how many faces. protocol: what all share. notes: where the models' protocols differ."""

    rows: int
    protocol: Mapping[str, Any]
    models: tuple[Model, ...]
    tests: tuple[PairedTest, ...]
    notes: tuple[str, ...]


def compare(
    scores: Mapping[str, Scores],
    *,
    facts: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
) -> Comparison:
    """Every model with intervals, and every pair tested. scores: name -> Scores of the same rows under the same labels.
    facts: name -> parameters, macs, bytes, ms_per_face. Rows are drawn together by the clusters of the first scores that
    have them. Raises DataError when the rows differ."""
    if len(scores) < 2:
        raise UsageError(f"{len(scores)} scores file: a comparison needs at least two")
    same = _same_rows(scores)
    first = next(iter(same.values()))
    clusters = next((held.clusters for held in same.values() if shared(held.clusters)), None)
    return Comparison(
        rows=len(first.labels),
        protocol={
            field: first.protocol[field]
            for field in SAME_PROTOCOL
            if all(held.protocol[field] == first.protocol[field] for held in same.values())
        },
        models=tuple(_model(name, held, (facts or {}).get(name, {}), clusters, seed) for name, held in same.items()),
        tests=_tests(same, clusters, seed),
        notes=(*_notes(same), ECE_IS_BIASED, *([] if clusters is None else [CLUSTERED])),
    )


def _same_rows(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The rows of all in the order of the first's. Raises DataError that names whose rows differ or cannot be judged."""
    (leader, first), *others = scores.items()
    found = {leader: first}
    for name, held in others:
        try:
            found[name] = aligned(first, held)
        except DataError as error:
            raise DataError(f"{leader} and {name}: {error}") from None
    return found


def _model(name: str, scores: Scores, facts: Mapping[str, float], clusters: np.ndarray | None, seed: int) -> Model:
    spans = intervals(scores, clusters=clusters, seed=seed)
    known = summary(scores)
    absent = [metric for metric in (*dict(METRICS), "auc") if metric not in spans or known[metric] is None]
    if absent:
        raise DataError(f"{name}: {', '.join(absent)} is undefined for its rows: compare on a split with all classes")
    return Model(name, {metric: spans[metric] for metric, _ in METRICS}, known["classwise_ece"], facts)


def _tests(scores: Mapping[str, Scores], clusters: np.ndarray | None, seed: int) -> tuple[PairedTest, ...]:
    pairs = list(combinations(scores, 2))
    right = {name: held.predictions == held.labels for name, held in scores.items()}
    exact = [mcnemar(right[a], right[b]) for a, b in pairs]
    redrawn = [paired_difference(scores[a], scores[b], clusters=clusters, seed=seed) for a, b in pairs]
    p_values = (
        [t.p for t in exact] if clusters is None else [clustered_p(right[a], right[b], clusters) for a, b in pairs]
    )
    adjusted = holm(p_values)
    return tuple(
        PairedTest(
            first=first,
            second=second,
            difference=difference,
            mcnemar=test,
            adjusted=p,
            detectable=_detectable(test)
            if clusters is None
            else detectable_clusters(right[first], right[second], clusters),
            auc=_auc_difference(scores[first], scores[second], clusters),
        )
        for (first, second), test, difference, p in zip(pairs, exact, redrawn, adjusted, strict=True)
    )


def _auc_difference(first: Scores, second: Scores, clusters: np.ndarray | None) -> tuple[Interval, float]:
    return auc_difference(first.labels, first.probabilities, second.probabilities, clusters=clusters)


def _detectable(test: McNemar) -> float | None:
    rows = test.both + test.only_first + test.only_second + test.neither
    return detectable_rows(rows, (test.only_first + test.only_second) / rows)


def _notes(scores: Mapping[str, Scores]) -> Iterable[str]:
    for field in (*SAME_PROTOCOL, "selection_rule", "views"):
        found = {name: str(held.protocol[field]) for name, held in scores.items()}
        if len(set(found.values())) > 1:
            yield f"{field.replace('_', ' ')} differs: " + ", ".join(
                f"{name}: {value}" for name, value in found.items()
            )


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def model_table(comparison: Comparison) -> Table:
    """Head and rows, one a model; a fact that no model has gets no column."""
    known = [fact for fact in FACTS if any(fact[0] in model.facts for model in comparison.models)]
    head = ("model", *(label for _, label in METRICS), "classwise ECE, %", *(label for _, label, _ in known))
    rows = [
        (
            model.name,
            *(_with_span(model.spans[metric]) for metric, _ in METRICS),
            f"{100 * model.classwise_ece:.2f}",
            *(f"{model.facts[key] / unit:.3g}" if key in model.facts else "" for key, _, unit in known),
        )
        for model in comparison.models
    ]
    return head, rows


def pair_table(comparison: Comparison) -> Table:
    """Head and rows, one a pair; what could be seen stands before what was."""
    head = (
        "second - first", "could be seen alone, points", "difference, points", "only first / second right", "McNemar p",
        "p (Holm)", "verdict", "AUC difference, points", "DeLong p",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [
        (
            f"{test.second} - {test.first}",
            "more than these rows can show" if test.detectable is None else f"{100 * test.detectable:.2f}",
            _with_span(test.difference, sign="+"),
            f"{test.mcnemar.only_first} / {test.mcnemar.only_second}",
            f"{test.mcnemar.p:.3g}",
            f"{test.adjusted:.3g}",
            test.verdict,
            _with_span(test.auc[0], sign="+"),
            f"{test.auc[1]:.3g}",
        )
        for test in comparison.tests
    ]
    return head, rows


def _with_span(interval: Interval, *, sign: str = "") -> str:
    low, high = (f"{100 * side:{sign}.2f}" for side in (interval.low, interval.high))
    return f"{100 * interval.value:{sign}.2f} [{low}, {high}]"


def _introduction(comparison: Comparison) -> list[str]:
    words = ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in comparison.protocol.items())
    return [f"{comparison.rows:,} faces; {words}.", *(f"Note: {note}." for note in comparison.notes)]


def to_text(comparison: Comparison) -> str:
    """For the console: both tables in aligned columns."""
    parts = ["\n".join(_introduction(comparison))]
    parts += [aligned_columns(*table) for table in (model_table(comparison), pair_table(comparison))]
    return "\n\n".join(parts)


def to_markdown(comparison: Comparison) -> str:
    """Both tables as Markdown."""
    lines = [*_introduction(comparison), ""]
    for head, rows in (model_table(comparison), pair_table(comparison)):
        lines += [*markdown_rows(head, rows), ""]
    return "\n".join(lines)


def to_csv(comparison: Comparison) -> str:
    """One line a model and metric or fact, fractions and plain units at full precision; then one line a pair."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "against", "quantity", "value", "low", "high", "p", "p_holm", "detectable"))
    for model in comparison.models:
        for name, span in model.spans.items():
            writer.writerow((model.name, "", name, span.value, span.low, span.high, "", "", ""))
        for name, value in (("classwise_ece", model.classwise_ece), *model.facts.items()):
            writer.writerow((model.name, "", name, value, "", "", "", "", ""))
    for test in comparison.tests:
        span = test.difference
        numbers = (span.value, span.low, span.high, test.mcnemar.p, test.adjusted, test.detectable)
        writer.writerow((test.second, test.first, "accuracy difference", *numbers))
        area, p = test.auc
        writer.writerow((test.second, test.first, "AUC difference", area.value, area.low, area.high, p, "", ""))
    return text.getvalue()
