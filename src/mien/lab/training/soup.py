"""The mean of several runs' weights as a run of its own: a uniform model soup (Wortsman et al., "Model soups", ICML 2022,
arXiv:2203.05482). It answers for the price of one network.

The runs must have grown from one: between networks of different random starts lies a ridge, and their mean answers nothing.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mien.errors import UsageError
from mien.lab.methods.method import Recipe
from mien.lab.protocol import command_line, commit, file_sha256
from mien.lab.training import runs
from mien.lab.training.checkpoint import save
from mien.lab.training.recipes import describe

BEST = "best.ckpt"
SHARED = ("classes", "label_rule", "data", "rows")  # facts that runs of one mean have in common
OWN = ("pretrained", "teacher", "seed")  # of single runs: of the mean they would be untrue
ALIKE = 0.2  # a cosine of two networks' weights: near 0 for different random starts, far above where both grew from one


def average(folders: Sequence[Path], out: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write the mean of the runs' best weights into the run folder `out`, which every command takes as it takes a trained run,
    except that it cannot be resumed, nor answer out of fold. Runs that seem not to have grown from one are named to `say` and in
    its run.json.

    Raises UsageError for fewer than two runs, for runs of other networks, labels or rows, and where `out` holds something.
    """
    if len(folders) < 2:
        raise UsageError(f"{len(folders)} run: the mean is of two or more")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: choose another -o")
    loaded = [runs.load_network(folder, BEST) for folder in folders]
    first, _, recipe, facts = loaded[0]
    states = [network.state_dict() for network, *_ in loaded]
    for folder, state, (_, _, other, told) in zip(folders, states, loaded, strict=True):
        _check_alike(folder, (state, told, other), (states[0], facts, recipe))
    unlike = [
        f"{folder.name}: its weights do not resemble the first run's (cosine {cosine:.2f}): have both grown from one? The mean of "
        "networks of different random starts answers nothing"
        for folder, state in zip(folders, states, strict=True)
        if (cosine := likeness(states[0], state)) < ALIKE
    ]
    for note in unlike:
        say(note)
    notes = [
        f"{folder.name}: {note}"
        for folder, (*_, own) in zip(folders, loaded, strict=True)
        for note in own.get("notes", [])
    ]
    first.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]})
    out.mkdir(parents=True, exist_ok=True)
    prefix = runs.prefix_of(recipe)
    save({"state_dict": {prefix + name: value for name, value in first.state_dict().items()}}, out / BEST)
    if (kept := folders[0] / runs.CROPS).is_file():
        shutil.copyfile(kept, out / runs.CROPS)
    runs.write(out, _facts_of_the_mean(facts, folders, [*notes, *unlike]))
    return out


def likeness(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The cosine between two networks' weights (those of norms, near 1 in any network, left out), in [-1, 1]."""

    def flat(state: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([state[name].double().flatten() for name, value in one.items() if value.ndim > 1])

    return torch.nn.functional.cosine_similarity(flat(one), flat(other), dim=0).item()


def _mean(values: Sequence[Tensor]) -> Tensor:
    """Of a weight; of a counter (of batches that a norm has seen) the first."""
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).to(values[0].dtype)


def _check_alike(folder: Path, own: tuple[Any, Any, Recipe], first: tuple[Any, Any, Recipe]) -> None:
    (state, facts, recipe), (wanted, known, reference) = own, first
    differing = [name for name in SHARED if facts[name] != known[name]]
    shapes, expected = ({name: value.shape for name, value in held.items()} for held in (state, wanted))
    if shapes != expected or _answering(recipe) != _answering(reference):
        differing.append("network")
    if runs.spec_of(recipe, recipe.resize) != runs.spec_of(reference, reference.resize):
        differing.append("input")
    if differing:
        raise UsageError(
            f"{folder}: {', '.join(differing)} differ from the first run's; the mean is of networks of the same options, trained "
            "on the same rows and labels"
        )


def _answering(recipe: Recipe) -> dict[str, Any]:
    """The network's options, without that which only training reads."""
    return {name: value for name, value in describe(recipe)["network"].items() if name != "dropout"}


def _facts_of_the_mean(facts: Mapping[str, Any], folders: Sequence[Path], notes: list[str]) -> dict[str, Any]:
    kept = {name: value for name, value in facts.items() if name not in OWN}
    return {
        **kept,
        "seed": 0,
        "command": command_line(),
        "commit": commit(),
        "started": runs.started(),
        "notes": notes,
        "averaged": [{"run": folder.name, "sha256": file_sha256(folder / BEST)} for folder in folders],
        "selection_rule": f"the mean of the weights of {len(folders)} runs, of each the {facts['selection_rule']}",
    }
