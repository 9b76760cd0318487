"""A model and a dataset's split in, Scores out. Works on anything with a card and `run`: an ONNX file, or a trained run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mien.card import ModelCard
from mien.classifier import Prediction
from mien.errors import DataError, UsageError
from mien.lab.datasets import FaceDataset
from mien.lab.evaluation.calibration import SMALLEST
from mien.lab.evaluation.scores import Scores

VIEWS: tuple[str, ...] = ("single", "flip", "tencrop")
AVERAGES: tuple[str, ...] = ("probabilities", "logits")
ROWS = 256  # faces decoded and classified at a time: bounds the memory
TENCROP_SHIFT = 1 / 24  # of the side: 2 px at 48, so that the windows are 44 px of 48


class Model(Protocol):
    """What can be evaluated. `run` takes prepared batches (N, C, height, width) float32."""

    @property
    def card(self) -> ModelCard: ...
    @property
    def sha256(self) -> str: ...
    def run(self, batch: np.ndarray) -> Prediction: ...


def evaluate(
    model: Model, data: FaceDataset, *, protocol: Mapping[str, Any], views: str = "single", average: str = "probabilities",
    head: str | None = None,
) -> Scores:  # fmt: skip
    """Classify every row once and return the Scores. protocol: further facts: selection_rule, seed, command
    and commit, without which there are no Scores.

    views: "single"; "flip" (with the mirror image); "tencrop" (centre and four corner windows, each with its mirror image).
    The corners are those that a model with a window of its own was trained with, else a 24th of the side from the centre.
    average: of "probabilities" or "logits".
    Raises UsageError for an unknown view or average, DataError when head and data share no class.
    """
    check_views(views, average)
    name = head_for(model.card, data.name, head)
    probabilities, features = [], []
    for start in range(0, len(data), ROWS):
        crops = [data.read(i) for i in range(start, min(start + ROWS, len(data)))]
        block = _viewed(model, model.card.input.prepare(crops), name, views, average)
        probabilities.append(block[0])
        features.append(block[1])
    if not probabilities:
        raise DataError(f"{data.name} {data.split} has no rows to evaluate")
    answered, labels = np.concatenate(probabilities), model.card.heads[name].labels
    matched = aligned_to(answered, labels, data.classes)
    facts = {
        "dataset": data.name,
        "data_fingerprint": data.fingerprint,
        "split": data.split,
        "label_rule": data.label_rule,
        "note": "; ".join(filter(None, (data.note, unmatched(answered, labels, data.classes)))),
        "views": _told(views, average, model.card),
        "head": name,
        "model_sha256": model.sha256,
        "method": model.card.method,
        "temperature": model.card.heads[name].temperature,
        **protocol,
    }
    return Scores(data.labels, matched, data.classes, np.array(data.ids), facts, np.concatenate(features), data.votes)


def check_views(views: str, average: str) -> None:
    """Raises UsageError as `evaluate` does, before the work."""
    if views not in VIEWS:
        raise UsageError(f"views {views!r}: expected one of {', '.join(VIEWS)}")
    if average not in AVERAGES:
        raise UsageError(f"average {average!r}: expected one of {', '.join(AVERAGES)}")
    if average != AVERAGES[0] and views == VIEWS[0]:
        raise UsageError(
            f"average {average!r}: a single view has no mean; leave it out, or choose flip or tencrop views"
        )


def _told(views: str, average: str, card: ModelCard) -> str:
    """The views for the protocol, with those that the file folds in itself."""
    asked = views if views == "single" else f"{views}, mean of {average}"
    return asked if card.views == "single" else f"{asked}; in the file: {card.views}"


def head_for(card: ModelCard, dataset: str, wanted: str | None) -> str:
    """The head asked for, else the head named like the dataset, else the default head."""
    if wanted is not None:
        card.head(wanted)
        return wanted
    return dataset if dataset in card.heads else card.default_head


def aligned_to(probabilities: np.ndarray, labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Columns rearranged by name to `classes`. A class that the model lacks gets 0; one that the data lack is dropped and the
    rest renormalised; what is no number stays none. Raises DataError when they share no name."""
    shared = [name for name in classes if name in labels]
    if not shared:
        raise DataError(
            f"the model answers {', '.join(labels)}; the data have {', '.join(classes)}: no class in common"
        )
    matched = np.zeros((len(probabilities), len(classes)), np.float64)
    for column, name in enumerate(classes):
        if name in labels:
            matched[:, column] = probabilities[:, list(labels).index(name)]
    total = matched.sum(axis=1, keepdims=True)
    uniform = np.array([name in labels for name in classes]) / len(shared)  # all mass lay on dropped classes
    return np.where(total == 0, uniform, matched / np.where(total == 0, 1, total)).astype(np.float32)


def unmatched(probabilities: np.ndarray, labels: Sequence[str], classes: Sequence[str]) -> str:
    """How many answers are wholly of classes that the data lack, for the note; "" where none is. `aligned_to` takes them for all
    classes alike, of which the first then counts as the answer."""
    known = [column for column, name in enumerate(labels) if name in classes]
    rows = int((probabilities[:, known].sum(axis=1) <= 0).sum())
    first = next((name for name in classes if name in labels), "")
    return f"{rows} answers are of classes that the data lack only, and count as {first}" if rows else ""


def _viewed(model: Model, batch: np.ndarray, head: str, views: str, average: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities (N, K) over the views, and the single view's features (N, D)."""
    outputs = [model.run(np.ascontiguousarray(view)) for view in windows(batch, views, _corner_shifts(model.card))]
    stacked = np.stack([output.probabilities[head] for output in outputs]).astype(np.float64)
    if average == "logits":
        logs = np.log(np.maximum(stacked, SMALLEST)).mean(axis=0)
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True), outputs[0].features
    return stacked.mean(axis=0), outputs[0].features


def _corner_shifts(card: ModelCard) -> tuple[int, int]:
    """px from the centre window to that of an upper or left corner, and of a lower or right one."""
    rest = card.input.height - (card.window or card.input.height)
    if not rest:
        return (round(card.input.height * TENCROP_SHIFT),) * 2
    return rest // 2, rest - rest // 2


def windows(batch: np.ndarray, views: str, shifts: tuple[int, int]) -> Iterator[np.ndarray]:
    """The views of a batch (N, C, h, w), the single one first. A corner window is the batch moved by `shifts` px (up or left, down
    or right), edge pixels repeated: where the network looks at the centre only, that is exactly the corner of the picture."""
    yield batch
    if views == "single":
        return
    yield batch[..., ::-1]
    if views == "tencrop":
        for down in (-shifts[0], shifts[1]):
            for right in (-shifts[0], shifts[1]):
                corner = _moved(batch, down, right)
                yield corner
                yield corner[..., ::-1]


def _moved(batch: np.ndarray, down: int, right: int) -> np.ndarray:
    rows = np.clip(np.arange(batch.shape[2]) + down, 0, batch.shape[2] - 1)
    columns = np.clip(np.arange(batch.shape[3]) + right, 0, batch.shape[3] - 1)
    return batch[:, :, rows[:, None], columns[None, :]]
