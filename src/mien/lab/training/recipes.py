"""From a command line to a recipe: a method's preset, another network or loss by name, and `--set key=value`."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from inspect import formatannotation
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mien.errors import UsageError
from mien.lab import methods
from mien.lab.losses import LOSSES
from mien.lab.methods.method import Method, Recipe
from mien.lab.networks import NETWORKS

_READ_BY = {  # settings that mean nothing but with another
    "warmup": ("schedule", "cosine"),
    "milestones": ("schedule", "steps"),
    "momentum": ("optimiser", "sgd"),
    "nesterov": ("optimiser", "sgd"),
}


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
        _refuse_a_preset_of_its_own(choice, recipe, method.recipes["paper"])
        network, loss = variant.network, variant.loss
        if choice.preset.startswith("cpu"):
            network, loss = _sized(network, recipe), _weighed(loss, recipe, method.recipes["paper"])
        recipe = replace(recipe, network=network, loss=loss)
    if choice.network is not None:
        recipe = replace(recipe, network=_named(NETWORKS, choice.network, "network")())
    if choice.loss is not None:
        recipe = replace(recipe, loss=_named(LOSSES, choice.loss, "loss")())
    recipe = apply_settings(recipe, choice.settings)
    if getattr(recipe.network, "input_norm", None) == "vggface2" and (any(recipe.mean) or {*recipe.std} != {1.0}):
        raise UsageError(
            f"network.input_norm=vggface2 normalises by itself, and the recipe's mean={recipe.mean}, std={recipe.std} would come "
            f"before it: add --set 'mean={(0.0,) * len(recipe.mean)}' --set 'std={(1.0,) * len(recipe.std)}'"
        )
    return method, recipe


def _refuse_a_preset_of_its_own(choice: Choice, recipe: Recipe, paper: Recipe) -> None:
    """A variant replaces network and loss; a preset that is there for either would be named and not trained."""
    own = [part for part in ("network", "loss") if getattr(recipe, part) != getattr(paper, part)]
    if own and not choice.preset.startswith("cpu"):
        raise UsageError(
            f"preset {choice.preset} has its own {' and '.join(own)}, which variant {choice.variant} would replace: take preset "
            f"paper and --set, or `mien train {choice.method} --preset {choice.preset}` without a variant"
        )


def _sized(network: Any, preset: Recipe) -> Any:
    """A variant's network with the preset's width, where both have one."""
    width = getattr(preset.network, "width", None)
    return replace(network, width=width) if width is not None and hasattr(network, "width") else network


def _weighed(loss: Any, preset: Recipe, paper: Recipe) -> Any:
    """A variant's loss with the preset's weight, where it is of the preset's family of losses and has the paper preset's weight:
    a variant of a weight of its own keeps that."""
    own: Any = preset.loss
    related = isinstance(loss, type(own)) or isinstance(own, type(loss))
    printed = getattr(paper.loss, "weight", None)
    return replace(loss, weight=own.weight) if related and printed is not None and loss.weight == printed else loss


def apply_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """`key=value` for each setting; a dot goes into nested fields (`loss.weight=0.3`). All at once: one may need another, as
    `size=40` and `resize=48`. Raises UsageError for a setting that there is none of, a value that cannot be meant, or one that
    nothing reads."""
    given = []
    for setting in settings:
        key, found, value = setting.partition("=")
        if not found:
            raise UsageError(f"--set {setting!r}: expected key=value, e.g. --set epochs=20")
        given.append((key.strip(), value.strip()))
    changed: Recipe = _with(recipe, given)
    for key, _ in given:
        if key in _READ_BY and getattr(changed, _READ_BY[key][0]) != _READ_BY[key][1]:
            field, value = _READ_BY[key]
            raise UsageError(
                f"--set {key}: only {field}={value} reads it, this recipe has {field}={getattr(changed, field)}"
            )
    return changed


def describe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON-ready data, with the names of its network's and loss's option classes."""
    data = asdict(recipe)
    data["network"] = {"options": type(recipe.network).__name__, **data["network"]}
    data["loss"] = {"options": type(recipe.loss).__name__, **data["loss"]}
    return data


def completed(described: Any, options: Any) -> Any:
    """What `describe` once gave, with the fields that `options` have gained since at their defaults: as it was meant then."""
    if not isinstance(described, dict):
        return described
    found = dict(described)
    for field in fields(options):
        present = getattr(options, field.name)
        if field.name in found and is_dataclass(present):
            found[field.name] = completed(found[field.name], present)
        elif field.default is not MISSING:
            found.setdefault(field.name, field.default)
    return found


def _named(table: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in table:
        own = ", or one of your own by `mien --import FILE.py ...`" if table in (NETWORKS, LOSSES) else ""
        raise UsageError(f"unknown {what} {name!r}: expected one of {', '.join(table)}{own}")
    return table[name]


def _with(holder: Any, settings: Sequence[tuple[str, str]], depth: int = 0) -> Any:
    """`holder` with (dotted key, value) settings made; `depth` parts of their keys lead to it."""
    mine: dict[str, list[tuple[str, str]]] = {}
    for key, value in settings:
        mine.setdefault(key.split(".")[depth], []).append((key, value))
    return replace(holder, **{name: _field(holder, name, those, depth) for name, those in mine.items()})


def _field(holder: Any, name: str, settings: Sequence[tuple[str, str]], depth: int) -> Any:
    """The new value of one field; its annotation decides the type. Of several settings of it the last one counts."""
    key, names = settings[0][0], [field.name for field in fields(holder)]
    if name not in names:
        raise UsageError(f"--set {key}: {type(holder).__name__} has no field {name!r}; it has {', '.join(names)}")
    present = getattr(holder, name)
    plain = [key for key, _ in settings if key.count(".") == depth]
    if is_dataclass(present):
        if plain:
            within = ", ".join(f"{plain[0]}.{field.name}" for field in fields(present))
            raise UsageError(f"--set {plain[0]}: expected one of its fields: {within}")
        return _with(present, settings, depth + 1)
    if len(plain) < len(settings):
        raise UsageError(f"--set {key}: {name!r} is a plain value, it has no fields")
    kind = get_type_hints(type(holder))[name]
    return [_converted(value, kind, key, present) for key, value in settings][-1]


def _converted(text: str, annotation: Any, key: str, present: Any) -> Any:
    """`text` as a value of the annotated type. present: an example for the message."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)  # X | None
    if text == "None" and NoneType in kinds:
        return None
    kind = get_origin(kinds[0]) or kinds[0]
    if kind is str:
        return text
    if kind is Literal:
        return next((word for word in get_args(kinds[0]) if str(word) == text), text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and type(value) in (int, float):
        value = (value,)
    if type(value) is not kind:
        example = "" if present is None else f" like {present!r}"
        raise UsageError(
            f"--set {key}={text}: expected {formatannotation(annotation)}{example}, not {type(value).__name__}"
        )
    return value
