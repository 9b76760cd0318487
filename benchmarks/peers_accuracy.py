"""How accurate are mien, `fer` and `@vladmandic/human` on the same faces? FER-2013's PublicTest with both label sets.

    python benchmarks/peers_accuracy.py --root DIR --fer PYTHON --human FOLDER

Every 48 px row goes straight to each one's classifier, with its own resizing and normalisation and without a detector: fer's
public call with the whole row as the face, human's emotion network fed as its source feeds it. The installations are those of
peers.py. Calibration errors have 15 bins; mien's temperatures were fitted on these rows, so for all three a temperature is
fitted anew on one half of the rows and judged on the other ("cross-fitted"), beside what each says as it is. Rows of a class that a
model has no word for do not fit its temperature, but are judged.

PublicTest chose mien's epoch. fer's network is by its file the one of oarriaga/face_classification, whose training code chose by
PublicTest and PrivateTest together; what human's maker chose by is not known. Peers answer seven words, so FER+'s rows of contempt
are wrong for them. A peer that is left out is left out of the table. Writes benchmarks/results/peers_accuracy.json.
"""

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "peers_accuracy.json"
NODE_SCRIPT = Path(__file__).with_name("peers_accuracy_human.mjs")
WORDS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # fer's and human's order, in mien's words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--fer", type=Path, metavar="PYTHON", help="of an environment that holds fer")
    parser.add_argument("--human", type=Path, metavar="FOLDER", help="with the node_modules of @vladmandic/human")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    given = parser.parse_args()

    import public_test

    from mien.classifier import Classifier

    public = public_test.load(given.root)
    model = Classifier()
    own = public_test.answers(model, public.faces)
    answered = {"mien": {name: public_test.matched(public, name, model.card, own) for name in public_test.NAMES}}
    for peer, command in commands(given.fer, given.human).items():
        scores = asked(peer, command, public.faces)
        answered[peer] = {name: worded(scores[public.places[name]], data.classes) for name, data in public.data.items()}
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "model_sha256": model.sha256,
        "rows": {name: len(data) for name, data in public.data.items()},
        "peers": {peer: judged(public, peer, rows) for peer, rows in answered.items()},
    }
    print(json.dumps(found["peers"], indent=1))
    given.out.write_text(json.dumps(found, indent=1) + "\n")


def commands(fer: Path | None, human: Path | None) -> dict[str, list[str]]:
    """Peer -> its process, which takes a file of (N, 48, 48) uint8 and writes one of (N, 7) float32."""
    found = {}
    if fer:
        found["fer"] = [str(fer), str(Path(__file__).resolve()), "--as-fer"]
    if human:
        node = shutil.which("node")
        if node is None:
            raise SystemExit("--human needs Node: node is not on the PATH")
        found["human"] = [node, str(NODE_SCRIPT), str(human.resolve())]
    return found


def asked(peer: str, command: list[str], faces: np.ndarray) -> np.ndarray:
    """(N, 7) scores in the order of WORDS."""
    with tempfile.TemporaryDirectory() as folder:
        pixels, scores = Path(folder) / "pixels", Path(folder) / "scores"
        pixels.write_bytes(np.ascontiguousarray(faces, np.uint8).tobytes())
        done = subprocess.run([*command, str(pixels), str(scores)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{peer} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return np.frombuffer(scores.read_bytes(), np.float32).reshape(len(faces), len(WORDS))


def worded(scores: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """(N, 7) scores -> (N, K) probabilities in the order of `classes`; what a peer has no word for gets 0."""
    columns = [scores[:, WORDS.index(word)] if word in WORDS else np.zeros(len(scores)) for word in classes]
    rows = np.stack(columns, axis=1).astype(np.float64)
    return rows / rows.sum(axis=1, keepdims=True)


def judged(public: Any, peer: str, answered: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Label set -> accuracy with its 95 % interval, mean class recall, calibration errors."""
    from bundled import cross_fitted

    from mien.lab.evaluation import leaks, metrics
    from mien.lab.evaluation.intervals import intervals
    from mien.lab.evaluation.scores import PROTOCOL_FIELDS, Scores

    found = {}
    for name, probabilities in answered.items():
        data = public.data[name]
        protocol = dict.fromkeys(PROTOCOL_FIELDS, peer)  # not kept
        scores = Scores(data.labels, probabilities, data.classes, np.array(data.ids), protocol)
        clusters = leaks.duplicate_clusters(leaks.pixel_hashes(data))
        summary, span = metrics.summary(scores), intervals(scores, clusters=clusters)["accuracy"]
        found[name] = {
            "accuracy": summary["accuracy"],
            "interval": [span.low, span.high],
            "balanced_accuracy": summary["balanced_accuracy"],
            "ece": summary["ece"],
            "ece_cross_fitted": cross_fitted(scores),
        }
    return found


def answer_as_fer(pixels: str, result: str) -> None:
    """fer's own process: what its classifier says before `detect_emotions` rounds it."""
    from fer.fer import FER

    class Recording(FER):
        def _classify_emotions(self, gray_faces: np.ndarray) -> np.ndarray:
            self.said = np.asarray(super()._classify_emotions(gray_faces))
            return self.said

    detector = Recording(offsets=(0, 0))
    labels = [{"angry": "anger"}.get(word, word) for _, word in sorted(FER._get_labels().items())]
    if labels != list(WORDS):
        raise SystemExit(f"fer answers {labels}: expected {list(WORDS)}")
    rows = []
    for face in np.fromfile(pixels, np.uint8).reshape(-1, 48, 48):
        detector.detect_emotions(np.repeat(face[..., None], 3, axis=2), face_rectangles=[(0, 0, 48, 48)])
        rows.append(detector.said[0])
    np.asarray(rows, np.float32).tofile(result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-fer"]:
        answer_as_fer(*sys.argv[2:4])
    else:
        main()
