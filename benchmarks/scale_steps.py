"""What a training step of each paper's recipes costs on one core, per picture, for benchmarks/scale.py."""

import time
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import nn

from mien.lab import methods
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import Task
from mien.lab.methods.method import Recipe
from mien.lab.networks import Network, Shape
from mien.lab.networks.counts import macs

BATCH = 8  # pictures of a step: the rate per picture changes little with more, and 224 px take seconds each
REPEATS = 2  # after one to warm up; the faster one counts


class Step(TypedDict):
    """seconds: of one core for one picture, forward, backward and update. macs: of one picture's forward pass. size: px."""

    seconds: float
    macs: int
    size: int


def recipes() -> list[str]:
    """ "method/preset" of every paper's training that is projected: its own, and those for one of its datasets."""
    names = []
    for name in methods.NAMES:
        method = methods.load(name)
        presets = {f"paper/{row.dataset}" for row in method.published} & set(method.recipes)
        names += [f"{name}/{preset}" for preset in ("paper", *sorted(presets))]
    return names


def measured(names: Sequence[str]) -> dict[str, Step]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return {name: _step(name) for name in names}


def _step(name: str) -> Step:
    method, preset = name.split("/", 1)
    found = methods.load(method)
    recipe, classes = found.recipes[preset], next(iter(found.variants.values())).classes
    shape = Shape(recipe.channels, classes, recipe.size, recipe.loss.embeddings)
    network = _network(recipe, shape)
    seconds = _seconds(recipe, network, classes) / BATCH
    print(f"{name}: {seconds:.3f} core-seconds a picture", flush=True)
    return {"seconds": round(seconds, 5), "macs": macs(network, shape), "size": recipe.size}


def _network(recipe: Recipe, shape: Shape) -> Network:
    """The recipe's network in training, its frozen stages frozen."""
    network = recipe.network.build(shape).train()
    stages = dict(network.named_modules())
    for name in recipe.frozen:
        if name in stages:
            stages[name].requires_grad_(False)
    return network


class _Teacher(nn.Module):
    """Answers at no cost, where a loss wants a teacher: whose network it is, is the user's choice."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._classes = classes

    def forward(self, batch: Batch) -> NetworkOutput:
        logits = batch.images.flatten(1)[:, : self._classes]
        return NetworkOutput(logits, logits)


def _seconds(recipe: Recipe, network: Network, classes: int) -> float:
    """CPU seconds of a step on noise, with SGD, whose update costs no less than the recipe's own by much."""
    task = Task((10,) * classes, network.feature_dim, teacher=_Teacher(classes), has_votes=True)
    loss = recipe.loss.build(task)
    optimiser = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], 1e-4)
    images = torch.randn(BATCH, recipe.channels, recipe.size, recipe.size)
    votes = torch.full((BATCH, classes), 1 / classes)
    rows = Batch(images, torch.arange(BATCH) % classes, votes, torch.arange(BATCH))
    times = []
    for _ in range(1 + REPEATS):
        start = time.process_time()
        optimiser.zero_grad()
        made = network(rows.images)
        torch.stack(list(loss(made, rows).values())).sum().backward()
        optimiser.step()
        with torch.no_grad():
            loss.after_step(made, rows)
        times.append(time.process_time() - start)
    return min(times[1:])
