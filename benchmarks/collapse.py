"""From which weight on does a centre-type term collapse a random start? The cpu presets of lban-il and wcl, one short
training for each weight: how many rows are right, and how far the features of a batch spread, over the last steps.

    python benchmarks/collapse.py --root DIR [--steps 400]

FER-2013's Training rows with the preset's augmentation, batch and optimiser at its first learning rate, float32. Writes
benchmarks/results/collapse.json.
"""

import argparse
import datetime
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Adam

from mien.lab import datasets, methods
from mien.lab.batch import Batch
from mien.lab.datasets import FaceDataset
from mien.lab.losses import Task
from mien.lab.methods.method import Recipe
from mien.lab.networks import Shape
from mien.lab.training import runs
from mien.lab.training.augment import augment
from mien.lab.training.feed import training_loader

RESULT = Path(__file__).parent / "results" / "collapse.json"
WEIGHTS = {"lban-il": (0.6, 0.1, 0.03, 0.0), "wcl": (1.0, 0.1, 0.0)}  # each paper's own first
LAST = 100  # steps that are reported


def short_training(recipe: Recipe, data: FaceDataset, steps: int) -> dict[str, float]:
    """share_right and spread (the mean over features of their deviation within a batch), means over the last steps."""
    torch.manual_seed(0)
    network = recipe.network.build(Shape(recipe.channels, len(data.classes), recipe.size, recipe.loss.embeddings))
    loss = recipe.loss.build(Task(data.class_counts, network.feature_dim))
    optimiser = Adam(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    source = recipe.resize or recipe.size
    right, spread = [], []
    for number, batch in enumerate(training_loader(data, runs.spec_of(recipe, source), batch=recipe.batch, seed=0)):
        if number == steps:
            break
        images = augment(
            batch.images,
            batch.ids.numpy(),
            recipe.augment,
            size=recipe.size,
            window=recipe.size / source,
            seed=0,
            epoch=0,
        )
        output = network((images - recipe.mean[0]) / recipe.std[0])
        seen = Batch(images, batch.labels, None, batch.ids)
        optimiser.zero_grad()
        torch.stack(list(loss(output, seen).values())).sum().backward()
        optimiser.step()
        with torch.no_grad():
            loss.after_step(output, seen)
            right.append((output.logits.argmax(dim=1) == batch.labels).float().mean().item())
            spread.append(output.features.std(dim=0).mean().item())
    return {
        "share_right": round(statistics.mean(right[-LAST:]), 4),
        "spread": round(statistics.mean(spread[-LAST:]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    data = datasets.load("fer2013", options.root, split="train")
    rows: list[dict[str, Any]] = []
    for name, weights in WEIGHTS.items():
        recipe = methods.load(name).recipes["cpu"]
        for weight in weights:
            weighed: Any = replace(recipe.loss, weight=weight)  # type: ignore[type-var]
            found = short_training(replace(recipe, loss=weighed), data, options.steps)
            rows.append({"method": name, "weight": weight, **found})
            print(rows[-1], flush=True)
    kept = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "steps": options.steps,
        "last": LAST,
        "commonest_class": round(max(data.class_counts) / len(data), 4),
        "rows": rows,
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
