"""Files that are whole or not there, whatever ends the writing, and errors of a full disk that name the file."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what is to lie at `path`: a hidden file beside it, which takes its place when the block ends and is removed
    where the block fails. An OSError tells `path`."""
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # of its own, where two processes write the same
    try:
        with named(path, instead_of=partial):
            yield partial
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """An OSError of the block that tells no file, as a full disk's does, or `instead_of`, tells `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or str(error.filename) not in (str(None), str(instead_of)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # of the same kind, by its number


def clear(folder: Path) -> None:
    """Remove what was being written in the folder when a process was killed."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def text(path: Path, content: str) -> None:
    """Write a whole file of UTF-8."""
    with whole(path) as partial:
        partial.write_text(content, encoding="utf-8")
