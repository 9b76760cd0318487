"""Every form of the trained networks in one run: float32, float16 and int8, by what each network looks at.

PublicTest accuracy and calibration error of both heads, file size, ms of one face (one thread) and faces a second at batch
64, beside mini-Xception's shape with random weights. The timings go round by round over all files, so that a busy moment
hits all alike.

    python benchmarks/variants.py --models FOLDER --root DIR      FOLDER: .onnx files written by `mien export`
"""

import argparse
import datetime
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mini_xception
import numpy as np
import public_test
from bundled import processor

from mien.classifier import ROWS, Classifier, session
from mien.lab.protocol import commit, versions

RESULTS = Path(__file__).parent / "results"
ROUNDS = 20
SINGLES, BLOCKS = 15, 1  # timed runs of one face and of 64 faces in each round
BATCH = 64
TOLERANCE = 0.003  # of the mean accuracy over both heads: a smaller or faster file may cost less than this
ALLOWED_MS = 5.0  # of one face, one thread, with the flip folded in

Run = Callable[[np.ndarray], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = measured(sorted(options.models.glob("*.onnx")), options.root)
    (options.results / "variants.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for row in found["variants"]:
        print(
            f"{row['file']}: {100 * row['mean_accuracy']:.2f} % of both heads, {row['ms_median']} ms, {row['bytes']} bytes"
        )
    print(f"to ship: {chosen(found['variants'])['file']}")


def measured(files: list[Path], root: Path) -> dict[str, Any]:
    """The table's content: accuracies from all cores, timings from one thread of an otherwise idle machine."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = {
            side: mini_xception.write(Path(folder) / f"{side}.onnx", side=side) for side in (mini_xception.SIDE, 48)
        }
        sizes = {side: path.stat().st_size for side, path in shapes.items()}
        classifiers = {path.name: Classifier(path) for path in files}
        runs: dict[str, tuple[Run, int]] = {
            name: (classifier.run, classifier.card.input.height) for name, classifier in classifiers.items()
        }
        runs |= {f"mini-Xception {side}": (bare(path), side) for side, path in shapes.items()}
        speeds = timed(runs)
    public = public_test.load(root)
    rows = [{**described(path, public), **speeds[path.name]} for path in files]
    peers = [
        {"name": "mini-Xception, random weights", "side": side, "bytes": size, **speeds[f"mini-Xception {side}"]}
        for side, size in sizes.items()
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0], **versions()},
        "commit": commit(),
        "variants": sorted(rows, key=lambda row: (row["views"], -row["bytes"])),
        "mini_xception": {"numbers": mini_xception.numbers(mini_xception.MiniXception()), "rows": peers},
    }


def bare(path: Path) -> Run:
    """A file without a card, as something to time, fed as `Classifier` feeds its graph."""
    opened = session(path)
    return lambda batch: [opened.run(None, {"images": batch[i : i + ROWS]}) for i in range(0, len(batch), ROWS)]


def described(path: Path, public: public_test.PublicTest) -> dict[str, Any]:
    model = Classifier(path, threads=os.cpu_count() or 1)
    heads = public_test.judged(public, model.card, public_test.answers(model, public.faces))
    return {
        "file": path.name,
        "sha256": model.sha256,
        "weights": model.card.weights,
        "views": model.card.views,
        "bytes": path.stat().st_size,
        "public_test": heads,
        "mean_accuracy": statistics.mean(head["accuracy"] for head in heads.values()),
    }


def timed(runs: Mapping[str, tuple[Run, int]]) -> dict[str, dict[str, float]]:
    """Name -> ms of one face, median and fastest, and faces a second at batch 64 (its fastest block)."""
    batches = {side: noise(BATCH, side) for _, side in runs.values()}
    singles: dict[str, list[float]] = {name: [] for name in runs}
    blocks: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):  # the first round warms up
        for name, (run, side) in runs.items():
            took = [seconds(run, batches[side][:1]) for _ in range(SINGLES)]
            many = [seconds(run, batches[side]) for _ in range(BLOCKS)]
            if number:
                singles[name] += took
                blocks[name] += many
    return {
        name: {
            "ms_median": round(1000 * statistics.median(singles[name]), 3),
            "ms_fastest": round(1000 * min(singles[name]), 3),
            "faces_per_second_batch_64": round(BATCH / min(blocks[name])),
        }
        for name in runs
    }


def noise(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1, side, side)).astype(np.float32)


def seconds(run: Run, batch: np.ndarray) -> float:
    began = time.perf_counter()
    run(batch)
    return time.perf_counter() - began


def chosen(variants: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The file to ship. For each views, the smallest whose mean accuracy is less than TOLERANCE under float32's; of these the
    one that sees the picture alone, unless one that sees the mirror image brings TOLERANCE or more and takes a face under
    ALLOWED_MS: then the most accurate of those."""
    best = [smallest([row for row in variants if row["views"] == views]) for views in {r["views"] for r in variants}]
    (single,) = (row for row in best if row["views"].startswith("single"))
    paying = [
        row
        for row in best
        if row["ms_median"] < ALLOWED_MS and row["mean_accuracy"] - single["mean_accuracy"] >= TOLERANCE
    ]
    return max(paying, key=lambda row: row["mean_accuracy"], default=single)


def smallest(rows: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    full = next(row for row in rows if row["weights"] == "float32")
    close = [row for row in rows if full["mean_accuracy"] - row["mean_accuracy"] < TOLERANCE]
    return min(close, key=lambda row: row["bytes"])


if __name__ == "__main__":
    main()
