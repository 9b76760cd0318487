"""Uploaded pictures -> rows: each decoded and searched in a thread pool, all their faces classified together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mien-search")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="mien-search-large")

    def close(self) -> None:
        """Give up what has not been started."""
        for pool in (self._pool, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

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
        loop = asyncio.get_running_loop()
        large = await loop.run_in_executor(self._pool, _promises_many_pixels, picture.data)
        searched = await loop.run_in_executor(self._large if large else self._pool, self._search, picture)
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


def _promises_many_pixels(data: bytearray) -> bool:
    """Whether its header says so, or cannot be read here."""
    size = images.told_size(data)
    return size is None or size[0] * size[1] > LARGE  # HEIC, or damaged: `images.load` finds out
