"""What a command says that needs the extra lab where it is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from mien.errors import UsageError


@contextmanager
def needs_torch() -> Iterator[None]:
    """Turn a failed import inside into a UsageError that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f'this command needs the lab ({error.name} is not installed); run `pip install "mien[lab]"`; '
            "for a CPU-only torch see the README"
        ) from None
