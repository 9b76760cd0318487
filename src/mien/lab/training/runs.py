"""A run folder: run.json (what was asked and with what), metrics.csv, times.csv, last.ckpt, best.ckpt, tensorboard/."""

import json
import pickle
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien import images, writing
from mien.card import InputSpec
from mien.errors import DataError
from mien.lab.datasets import FaceDataset
from mien.lab.methods.method import Method, Recipe
from mien.lab.networks import Network, Shape
from mien.lab.training.recipes import Choice, resolve

CROPS = "crops.npy"  # in a run folder: a few of its validation faces


def write(folder: Path, facts: dict[str, Any]) -> None:
    """run.json, whole or not at all. What a killed run left half-written goes."""
    folder.mkdir(parents=True, exist_ok=True)
    writing.clear(folder)
    writing.text(folder / "run.json", json.dumps(facts, indent=1, sort_keys=True))


class Facts(dict[str, Any]):
    """An object in a run.json. Asking for a field that it lacks raises DataError."""

    def __init__(self, path: Path, held: dict[str, Any]) -> None:
        super().__init__(held)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise DataError(
            f"{self.path}: no field {key!r}; copy it again from where the run was trained, or train it again"
        )


def read(folder: Path) -> Facts:
    """run.json. Raises DataError when the folder is not a run."""
    path = folder / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"), object_hook=lambda held: Facts(path, held))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: not a run folder ({error}); write one with `mien train METHOD ... -o {folder}`"
        ) from None
    if not isinstance(facts, Facts):
        raise DataError(
            f"{path}: expected an object of facts, not {type(facts).__name__}; copy it again, or train it again"
        )
    return facts


def facts_of_choice(choice: Choice) -> dict[str, Any]:
    """The choice for run.json. Without a variant there is no such key: runs of before there were variants go on."""
    facts = {**asdict(choice), "settings": list(choice.settings)}
    return facts if choice.variant is not None else {key: value for key, value in facts.items() if key != "variant"}


def choice_of(facts: dict[str, Any]) -> Choice:
    """What a run was asked for. Raises DataError where run.json does not say it as `mien train` does."""
    asked = facts["choice"]
    try:
        return Choice(**{**asked, "settings": tuple(asked["settings"])})
    except TypeError as error:
        where = facts.path if isinstance(facts, Facts) else "run.json"
        raise DataError(
            f"{where}: 'choice' is {asked!r}, not what `mien train` writes ({error}); train it again"
        ) from None


def started() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def shape_of(facts: dict[str, Any], recipe: Recipe) -> Shape:
    """The shape that the run's network was built for."""
    return Shape(recipe.channels, len(facts["classes"]), recipe.size, recipe.loss.embeddings)


def facts_beside(file: Path) -> Facts | None:
    """run.json of the run whose checkpoint `file` is; None of any other file."""
    known = file.suffix == ".ckpt" and (file.parent / "run.json").is_file()
    return read(file.parent) if known else None


def spec_of(recipe: Recipe, side: int | None = None) -> InputSpec:
    """The network's input as a card states it; `side` overrides the recipe's size (the size before a random window is cut)."""
    pixels = side or recipe.size
    colour = "grey" if recipe.channels == 1 else "rgb"
    mean, std = ((v * recipe.channels if len(v) == 1 else v) for v in (recipe.mean, recipe.std))
    return InputSpec(pixels, pixels, colour, mean, std)


def load_network(folder: Path, checkpoint: str = "best.ckpt") -> tuple[Network, Method, Recipe, dict[str, Any]]:
    """The trained network of a run in eval mode (averaged weights where the recipe averages), with what made it. Raises
    DataError for a folder without a run or a checkpoint, for a damaged one, and for weights that are not finite."""
    facts = read(folder)
    method, recipe = resolve(choice_of(facts))
    network = recipe.network.build(shape_of(facts, recipe))
    path = folder / checkpoint
    if not path.is_file():
        raise DataError(
            f"{path}: no checkpoint; the run has not finished an epoch, go on with `mien train ... --resume`"
        )
    advice = "copy it again from where the run was trained, or train the run again with another -o"
    state = read_checkpoint(path, advice=advice)["state_dict"]
    prefix = prefix_of(recipe)
    try:
        network.load_state_dict({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    except RuntimeError:
        raise DataError(
            f"{path}: not the weights of the network that {folder / 'run.json'} tells of; {advice}"
        ) from None
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise DataError(
            f"{path}: weights that are no finite numbers; train the run again with another -o, with a smaller lr"
        )
    return network.eval(), method, recipe, facts


def prefix_of(recipe: Recipe) -> str:
    """What a checkpoint calls the network that answers: the averaged one where the recipe averages."""
    return "average.network." if recipe.ema else "network."


def read_checkpoint(path: Path, *, advice: str) -> dict[str, Any]:
    """What a checkpoint holds, its tensors mapped from the file. Raises DataError ending with `advice` when it is damaged."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]  # torch goes on about what may have happened
        raise DataError(f"{path}: the checkpoint is damaged ({type(error).__name__}: {reason}); {advice}") from None
    if not isinstance(held, dict) or "state_dict" not in held:
        raise DataError(f"{path}: not a checkpoint of mien, it holds no state_dict; {advice}")
    return held


def keep_crops(folder: Path, data: FaceDataset, spec: InputSpec, count: int = 32) -> None:
    """Keep the pixels of a few real faces beside the run, for export's agreement check.
    docs/responsible-use.md tells of them."""
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    writing.array(folder / CROPS, spec.pixels([data.read(int(i)) for i in chosen]))


def kept_crops(folder: Path) -> np.ndarray:
    """(n, C, height, width) uint8. Raises DataError when the run has none, or they are damaged."""
    path = folder / CROPS
    if not path.is_file():
        raise DataError(
            f"{path}: the faces for export's check are gone; pass --root DIR so that they can be read again"
        )
    try:
        pixels: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(
            f"{path}: the faces for export's check are damaged ({images.reason(error)}); delete the file and pass --root DIR"
        ) from error
    return pixels
