"""A trained run, or a file that mien exported, as a teacher: frozen, and fed the student's pictures in the form that it was
trained on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.card import InputSpec
from mien.classifier import Classifier, joined
from mien.errors import UsageError
from mien.lab.batch import NetworkOutput
from mien.lab.training import runs


def load_teacher(path: Path, *, classes: Sequence[str], spec: InputSpec) -> nn.Module:
    """The best network of the run folder `path`, or the graph of the .onnx file, as a frozen teacher for a student with these
    classes and this input.

    Raises UsageError naming both lists when the classes or their order differ, or the colours do.
    """
    network: nn.Module
    if path.suffix == ".onnx":
        graph = OnnxNetwork(path)
        network, theirs, own = graph, graph.labels, graph.card.input
    else:
        network, _, recipe, facts = runs.load_network(path)
        theirs, own = facts["classes"], runs.spec_of(recipe)
    if list(classes) != theirs:
        raise UsageError(
            f"teacher {path}: it answers {', '.join(theirs)}; the student learns {', '.join(classes)}; train a teacher on the "
            "same dataset and label rule"
        )
    if own.colour != spec.colour:
        raise UsageError(
            f"teacher {path}: it sees {own.colour} pictures, the student {spec.colour}; train one in {spec.colour}"
        )
    return Teacher(network, own, spec)


class OnnxNetwork(nn.Module):
    """A file that mien exported, answering on the CPU as a network does: its default head's log probabilities as logits, every
    other head's under its name. With a flip folded in, the answers are the mean over both views."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._classifier = Classifier(path)
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads)  # the rows are shared out, not each layer
        self.card = self._classifier.card
        self.labels = list(self.card.head().labels)

    def forward(self, images: Tensor) -> NetworkOutput:
        rows = np.ascontiguousarray(images.cpu().numpy(), np.float32)
        found = joined(list(self._pool.map(self._classifier.run, np.array_split(rows, self._threads))))
        told = {
            name: torch.from_numpy(values).clamp_min(torch.finfo(torch.float32).tiny).log().to(images)
            for name, values in found.probabilities.items()
        }
        logits = told.pop(self.card.default_head)
        return NetworkOutput(logits, torch.from_numpy(found.features).to(images), heads=told or None)


class Teacher(nn.Module):
    """Undoes the student's normalisation, resizes, applies the teacher's own, and asks the network."""

    def __init__(self, network: nn.Module, own: InputSpec, student: InputSpec) -> None:
        super().__init__()
        self.network, self.side = network.eval().requires_grad_(False), own.height
        constants = torch.tensor([[own.mean, own.std], [student.mean, student.std]]).view(2, 2, 1, -1, 1, 1)
        self.register_buffer("constants", constants)

    @torch.no_grad()
    def forward(self, images: Tensor) -> NetworkOutput:
        constants = self.get_buffer("constants")
        (mean, std), (student_mean, student_std) = constants[0], constants[1]
        pictures = images * student_std + student_mean
        if pictures.shape[-1] != self.side:
            pictures = F.interpolate(pictures, size=(self.side, self.side), mode="bilinear", antialias=True)
        output: NetworkOutput = self.network((pictures - mean) / std)
        return output
