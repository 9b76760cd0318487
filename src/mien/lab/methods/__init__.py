"""The methods by name. A sixth paper is one new file and one new name."""

from importlib import import_module

from mien.errors import UsageError
from mien.lab.methods.method import Method as Method

NAMES: tuple[str, ...] = ("lban-il", "wcl", "resface", "mscar", "ad-corre")  # the five papers
OURS: tuple[str, ...] = ("mien-small",)  # what we train for the reader
TEACHERS: tuple[str, ...] = ("ldg",)  # trained like a method, used as a teacher


def load(name: str) -> Method:
    """The method called `name`. Raises UsageError naming the methods there are."""
    if name not in NAMES + OURS + TEACHERS:
        raise UsageError(f"unknown method {name!r}: expected one of {', '.join(NAMES + OURS + TEACHERS)}")
    module = import_module(f"mien.lab.methods.{name.replace('-', '_')}")
    method: Method = module.METHOD
    return method
