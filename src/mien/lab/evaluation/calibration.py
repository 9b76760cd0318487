"""How far the probabilities can be trusted: reliability bins, temperature, and what abstaining buys. No torch."""

from dataclasses import dataclass

import numpy as np

from mien.errors import DataError, UsageError

BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2: M = 15
SMALLEST = 1e-12  # probabilities are clipped here before a logarithm, so one wrong zero costs 27.6 nats, not infinity
TEMPERATURES = (0.05, 20.0)  # the range searched; a fit that lands on an edge is refused


@dataclass(frozen=True)
class Reliability:
    """Rows by confidence. edges: (M + 1,) from 0 to 1; bin m holds (edges[m], edges[m + 1]]. counts: (M,) int64.
    confidence, accuracy: (M,) means within the bin, NaN where the bin is empty."""

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True)
class RiskCoverage:
    """What answering only above a threshold costs and buys, one entry per distinct confidence, from strict to lenient.

    thresholds: (T,) confidence at which a row is still answered. coverage: (T,) fraction of rows answered, last is 1.
    risk: (T,) error rate among the answered. area: mean risk over all coverages (AURC; lower is better).
    """

    thresholds: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    area: float


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """(N,) confidences in [0, 1] -> (N,) int64 bin numbers: (m / M, (m + 1) / M] is bin m of M = BINS, and 0 itself is in bin 0."""
    return np.clip(np.ceil(np.asarray(confidence, np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Bin the rows by their top probability (Guo et al. 2017, section 2). labels: (N,); probabilities: (N, C)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    where = bin_of(confidence)
    counts = np.bincount(where, minlength=BINS)
    rows = np.where(counts > 0, counts, np.nan)
    return Reliability(
        edges=np.linspace(0.0, 1.0, BINS + 1),
        counts=counts,
        confidence=np.bincount(where, weights=confidence, minlength=BINS) / rows,
        accuracy=np.bincount(where, weights=correct, minlength=BINS) / rows,
    )


def calibration_error(table: Reliability) -> float:
    """ECE = sum over bins m of n_m / N * |accuracy_m - confidence_m| (Guo et al. 2017, Eq. 3). 0 is perfect."""
    gaps = np.abs(np.nan_to_num(table.accuracy) - np.nan_to_num(table.confidence))
    return float((table.counts * gaps).sum() / table.counts.sum())


def error_if_calibrated(probabilities: np.ndarray) -> float:
    """The ECE that a perfectly calibrated model with these probabilities (N, C) would show on N independent rows, on average: a
    finite sample's is never 0. A bin's rows that are right are then a sum of Bernoulli draws with the rows' confidences c, which
    lies, if normal, sqrt(2 / pi sum c (1 - c)) off on average; of a bin of few rows that is too much by a few per cent."""
    return _if_calibrated(probabilities.max(axis=1))


def _if_calibrated(confidence: np.ndarray) -> float:
    confidence = confidence.astype(np.float64)
    variances = np.bincount(bin_of(confidence), weights=confidence * (1 - confidence), minlength=BINS)
    return float(np.sqrt(2 / np.pi * np.maximum(variances, 0)).sum() / len(confidence))


def classwise_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C,) error of each class's own column: sum over bins m of n_m / N * |share of rows of the class_m - mean p_m|. Their mean is
    classwise-ECE (Kull et al. 2019, "Beyond temperature scaling", section 2). labels: (N,); probabilities: (N, C)."""
    gaps = (
        np.bincount(bin_of(column), weights=(labels == index) - column.astype(np.float64))
        for index, column in enumerate(probabilities.T)
    )
    return np.array([np.abs(gap).sum() for gap in gaps]) / len(labels)


def classwise_if_calibrated(probabilities: np.ndarray) -> np.ndarray:
    """(C,) what `classwise_errors` would be of a perfectly calibrated model, as `error_if_calibrated`."""
    return np.array([_if_calibrated(column) for column in probabilities.T])


def risk_coverage(labels: np.ndarray, probabilities: np.ndarray) -> RiskCoverage:
    """Error rate among the rows at least as sure as each threshold (El-Yaniv and Wiener 2010). Equal confidences enter
    together, because a threshold cannot tell them apart."""
    confidence = probabilities.max(axis=1)
    wrong = probabilities.argmax(axis=1) != labels
    order = np.argsort(-confidence, kind="stable")
    sure, errors = confidence[order], np.cumsum(wrong[order])
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))  # the last row of each run of equal confidences
    answered = last + 1
    risk = errors[last] / answered
    steps = np.diff(answered, prepend=0)
    return RiskCoverage(sure[last], answered / len(labels), risk, float((risk * steps).sum() / len(labels)))


def coverage_at_risk(curve: RiskCoverage, risk: float) -> float:
    """The largest fraction of rows that can be answered with an error rate of at most `risk`; 0.0 when none can."""
    allowed = curve.coverage[curve.risk <= risk]
    return float(allowed.max()) if len(allowed) else 0.0


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / T), (..., C) float64: the same as dividing the logits by T, as softmax forgets a row's constant.
    Raises UsageError unless T is above 0."""
    if temperature <= 0:
        raise UsageError(f"temperature {temperature}: expected a number above 0")
    scaled = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST)) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    raised = np.exp(scaled)
    return raised / raised.sum(axis=-1, keepdims=True)


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """NLL = -1/N sum_i ln p_i[y_i], in nats, with probabilities clipped at SMALLEST."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, SMALLEST)).mean())


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The T that minimises the NLL of softmax(log p / T) (Guo et al. 2017, section 4.2), to 1e-4 in ln T.

    probabilities: (N, C); or (V, N, C), V views of the same rows, whose mean at T is then what is fitted.
    Fit it on rows that are not reported. Rows of a class that gets no probability in any row, as one that the model does not know,
    are left out: they would pull T wherever SMALLEST says. NLL is convex in 1 / T, so a golden-section search over ln T finds the
    minimum. Raises DataError when the best T lies on the edge of TEMPERATURES (say, when every row is right).
    """
    known = probabilities.reshape(-1, probabilities.shape[-1]).max(axis=0)[labels] > 0
    labels, probabilities = labels[known], probabilities[..., known, :]
    low, high = np.log(TEMPERATURES)
    ratio = (np.sqrt(5.0) - 1) / 2

    def cost(log_temperature: float) -> float:
        calibrated = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return negative_log_likelihood(labels, calibrated.mean(axis=0) if calibrated.ndim == 3 else calibrated)

    left, right = high - ratio * (high - low), low + ratio * (high - low)
    costs = cost(left), cost(right)
    while high - low > 1e-4:
        if costs[0] <= costs[1]:
            high, right, left = right, left, right - ratio * (right - low)
            costs = cost(left), costs[0]
        else:
            low, left, right = left, right, left + ratio * (high - left)
            costs = costs[1], cost(right)
    best = float(np.exp((low + high) / 2))
    if min(abs(np.log(best / edge)) for edge in TEMPERATURES) < 1e-3:
        raise DataError(
            f"the temperature of these {len(labels)} rows runs to {best:.3g}, the edge of {TEMPERATURES}: "
            "fit on more rows, or on rows the model was not trained on"
        )
    return best
