"""Would more than a temperature make a file's probabilities better? On PublicTest, both heads: logits times a matrix plus a bias
(Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2: vector and matrix scaling) beside the logits over a
temperature, each fitted on nine tenths of the rows and judged on the tenth that is left; identical pictures stay in one tenth.

Fitted and judged against the labels; FER+'s are the majority's. How far the matrix is from a multiple of the identity, and the
bias, are held small by a ridge.

    python benchmarks/beyond_temperature.py --root DIR           (writes benchmarks/results/beyond_temperature.json)
"""

import datetime
import json
from typing import Any

import numpy as np
import public_test
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from mien.classifier import Classifier
from mien.lab.evaluation import leaks
from mien.lab.evaluation.calibration import (
    SMALLEST,
    calibration_error,
    classwise_errors,
    classwise_if_calibrated,
    reliability,
)
from mien.lab.evaluation.metrics import accuracy, balanced_accuracy, confusion_counts
from mien.lab.evaluation.statistics import cluster_codes, standard_error

FORMS = {"temperature": (False, False), "temperature and bias": (True, False), "matrix and bias": (True, True)}
RIDGE = 0.01  # times the sum of squares
PARTS, SEED = 10, 0


def main() -> None:
    options = public_test.options(__doc__)
    public = public_test.load(options.root)
    model = Classifier(options.model, threads=options.threads)
    answers = public_test.answers(model, public.faces)
    found: dict[str, Any] = {"date": datetime.date.today().isoformat(), "sha256": model.sha256, "ridge": RIDGE}
    for name in public_test.NAMES:
        data = public.data[name]
        told = public_test.matched(public, name, model.card, answers)
        copies = cluster_codes(np.array(leaks.pixel_hashes(data)))
        found[name] = judged(data.labels, told, copies)
        for form, row in found[name].items():
            print(name, form, json.dumps(row))
    (options.results / "beyond_temperature.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def judged(labels: np.ndarray, told: np.ndarray, copies: np.ndarray) -> dict[str, dict[str, float]]:
    """Form -> its measures. labels: (M,); told: (M, C) probabilities; copies: (M,) int, equal for identical pictures."""
    logits = np.log(np.maximum(told, SMALLEST))
    part = np.random.default_rng(SEED).permutation(copies.max() + 1)[copies] % PARTS
    found, first = {}, None
    for form, free in FORMS.items():
        answered = np.empty_like(logits)
        for held in range(PARTS):
            weights = fitted(logits[part != held], labels[part != held], *free)
            answered[part == held] = softmax(logits[part == held] @ weights[:-1] + weights[-1], axis=1)
        loss = -np.log(np.maximum(answered[np.arange(len(labels)), labels], SMALLEST))
        first = loss if first is None else first
        counts = confusion_counts(labels, answered.argmax(axis=1), told.shape[1])
        found[form] = {
            "loss": float(loss.mean()),
            "difference": float((loss - first).mean()),
            "standard_error": standard_error(loss - first, copies),
            "accuracy": float(accuracy(counts)),
            "mean_class_recall": float(balanced_accuracy(counts)),
            "ece": calibration_error(reliability(labels, answered)),
            "classwise_ece": float(classwise_errors(labels, answered).mean()),
            "classwise_ece_if_calibrated": float(classwise_if_calibrated(answered).mean()),
        }
    return found


def fitted(logits: np.ndarray, labels: np.ndarray, bias: bool, matrix: bool) -> np.ndarray:
    """(C + 1, C): a matrix and, in its last row, a bias, which bring the mean cross-entropy of labels (M,) to its minimum."""
    classes = logits.shape[1]
    free = np.zeros((classes + 1, classes))
    free[:classes], free[classes] = matrix, bias
    inputs = np.hstack([logits, np.ones((len(logits), 1))])
    scale, target = np.eye(classes + 1, classes), np.eye(classes)[labels]

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        rest = values[1:].reshape(free.shape) * free
        told = log_softmax(inputs @ (values[0] * scale + rest), axis=1)
        error = inputs.T @ (np.exp(told) - target) / len(target)
        loss = -(target * told).sum() / len(target) + RIDGE * (rest**2).sum()
        return loss, np.append((error * scale).sum(), (error + 2 * RIDGE * rest) * free)

    best = minimize(cost, np.append(1.0, np.zeros(free.size)), jac=True, method="L-BFGS-B").x
    return np.asarray(best[0] * scale + best[1:].reshape(free.shape) * free)


if __name__ == "__main__":
    main()
