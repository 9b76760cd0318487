"""Threads or processes for a folder of pictures: pictures a second with as many of either as there are cores.

Reads copies of matplotlib's portrait of Grace Hopper, saved as JPEGs of several sizes, with `mien.jobs.in_order` over
threads that share one `Reader`, and over `mien.worker` processes as `mien read DIR -o OUT` does. The two take turns, so
that a busy machine hurts both; processes are started before the clock is. Writes benchmarks/results/jobs.json.

    python benchmarks/jobs.py [--model FILE] [--pictures 60] [--repeats 3]
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from PIL import Image

from mien import Reader, demo, jobs, tables
from mien.worker import Settings, Worker

RESULT = Path(__file__).parent / "results" / "jobs.json"
HEIGHTS = (480, 720, 1080)  # px


def pictures(folder: Path, count: int) -> list[str]:
    """JPEGs of several sizes."""
    with Image.open(demo.photograph()) as portrait:
        for number in range(count):
            height = HEIGHTS[number % len(HEIGHTS)]
            copy = portrait.resize((round(portrait.width * height / portrait.height), height))
            copy.save(folder / f"{number:04}.jpg", quality=90)
    return [str(path) for path in sorted(folder.iterdir())]


@contextmanager
def processes(settings: Settings, count: int) -> Iterator[Callable[[str], list[tables.Row]]]:
    """What reads a picture in one of `count` processes."""
    team = [Worker(settings) for _ in range(count)]
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in team:
        idle.put(worker)

    def read(source: str) -> list[tables.Row]:
        worker = idle.get()
        try:
            return worker.read(source)
        finally:
            idle.put(worker)

    yield read
    for worker in team:
        worker.close()


def rate(sources: list[str], read: Callable[[str], list[tables.Row]], count: int) -> float:
    """Pictures a second."""
    start = time.perf_counter()
    found = list(jobs.in_order(sources, read, threads=count))
    if [row[0]["status"] for row in found] != ["ok"] * len(sources):
        raise SystemExit("expected a face in each picture")
    return len(sources) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    count, load = jobs.cores(), os.getloadavg()[0]
    reader = Reader(options.model)
    settings = Settings(None if options.model is None else str(options.model))
    rates: dict[str, list[float]] = {"threads": [], "processes": []}
    with tempfile.TemporaryDirectory() as folder, processes(settings, count) as in_process:
        sources = pictures(Path(folder), options.pictures)
        ways = {"threads": lambda source: reader.read(source).rows(), "processes": in_process}
        for way in ways.values():
            rate(sources[: 2 * count], way, count)
        for _ in range(options.repeats):
            for name, way in ways.items():
                rates[name].append(rate(sources, way, count))
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {count} cores",
        "load_before": round(load, 2),
        "pictures_per_second": {
            name: {"fastest": round(max(found), 2), "median": round(statistics.median(found), 2)}
            for name, found in rates.items()
        },
    }
    print(json.dumps(result, indent=1))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
