"""Every training row answered by a network that has not learnt from it: K networks, each trained without one of K parts.

Asked about rows that it learnt from, a network repeats their labels, wrong ones too. Out-of-fold answers do not. They make
targets for a student, and they tell which labels to doubt: the table's order is the label's own probability, the
"self-confidence" of Northcutt, Jiang and Chuang (2021, arXiv:1911.00068).
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mien import writing
from mien.errors import DataError, UsageError
from mien.lab.datasets import FaceDataset
from mien.lab.datasets.ferplus import JOINT
from mien.lab.protocol import command_line, commit
from mien.lab.training import runs
from mien.lab.training.cross_fitted import CrossFitted, check_name
from mien.lab.training.export import TrainedRun, source_of, training_rows
from mien.lab.training.parts import Part, may_know
from mien.lab.training.trainer import load_all

DOUBTED = 0.05  # a label of less probability is counted as doubted
_BLOCK = 256  # faces at a time


def check_names(out: Path, table: Path | None) -> None:
    """Raises UsageError for file names that cannot be written, before the work."""
    check_name(out)
    if table is not None and table.suffix != ".csv":
        raise UsageError(f"--table {table}: expected a file name that ends in .csv")


def cross_fit(folders: Sequence[Path], root: Path | None) -> tuple[CrossFitted, FaceDataset]:
    """Each run's answers, the mean over picture and mirror image, about the rows that it left out; and all these rows.

    Raises UsageError unless the runs left out each part of one division once, started and learnt from nothing that had learnt it,
    and agree on data and heads; DataError when `root` gives other rows than a run was trained on.
    """
    parts = _parts(folders)
    source, recipe = source_of(folders[0], root)
    data, _ = load_all(source, recipe)
    shared = {name: runs.read(folders[0])[name] for name in ("label_rule", "selection_rule")}
    models = [TrainedRun(folder) for folder in folders]
    classes = _labels(models[0])
    answers: dict[str, np.ndarray] = {}
    for folder, part, model in zip(folders, parts, models, strict=True):
        facts, theirs = runs.read(folder), source_of(folder, root)[0]
        if (
            (theirs.name, theirs.protocol, theirs.fold) != (source.name, source.protocol, source.fold)
            or any(facts[name] != value for name, value in shared.items())
            or _labels(model) != classes
        ):
            raise UsageError(f"{folder}: it was trained on other data, labels or selection than {folders[0]}")
        training_rows(folder, root)  # the same rows as when it was trained
        rows = part.rows(data)
        for head, found in _answers(model, data, rows).items():
            whole = answers.setdefault(head, np.full((len(data), found.shape[1]), np.nan, np.float32))
            whole[rows] = found
    return CrossFitted(
        ids=data.ids,
        probabilities=answers,
        classes=classes,
        default_head=models[0].card.default_head,
        facts={
            "dataset": source.name,
            **shared,
            "runs": {str(part): model.sha256 for part, model in zip(parts, models, strict=True)},
            "pretrained": [runs.read(folder)["pretrained"] for folder in folders],
            "views": "flip",
            "command": command_line(),
            "commit": commit(),
        },
    ), data


def _labels(model: TrainedRun) -> dict[str, tuple[str, ...]]:
    """Head -> its classes."""
    return {name: head.labels for name, head in model.card.heads.items()}


def _parts(folders: Sequence[Path]) -> list[Part]:
    """The part that each run left out; each of one division must be there once."""
    parts = []
    for folder in folders:
        left_out = runs.read(folder)["data"].get("left_out")
        if left_out is None:
            raise UsageError(
                f"{folder}: it was trained on all rows, so it can answer none that it has not learnt; train it with "
                "--leave-out K/N"
            )
        parts.append(Part.parse(left_out))
        _refuse_what_knows_the_part(folder)
    wanted = [Part(number, parts[0].of) for number in range(1, parts[0].of + 1)]
    if sorted(parts) != wanted:
        left, each = (", ".join(map(str, those)) for those in (sorted(parts), wanted))
        raise UsageError(f"the runs left out {left}; expected one run for each of {each}")
    return parts


def _refuse_what_knows_the_part(folder: Path) -> None:
    """Raises UsageError where the run began with, or was taught by, what may have learnt the rows that it left out."""
    facts = runs.read(folder)
    left_out = facts["data"]["left_out"]
    if knowing := may_know(facts):
        raise UsageError(
            f"{folder}: its {knowing[0]}, may have learnt from part {left_out}, which the run left out; "
            f"train it from a run with --leave-out {left_out} of the same rows, or from a random start"
        )


def _answers(model: TrainedRun, data: FaceDataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Head -> (n, K) probabilities of the rows, the mean over both views."""
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(rows), _BLOCK):
        pictures = model.card.input.prepare([data.read(int(row)) for row in rows[start : start + _BLOCK]])
        views = [model.run(np.ascontiguousarray(view)).probabilities for view in (pictures, pictures[..., ::-1])]
        for head in model.card.heads:
            found.setdefault(head, []).append(np.mean([view[head] for view in views], axis=0))
    return {head: np.concatenate(blocks) for head, blocks in found.items()}


def believed(found: CrossFitted, data: FaceDataset) -> tuple[str, np.ndarray]:
    """The head that answers the rows' labels (FER-2013's where both label sets were learnt), and (N,) the probability of each
    row's label. Raises DataError where the head lacks one of the labels."""
    head = "fer2013" if found.facts["label_rule"] == JOINT else found.default_head
    place = np.array([found.classes[head].index(name) if name in found.classes[head] else -1 for name in data.classes])
    labels = place[data.labels]
    if (labels < 0).any():
        raise DataError(f"{data.name}: labels outside the answers of the head {head}: {', '.join(found.classes[head])}")
    return head, found.probabilities[head][np.arange(len(data)), labels]


def summary(found: CrossFitted, data: FaceDataset) -> str:
    """One line: how many rows, how often the label is the first answer, how often it is doubted."""
    head, confidence = believed(found, data)
    first = (confidence >= found.probabilities[head].max(axis=1)).mean()
    return (
        f"{len(data):,} rows; {head}: the label is the first answer for {100 * first:.1f} %, has under "
        f"{100 * DOUBTED:.0f} % probability for {100 * (confidence < DOUBTED).mean():.1f} %"
    )


def write_table(found: CrossFitted, data: FaceDataset, path: Path) -> None:
    """id, label, its probability, first answer, its probability; the least believed label first."""
    head, confidence = believed(found, data)
    first = found.probabilities[head].argmax(axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing.whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label", "label_probability", "answer", "answer_probability"])
        for i in np.argsort(confidence, kind="stable"):
            top = found.probabilities[head][i, first[i]]
            label, answer = data.classes[data.labels[i]], found.classes[head][first[i]]
            rows.writerow([data.ids[i], label, f"{confidence[i]:.4f}", answer, f"{top:.4f}"])
