"""What the judging half says where the extra eval is not installed, and the check that long work begins with."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from mien.errors import UsageError

PACKAGES = ("scipy.stats", "sklearn.metrics")  # what every summary needs
FIGURES = "matplotlib.figure"


@contextmanager
def needs_eval(what: str) -> Iterator[None]:
    """Turn a failed import inside into a UsageError that says what cannot be had and what to install. what: a noun, in the
    plural."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        raise UsageError(
            f'{what} need the extra eval ({package} is not installed); run `pip install "mien[eval]"`'
        ) from None


def check_installed(*, figures: bool) -> None:
    """Raises UsageError, before a model has run for nothing, where its answers could not be judged. figures: whether some
    are to be drawn."""
    with needs_eval("metrics and figures" if figures else "metrics"):
        for name in (*PACKAGES, FIGURES) if figures else PACKAGES:
            import_module(name)
