"""What do trained networks answer together? PublicTest accuracy and calibration error of each run alone and of the mean of every
two, float32, temperature 1, on the picture ("single") and as the mean with its mirror image ("flip").

    python benchmarks/together.py RUN [RUN ...] --root DIR
"""

import argparse
import datetime
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import public_test

from mien.card import ModelCard
from mien.lab.evaluation.evaluate import Model
from mien.lab.protocol import commit
from mien.lab.training.export import TrainedRun

BLOCK = 256  # faces at a time

Answers = Mapping[str, Mapping[str, np.ndarray]]  # view -> head -> (N, K)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=public_test.RESULTS)
    options = parser.parse_args()
    public = public_test.load(options.root)
    models = {run.name: TrainedRun(run) for run in options.runs}
    answers = {name: views(model, public.faces) for name, model in models.items()}
    card = models[options.runs[0].name].card
    rows = [
        {"networks": list(names), **judged(public, card, mean([answers[name] for name in names]))}
        for names in subsets(list(models))
    ]
    found = {"date": datetime.date.today().isoformat(), "commit": commit(), "together": rows}
    (options.results / "together.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for row in rows:
        shown = ", ".join(
            f"{100 * row[view][name]['accuracy']:.1f}" for view in ("single", "flip") for name in row[view]
        )
        print(f"{' + '.join(row['networks'])}: {shown}")


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every one of the names, then every two."""
    return [(name,) for name in names] + list(itertools.combinations(names, 2))


def views(model: Model, faces: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """View -> head -> (N, K) probabilities of (N, h, w) uint8 faces."""
    pictures = model.card.input.prepare([np.repeat(face[..., None], 3, axis=2) for face in faces])
    looked = {}
    for view, step in (("single", 1), ("mirrored", -1)):
        seen = np.ascontiguousarray(pictures[..., ::step])
        blocks = [model.run(seen[start : start + BLOCK]).probabilities for start in range(0, len(seen), BLOCK)]
        looked[view] = {head: np.concatenate([block[head] for block in blocks]) for head in model.card.heads}
    flip = {head: (looked["single"][head] + looked["mirrored"][head]) / 2 for head in model.card.heads}
    return {"single": looked["single"], "flip": flip}


def judged(public: public_test.PublicTest, card: ModelCard, answers: Answers) -> dict[str, Any]:
    """View -> label set -> n, accuracy and ece."""
    return {view: public_test.judged(public, card, found) for view, found in answers.items()}


def mean(answers: Sequence[Answers]) -> dict[str, dict[str, np.ndarray]]:
    """The networks' mean probabilities, for each view and head."""
    return {
        view: {head: np.mean([answer[view][head] for answer in answers], axis=0) for head in heads}
        for view, heads in answers[0].items()
    }


if __name__ == "__main__":
    main()
