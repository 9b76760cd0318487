"""A run folder: run.json (what was asked and with what), metrics.csv, times.csv, last.ckpt, best.ckpt, tensorboard/."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.card import InputSpec
from mien.errors import DataError
from mien.lab.datasets import FaceDataset
from mien.lab.methods.method import Method, Recipe
from mien.lab.networks import Network, Shape
from mien.lab.training.recipes import Choice, resolve


def write(folder: Path, facts: dict[str, Any]) -> None:
    """run.json, written beside the target and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".run.json.partial"
    partial.write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")
    partial.replace(folder / "run.json")


def read(folder: Path) -> dict[str, Any]:
    """run.json. Raises DataError when the folder is not a run."""
    try:
        facts: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(
            f"{folder}: not a run folder ({error}); write one with `mien train METHOD ... -o {folder}`"
        ) from None
    return facts


def facts_of_choice(choice: Choice) -> dict[str, Any]:
    """The choice for run.json. Without a variant there is no such key: runs of before there were variants go on."""
    facts = {**asdict(choice), "settings": list(choice.settings)}
    return facts if choice.variant is not None else {key: value for key, value in facts.items() if key != "variant"}


def choice_of(facts: dict[str, Any]) -> Choice:
    asked = facts["choice"]
    return Choice(**{**asked, "settings": tuple(asked["settings"])})


def started() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def shape_of(facts: dict[str, Any], recipe: Recipe) -> Shape:
    """The shape that the run's network was built for."""
    return Shape(recipe.channels, len(facts["classes"]), recipe.size, recipe.loss.embeddings)


def spec_of(recipe: Recipe, side: int | None = None) -> InputSpec:
    """The network's input as a card states it; `side` overrides the recipe's size (the size before a random window is cut)."""
    pixels = side or recipe.size
    colour = "grey" if recipe.channels == 1 else "rgb"
    mean, std = ((v * recipe.channels if len(v) == 1 else v) for v in (recipe.mean, recipe.std))
    return InputSpec(pixels, pixels, colour, mean, std)


def load_network(folder: Path, checkpoint: str = "best.ckpt") -> tuple[Network, Method, Recipe, dict[str, Any]]:
    """The trained network of a run in eval mode (averaged weights where the recipe averages), with what made it."""
    facts = read(folder)
    method, recipe = resolve(choice_of(facts))
    network = recipe.network.build(shape_of(facts, recipe))
    path = folder / checkpoint
    if not path.is_file():
        raise DataError(
            f"{path}: no checkpoint; the run has not finished an epoch, go on with `mien train ... --resume`"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "average.network." if recipe.ema else "network."
    network.load_state_dict({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    return network.eval(), method, recipe, facts


def keep_crops(folder: Path, data: FaceDataset, spec: InputSpec, count: int = 32) -> None:
    """Keep the pixels of a few real faces beside the run, for export's agreement check. They never leave the folder."""
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    np.save(folder / "crops.npy", spec.pixels([data.read(int(i)) for i in chosen]))


def kept_crops(folder: Path) -> np.ndarray:
    """(n, C, height, width) uint8. Raises DataError when the run has none."""
    path = folder / "crops.npy"
    if not path.is_file():
        raise DataError(
            f"{path}: the faces for export's check are gone; pass --root DIR so that they can be read again"
        )
    pixels: np.ndarray = np.load(path, allow_pickle=False)
    return pixels
