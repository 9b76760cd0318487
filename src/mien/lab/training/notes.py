"""What a run's reader should know before its numbers, said at its start and kept in its run.json."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mien.classifier import Classifier
from mien.lab.datasets import FaceDataset
from mien.lab.evaluation.leaks import first_pictures, stretched
from mien.lab.methods.method import Recipe
from mien.lab.training import runs

_SAME_PICTURES = {"ferplus": "fer2013"}  # FER+ labels FER-2013's pictures anew


def notes_of(data: FaceDataset, recipe: Recipe, select_on: str, origins: Sequence[Path]) -> list[str]:
    """Sentences about the recipe, the training rows `data` and the files that the run starts from or is taught by; [] when nothing
    is amiss."""
    found = [
        f"{data.name}: {reason}, as others may be; `mien evaluate` refuses such faces (--accept-mismatch); `mien data align` cuts "
        "them square"
        for reason in stretched(runs.spec_of(recipe), first_pictures(data))
    ]
    voted = np.zeros(len(data.classes)) if data.votes is None else data.votes.sum(axis=0)
    unlearnt = [name for name, rows in zip(data.classes, data.class_counts + voted, strict=True) if not rows]
    if unlearnt:
        found.append(
            f"the training rows hold none of {', '.join(unlearnt)}: the network cannot learn what is not there"
        )
    if recipe.sizes and (last := recipe.sizes[-1][1]) != recipe.size:
        found.append(f"the run ends on pictures of {last} px (sizes) and is judged on those of {recipe.size} px (size)")
    if select_on == "holdout":
        found += [
            f"{Path(*path.parts[-2:])} may have learnt the tenth of train that the epoch is chosen by: the selection's score "
            "flatters"
            for path in origins
            if _may_know_the_holdout(path, data)
        ]
    return found


def _may_know_the_holdout(path: Path, data: FaceDataset) -> bool:
    """Whether a run's checkpoint or a file of mien learnt from these pictures, unless from exactly the rows `data` and nothing
    before. Others' weights are taken at their word; out-of-fold answers know nothing."""
    if path.suffix == ".onnx":
        told = " ".join(head.trained_on for head in Classifier(path).card.heads.values())
        return any(name in told for name in _names(data.name))
    facts = runs.facts_beside(path)
    if facts is None:
        return False
    if any(facts.get(name, True) for name in ("pretrained", "teacher")):  # a mean of runs does not say
        return True
    of = facts["data"]
    return of["name"] in _names(data.name) and of["fingerprint"] != data.fingerprint


def _names(dataset: str) -> set[str]:
    """The datasets of the same pictures."""
    pictures = _SAME_PICTURES.get(dataset, dataset)
    return {pictures, *(name for name, of in _SAME_PICTURES.items() if of == pictures)}
