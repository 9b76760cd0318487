"""An interval for every headline number of one Scores. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mien.lab.evaluation.calibration import BINS, SMALLEST, bin_of, calibration_error, reliability
from mien.lab.evaluation.delong import auc_interval
from mien.lab.evaluation.metrics import COUNT_METRICS, checked, confusion_counts, row_briers, summary
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import (
    LEVEL,
    ONE_CLUSTER,
    REPLICATES,
    Interval,
    cluster_count,
    mean_interval,
    percentile_interval,
    replicate_counts,
    share_interval,
    shared,
)

UPPER = "biased upwards: an upper bound"  # of ECE's interval
ONE_ROW = "one row, which says nothing of others"
RANGES: Mapping[str, tuple[float, float]] = {  # of the metrics that can be more or less than 0 to 1
    "kappa": (-1.0, 1.0),
    "alpha": (-1.0, 1.0),
    "brier": (0.0, 2.0),
    "nll": (0.0, -float(np.log(SMALLEST))),
}


def intervals(
    scores: Scores,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """An interval for every headline number of `metrics.summary`, under its name: accuracy, recall/CLASS (Wilson),
    balanced_accuracy, macro_f1, kappa, alpha, ece (bootstrap), brier, nll (normal), auc (DeLong).

    clusters: (N,) names of what was sampled together (subject, sequence, duplicate group), "" where unknown. Without
    them, or where no two rows share one, the bootstrap is stratified by class. A metric that is undefined for these scores has no
    entry. ECE is biased upwards in small samples and its bootstrap more so: read that interval as an upper one, and the
    summary's `ece_if_calibrated` beside it. A bootstrap of rows that are all right has no width, whatever their number: there
    read accuracy's. Rows of one cluster say nothing of others: every interval is then all that the metric can be.
    """
    size = len(checked(scores).classes)
    clusters = clusters if shared(clusters) else None
    if clusters is not None and cluster_count(clusters) < 2:
        return _of_one_cluster(scores)
    labels, predictions = scores.labels, scores.predictions
    how = f"bootstrap by {'class' if clusters is None else 'cluster'}, {REPLICATES} replicates, seed {seed}"
    confidence = scores.probabilities.max(axis=1).astype(np.float64)
    cells = (labels * size + predictions) * BINS + bin_of(confidence)
    drawn = replicate_counts(
        cells,
        size * size * BINS,
        strata=labels if clusters is None else None,
        clusters=clusters,
        seed=seed,
    )
    matrices = drawn.reshape(-1, size, size, BINS).sum(axis=-1)
    counts = confusion_counts(labels, predictions, size)
    found = _shares(scores, clusters)
    found |= {
        name: percentile_interval(float(metric(counts)), metric(matrices), clusters=clusters, how=how)
        for name, metric in COUNT_METRICS.items()
        if name not in found and np.isfinite(metric(counts))
    }
    error = calibration_error(reliability(labels, scores.probabilities))
    errors = _error_draws(drawn, cells, confidence, size)
    spread = percentile_interval(error, errors, clusters=clusters, how=f"{how}; {UPPER}")
    found["ece"] = replace(spread, low=min(error, spread.low))
    for name, rows in (("brier", row_briers(labels, scores.probabilities)), ("nll", _row_losses(scores))):
        span, (low, high) = mean_interval(rows, clusters=clusters), RANGES[name]
        found[name] = replace(span, low=max(low, span.low), high=min(high, span.high))
        if len(rows) == 1:
            found[name] = replace(span, low=low, high=high, how=ONE_ROW)
    if len(np.unique(labels)) > 1:
        found["auc"] = auc_interval(labels, scores.probabilities, clusters=clusters)
    return found


def _shares(scores: Scores, clusters: Sequence[str] | np.ndarray | None) -> dict[str, Interval]:
    """accuracy and each present class's recall: shares of all rows and of the class's."""
    right = (scores.predictions == scores.labels).astype(np.float64)
    names = None if clusters is None else np.asarray(clusters)
    found = {"accuracy": share_interval(right, names)}
    for index, name in enumerate(scores.classes):
        mine = scores.labels == index
        if mine.any():
            found[f"recall/{name}"] = share_interval(right[mine], None if names is None else names[mine])
    return found


def _of_one_cluster(scores: Scores) -> dict[str, Interval]:
    known = summary(scores)
    recalled = {f"recall/{row['class']}": row["recall"] for row in known["per_class"]}
    values = {
        name: known.get(name, recalled.get(name)) for name in (*COUNT_METRICS, *recalled, "ece", "brier", "nll", "auc")
    }
    return {
        name: Interval(value, *RANGES.get(name, (0.0, 1.0)), LEVEL, ONE_CLUSTER)
        for name, value in values.items()
        if value is not None
    }


def _row_losses(scores: Scores) -> np.ndarray:
    """(N,) -ln p_i[y_i], nats."""
    chosen = scores.probabilities[np.arange(len(scores.labels)), scores.labels].astype(np.float64)
    return -np.log(np.maximum(chosen, SMALLEST))


def _error_draws(drawn: np.ndarray, cells: np.ndarray, confidence: np.ndarray, size: int) -> np.ndarray:
    """(B,) ECE of each resample. Cells are truth x prediction x bin; a cell's rows count with their mean confidence."""
    rows = np.bincount(cells, minlength=drawn.shape[1])
    means = np.bincount(cells, weights=confidence, minlength=drawn.shape[1]) / np.maximum(rows, 1)
    correct = np.repeat(np.eye(size).ravel(), BINS)
    gaps = (drawn * (correct - means)).reshape(-1, size * size, BINS).sum(axis=1)
    return np.abs(gaps).sum(axis=1) / drawn.sum(axis=1)
