"""One worker against two, for a folder read by the local engine and by Ray: strong and weak scaling, as ratios.

strong: the rate of two workers over that of one, with the same n pictures; 2 is ideal. weak: the rate of two workers
with 2 n pictures over twice that of one with n; 1 is ideal. Rates are pictures a second from the first rows that arrive
to the last, so that the start of the workers, which a long job pays once, does not count. The configurations take turns,
so that a busy machine hurts all of them; noise is how far one and the same job differed between its repeats, (highest -
lowest) / median. One Ray is started for all. Writes benchmarks/results/scaling_reading.json.

    python benchmarks/scaling_reading.py [--model FILE] [--pictures 300] [--repeats 3]
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scale_pictures

from mien import jobs, ray_engine
from mien.worker import Settings

RESULT = Path(__file__).parent / "results" / "scaling_reading.json"
KIND = scale_pictures.Kind("photograph", 320, 240, 1.0)
BURST = 0.02  # s: rows of one block of Ray arrive within it
ENGINES: dict[str, jobs.Engine] = {"local": jobs.processes, "ray": ray_engine.tables}
CASES = ((1, 1), (2, 1), (2, 2))  # workers, times n pictures


def rate(engine: jobs.Engine, sources: Sequence[str], settings: Settings, workers: int) -> float:
    """Pictures a second after the first burst of rows."""
    arrived = []
    for _, rows in engine(sources, settings, workers):
        if rows[0]["status"] != "ok":
            raise SystemExit(f"{rows[0]['source']}: {rows[0]['status']}; expected a face in each picture")
        arrived.append(time.perf_counter())
    later = [moment for moment in arrived if moment > arrived[0] + BURST]
    return len(later) / (arrived[-1] - arrived[0])


def ratios(found: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(found), 3),
        "lowest": round(min(found), 3),
        "highest": round(max(found), 3),
    }


def measured(sources: Sequence[str], settings: Settings, repeats: int) -> dict[str, dict[tuple[int, int], list[float]]]:
    """Rates by engine and case, the cases in turns."""
    count = len(sources) // 2
    rates: dict[str, dict[tuple[int, int], list[float]]] = {name: {case: [] for case in CASES} for name in ENGINES}
    for _ in range(repeats):
        for name, engine in ENGINES.items():
            for workers, times in CASES:
                found = rate(engine, sources[: times * count], settings, workers)
                rates[name][workers, times].append(found)
                print(f"{name}, {workers} workers, {times * count} pictures: {found:.1f} a second", flush=True)
    return rates


def summary(rates: dict[tuple[int, int], list[float]]) -> dict[str, Any]:
    one, strong, weak = (rates[case] for case in CASES)
    return {
        "pictures_per_second": {
            f"{workers} workers, {times} n": [round(x, 1) for x in rates[workers, times]] for workers, times in CASES
        },
        "strong": ratios([two / alone for two, alone in zip(strong, one, strict=True)]),
        "weak": ratios([two / (2 * alone) for two, alone in zip(weak, one, strict=True)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    settings = Settings(None if options.model is None else str(options.model))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, ray_engine.cluster(None, 2, 2 * options.pictures):
        paths = scale_pictures.write(Path(name), [KIND] * 2 * options.pictures, seed=4)
        rates = measured([str(path) for path in paths], settings, options.repeats)
    alone = rates["local"][CASES[0]]
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {jobs.cores()} cores",
        "load_average": round(load, 1),
        "pictures": options.pictures,
        "kind": f"{KIND.name}, {KIND.width} x {KIND.height} px",
        "repeats": options.repeats,
        "noise": round((max(alone) - min(alone)) / statistics.median(alone), 3),
        "engines": {name: summary(found) for name, found in rates.items()},
    }
    print(json.dumps(result, indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
