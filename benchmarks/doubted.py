"""Are the labels that out-of-fold answers doubt the wrong ones? FER-2013's Training labels, held to FER+'s voters.

    mien cross-fit RUN RUN RUN --root DIR -o ANSWERS.npz
    python benchmarks/doubted.py ANSWERS.npz --root DIR        (writes benchmarks/results/doubted.json)

Rows are put in bands by the probability that a network which had not learnt from them gave their label. The voters saw the
pictures years later and knew nothing of these networks; rows without a majority (FER+'s rule) are counted apart.
"""

import argparse
import datetime
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import public_test

from mien.lab import datasets
from mien.lab.datasets import FaceDataset
from mien.lab.protocol import commit, file_sha256
from mien.lab.training.cross_fit import believed
from mien.lab.training.cross_fitted import CrossFitted

BANDS = (0.0, 0.05, 0.2, 0.5, 0.8, 1.0)


def by_band(
    confidence: np.ndarray, labels: np.ndarray, first: np.ndarray, voted: np.ndarray
) -> list[dict[str, float | int | None]]:
    """For each band of `confidence` (N,): rows, those with a majority, and of these the share whose majority is another class
    than the label, and the share whose majority is the network's first answer. voted: (N,) classes, -1 without a majority."""
    found: list[dict[str, float | int | None]] = []
    for low, high in pairwise(BANDS):
        inside = (confidence >= low) & ((confidence < high) | (high == BANDS[-1]))
        judged = inside & (voted >= 0)
        n = int(judged.sum())
        found.append(
            {
                "low": low,
                "high": high,
                "n": int(inside.sum()),
                "voted": n,
                "contradicted": float((voted != labels)[judged].mean()) if n else None,
                "with_the_network": float((voted == first)[judged].mean()) if n else None,
            }
        )
    return found


def majorities(data: FaceDataset, root: Path) -> np.ndarray:
    """(N,) FER+'s majority for each row, -1 where it has none."""
    voted = datasets.load("ferplus", root, split="train", label_rule="majority")
    found = np.full(len(data), -1)
    place = {row: i for i, row in enumerate(data.ids)}
    for row, label in zip(voted.ids, voted.labels, strict=True):
        found[place[row]] = label
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, metavar="ANSWERS.npz")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=public_test.RESULTS)
    options = parser.parse_args()
    answers = CrossFitted.load(options.answers)
    data = datasets.load("ferplus", options.root, split="train", label_rule="joint")
    head, confidence = believed(answers, data)
    first = answers.probabilities[head].argmax(axis=1)
    voted = majorities(data, options.root)
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "answers": {"sha256": file_sha256(options.answers), **answers.facts},
        "head": head,
        "accuracy": float((first == data.labels).mean()),
        "contradicted": float((voted != data.labels)[voted >= 0].mean()),
        "bands": by_band(confidence, data.labels, first, voted),
    }
    (options.results / "doubted.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for band in found["bands"]:
        print(band)


if __name__ == "__main__":
    main()
