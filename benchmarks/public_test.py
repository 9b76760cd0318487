"""FER-2013's PublicTest with both label sets, and a model's answers on it: what several scripts measure on.

FER+'s rows are among FER-2013's, so every face is classified once and both heads are judged on that one pass.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mien.card import ModelCard
from mien.classifier import Classifier, bundled_model
from mien.lab import datasets
from mien.lab.datasets import FaceDataset
from mien.lab.evaluation.calibration import calibration_error, reliability
from mien.lab.evaluation.evaluate import aligned_to, head_for

NAMES = ("fer2013", "ferplus")
ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class PublicTest:
    """faces: (N, 48, 48) uint8 grey, every row of FER-2013's PublicTest. data: by name, the rows that this label set keeps.
    places: by name, (M,) int64, where its rows stand among `faces`."""

    faces: np.ndarray
    data: Mapping[str, FaceDataset]
    places: Mapping[str, np.ndarray]


def shared_folder() -> Path:
    """Where photographs and datasets lie: MIEN_SHARED, else ../shared beside the checkout."""
    return Path(os.environ.get("MIEN_SHARED") or ROOT.parent / "shared")


def options(about: str | None) -> argparse.Namespace:
    """root, model, threads and results from the command line of a script that `about` describes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def load(root: Path, *, split: str = "valid") -> PublicTest:
    """Both label sets of one split, PublicTest unless said otherwise."""
    sets = {name: datasets.load(name, root, split=split) for name in NAMES}
    every = sets["fer2013"]
    place = {row: position for position, row in enumerate(every.ids)}
    faces = np.stack([every.read(i)[..., 0] for i in range(len(every))])
    return PublicTest(faces, sets, {name: np.array([place[i] for i in data.ids]) for name, data in sets.items()})


def answers(model: Classifier, faces: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
    """Head name -> (N, K) probabilities of grey (h, w) or RGB (h, w, 3) uint8 faces."""
    crops = [face if face.ndim == 3 else np.repeat(face[..., None], 3, axis=2) for face in faces]
    return model.predict(crops).probabilities


def matched(public: PublicTest, name: str, card: ModelCard, probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
    """(M, C) probabilities of the rows and classes of the label set called `name`, from answers on all of `faces`."""
    head = head_for(card, name, None)
    rows = probabilities[head][public.places[name]]
    return aligned_to(rows, card.heads[head].labels, public.data[name].classes)


def judged(
    public: PublicTest, card: ModelCard, probabilities: Mapping[str, np.ndarray], *, kept: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Label set -> n, accuracy and ece. kept: (N,) bool over `faces`, None for all."""
    found = {}
    for name in NAMES:
        rows = np.ones(len(public.places[name]), bool) if kept is None else kept[public.places[name]]
        answered = matched(public, name, card, probabilities)[rows]
        labels = public.data[name].labels[rows]
        found[name] = {
            "n": int(rows.sum()),
            "accuracy": float((answered.argmax(axis=1) == labels).mean()),
            "ece": calibration_error(reliability(labels, answered)),
        }
    return found
