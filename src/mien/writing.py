"""Files that are whole or not there, whatever ends the writing, and errors of a full disk that name the file."""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from mien.errors import UsageError


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


def folder(path: Path) -> Path:
    """The folder to write into, made where it is not there. Raises UsageError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be made into a folder ({error.strerror}); choose another for -o") from None
    if not os.access(path, os.W_OK):
        raise UsageError(f"{path}: cannot be written to; choose another folder for -o")
    return path


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep others of mien out of the folder until the block or this process ends, however it ends. What a killed one left
    half-written there goes. Raises UsageError where another writes there."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder that may be written to and not read, say, cannot be held
            place = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, place)
            lock(place, folder)
            clear(folder)
        yield


def lock(file: int | IO[bytes], folder: Path) -> None:
    """Lock an open file, or the descriptor of one or of a folder, until it is closed or this process ends. Raises UsageError,
    naming `folder`, where another holds it. Where the system or the file system knows no such lock, writing twice is the
    user's to avoid."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{folder}: another mien is writing here; wait for it or choose another for -o") from None
    except OSError:
        pass


def clear(folder: Path, *, below: bool = False) -> None:
    """Remove what was being written in the folder, or also below it, when a process was killed."""
    name = f".{'[0-9a-f]' * 16}.partial"  # as `whole` calls it
    for partial in folder.glob(f"**/{name}" if below else name):
        partial.unlink(missing_ok=True)


def text(path: Path, content: str) -> None:
    """Write a whole file of UTF-8."""
    with whole(path) as partial:
        partial.write_text(content, encoding="utf-8")


def array(path: Path, values: np.ndarray) -> None:
    """Write a whole .npy. Not by numpy itself, whose error of a full disk has no number and names no file."""
    held = io.BytesIO()
    np.save(held, values, allow_pickle=False)
    with whole(path) as partial:
        partial.write_bytes(held.getbuffer())
