"""From a command line to a recipe: a method's preset, another network or loss by name, and `--set key=value`."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from mien.errors import UsageError
from mien.lab import methods
from mien.lab.losses import LOSSES
from mien.lab.methods.method import Method, Recipe
from mien.lab.networks import NETWORKS, NetworkOptions


@dataclass(frozen=True)
class Choice:
    """What was asked for; enough to build the same recipe again (run.json keeps it). variant: a key of the method's
    variants, whose network and loss replace the preset's; network, loss: names that replace those."""

    method: str
    preset: str = "paper"
    network: str | None = None
    loss: str | None = None
    settings: tuple[str, ...] = ()
    variant: str | None = None


def resolve(choice: Choice) -> tuple[Method, Recipe]:
    """The method and the recipe that the choice means. Raises UsageError naming what does not exist."""
    method = methods.load(choice.method)
    if choice.preset not in method.recipes:
        raise UsageError(
            f"{choice.method} has no preset {choice.preset!r}: expected one of {', '.join(method.recipes)}"
        )
    recipe = method.recipes[choice.preset]
    if choice.variant is not None:
        variant = _named(method.variants, choice.variant, f"variant of {choice.method}")
        recipe = replace(recipe, network=_sized(variant.network, recipe, choice.preset), loss=variant.loss)
    if choice.network is not None:
        recipe = replace(recipe, network=_named(NETWORKS, choice.network, "network")())
    if choice.loss is not None:
        recipe = replace(recipe, loss=_named(LOSSES, choice.loss, "loss")())
    return method, apply_settings(recipe, choice.settings)


def _sized(network: NetworkOptions, recipe: Recipe, preset: str) -> NetworkOptions:
    """The variant's network; at a cpu preset with the preset's width, where both have one."""
    sized: Any = network
    width = getattr(recipe.network, "width", None)
    if preset.startswith("cpu") and width is not None and hasattr(network, "width"):
        sized = replace(sized, width=width)
    found: NetworkOptions = sized
    return found


def apply_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """`key=value` for each setting; a dot goes into nested fields (`loss.weight=0.3`)."""
    for setting in settings:
        key, found, value = setting.partition("=")
        if not found:
            raise UsageError(f"--set {setting!r}: expected key=value, e.g. --set epochs=20")
        recipe = _set(recipe, key.strip().split("."), value.strip(), key)
    return recipe


def describe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON-ready data, with the names of its network's and loss's option classes."""
    data = asdict(recipe)
    data["network"] = {"options": type(recipe.network).__name__, **data["network"]}
    data["loss"] = {"options": type(recipe.loss).__name__, **data["loss"]}
    return data


def _named(table: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in table:
        raise UsageError(f"unknown {what} {name!r}: expected one of {', '.join(table)}")
    return table[name]


def _set(holder: Any, path: list[str], value: str, key: str) -> Any:
    """`holder` with the field at `path` replaced; its present value decides the type."""
    names = [field.name for field in fields(holder)]
    if path[0] not in names:
        raise UsageError(f"--set {key}: {type(holder).__name__} has no field {path[0]!r}; it has {', '.join(names)}")
    present = getattr(holder, path[0])
    if len(path) > 1:
        if not is_dataclass(present):
            raise UsageError(f"--set {key}: {path[0]!r} is a plain value, it has no fields")
        return replace(holder, **{path[0]: _set(present, path[1:], value, key)})
    return replace(holder, **{path[0]: _converted(value, present, key)})


def _converted(text: str, present: Any, key: str) -> Any:
    """`text` as a value of the type of `present`."""
    if isinstance(present, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if present is None:
            return text
        raise UsageError(f"--set {key}={text}: expected a value like {present!r}") from None
    if isinstance(present, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(present, tuple) and isinstance(value, int | float):
        value = (value,)
    if present is not None and type(value) is not type(present):
        raise UsageError(
            f"--set {key}={text}: expected {type(present).__name__} like {present!r}, not {type(value).__name__}"
        )
    return value
