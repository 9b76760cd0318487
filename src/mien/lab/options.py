"""Options of networks, losses and recipes: frozen dataclasses whose fields are checked when one is made."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mien.errors import UsageError

Range = tuple[Callable[[float], bool], str]  # whether a number can be meant, and what is expected

_FACTOR: Range = (lambda value: 0 < value < math.inf, "a number above 0")
_WEIGHT: Range = (lambda value: 0 <= value < math.inf, "0 or more")
_SHARE: Range = (lambda value: 0 <= value < 1, "a share from 0, under 1")
_COUNT: Range = (lambda value: value >= 1, "1 or more")
_RANGES: dict[str, Range] = {  # by field: a name means the same in every class of options
    **dict.fromkeys(("width", "depth"), _FACTOR),
    **dict.fromkeys(
        ("weight", "votes_weight", "labels_weight", "teacher_weight", "cross_entropy", "fd", "md", "ed"), _WEIGHT
    ),
    **dict.fromkeys(("pull", "push", "alpha", "gamma", "balance", "scale", "centre_deviation"), _WEIGHT),
    **dict.fromkeys(("history", "head", "filter_seed"), _WEIGHT),
    **dict.fromkeys(("dropout", "smoothing"), _SHARE),
    **dict.fromkeys(("k", "virtual", "enlarge"), _COUNT),
    "neg_target": (lambda value: -1 <= value <= 1, "a correlation from -1 to 1"),
}


def check_fields(options: Any) -> None:
    """Refuse a field whose value is not among its `Literal` type's, or a number outside the range of its name:
    `--set network.combine=product` and `--set loss.weight=-1` end here."""
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise _refusal(options, name, f"one of {', '.join(map(str, get_args(kind)))}")
        elif name in _RANGES and isinstance(value, int | float):
            holds, expected = _RANGES[name]
            if not holds(value):
                raise _refusal(options, name, expected)


def _refusal(options: Any, name: str, expected: str) -> UsageError:
    return UsageError(f"{type(options).__name__}: {name}={getattr(options, name)!r}: expected {expected}")


class Options:
    """Of a network or a loss: its fields are checked when one is made."""

    def __post_init__(self) -> None:
        check_fields(self)
