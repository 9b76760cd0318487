"""Hostile pictures and hostile requests through a real server: every one answered, in time, in bounded memory."""

import io
import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from mien.web.limits import MIB, Limits
from mutants import bomb, encode, many_scans, mutants
from serving import START, Served, as_process, peak_memory, pictures

pytestmark = pytest.mark.slow  # servers, workers and their limits take seconds

SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]
SLOWEST = 5.0  # s of computing for an answer: a busy machine is no failure
LARGEST = 1_000_000_000  # bytes of the server's memory
PICTURE_STATUSES = {200, 413, 415, 422}


@dataclass
class Watch:
    """What was answered, and how large the server has been."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: int = 0
    wrong: list[str] = field(default_factory=list)


@pytest.fixture
def served(tiny_model: Path) -> Iterator[Served]:
    with as_process(tiny_model, "--workers", "2") as served:
        yield served


@pytest.fixture
def small(hopper: np.ndarray) -> Image.Image:
    return Image.fromarray(hopper).crop((120, 80, 400, 400)).resize((140, 160))


@pytest.mark.parametrize("count", [pytest.param(130, id="some"), pytest.param(2000, id="2000", marks=SOAK)])
def test_mutants(
    served: Served, small: Image.Image, count: int, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("MIEN_FUZZ_SEED", "0"))
    watch = Watch()
    process = psutil.Process(served.process.pid)
    with httpx.Client(base_url=served.url, timeout=START, trust_env=False) as client:
        for mutant in mutants(small, count, seed=seed):
            before = sum(process.cpu_times()[:2])
            post(client, watch, mutant.kind, mutant.name, mutant.data)
            watch.slowest = max(watch.slowest, sum(process.cpu_times()[:2]) - before)
        searched = searched_pictures(client.get("/metrics").text)
    watch.largest = peak_memory(process)
    for name, value in {
        "seed": seed,
        "mutants": count,
        "past decoding and through the detector": searched,
        "answers": {str(status): number for status, number in sorted(by_status(watch).items())},
        "slowest, s of computing": round(watch.slowest, 2),
        "largest, MB": round(watch.largest / 1e6),
    }.items():
        record_property(name, value)
    assert watch.wrong == [] and watch.slowest < SLOWEST and watch.largest < LARGEST
    assert {status for _, status in watch.statuses} <= PICTURE_STATUSES
    assert searched >= count / 2 and by_status(watch)[415] and by_status(watch)[422]
    assert served.stop() == (0, "", "")


def post(client: httpx.Client, watch: Watch, kind: str, name: str, data: bytes) -> None:
    """Send one picture and note the answer."""
    answer = client.post("/v1/read", files=pictures((name, data)))
    watch.statuses[kind, answer.status_code] += 1
    content = answer.json()
    if answer.status_code == 200:
        sound = bool(content) and all(row["status"] in ("ok", "no face") for row in content)
    else:
        sound = bool(content["error"]["code"] and content["error"]["reason"])
    if not sound:
        watch.wrong.append(f"{kind} {name}: {answer.status_code} {answer.text[:200]}")


def by_status(watch: Watch) -> Counter[int]:
    total: Counter[int] = Counter()
    for (_, status), count in watch.statuses.items():
        total[status] += count
    return total


def searched_pictures(metrics: str) -> int:
    """Pictures that were decoded and got through the detector, from /metrics."""
    counts = [line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("mien_pictures_total")]
    return sum(int(count) for name, count in counts if '"refused"' not in name and '"given up"' not in name)


def test_bombs(served: Served) -> None:
    """Few bytes, much work: within the limit they are read, two at a time, beyond it they are refused unseen."""
    process = psutil.Process(served.process.pid)
    with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client:
        refused = client.post("/v1/read", files=pictures(("bomb.png", bomb(20_000))))
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "pixels"
        before = sum(process.cpu_times()[:2])
        refused = client.post("/v1/read", files=pictures(("scans.jpg", many_scans(4000, 2000))))
        assert refused.status_code == 422 and "scans" in refused.json()["error"]["reason"]
        assert sum(process.cpu_times()[:2]) - before < SLOWEST
        within = [("large.png", bomb(3900))] * 4
        assert all(len(data) < 50_000 for _, data in within)
        before = sum(process.cpu_times()[:2])
        rows = client.post("/v1/read", files=pictures(*within)).json()
        assert [row["status"] for row in rows] == ["no face"] * 4
        assert sum(process.cpu_times()[:2]) - before < len(within) * SLOWEST  # of computing: the machine may be busy
    peak = peak_memory(process)
    assert peak < LARGEST


def test_many_bytes_and_many_pixels_at_once(served: Served) -> None:
    """Pictures as large as may be, and as are searched side by side, whose bodies fill the memory that bodies may have."""
    large, small = noise(4000, 3999), noise(2000, 1999)
    sent = [large] * 3
    sent += [small] * ((Limits().memory - sum(map(len, sent)) - MIB) // len(small))
    with (
        httpx.Client(base_url=served.url, timeout=START, trust_env=False) as client,
        ThreadPoolExecutor(len(sent)) as pool,
    ):
        for _ in range(2):
            answers = pool.map(lambda data: client.post("/v1/read", files=pictures(("a.png", data))), sent)
            assert {answer.status_code for answer in answers} <= {200, 503}  # a busy machine is no failure
    assert peak_memory(psutil.Process(served.process.pid)) < LARGEST


def noise(width: int, height: int) -> bytes:
    """A picture that cannot be compressed."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return encode(Image.fromarray(pixels), "PNG", compress_level=0)


@pytest.mark.parametrize("count", [pytest.param(60, id="some"), pytest.param(2000, id="2000", marks=SOAK)])
def test_broken_requests(tiny_model: Path, small: Image.Image, count: int) -> None:
    """Bytes of a whole request flipped, cut and put in, its head included: an HTTP answer or a closed connection, and
    never a connection that is held for longer than the time limit."""
    random = np.random.default_rng(int(os.environ.get("MIEN_FUZZ_SEED", "0")))
    with as_process(tiny_model, "--seconds", "3") as served, ThreadPoolExecutor(32) as pool:
        check_broken(served, pool, encode(small, "JPEG"), count, random)


def check_broken(
    served: Served, pool: ThreadPoolExecutor, picture: bytes, count: int, random: np.random.Generator
) -> None:
    whole = request(picture, served.port)
    requests = [damaged(whole, random) for _ in range(count)]
    statuses: Counter[str] = Counter()
    for answer in pool.map(lambda sent: exchange(served.port, sent), requests):
        head, _, content = answer.partition(b"\r\n\r\n")
        statuses[head[9:12].decode() or "closed"] += 1
        if b"application/json" in head and b"HTTP/1.1 200" not in head:
            refusal, _ = json.JSONDecoder().raw_decode(
                content.decode()
            )  # an answer to what follows may stand behind it
            assert refusal["error"]["reason"], answer
    answers_again(served.port, whole)
    assert "500" not in statuses, statuses
    status, out, err = served.stop()
    assert (status, out) == (0, "")
    assert set(err.splitlines()) <= {"Invalid HTTP request received."}  # all that uvicorn says of them


def request(picture: bytes, port: int) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="p"; filename="a.jpg"\r\n\r\n'
    body = part + picture + b"\r\n--x--\r\n"
    head = (
        f"POST /v1/read HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def damaged(whole: bytes, random: np.random.Generator) -> bytes:
    """Mostly in the first 300 bytes, where the heads are."""
    changed = bytearray(whole)
    start = int(random.integers(0, 300))
    match int(random.integers(4)):
        case 0:
            for _ in range(int(random.integers(1, 4))):
                changed[int(random.integers(0, 300))] ^= 1 << int(random.integers(8))
        case 1:
            del changed[start : start + int(random.integers(1, 40))]
        case 2:
            changed[start:start] = random.bytes(int(random.integers(1, 40)))
        case _:
            del changed[int(random.integers(0, len(changed))) :]
    return bytes(changed)


def answers_again(port: int, whole: bytes) -> None:
    """A sound request is answered. On a busy machine the server's three seconds may pass first, with a 503 or 408."""
    for _ in range(20):
        answer = exchange(port, whole)
        if answer.startswith(b"HTTP/1.1 200"):
            return
        assert answer[9:12] in (b"503", b"408"), answer
    raise AssertionError("none of 20 sound requests was answered")


def exchange(port: int, sent: bytes) -> bytes:
    """Send, and take what is answered until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=START) as connection:
        try:
            connection.sendall(sent)
            received = io.BytesIO()
            while chunk := connection.recv(65536):
                received.write(chunk)
            return received.getvalue()
        except (ConnectionResetError, BrokenPipeError):
            return b""
