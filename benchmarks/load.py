"""A server under load: many clients at once on loopback, closed loop, each sending one picture after another.

    python benchmarks/load.py --clients 200 --seconds 60 -o benchmarks/results/load.json

Measures answers by status, p50 and p95 latency, throughput and the server's memory. Exits with 1 when a request failed
with anything but the stated limits (429 and 503 with a JSON reason), or when the memory grew.
"""

import argparse
import asyncio
import datetime
import io
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

LIMITS = (429, 503)
MOST_GROWTH = 1.2  # of the memory, from the second fifth of the run to its last: above it the memory is not flat
SAMPLE = 0.5  # s between two looks at the memory


@dataclass
class Seen:
    """What the clients and the watch saw. latencies: s, of answered requests. memory: (s since the start, bytes)."""

    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    elapsed: float = 0.0  # s, with the last answers that were waited for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", type=Path, help="default: the bundled model")
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    result = measure(given.clients, given.seconds, model=given.model)
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")
    sys.exit(0 if result["passed"] else 1)


def measure(clients: int, seconds: float, *, model: Path | None) -> dict[str, object]:
    """The whole run, as it is written to disk."""
    load_before = os.getloadavg()[0]
    with server(model) as (process, url):
        described = httpx.get(f"{url}/v1/model", timeout=60, trust_env=False).json()
        seen = asyncio.run(drive(url, psutil.Process(process.pid), clients=clients, seconds=seconds))
        batches = faces_in_a_batch(httpx.get(f"{url}/metrics", timeout=60, trust_env=False).text)
        process.terminate()
        status = process.wait(60)
    latencies = np.array(seen.latencies or [np.nan]) * 1000
    growth = memory_growth(seen.memory, seconds)
    failed = {name: count for name, count in seen.statuses.items() if name != "200" and name not in map(str, LIMITS)}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "protocol": {
            "clients": clients,
            "seconds": seconds,
            "picture": "matplotlib's grace_hopper.jpg, 512 x 600 px, one face, one picture a request",
            "model": described["card"]["method"],
            "sha256": described["sha256"],
            "processors": os.cpu_count(),
            "machine": platform.machine(),
            "load_average_before": round(load_before, 2),
            "client": "httpx in one process on the same processors",
        },
        "answers": dict(seen.statuses),
        "failures": seen.failures[:10],
        "elapsed_s": round(seen.elapsed, 1),
        "readings_per_second": round(seen.statuses["200"] / seen.elapsed, 1),
        "p50_ms": round(float(np.percentile(latencies, 50))),
        "p95_ms": round(float(np.percentile(latencies, 95))),
        "longest_ms": round(float(latencies.max())),
        "faces_in_a_batch": batches,
        "memory_mb": [round(size / 1e6) for _, size in seen.memory[:: max(1, len(seen.memory) // 20)]],
        "memory_growth": growth,
        "exit_status": status,
        "passed": not failed and growth <= MOST_GROWTH and status == 0 and seen.statuses["200"] > 0,
    }


@contextmanager
def server(model: Path | None) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A `mien serve` on a free port, and its address."""
    options = ["--model", str(model)] if model else []
    command = [sys.executable, "-m", "mien", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if not found:
            raise SystemExit(f"the server did not start: {line}")
        yield process, found[0]
    finally:
        process.kill()
        process.wait()


async def drive(url: str, process: psutil.Process, *, clients: int, seconds: float) -> Seen:
    """All clients at once until the time is over; each waits for its last answer."""
    seen, start = Seen(), time.perf_counter()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as client:
        watching = asyncio.create_task(watch(process, seen, start))
        picture = portrait()
        await asyncio.gather(*(ask(client, picture, seen, until=start + seconds) for _ in range(clients)))
        watching.cancel()
    seen.elapsed = time.perf_counter() - start
    return seen


async def ask(client: httpx.AsyncClient, picture: bytes, seen: Seen, *, until: float) -> None:
    """One client: a picture after another."""
    while time.perf_counter() < until:
        start = time.perf_counter()
        try:
            answer = await client.post("/v1/read", files={"pictures": ("p.jpg", picture)})
        except httpx.HTTPError as error:
            seen.statuses[type(error).__name__] += 1
            seen.failures.append(repr(error))
            continue
        seen.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200 and len(answer.json()) == 1 and answer.json()[0]["status"] == "ok":
            seen.latencies.append(time.perf_counter() - start)
        elif answer.status_code in LIMITS:
            assert answer.json()["error"]["reason"]
            await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
        else:
            seen.failures.append(f"{answer.status_code}: {answer.text[:200]}")
            seen.statuses["wrong answer"] += answer.status_code == 200


def portrait() -> bytes:
    """The photograph as JPEG bytes."""
    from mien.demo import photograph

    file = io.BytesIO()
    with Image.open(photograph()) as picture:
        picture.save(file, "JPEG", quality=92)
    return file.getvalue()


async def watch(process: psutil.Process, seen: Seen, start: float) -> None:
    while True:
        seen.memory.append((time.perf_counter() - start, process.memory_info().rss))
        await asyncio.sleep(SAMPLE)


def memory_growth(memory: list[tuple[float, int]], seconds: float) -> float:
    """The largest in the last fifth of the run over the largest in the second."""
    second = [size for at, size in memory if seconds / 5 <= at < 2 * seconds / 5]
    last = [size for at, size in memory if at >= 4 * seconds / 5]
    return round(max(last) / max(second), 3) if second and last else float("inf")


def faces_in_a_batch(metrics: str) -> float:
    """Their mean, from /metrics."""
    values = {name: float(value) for name, value in re.findall(r"^mien_batch_faces_(sum|count) (\S+)$", metrics, re.M)}
    return round(values["sum"] / values["count"], 2) if values["count"] else 0.0


if __name__ == "__main__":
    main()
