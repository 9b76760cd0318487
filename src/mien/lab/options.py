"""Options of networks and losses: frozen dataclasses whose word choices are `Literal` types, checked when made."""

from typing import Any, Literal, get_args, get_origin, get_type_hints

from mien.errors import UsageError


def check_choices(options: Any) -> None:
    """Refuse a field whose value is not among its `Literal` type's: `--set network.combine=product` ends here."""
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            allowed = ", ".join(str(choice) for choice in get_args(kind))
            raise UsageError(f"{type(options).__name__}: {name}={value!r}: expected one of {allowed}")
