"""What teaches a student: a trained run, or a file that mien exported, frozen and fed the student's pictures in the form that it
was trained on; or the answers that networks gave about rows which they had not learnt from (`cross_fit`). Several teachers share a
batch's pictures out among them; out of fold, each takes only those that it has not learnt."""

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
from mien.lab import ranks
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.datasets import FaceDataset
from mien.lab.training import runs
from mien.lab.training.cross_fitted import CrossFitted
from mien.lab.training.parts import Part, may_know


def load_teachers(
    paths: Sequence[Path], *, data: FaceDataset, spec: InputSpec, out_of_fold: bool = False
) -> nn.Module | None:
    """The teacher of each path (`load_teacher`), as one; None without a path. out_of_fold: each answers only about the rows that
    it left out.

    Raises UsageError, beside what `load_teacher` does, where out of fold a teacher is no run that left out a part of these
    rows, or may know it, or a row has no teacher.
    """
    if out_of_fold and not paths:
        raise UsageError("--out-of-fold: no teacher; pass --teacher RUN for each run that left a part out")
    unlearnt = _unlearnt(paths, data) if out_of_fold else None
    teachers = [load_teacher(path, data=data, spec=spec) for path in paths]
    if unlearnt is not None:
        return Several(teachers, unlearnt)
    return Several(teachers) if len(teachers) > 1 else teachers[0] if teachers else None


def _unlearnt(paths: Sequence[Path], data: FaceDataset) -> np.ndarray:
    """(K, rows) bool: which rows each of the runs left out."""
    parts: dict[str, np.ndarray] = {}
    unlearnt = np.zeros((len(paths), len(data)), bool)
    for mine, path in zip(unlearnt, paths, strict=True):
        if path.suffix == ".npz":
            raise UsageError(
                f"--out-of-fold: teacher {path}: such answers are out of fold as they are; leave --out-of-fold out"
            )
        facts = runs.read(path) if path.is_dir() else {"data": {}}
        left_out = facts["data"].get("left_out")
        if left_out is None:
            raise UsageError(
                f"--out-of-fold: teacher {path} is no run that left a part out; train one with --leave-out K/N"
            )
        if knowing := may_know(facts):
            raise UsageError(f"--out-of-fold: teacher {path}: its {knowing[0]}, may have learnt part {left_out}")
        if left_out not in parts:
            parts[left_out] = Part.parse(left_out).rows(data)
        mine[parts[left_out]] = True
        if data.subset(np.flatnonzero(~mine)).fingerprint != facts["data"]["fingerprint"]:
            raise UsageError(
                f"--out-of-fold: teacher {path} learnt other rows than these without part {left_out}; train it and the "
                "student on the same data, label rule and --select-on, the student without --leave-out"
            )
    lacking = np.flatnonzero(~unlearnt.any(axis=0))
    if len(lacking):
        raise UsageError(
            f"--out-of-fold: {len(lacking):,} of the {len(data):,} training rows were learnt by every teacher, first "
            f"{data.ids[lacking[0]]!r}; pass a run for each part"
        )
    return unlearnt


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
    """K teachers, each of whom answers every K-th picture of a batch; of several processes each counts on from the one before.
    Batches are drawn anew in every epoch, so that a picture's target is in expectation the mean of all their answers, and so is a
    cross-entropy's gradient, for the price of one of them.

    may_answer: (K, rows) bool, about which rows of the dataset each may be asked; of M who may, every M-th picture of a batch
    goes to each. Of a mixed picture only the row whose labels are asked about counts."""

    def __init__(self, teachers: Sequence[nn.Module], may_answer: np.ndarray | None = None) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self._may_answer = may_answer
        self._last: _Dealt | None = None

    def forward(self, batch: Batch) -> NetworkOutput:
        """Logits, in float32 as features, too, and the heads that all of them have."""
        turns = self._turns(batch.ids.numpy())
        if self._last is None or self._last.whole is not batch.images or (self._last.turns != turns).any():
            self._last = _Dealt(batch.images, turns, len(self.teachers))
        order, counts = self._last.order, self._last.counts
        labels, ids = batch.labels[order].split(counts), batch.ids[self._last.places].split(counts)
        told: list[NetworkOutput] = [
            teacher(Batch(images, own_labels, None, own_ids))
            for teacher, images, own_labels, own_ids in zip(self.teachers, self._last.images, labels, ids, strict=True)
            if len(images)
        ]
        heads = set.intersection(*(set(output.heads or {}) for output in told))
        logits = _gathered([output.logits for output in told], order)
        others = {head: _gathered([(output.heads or {})[head] for output in told], order) for head in sorted(heads)}
        return NetworkOutput(logits, logits, heads=others or None)

    def _turns(self, rows: np.ndarray) -> np.ndarray:
        """(N,) which teacher answers each picture."""
        places = ranks.own() * len(rows) + np.arange(len(rows))
        if self._may_answer is None:
            return places % len(self.teachers)
        allowed = self._may_answer[:, rows]
        turn = places % allowed.sum(axis=0)  # among those who may
        return (allowed & (allowed.cumsum(axis=0) == turn + 1)).argmax(axis=0)


class _Dealt:
    """The pictures `whole` (N, C, H, W), by the teacher whose turn it is: images[k] are the k-th one's counts[k]. places: (N,)
    where they came from; order: the same beside the pictures."""

    def __init__(self, whole: Tensor, turns: np.ndarray, teachers: int) -> None:
        self.whole, self.turns = whole, turns
        self.places = torch.from_numpy(np.argsort(turns, kind="stable"))
        self.order = self.places.to(whole.device)
        self.counts = np.bincount(turns, minlength=teachers).tolist()
        self.images = whole[self.order].split(self.counts)


def _gathered(answers: Sequence[Tensor], order: Tensor) -> Tensor:
    """(N, K) float32: the answers, one after another, in the places that `order` names."""
    found = torch.cat([answer.float() for answer in answers])
    return torch.empty_like(found).index_copy_(0, order, found)
