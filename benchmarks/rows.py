"""How many faces should the bundled graph see at once? ms of one face by the rows of a batch, on one thread and on all cores, and
the most memory of a process that classifies them.

    python benchmarks/rows.py        (writes benchmarks/results/rows.json; the machine must be otherwise idle)

mien.classifier.ROWS is set by it. Round by round over all sizes, so that a busy moment hits all alike; medians.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bundled import processor
from variants import noise

from mien.classifier import Classifier, bundled_model, session
from mien.lab.protocol import commit, versions

RESULT = Path(__file__).parent / "results" / "rows.json"
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
ROUNDS = 15
PEAK = """
import re, sys
from pathlib import Path
import numpy as np
from mien.classifier import bundled_model, session
graph = session(bundled_model())
(pictures,) = graph.get_inputs()
graph.run(None, {pictures.name: np.zeros((int(sys.argv[1]), *pictures.shape[1:]), np.float32)})
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""  # a process of its own, in which nothing else was loaded


def milliseconds(threads: int) -> dict[int, float]:
    """Rows of a batch -> ms of each of its faces."""
    graph = session(bundled_model(), threads=threads)
    name, pictures = graph.get_inputs()[0].name, noise(max(SIZES), Classifier().card.input.height)
    took: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size in SIZES:
            # Once untimed: the size before left the caches to itself.
            graph.run(None, {name: pictures[:size]})
            began = time.perf_counter()
            graph.run(None, {name: pictures[:size]})
            took[size].append(time.perf_counter() - began)
    return {size: round(1000 * statistics.median(times) / size, 3) for size, times in took.items()}


def megabytes(size: int) -> int:
    """The most memory of a process that classifies `size` faces at once."""
    told = subprocess.run([sys.executable, "-c", PEAK, str(size)], check=True, capture_output=True, text=True).stdout
    return round(int(told) / 1024)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    load = os.getloadavg()[0]
    cores = os.cpu_count() or 1
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "cores": cores, "load": load, **versions()},
        "commit": commit(),
        "sha256": Classifier().sha256,
        "peak_mb": {str(size): megabytes(size) for size in SIZES},
        "ms_a_face": {str(threads): milliseconds(threads) for threads in sorted({1, cores})},
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("MB:", found["peak_mb"])
    for threads, times in found["ms_a_face"].items():
        print(f"{threads} thread(s):", ", ".join(f"{size} rows {ms} ms" for size, ms in times.items()))


if __name__ == "__main__":
    main()
