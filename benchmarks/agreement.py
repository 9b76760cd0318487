"""Accuracy by how far FER+'s voters agree, and what the noise of FER-2013's labels lets any model reach.

Four bounds on PublicTest and on pictures that occur twice, each with what it means; none of them needs a model.

    python benchmarks/agreement.py --root DIR [--model FILE.onnx]      (writes benchmarks/results/agreement.json)
"""

import datetime
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import public_test

from mien.classifier import Classifier
from mien.lab import datasets
from mien.lab.datasets import FaceDataset
from mien.lab.evaluation.evaluate import aligned_to, head_for
from mien.lab.evaluation.leaks import pixel_hashes
from mien.lab.evaluation.metrics import vote_agreement
from mien.lab.protocol import commit


def by_agreement(model: Classifier, public: public_test.PublicTest, root: Path) -> dict[str, list[dict[str, Any]]]:
    """Both heads in the bins of FER+'s winning share, singles counted (rule "argmax8": every row with a vote for one of the
    eight). The FER+ head is held to the winner, the FER-2013 head to FER-2013's own label, on the same rows."""
    voted = datasets.load("ferplus", root, split="valid", label_rule="argmax8")
    place = {row: position for position, row in enumerate(public.data["fer2013"].ids)}
    rows = np.array([place[row] for row in voted.ids])
    answered = public_test.answers(model, public.faces)
    votes = np.zeros((0, 0)) if voted.votes is None else voted.votes
    found = {}
    for name, truth in (("ferplus", voted.labels), ("fer2013", public.data["fer2013"].labels[rows])):
        head = head_for(model.card, name, None)
        classes = voted.classes if name == "ferplus" else public.data["fer2013"].classes
        predictions = aligned_to(answered[head][rows], model.card.heads[head].labels, classes).argmax(axis=1)
        found[name] = vote_agreement(truth, predictions, votes)  # FER-2013's seven are the first of the eight
    return found


def relabelled(fer2013: FaceDataset, ferplus: FaceDataset) -> dict[str, float]:
    """How often FER-2013's label is FER+'s, by name, over the rows of `ferplus`: the score on FER-2013 of a reader that
    answers exactly as FER+'s label."""
    labels = {row: fer2013.classes[label] for row, label in zip(fer2013.ids, fer2013.labels, strict=True)}
    same = [labels[row] == ferplus.classes[label] for row, label in zip(ferplus.ids, ferplus.labels, strict=True)]
    return {"n": len(same), "agreement": float(np.mean(same))}


def repeated(hashes: Sequence[str], labels: Sequence[int]) -> dict[str, float]:
    """Pictures that occur more than once, and the share of pairs of copies with the same label.

    If the labels of copies are drawn independently from one distribution p per picture, two agree with probability a =
    sum p^2, and the best single answer is right with probability max p, where a <= max p <= sqrt(a).
    """
    groups: dict[str, list[int]] = {}
    for name, label in zip(hashes, labels, strict=True):
        groups.setdefault(name, []).append(int(label))
    copies = [group for group in groups.values() if len(group) > 1]
    agreeing = sum(math.comb(count, 2) for group in copies for count in Counter(group).values())
    pairs = sum(math.comb(len(group), 2) for group in copies)
    agreement = agreeing / pairs if pairs else math.nan
    return {
        "pictures": len(copies),
        "conflicting": sum(len(set(group)) > 1 for group in copies),
        "pairs": pairs,
        "pair_agreement": agreement,
        "best_answer_at_least": agreement,
        "best_answer_at_most": math.sqrt(agreement),
    }


def bounds(public: public_test.PublicTest, root: Path) -> dict[str, Any]:
    """What the labels themselves say about the score that any reader can reach."""
    fer2013 = public.data["fer2013"]
    plurality = datasets.load("ferplus", root, split="valid", label_rule="argmax8")
    training = datasets.load("fer2013", root, split="train")
    copies = repeated(pixel_hashes(training) + pixel_hashes(fer2013), [*training.labels, *fer2013.labels])
    votes = np.zeros((1, 1)) if plurality.votes is None else plurality.votes
    shares = votes / votes.sum(axis=1, keepdims=True)
    return {
        "ferplus_majority_as_fer2013": relabelled(fer2013, public.data["ferplus"]),
        "ferplus_plurality_as_fer2013": relabelled(fer2013, plurality),
        "one_voter_as_plurality": {"n": len(shares), "agreement": float(shares.max(axis=1).mean())},
        "copies": copies,
    }


def main() -> None:
    options = public_test.options(__doc__)
    model, public = Classifier(options.model, threads=options.threads), public_test.load(options.root)
    found = {
        "date": datetime.date.today().isoformat(),
        "model_sha256": model.sha256,
        "commit": commit(),
        "by_agreement": by_agreement(model, public, options.root),
        "bounds": bounds(public, options.root),
    }
    (options.results / "agreement.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
