"""What teaches a student: a trained run, or a file that mien exported, frozen and fed the student's pictures in the form that it
was trained on; or the answers that networks gave about rows which they had not learnt from (`cross_fit`). Several teachers share a
batch's pictures out among them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.card import InputSpec
from mien.classifier import Classifier, joined
from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.datasets import FaceDataset
from mien.lab.training import runs
from mien.lab.training.cross_fitted import CrossFitted


def load_teachers(paths: Sequence[Path], *, data: FaceDataset, spec: InputSpec) -> nn.Module | None:
    """The teacher of each path (`load_teacher`), as one; None without a path."""
    teachers = [load_teacher(path, data=data, spec=spec) for path in paths]
    return Several(teachers) if len(teachers) > 1 else teachers[0] if teachers else None


def load_teacher(path: Path, *, data: FaceDataset, spec: InputSpec) -> nn.Module:
    """The best network of the run folder `path`, the graph of the .onnx file or the answers in the .npz file, as a frozen teacher
    for a student of these rows and this input.

    Raises UsageError naming both lists when the classes or their order differ, or naming what else does: the colours, or a row
    without an answer.
    """
    if path.suffix == ".npz":
        held = CrossFitted.load(path)
        _check_classes(path, list(held.classes[held.default_head]), data.classes)
        return _answers_of(held, path, data.ids)
    network: nn.Module
    if path.suffix == ".onnx":
        graph = OnnxNetwork(path)
        network, theirs, own = graph, graph.labels, graph.seen
    else:
        network, _, recipe, facts = runs.load_network(path)
        theirs, own = facts["classes"], runs.spec_of(recipe)
    _check_classes(path, theirs, data.classes)
    if own.colour != spec.colour:
        raise UsageError(
            f"teacher {path}: it sees {own.colour} pictures, the student {spec.colour}; train one in {spec.colour}"
        )
    return Teacher(network, own, spec)


def _check_classes(path: Path, theirs: Sequence[str], classes: Sequence[str]) -> None:
    if list(classes) != list(theirs):
        raise UsageError(
            f"teacher {path}: it answers {', '.join(theirs)}; the student learns {', '.join(classes)}; train a teacher on the "
            "same dataset and label rule"
        )


def _answers_of(held: CrossFitted, path: Path, ids: Sequence[str]) -> "RowAnswers":
    """The answers about the rows `ids`, in that order."""
    place = {row: i for i, row in enumerate(held.ids)}
    lacking = [row for row in ids if row not in place]
    if lacking:
        raise UsageError(
            f"teacher {path}: no answer for {len(lacking):,} of the {len(ids):,} training rows, first {lacking[0]!r}; pass the "
            "file that `mien cross-fit` wrote for this dataset, label rule and --select-on"
        )
    rows = np.array([place[row] for row in ids])
    return RowAnswers({head: held.probabilities[head][rows] for head in held.probabilities}, held.default_head)


class RowAnswers(nn.Module):
    """Answers by row, whatever becomes of its picture. probabilities: head -> (rows, K)."""

    def __init__(self, probabilities: Mapping[str, np.ndarray], default: str) -> None:
        super().__init__()
        self.default = default
        self.logits = {head: _logs(torch.from_numpy(values)) for head, values in probabilities.items()}

    def forward(self, batch: Batch) -> NetworkOutput:
        rows = batch.ids.to(torch.int64)
        told = {head: logits[rows].to(batch.images.device) for head, logits in self.logits.items()}
        logits = told.pop(self.default)
        return NetworkOutput(logits, logits, heads=told or None)


def _logs(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


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
        side = self.card.window or self.card.input.height
        self.seen = replace(self.card.input, height=side, width=side)  # of its input, what it does not cut off
        before, rest = divmod(self.card.input.height - side, 2)
        self._margins = (before, before + rest) * 2

    def forward(self, images: Tensor) -> NetworkOutput:
        images = F.pad(images, self._margins)
        rows = np.ascontiguousarray(images.cpu().numpy(), np.float32)
        found = joined(list(self._pool.map(self._classifier.run, np.array_split(rows, self._threads))))
        told = {name: _logs(torch.from_numpy(values)).to(images) for name, values in found.probabilities.items()}
        logits = told.pop(self.card.default_head)
        return NetworkOutput(logits, torch.from_numpy(found.features).to(images), heads=told or None)


class Teacher(nn.Module):
    """Undoes the student's normalisation, resizes, applies the teacher's own, and asks the network. Asked again about the same
    tensor of pictures, as for a mixed batch's second labels, it does not compute again."""

    def __init__(self, network: nn.Module, own: InputSpec, student: InputSpec) -> None:
        super().__init__()
        self.network, self.side = network.eval().requires_grad_(False), own.height
        constants = torch.tensor([[own.mean, own.std], [student.mean, student.std]]).view(2, 2, 1, -1, 1, 1)
        self.register_buffer("constants", constants)
        self._last: tuple[Tensor, NetworkOutput] | None = None  # the pictures last seen, and the answer

    def forward(self, batch: Batch) -> NetworkOutput:
        if self._last is None or self._last[0] is not batch.images:
            self._last = (batch.images, self.about(batch.images))
        return self._last[1]

    @torch.no_grad()
    def about(self, images: Tensor) -> NetworkOutput:
        """Of the student's pictures (N, C, H, W)."""
        constants = self.get_buffer("constants")
        (mean, std), (student_mean, student_std) = constants[0], constants[1]
        pictures = images * student_std + student_mean
        if pictures.shape[-1] != self.side:
            pictures = F.interpolate(pictures, size=(self.side, self.side), mode="bilinear", antialias=True)
        output: NetworkOutput = self.network((pictures - mean) / std)
        return output


class Several(nn.Module):
    """K teachers, each of whom answers every K-th picture of a batch; of several processes, of each one's part, so that which
    teacher a picture meets depends on their number. Batches are drawn anew in every epoch, so that a picture's target is in
    expectation the mean of all their answers, and so is a cross-entropy's gradient, for the price of one of them."""

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self._last: tuple[Tensor, list[Tensor]] | None = None  # the pictures last seen, and each teacher's

    def forward(self, batch: Batch) -> NetworkOutput:
        """Logits, in float32 as features, too, and the heads that all of them have."""
        shares = [slice(first, None, len(self.teachers)) for first in range(min(len(self.teachers), len(batch.images)))]
        if self._last is None or self._last[0] is not batch.images:
            self._last = (batch.images, [batch.images[share] for share in shares])
        told: list[NetworkOutput] = [
            teacher(Batch(images, batch.labels[share], None, batch.ids[share]))
            for teacher, images, share in zip(self.teachers, self._last[1], shares, strict=False)
        ]
        heads = set.intersection(*(set(output.heads or {}) for output in told))
        logits = _dealt([output.logits for output in told], shares)
        others = {head: _dealt([(output.heads or {})[head] for output in told], shares) for head in sorted(heads)}
        return NetworkOutput(logits, logits, heads=others or None)


def _dealt(answers: Sequence[Tensor], shares: Sequence[slice]) -> Tensor:
    """(N, K) float32: the answers of each share in its rows."""
    whole = answers[0].new_empty((sum(map(len, answers)), answers[0].shape[1]), dtype=torch.float32)
    for share, answer in zip(shares, answers, strict=True):
        whole[share] = answer.float()
    return whole
