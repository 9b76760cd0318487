"""Uploaded pictures -> rows: each decoded and searched in a thread pool, all their faces classified together."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mien import images, tables
from mien.errors import ImageError
from mien.faces import align
from mien.faces.detect import Detection
from mien.reader import Reader, Reading
from mien.web.batching import Batcher
from mien.web.limits import Limits, RefusedError, of_picture
from mien.web.metrics import Metrics
from mien.web.uploads import Picture

# Pixels. A picture takes about 25 bytes for each while it is decoded and searched, and ONNX Runtime keeps what it once
# had; so pictures larger than this are taken one at a time, beside the others.
LARGE = 4_000_000


A = TypeVar("A")
T = TypeVar("T")


class Threads:
    """A few threads, each given its next piece of work when it is free. What is given up before holds no memory: it waits here,
    in the event loop, and not in a thread pool's queue, which keeps it until a thread comes to it."""

    def __init__(self, count: int, *, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._free = asyncio.Semaphore(count)

    async def run(self, function: Callable[[A], T], argument: A) -> T:
        """`function(argument)` in a thread. It is not interrupted once it has begun; its thread is free when it ends."""
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        try:
            work = self._pool.submit(function, argument)
        except BaseException:  # closed
            self._free.release()
            raise
        work.add_done_callback(lambda _: _in_loop(loop, self._free.release))
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended before the thread's work
        loop.call_soon_threadsafe(call)


@dataclass(frozen=True)
class _Searched:
    """A picture's size in px, its faces, and their crops as the model wants them, (n, C, height, width) float32."""

    width: int
    height: int
    found: list[Detection]
    crops: np.ndarray


class Work:
    """The reader put to work for the server. workers: pictures that are decoded and searched at once, besides a large one."""

    def __init__(self, reader: Reader, *, limits: Limits, metrics: Metrics, workers: int) -> None:
        self.batcher = Batcher(reader.classifier, metrics=metrics)
        self._reader = reader
        self._limits = limits
        self._metrics = metrics
        self._threads = Threads(workers, name="mien-search")
        self._large = Threads(1, name="mien-search-large")

    def close(self) -> None:
        """Give up what has not been started."""
        for threads in (self._threads, self._large):
            threads.close()

    async def rows(self, pictures: Sequence[Picture]) -> list[tables.Row]:
        """The rows of all pictures, in order; those of a picture that cannot be read say why, as the command line's do.

        Raises the first picture's RefusedError when none can be read.
        """
        try:
            results = await asyncio.gather(*(self._attempt(picture) for picture in pictures))
        except asyncio.CancelledError:  # past the deadline, or the client hung up
            self._metrics.pictures.add("given up", by=len(pictures))
            raise
        for result in results:
            self._count(result)
        refused = [result for result in results if isinstance(result, RefusedError)]
        whole = len(refused) == len(results)
        for refusal in refused[whole:]:  # what is raised is counted where the request is
            self._metrics.refusals.add(refusal.code)
        if whole:
            raise refused[0]
        return [row for picture, result in zip(pictures, results, strict=True) for row in _rows(picture, result)]

    async def _attempt(self, picture: Picture) -> Reading | RefusedError:
        try:
            return await self._read(picture)
        except RefusedError as refusal:
            return refusal

    async def _read(self, picture: Picture) -> Reading:
        large = await self._threads.run(_promises_many_pixels, picture.data)
        searched = await (self._large if large else self._threads).run(self._search, picture)
        probabilities = await self.batcher.classify(searched.crops) if searched.found else np.zeros((0, 0))
        faces = self._reader.faces(searched.found, probabilities)
        return Reading(picture.name, searched.width, searched.height, faces)

    def _search(self, picture: Picture) -> _Searched:
        """In a thread of a pool. Raises RefusedError."""
        pixels, found = self._decode_and_detect(picture)
        if len(found) > self._limits.faces:
            reason = f"{len(found)} faces in one picture, the limit is {self._limits.faces}; cut it into parts"
            raise RefusedError(422, "faces", reason, self._limits.faces)
        card = self._reader.classifier.card
        crops = card.input.prepare(align.cut(pixels, found, crop=card.crop, input=card.input))
        return _Searched(pixels.shape[1], pixels.shape[0], found, crops)

    def _decode_and_detect(self, picture: Picture) -> tuple[np.ndarray, list[Detection]]:
        try:
            pixels = images.load(picture.data, max_pixels=self._limits.pixels)
        except ImageError as error:
            raise of_picture(error, self._limits) from None
        return pixels, self._reader.detector.detect(pixels)

    def _count(self, result: Reading | RefusedError) -> None:
        if isinstance(result, RefusedError):
            self._metrics.pictures.add("refused")
        else:
            self._metrics.pictures.add(result.status)
            self._metrics.faces.add(by=len(result))


def _rows(picture: Picture, result: Reading | RefusedError) -> list[tables.Row]:
    return [tables.failure(picture.name, str(result))] if isinstance(result, RefusedError) else tables.rows(result)


def _promises_many_pixels(data: bytes) -> bool:
    """Whether its header says so, or cannot be read here."""
    size = images.told_size(data)
    return size is None or size[0] * size[1] > LARGE  # HEIC, or damaged: `images.load` finds out
