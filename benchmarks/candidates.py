"""Which of several files should be shipped? Each against the first one, on PublicTest. Accuracy takes of a row only whether it is
right; proper scores take the probability that it gave, and tell files apart that a few thousand rows cannot by accuracy:

- FER-2013: the negative log-likelihood of the labels, nats;
- FER+: the cross-entropy of the voters' distribution, nats, which no model can bring below the voters' own entropy.

Each half of the rows is scored at the temperature that the other half fits. Differences with the standard error of their mean over
rows. The first file is the shipped one unless it is said otherwise.

    python benchmarks/candidates.py FILE.onnx [FILE.onnx ...] --root DIR
"""

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import public_test
import variants
from bundled import processor

from mien.classifier import Classifier
from mien.lab.evaluation.calibration import SMALLEST, apply_temperature
from mien.lab.evaluation.statistics import standard_error
from mien.lab.protocol import commit

MEASURES = ("accuracy", "loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.onnx")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=public_test.RESULTS)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)  # before the work
    classifiers = {file.stem: Classifier(file, threads=1) for file in options.files}
    speeds = variants.timed({name: (model.run, model.card.input.height) for name, model in classifiers.items()})
    public = public_test.load(options.root)
    measured = {
        name: by_row(public, Classifier(model.path, threads=os.cpu_count() or 1)) for name, model in classifiers.items()
    }
    rows = [
        {
            "file": name,
            "sha256": model.sha256,
            "bytes": model.path.stat().st_size,
            "views": model.card.views,
            "ms_median": speeds[name]["ms_median"],
            **compared(measured[name], next(iter(measured.values()))),
        }
        for name, model in classifiers.items()
    ]
    found = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": {"processor": processor(), "load": os.getloadavg()[0]},
        "candidates": rows,
    }
    (options.results / "candidates.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for row in rows:
        told = ", ".join(
            f"{name} {measure} {row[name][measure]['value']:.4f} ({row[name][measure]['difference']:+.4f} +- "
            f"{row[name][measure]['standard_error']:.4f})"
            for name in public_test.NAMES
            for measure in MEASURES
        )
        print(f"{row['file']}: {row['ms_median']} ms, {row['bytes'] / 1e6:.2f} MB; {told}")


def by_row(public: public_test.PublicTest, model: Classifier) -> dict[str, dict[str, np.ndarray]]:
    """Label set -> (M,) "accuracy", 1 where the row is right, and "loss", nats."""
    answers = public_test.answers(model, public.faces)
    found = {}
    for name in public_test.NAMES:
        data = public.data[name]
        told = public_test.matched(public, name, model.card, answers)
        target = np.eye(len(data.classes))[data.labels] if name == "fer2013" else data.votes
        assert target is not None
        found[name] = {
            "accuracy": (told.argmax(axis=1) == data.labels).astype(np.float64),
            "loss": cross_fitted_loss(target.astype(np.float64), told),
        }
    return found


def cross_fitted_loss(target: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(M,) cross-entropies of target (M, C), distributions, each half of the rows (every other one) at the temperature that is
    best for the other half."""
    even = np.arange(len(target)) % 2 == 0
    loss = np.empty(len(target))
    for fitted, scored in ((even, ~even), (~even, even)):
        temperature = best_temperature(target[fitted], probabilities[fitted])
        loss[scored] = cross_entropies(target[scored], apply_temperature(probabilities[scored], temperature))
    return loss


def best_temperature(target: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature from 0.25 to 4 at which the mean cross-entropy of these rows is lowest, to 1 %."""
    tried = np.geomspace(0.25, 4, 281)
    return float(min(tried, key=lambda t: cross_entropies(target, apply_temperature(probabilities, float(t))).mean()))


def cross_entropies(target: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(-(target * np.log(np.maximum(probabilities, SMALLEST))).sum(axis=1))


def compared(own: dict[str, dict[str, np.ndarray]], first: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Label set -> measure -> value, difference from the first file's, and that one's standard error."""
    return {
        name: {
            measure: {
                "value": float(rows[measure].mean()),
                "difference": float((rows[measure] - first[name][measure]).mean()),
                "standard_error": standard_error(rows[measure] - first[name][measure]),
            }
            for measure in MEASURES
        }
        for name, rows in own.items()
    }


if __name__ == "__main__":
    main()
