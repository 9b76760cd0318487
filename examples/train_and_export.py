"""Train a small network on drawn faces, export it, and classify with the file: python examples/train_and_export.py OUT [EPOCHS]

The same steps as the commands `mien train`, `mien export` and `mien evaluate`, from Python.
"""

import sys
from pathlib import Path

from mien.classifier import Classifier
from mien.lab import datasets
from mien.lab.training.export import export
from mien.lab.training.recipes import Choice
from mien.lab.training.trainer import Source, train


def main(out: Path, epochs: int = 3) -> float:
    """Returns the accuracy of the exported file on the test split."""
    choice = Choice("mscar", preset="cpu", settings=("network.width=0.125", f"epochs={epochs}"))
    run = train(choice, Source("synthetic", None), out / "run")
    classifier = Classifier(export(run, out / "model.onnx"))
    test = datasets.load("synthetic", None, split="test")
    probabilities = classifier.predict([sample.image for sample in test]).probabilities["synthetic"]
    accuracy = float((probabilities.argmax(axis=1) == test.labels).mean())
    print(f"test accuracy {accuracy:.1%} on {len(test)} drawn faces")
    return accuracy


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:3]))
