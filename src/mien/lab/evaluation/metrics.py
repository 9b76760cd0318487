"""Every number that `mien evaluate` prints, as a pure function of counts or probabilities. No torch.

Count metrics take a confusion matrix (..., C, C) whose rows are the truth and columns the prediction, so that a
bootstrap calls the very same functions on thousands of matrices at once. Fractions, not per cent. A ratio without a
denominator is NaN in arrays and None in `summary`. Definitions are scikit-learn's of the names given.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.evaluation.calibration import (
    BINS,
    SMALLEST,
    calibration_error,
    classwise_errors,
    classwise_if_calibrated,
    coverage_at_risk,
    error_if_calibrated,
    negative_log_likelihood,
    reliability,
    risk_coverage,
)
from mien.lab.evaluation.eval_needed import needs_eval
from mien.lab.evaluation.scores import Scores

RISKS = (0.01, 0.05, 0.10)  # error rates for which the coverage is printed
AGREEMENT = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # edges of the vote-agreement bins; the last bin is unanimous


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def _mean_over(values: np.ndarray, included: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are included; NaN where none is."""
    return _ratio(np.where(included, np.nan_to_num(values), 0.0).sum(axis=-1), included.sum(axis=-1))


def confusion_counts(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) int64: entry [t, p] counts the rows of true class t that were predicted as p."""
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def row_percentages(counts: np.ndarray) -> np.ndarray:
    """100 * counts / row sum, (..., C, C): the papers' confusion matrices; NaN rows for absent classes."""
    return 100 * _ratio(counts, counts.sum(axis=-1, keepdims=True))


def _diagonal(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """trace / N (sklearn accuracy_score)."""
    return _ratio(_diagonal(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def recalls(counts: np.ndarray) -> np.ndarray:
    """n_cc / sum_p n_cp per class, (..., C); NaN for a class without rows."""
    return _ratio(_diagonal(counts), counts.sum(axis=-1))


def precisions(counts: np.ndarray) -> np.ndarray:
    """n_cc / sum_t n_tc per class, (..., C); NaN for a class that was never predicted."""
    return _ratio(_diagonal(counts), counts.sum(axis=-2))


def f1_scores(counts: np.ndarray) -> np.ndarray:
    """2 n_cc / (row sum + column sum) per class, (..., C); NaN for a class neither present nor predicted."""
    return _ratio(2 * _diagonal(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that have rows (sklearn balanced_accuracy_score; the papers' "Ave")."""
    return _mean_over(recalls(counts), counts.sum(axis=-1) > 0)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that have rows or were predicted (sklearn f1_score(average="macro"))."""
    return _mean_over(f1_scores(counts), (counts.sum(axis=-1) + counts.sum(axis=-2)) > 0)


def cohen_kappa(counts: np.ndarray) -> np.ndarray:
    """(p_o - p_e) / (1 - p_e), p_o = accuracy, p_e = sum_c row_c * column_c / N^2 (sklearn cohen_kappa_score).

    On a balanced set of C classes p_e = 1/C, so kappa = (accuracy - 1/C) / (1 - 1/C).
    """
    total = counts.sum(axis=(-2, -1)).astype(np.float64)
    expected = _ratio((counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1), total**2)
    return _ratio(accuracy(counts) - expected, 1 - expected)


def krippendorff_alpha(counts: np.ndarray) -> np.ndarray:
    """Nominal alpha of two coders, truth and prediction, without missing values (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability"): 1 - D_o / D_e with D_o = 1 - accuracy, D_e = sum_{v != w} n_v n_w / (n (n - 1)),
    n = 2 N values of which n_v are v."""
    pooled = (counts.sum(axis=-1) + counts.sum(axis=-2)).astype(np.float64)
    values = pooled.sum(axis=-1)
    expected = _ratio(values**2 - (pooled**2).sum(axis=-1), values * (values - 1))
    return 1 - _ratio(1 - accuracy(counts), expected)


def one_vs_rest(counts: np.ndarray) -> np.ndarray:
    """(..., C, C) -> (..., C, 2, 2): for each class the matrix [[hits, misses], [false alarms, rest]]."""
    hits = _diagonal(counts)
    misses = counts.sum(axis=-1) - hits
    alarms = counts.sum(axis=-2) - hits
    rest = counts.sum(axis=(-2, -1))[..., None] - hits - misses - alarms
    return np.stack([np.stack([hits, misses], -1), np.stack([alarms, rest], -1)], -2)


def binary_mean(counts: np.ndarray, metric: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean over the classes that have rows of a count metric of the one-vs-rest matrices: WCL's "binary manner"."""
    values = metric(one_vs_rest(counts))
    return _mean_over(values, (counts.sum(axis=-1) > 0) & np.isfinite(values))


def class_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C,) area under the ROC curve of each class against the rest (sklearn roc_auc_score); NaN for a class without
    positives or negatives."""
    roc_auc_score = _sklearn_metrics().roc_auc_score
    return _per_class(labels, probabilities, roc_auc_score)


def class_average_precision(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C,) AP = sum_n (R_n - R_{n-1}) P_n of each class against the rest (sklearn average_precision_score)."""
    return _per_class(labels, probabilities, _sklearn_metrics().average_precision_score)


def class_pr_trapezoid(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C,) trapezoid under the precision-recall curve, sklearn auc(recall, precision); optimistic."""
    metrics = _sklearn_metrics()

    def area(positive: np.ndarray, column: np.ndarray) -> float:
        precision, recall, _ = metrics.precision_recall_curve(positive, column)
        return float(metrics.auc(recall, precision))

    return _per_class(labels, probabilities, area)


def _per_class(labels: np.ndarray, probabilities: np.ndarray, area: Callable[..., float]) -> np.ndarray:
    found = np.full(probabilities.shape[1], np.nan)
    for index in np.unique(labels):
        positive = labels == index
        if not positive.all():
            found[index] = area(positive, probabilities[:, index])
    return found


def _sklearn_metrics() -> Any:
    with needs_eval("areas under curves"):
        from sklearn import metrics
    return metrics


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """1/N sum_i sum_c (p_ic - [y_i = c])^2, 0 to 2 (Brier 1950, over all classes, not halved)."""
    return float(row_briers(labels, probabilities).mean())


def row_briers(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) sum_c (p_ic - [y_i = c])^2 = sum_c p_ic^2 - 2 p_iy + 1."""
    squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
    return squares - 2.0 * probabilities[np.arange(len(labels)), labels] + 1.0


def vote_divergence(votes: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Mean KL(votes || p) = sum_c v_c ln(v_c / p_c) in nats over the rows that have votes; None when none has."""
    voted = votes.sum(axis=1) > 0
    if not voted.any():
        return None
    shares = _shares(votes[voted])
    logs = np.log(np.maximum(shares, SMALLEST)) - np.log(np.maximum(probabilities[voted].astype(np.float64), SMALLEST))
    return float(np.where(shares > 0, shares * logs, 0.0).sum(axis=1).mean())


def _shares(votes: np.ndarray) -> np.ndarray:
    return votes.astype(np.float64) / votes.sum(axis=1, keepdims=True)


def vote_agreement(labels: np.ndarray, predictions: np.ndarray, votes: np.ndarray) -> list[dict[str, float | int]]:
    """Accuracy by how far the annotators agreed, one entry per non-empty bin of the top vote share, [from, to) and the
    last [1, 1]. `human` is the mean top share: what a random annotator would score against the best single answer, the
    ceiling of this bin. `model` is the mean share of the votes that the prediction got, on the same scale."""
    voted = votes.sum(axis=1) > 0
    shares, labels, predictions = _shares(votes[voted]), labels[voted], predictions[voted]
    top = shares.max(axis=1)
    bins = np.clip(np.searchsorted(AGREEMENT, top + 1e-6, side="right") - 1, 0, len(AGREEMENT) - 1)
    found: list[dict[str, float | int]] = []
    for index in np.unique(bins):
        rows = np.flatnonzero(bins == index)
        found.append(
            {
                "from": AGREEMENT[index],
                "to": AGREEMENT[min(index + 1, len(AGREEMENT) - 1)],
                "n": len(rows),
                "accuracy": float((labels[rows] == predictions[rows]).mean()),
                "human": float(top[rows].mean()),
                "model": float(shares[rows, predictions[rows]].mean()),
            }
        )
    return found


COUNT_METRICS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "kappa": cohen_kappa,
    "alpha": krippendorff_alpha,
}


def checked(scores: Scores) -> Scores:
    """The same scores, or a DataError that names what makes them impossible to judge."""
    rows, columns = scores.probabilities.shape
    if rows == 0:
        raise DataError("these scores hold no rows: evaluate a split that has some")
    if scores.labels.min() < 0 or scores.labels.max() >= columns:
        found = f"{scores.labels.min()} to {scores.labels.max()}"
        raise DataError(f"labels run from {found}, but there are {columns} classes ({', '.join(scores.classes)})")
    sums = scores.probabilities.sum(axis=1, dtype=np.float64)
    if scores.probabilities.min() < 0:
        row = int(scores.probabilities.min(axis=1).argmin())
        found = scores.probabilities[row].min()
        raise DataError(
            f"a probability of row {row} ({scores.ids[row]}) is {found}, expected 0 or more: are these logits?"
        )
    if not np.isfinite(sums).all() or np.abs(sums - 1).max() > 1e-3:
        row = int(np.argmax(np.where(np.isfinite(sums), np.abs(sums - 1), np.inf)))
        raise DataError(
            f"probabilities of row {row} ({scores.ids[row]}) sum to {sums[row]:.6g}, expected 1, 0.001 off at most: export the "
            "model again, or write a table's numbers with more digits"
        )
    return scores


def summary(scores: Scores) -> dict[str, Any]:
    """Every metric of one Scores as JSON-ready data: fractions 0-1, None where undefined, lists in class order.

    Keys: n, classes, absent_classes, accuracy, balanced_accuracy, macro_f1, kappa, alpha, kappa_binary_mean, alpha_binary_mean,
    auc, auc_pr (average precision), auc_pr_trapezoid, ece, ece_if_calibrated (a calibrated model's on so many rows), ece_bins,
    classwise_ece and classwise_ece_if_calibrated (means of all classes' columns, absent ones, too), brier, nll, aurc,
    coverage_at_risk {"0.01": ...}, per_class [{class, n, predicted, precision, recall, f1, auc, auc_pr, ece, ece_if_calibrated}],
    confusion (C, C) counts, confusion_percent (C, C), votes {kl, rows, agreement} or None. Raises DataError for rows that
    cannot be judged, UsageError without scikit-learn.
    """
    labels, probabilities = checked(scores).labels, scores.probabilities
    predictions = scores.predictions
    counts = confusion_counts(labels, predictions, len(scores.classes))
    aucs, areas = class_auc(labels, probabilities), class_average_precision(labels, probabilities)
    per_class = _per_class_rows(scores, counts, aucs, areas)
    found: dict[str, Any] = {
        "n": len(labels),
        "classes": list(scores.classes),
        "absent_classes": [name for name, n in zip(scores.classes, counts.sum(axis=1), strict=True) if n == 0],
        **{name: _number(metric(counts)) for name, metric in COUNT_METRICS.items()},
        "kappa_binary_mean": _number(binary_mean(counts, cohen_kappa)),
        "alpha_binary_mean": _number(binary_mean(counts, krippendorff_alpha)),
        "auc": _macro(aucs),
        "auc_pr": _macro(areas),
        "auc_pr_trapezoid": _macro(class_pr_trapezoid(labels, probabilities)),
        **_probability_metrics(labels, probabilities),
        **{
            f"classwise_{name}": float(np.mean([row[name] for row in per_class]))
            for name in ("ece", "ece_if_calibrated")
        },
        "per_class": per_class,
        "confusion": counts.tolist(),
        "confusion_percent": [[_number(value) for value in row] for row in row_percentages(counts)],
        "votes": None if scores.votes is None else _votes(labels, predictions, scores.votes, probabilities),
    }
    return found


def value_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """One number of a `summary` by the name that published tables use: a headline key, "recall/happy" (also precision,
    f1, auc, auc_pr), or "confusion/fear/surprise", the fraction of fear taken for surprise. None where it is undefined
    or the class does not exist. Raises UsageError for a name that is none of these."""
    kind, *words = name.split("/")
    per_class = {row["class"]: row for row in metrics["per_class"]}
    if not words and isinstance(metrics.get(kind), float | None) and kind in metrics:
        found: float | None = metrics[kind]
        return found
    if kind in ("precision", "recall", "f1", "auc", "auc_pr") and len(words) == 1:
        return per_class[words[0]][kind] if words[0] in per_class else None
    if kind == "confusion" and len(words) == 2:
        return _confused(metrics, *words)
    raise UsageError(f"unknown metric {name!r}: expected a key of the summary, recall/CLASS or confusion/TRUE/GUESS")


def _confused(metrics: Mapping[str, Any], truth: str, guess: str) -> float | None:
    classes = metrics["classes"]
    if truth not in classes or guess not in classes:
        return None
    percent = metrics["confusion_percent"][classes.index(truth)][classes.index(guess)]
    return None if percent is None else percent / 100


def _probability_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    curve = risk_coverage(labels, probabilities)
    return {
        "ece": calibration_error(reliability(labels, probabilities)),
        "ece_if_calibrated": error_if_calibrated(probabilities),
        "ece_bins": BINS,
        "brier": brier_score(labels, probabilities),
        "nll": negative_log_likelihood(labels, probabilities),
        "aurc": curve.area,
        "coverage_at_risk": {str(risk): coverage_at_risk(curve, risk) for risk in RISKS},
    }


def _per_class_rows(scores: Scores, counts: np.ndarray, aucs: np.ndarray, areas: np.ndarray) -> list[dict[str, Any]]:
    columns = {
        "precision": precisions(counts),
        "recall": recalls(counts),
        "f1": f1_scores(counts),
        "auc": aucs,
        "auc_pr": areas,
        "ece": classwise_errors(scores.labels, scores.probabilities),
        "ece_if_calibrated": classwise_if_calibrated(scores.probabilities),
    }
    return [
        {
            "class": name,
            "n": int(counts[index].sum()),
            "predicted": int(counts[:, index].sum()),
            **{column: _number(values[index]) for column, values in columns.items()},
        }
        for index, name in enumerate(scores.classes)
    ]


def _votes(labels: np.ndarray, predictions: np.ndarray, votes: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    return {
        "kl": vote_divergence(votes, probabilities),
        "rows": int((votes.sum(axis=1) > 0).sum()),
        "agreement": vote_agreement(labels, predictions, votes),
    }


def _macro(areas: np.ndarray) -> float | None:
    """Mean over the classes that have one."""
    return _number(_mean_over(areas, np.isfinite(areas)))


def _number(value: Any) -> float | None:
    """A float, or None for NaN: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
