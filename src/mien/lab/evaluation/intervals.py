"""An interval for every headline number of one Scores. No torch."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mien.lab.evaluation.calibration import BINS, SMALLEST, bin_of, calibration_error, reliability
from mien.lab.evaluation.delong import auc_interval
from mien.lab.evaluation.metrics import COUNT_METRICS, checked, confusion_counts, recalls, row_briers
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import (
    LEVEL,
    REPLICATES,
    Interval,
    mean_interval,
    percentile_interval,
    replicate_counts,
)


def intervals(
    scores: Scores,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """An interval for every headline number of `metrics.summary`, under its name: accuracy, balanced_accuracy,
    macro_f1, kappa, alpha, recall/CLASS, ece (bootstrap), brier, nll (normal), auc (DeLong).

    clusters: (N,) names of what was sampled together (subject, sequence, duplicate group), "" where unknown. Without
    them the bootstrap is stratified by class. A metric that is undefined for these scores has no entry. ECE is biased
    upwards in small samples and its bootstrap more so: read that interval as an upper one.
    """
    size = len(checked(scores).classes)
    labels, predictions = scores.labels, scores.predictions
    how = f"bootstrap by {'class' if clusters is None else 'cluster'}, {replicates} replicates, seed {seed}"
    confidence = scores.probabilities.max(axis=1).astype(np.float64)
    cells = (labels * size + predictions) * BINS + bin_of(confidence)
    drawn = replicate_counts(
        cells,
        size * size * BINS,
        strata=labels if clusters is None else None,
        clusters=clusters,
        replicates=replicates,
        seed=seed,
    )
    matrices = drawn.reshape(-1, size, size, BINS).sum(axis=-1)
    counts = confusion_counts(labels, predictions, size)
    found = _count_intervals(scores.classes, counts, matrices, level=level, how=how)
    error = calibration_error(reliability(labels, scores.probabilities))
    found["ece"] = percentile_interval(error, _error_draws(drawn, cells, confidence, size), level=level, how=how)
    found["brier"] = mean_interval(row_briers(labels, scores.probabilities), clusters=clusters, level=level)
    found["nll"] = mean_interval(_row_losses(scores), clusters=clusters, level=level)
    if len(np.unique(labels)) > 1:
        found["auc"] = auc_interval(labels, scores.probabilities, clusters=clusters, level=level)
    return found


def _count_intervals(
    classes: Sequence[str], counts: np.ndarray, drawn: np.ndarray, *, level: float, how: str
) -> dict[str, Interval]:
    statistics: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
        **COUNT_METRICS,
        **{f"recall/{name}": _recall_of(index) for index, name in enumerate(classes)},
    }
    return {
        name: percentile_interval(float(metric(counts)), metric(drawn), level=level, how=how)
        for name, metric in statistics.items()
        if np.isfinite(metric(counts))
    }


def _recall_of(index: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda counts: recalls(counts)[..., index]


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
