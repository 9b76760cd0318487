"""The learning rate as a factor of the recipe's `lr`, from how far the run is."""

import math

from mien.lab.methods.method import Recipe


def factor(recipe: Recipe, epoch: float) -> float:
    """epoch: how many epochs are behind, with fractions within one (0 = start). "steps" is constant within an epoch."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "steps":
        passed = [value for start, value in recipe.milestones if int(epoch) >= start]
        return passed[-1] if passed else 1.0
    progress, warmup = epoch / recipe.epochs, recipe.warmup  # cosine
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def step_factor(recipe: Recipe, step: int, steps: int) -> float:
    """The factor of optimiser step `step` (from 0) with `steps` of them in an epoch, time decay included."""
    return factor(recipe, step / steps) / (1 + recipe.decay * step)


def side(recipe: Recipe, epoch: int) -> int:
    """Side of the training input in this epoch, px: the last entry of `recipe.sizes` that has begun, else `recipe.size`."""
    begun = [size for start, size in recipe.sizes if epoch >= start * recipe.epochs]
    return begun[-1] if begun else recipe.size
