"""The shipped ONNX file on FER-2013's and FER+'s PublicTest: accuracy with intervals, per class, calibration, size, speed.

PublicTest chose the epoch and the temperatures, so these figures are a little kind to the model. The calibration error is also
given cross-fitted: temperature fitted on one half of the rows, error measured on the other, both ways.

    python benchmarks/bundled.py --root DIR        (writes benchmarks/results/bundled.json)
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from mien.classifier import Classifier, bundled_model
from mien.lab import datasets
from mien.lab.evaluation import leaks, metrics
from mien.lab.evaluation.calibration import (
    apply_temperature,
    calibration_error,
    error_if_calibrated,
    fit_temperature,
    reliability,
)
from mien.lab.evaluation.evaluate import VIEWS, evaluate
from mien.lab.evaluation.intervals import intervals
from mien.lab.evaluation.scores import Scores
from mien.lab.protocol import command_line, commit, versions

RESULT = Path(__file__).parent / "results" / "bundled.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--results", type=Path, default=RESULT.parent)
    options = parser.parse_args()
    model = Classifier(options.model, threads=1)
    every_core = Classifier(options.model, threads=os.cpu_count() or 1)
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "file": model.path.name,
        "bytes": model.path.stat().st_size,
        "sha256": model.sha256,
        "card": json.loads(model.card.to_json()),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0], **versions()},
        "speed": speed(model),
        "public_test": {name: measured(every_core, name, options.root) for name in ("fer2013", "ferplus")},
    }
    options.results.mkdir(exist_ok=True)
    (options.results / RESULT.name).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for name, result in found["public_test"].items():
        line = ", ".join(f"{view} {100 * result['views'][view]['accuracy']:.2f} %" for view in VIEWS)
        print(f"{name}: {result['n']} rows: {line}; ECE {100 * result['ece_cross_fitted']:.2f} % cross-fitted")
    print(found["speed"], found["bytes"])


def measured(model: Classifier, name: str, root: Path) -> dict[str, Any]:
    data = datasets.load(name, root, split="valid")
    hashes = leaks.pixel_hashes(data)
    clusters = leaks.duplicate_clusters(hashes)
    trained_on = datasets.load("fer2013", root, split="train")  # every picture that either head saw
    leaked = leaks.leaking(leaks.pixel_hashes(trained_on), hashes)
    facts = {"command": command_line(), "commit": commit(), "seed": model.card.seed, "selection_rule": "PublicTest"}
    views = {}
    for view in VIEWS:
        scores = evaluate(model, data, views=view, protocol=facts)
        summary = metrics.summary(scores)
        spans = intervals(scores, clusters=clusters)
        views[view] = {key: summary[key] for key in ("accuracy", "balanced_accuracy", "macro_f1", "ece", "nll")}
        views[view]["interval"] = [spans["accuracy"].low, spans["accuracy"].high]
        if view == "single":
            single, first = summary, scores
    return {
        "n": len(data),
        "data_fingerprint": data.fingerprint,
        "label_rule": data.label_rule,
        "views": views,
        "recall": {row["class"]: [row["recall"], row["n"]] for row in single["per_class"]},
        "ece_cross_fitted": cross_fitted(first),
        "ece_if_calibrated": float(np.mean([error_if_calibrated(first.probabilities[half::2]) for half in (0, 1)])),
        "also_in_training": int(leaked.sum()),
        "accuracy_without_them": without.value if (without := leaks.leak_report(first, leaked).without) else None,
    }


def cross_fitted(scores: Scores) -> float:
    """Mean calibration error of the two halves (every other row), each at the temperature that the other half fits."""
    even = np.arange(len(scores.labels)) % 2 == 0
    errors = []
    for fit, test in ((even, ~even), (~even, even)):
        temperature = fit_temperature(scores.labels[fit], scores.probabilities[fit])
        errors.append(
            calibration_error(
                reliability(scores.labels[test], apply_temperature(scores.probabilities[test], temperature))
            )
        )
    return float(np.mean(errors))


def speed(model: Classifier) -> dict[str, float]:
    """Milliseconds of one face, median and fastest of 300, and faces a second at batch 64; one thread."""
    spec = model.card.input
    one = np.random.default_rng(0).normal(size=(1, len(spec.mean), spec.height, spec.width)).astype(np.float32)
    many = np.repeat(one, 64, axis=0)
    singles, blocks = timed(model, one, 300), timed(model, many, 20)
    return {
        "ms_median": round(1000 * statistics.median(singles), 3),
        "ms_fastest": round(1000 * min(singles), 3),
        "faces_per_second_batch_64": round(64 / min(blocks)),
    }


def timed(model: Classifier, batch: np.ndarray, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats + 5):
        began = time.perf_counter()
        model.run(batch)
        times.append(time.perf_counter() - began)
    return times[5:]


def processor() -> str:
    """The processor's name, without more of the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
