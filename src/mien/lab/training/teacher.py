"""A trained run as a teacher: frozen, and fed the student's pictures in the form that it was trained on."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.card import InputSpec
from mien.errors import UsageError
from mien.lab.batch import NetworkOutput
from mien.lab.networks import Network
from mien.lab.training import runs


def load_teacher(path: Path, *, classes: Sequence[str], spec: InputSpec) -> nn.Module:
    """The best network of the run folder `path` as a frozen teacher for a student with these classes and this input.

    Raises UsageError naming both lists when the classes or their order differ, or the colours do.
    """
    network, _, recipe, facts = runs.load_network(path)
    theirs = facts["classes"]
    if list(classes) != theirs:
        raise UsageError(
            f"teacher {path}: it answers {', '.join(theirs)}; the student learns {', '.join(classes)}; train a teacher on the "
            "same dataset and label rule"
        )
    own = runs.spec_of(recipe)
    if own.colour != spec.colour:
        raise UsageError(
            f"teacher {path}: it sees {own.colour} pictures, the student {spec.colour}; train one in {spec.colour}"
        )
    return Teacher(network, own, spec)


class Teacher(nn.Module):
    """Undoes the student's normalisation, resizes, applies the teacher's own, and asks the network."""

    def __init__(self, network: Network, own: InputSpec, student: InputSpec) -> None:
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
