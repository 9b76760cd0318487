"""One reading process of a folder job: paths come in, rows go out, one JSON value a line.

    python -P -m mien.worker '{"model": ..., "detector": ..., "min_face": ...}'

A process of its own, because a decoder that crashes on a hostile file then takes nothing else with it. It ends when its
standard input does, so it never outlives the job, however that was ended. Python's -P keeps the current folder, which
may be one of pictures from anywhere, off its import path: a csv.py there is not run.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mien import terminal
from mien.errors import ImageError, MienError
from mien.faces.detect import MIN_FACE
from mien.images import MAX_PIXELS

if TYPE_CHECKING:
    from mien.reader import Reader, Reading
    from mien.tables import Row


@dataclass(frozen=True)
class Settings:
    """What a `Reader` is made of, in words that can be passed to another process. model: a path, None is the bundled
    one. copies: the folder that an annotated copy of each picture goes into, None for no copies."""

    model: str | None = None
    detector: str = "mtcnn"
    min_face: float = MIN_FACE
    abstain_below: float = 0.0
    max_pixels: int = MAX_PIXELS
    copies: str | None = None


class Worker:
    """The job's end of one reading process, which is started when first needed and started again when it dies."""

    ATTEMPTS = 2  # at one file: the first death may have been somebody else's fault

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def read(self, path: str) -> "list[Row]":
        """The rows of one picture; a row that says why where it cannot be read, or where reading it kills."""
        from mien import tables

        for _ in range(self.ATTEMPTS):
            answer = self._ask(path)
            if answer:
                rows: list[Row] = json.loads(answer)
                return rows
            status = self.close()
            if self._stopped:
                break
        return [tables.failure(path, f"the reading process died on it {self.ATTEMPTS} times (exit status {status})")]

    def _ask(self, path: str) -> str:
        """The answer's line, or "" when the process is gone."""
        self._process = self._process or _start(self._settings)
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(path) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):
            return ""
        return line if line.endswith("\n") else ""

    def stop(self) -> None:
        """End the process even with a picture in hand, which another thread may wait for: its rows are then worth nothing."""
        self._stopped = True
        if process := self._process:
            process.kill()

    def close(self) -> int | None:
        """End the process; its exit status, None where there was none."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            process.stdin.close()
        process.stdout.close()
        return process.wait()


def _start(settings: Settings) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "mien.worker", json.dumps(asdict(settings))]
    with _interrupts_held():
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started meanwhile never sees SIGINT: it inherits this thread's mask. Ctrl-C in a terminal goes to every
    process of the job, and one that is still importing would answer it with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(settings: Settings, requests: IO[str], answers: IO[str]) -> None:
    """Read what `requests` names until it ends."""
    from mien import tables
    from mien.reader import Reader

    reader = Reader(
        settings.model,
        detector=settings.detector,
        min_face=settings.min_face,
        abstain_below=settings.abstain_below,
        max_pixels=settings.max_pixels,
    )
    for line in requests:
        path: str = json.loads(line)
        try:
            table = tables.rows(
                _read(reader, path) if settings.copies is None else _copied(reader, path, settings.copies)
            )
        except MienError as error:
            table = [tables.failure(path, str(error).removeprefix(f"{path}: "))]
        except MemoryError:
            table = [tables.failure(path, "not enough memory to read it")]
        answers.write(json.dumps(table) + "\n")
        answers.flush()


def _read(reader: "Reader", source: str) -> "Reading":
    from mien import storage

    if storage.is_url(source):
        return reader.read(storage.open_picture(source), source=source)
    return reader.read(source)


def _copied(reader: "Reader", source: str, folder: str) -> "Reading":
    """The reading of a file whose annotated copy lies in the folder by then. Raises ImageError also where it cannot be written:
    what the table calls read has its copy."""
    from mien import draw, images

    pixels = images.load(source, max_pixels=reader.max_pixels)
    reading = reader.read(pixels, source=source)
    copy = draw.copy_below(Path(folder), source)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        draw.save(draw.annotate(pixels, reading), copy)
    except OSError as error:
        raise ImageError(draw.no_copy(copy, error)) from None
    return reading


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the job's to answer
    terminal.tame_pillow()
    try:
        serve(Settings(**json.loads(sys.argv[1])), sys.stdin, sys.stdout)
    except BrokenPipeError:  # the job was killed: nobody takes the answer, nor what Python still writes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
