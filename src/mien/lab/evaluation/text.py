"""What `mien evaluate` prints: the metrics of one Scores as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

PER_CENT: tuple[tuple[str, str], ...] = (
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy (mean recall, the papers' Ave)"),
    ("macro_f1", "macro F1"),
    ("kappa", "Cohen's kappa x 100"),
    ("alpha", "Krippendorff's alpha x 100 (nominal)"),
    ("auc", "AUC, one against the rest, macro"),
    ("auc_pr", "AUC-PR, macro"),
    ("ece", "expected calibration error (ECE)"),
    ("ece_if_calibrated", "ECE that a calibrated model would show here"),
    ("classwise_ece", "classwise ECE, mean of all classes' columns"),
    ("classwise_ece_if_calibrated", "classwise ECE of a calibrated model here"),
)
PLAIN: tuple[tuple[str, str], ...] = (
    ("brier", "Brier score (0 to 2)"),
    ("nll", "negative log-likelihood, nats"),
    ("aurc", "area under risk-coverage"),
)


def text_table(metrics: Mapping[str, Any], *, intervals: Mapping[str, tuple[float, float]] | None = None) -> str:
    """The result of `metrics.summary` as lines of text: headline numbers in per cent with their 95 % intervals
    (fractions, by metric name) where given, then one line per class, then the confusion counts."""
    known = intervals or {}
    lines = [f"{metrics['n']} rows, {len(metrics['classes'])} classes"]
    if metrics["absent_classes"]:
        absent = ", ".join(metrics["absent_classes"])
        lines.append(f"no rows of: {absent} (means are over the classes that are present)")
    lines += [_headline(name, label, metrics, known) for name, label in PER_CENT]
    lines += [f"  {label:<50}{_fixed(metrics[name], 4):>8}" for name, label in PLAIN]
    lines += [
        f"  {f'coverage at {100 * float(risk):g} % errors, %':<50}{_per_cent(value):>8}"
        for risk, value in metrics["coverage_at_risk"].items()
    ]
    return "\n".join([*lines, "", *_classes(metrics["per_class"]), "", *_confusion(metrics), *_votes(metrics["votes"])])


def aligned_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table's lines, every column as wide as its longest cell."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *rows)
    )


def _headline(name: str, label: str, metrics: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> str:
    line = f"  {label:<50}{_per_cent(metrics[name]):>8}"
    if name not in intervals:
        return line
    low, high = intervals[name]
    return f"{line}  [{_per_cent(low)}, {_per_cent(high)}]"


def _classes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = f"  {'class':<12}{'rows':>9}{'guessed':>9}{'precision':>11}{'recall':>9}{'F1':>9}{'AUC':>9}"
    head += f"{'ECE':>9}{'if calibrated':>15}"
    return [head] + [
        f"  {row['class']:<12}{row['n']:>9}{row['predicted']:>9}{_per_cent(row['precision']):>11}"
        f"{_per_cent(row['recall']):>9}{_per_cent(row['f1']):>9}{_per_cent(row['auc']):>9}"
        f"{_per_cent(row['ece']):>9}{_per_cent(row['ece_if_calibrated']):>15}"
        for row in rows
    ]


def _confusion(metrics: Mapping[str, Any]) -> list[str]:
    names = metrics["classes"]
    width = 2 + max(len(str(cell)) for cell in [*names, *(n for row in metrics["confusion"] for n in row)])
    head = "  truth \\ guess" + "".join(f"{name:>{width}}" for name in names)
    return [head] + [
        f"  {name:<13}" + "".join(f"{n:>{width}}" for n in row)
        for name, row in zip(names, metrics["confusion"], strict=True)
    ]


def _votes(votes: Mapping[str, Any] | None) -> list[str]:
    if votes is None or not votes["agreement"]:
        return []
    lines = ["", f"  votes: {votes['rows']} rows, KL(votes || model) {_fixed(votes['kl'], 4)} nats"]
    lines.append(f"  {'agreement':<14}{'rows':>7}{'accuracy':>10}{'votes won':>11}{'ceiling':>9}")
    for row in votes["agreement"]:
        band = "unanimous" if row["from"] == row["to"] else f"{row['from']:.1f} to {row['to']:.1f}"
        shares = f"{_per_cent(row['accuracy']):>10}{_per_cent(row['model']):>11}{_per_cent(row['human']):>9}"
        lines.append(f"  {band:<14}{row['n']:>7}{shares}")
    return lines


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
