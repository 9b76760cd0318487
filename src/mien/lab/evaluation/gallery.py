"""Faces in a report, only where the user asks for them and answers for showing them: rows that the model got right, its
surest mistakes, and where a trained network looks. Only the last needs torch.
"""

from typing import TYPE_CHECKING

import numpy as np

from mien.lab.datasets import FaceDataset
from mien.lab.evaluation.attention import attention_figure, grad_cam, own_maps
from mien.lab.evaluation.figures import Panel, grid, most_confident_mistakes, to_bytes
from mien.lab.evaluation.report import Picture
from mien.lab.evaluation.scores import Scores

if TYPE_CHECKING:
    from mien.lab.training.export import TrainedRun

SHOWN = 10  # faces of a grid


def grids(scores: Scores, data: FaceDataset) -> list[Picture]:
    """Right rows, evenly over the split, and the surest mistakes; a grid without faces is left out."""
    wanted = {
        "Right answers, evenly over the rows.": right_rows(scores, SHOWN),
        "The surest mistakes: truth, answer and its probability.": most_confident_mistakes(
            scores.labels, scores.probabilities, count=SHOWN
        ),
    }
    return [
        Picture(to_bytes(grid([Panel(data.read(int(row)), _caption(scores, int(row))) for row in rows]), "png"), text)
        for text, rows in wanted.items()
        if len(rows)
    ]


def right_rows(scores: Scores, count: int) -> np.ndarray:
    """At most `count` row numbers of right answers, evenly over the rows."""
    right = np.flatnonzero(scores.predictions == scores.labels)
    return right[np.linspace(0, len(right) - 1, min(count, len(right))).astype(int)]


def right_of_each_class(scores: Scores) -> np.ndarray:
    """The first right row of each class that has one, in the classes' order."""
    right = np.flatnonzero(scores.predictions == scores.labels)
    return right[np.unique(scores.labels[right], return_index=True)[1]]


def _caption(scores: Scores, row: int) -> str:
    truth, answer = scores.classes[scores.labels[row]], scores.classes[scores.predictions[row]]
    words = truth if truth == answer else f"{truth}\nas {answer}"  # two lines: neighbours must not run into each other
    return f"{words}\n{scores.probabilities[row].max():.0%}"


def looks(run: "TrainedRun", scores: Scores, data: FaceDataset) -> list[Picture]:
    """A right row of each class with the network's own attention maps and Grad-CAM of the answer."""
    import torch

    from mien.lab.training.module import centre_window

    rows = right_of_each_class(scores)
    if not len(rows):
        return []
    spec, network = run.card.input, run.module.network
    pixels = spec.pixels([data.read(int(row)) for row in rows])  # (n, C, H, W) uint8
    batch = centre_window(torch.from_numpy(spec.normalise(pixels.astype(np.float32) / np.float32(255))), run.recipe)
    shown = centre_window(torch.from_numpy(pixels), run.recipe).numpy().transpose(0, 2, 3, 1)
    faces = [np.repeat(face, 3, axis=2) if face.shape[2] == 1 else face for face in shown]
    maps = {**own_maps(network, batch), "Grad-CAM": grad_cam(network, batch)}
    figure = attention_figure(faces, maps, captions=[_caption(scores, int(row)) for row in rows])
    return [Picture(to_bytes(figure, "png"), f"Where the network looks: {', '.join(maps)}.")]
