"""The crops of requests that are under way at the same time, classified in one batch.

Only the classifier is shared: every picture is decoded and searched for faces on its own, so that its answer depends on
its neighbours by no more than the rounding of a larger matrix product.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mien.classifier import Classifier
from mien.web.metrics import Metrics

ROWS = 64  # faces in one batch; on two cores a larger one takes longer and is no faster for each face
WAIT = 0.003  # s that the first crop waits for others: a tenth of what one picture takes


@dataclass(frozen=True)
class _Job:
    crops: np.ndarray
    answer: "asyncio.Future[np.ndarray]"


class Batcher:
    """Collects prepared crops and hands them to the classifier, one batch at a time, in a thread of its own."""

    def __init__(self, classifier: Classifier, *, metrics: Metrics, rows: int = ROWS, wait: float = WAIT) -> None:
        self._classifier = classifier
        self._metrics = metrics
        self._rows = rows
        self._wait = wait
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mien-classify")

    async def classify(self, crops: np.ndarray) -> np.ndarray:
        """(n, C, height, width) float32 as `InputSpec.prepare` makes them -> the default head's (n, classes) float32."""
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(_Job(crops, answer))
        return await answer

    async def run(self) -> None:
        """Serve jobs until cancelled."""
        try:
            while True:
                await self._serve(await self._collect())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _collect(self) -> list[_Job]:
        """The jobs that are waiting once the first has waited `wait` seconds, up to about `rows` crops."""
        jobs = [await self._jobs.get()]
        await asyncio.sleep(self._wait)
        while not self._jobs.empty() and sum(len(job.crops) for job in jobs) < self._rows:
            jobs.append(self._jobs.get_nowait())
        return [job for job in jobs if not job.answer.done()]  # a request that gave up has cancelled its own

    async def _serve(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        crops = [job.crops for job in jobs]
        self._metrics.batches.observe(sum(map(len, crops)))
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._probabilities, crops)
        except Exception as error:  # whatever the graph raises is the answer to each of these, and to no later one
            _answer(jobs, error)
            return
        ends = np.cumsum([len(job.crops) for job in jobs])
        _answer(jobs, *np.split(rows, ends[:-1]))

    def _probabilities(self, crops: list[np.ndarray]) -> np.ndarray:
        return self._classifier.run(np.concatenate(crops)).probabilities[self._classifier.card.default_head]


def _answer(jobs: list[_Job], *results: np.ndarray | Exception) -> None:
    """Each job gets its result; one exception goes to all."""
    for number, job in enumerate(jobs):
        result = results[0] if isinstance(results[0], Exception) else results[number]
        if job.answer.done():
            continue
        if isinstance(result, Exception):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)
