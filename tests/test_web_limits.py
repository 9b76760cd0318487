"""Every limit, met by a request that goes beyond it; and that what was refused leaves nothing behind."""

import contextlib
import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from mien.faces.detect import Detection
from mien.reader import Reader
from mien.web import app as web
from mien.web import work
from mien.web.limits import MIB, Limits
from mien.web.uploads import Picture
from mutants import encode
from serving import in_thread, pictures

pytestmark = pytest.mark.slow  # servers, workers and their limits take seconds

PATIENCE = 60  # s; a busy machine is no failure
BLANK = encode(Image.new("RGB", (40, 30)), "PNG")


class Slow:
    """A detector that finds nothing, and only once it is allowed to."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.allowed = threading.Event()
        self.seen = 0

    def detect(self, image: np.ndarray) -> list[Detection]:
        self.seen += 1
        self.started.release()
        self.allowed.wait(4 * PATIENCE)
        return []


@pytest.fixture
def slow() -> Iterator[Slow]:
    detector = Slow()
    yield detector
    detector.allowed.set()


@pytest.fixture
def reader(tiny_model: Path) -> Reader:
    return Reader(tiny_model, detector="whole")


def serve(reader: Reader, **limits: float) -> object:
    return in_thread(web.create_app(reader, limits=Limits(**limits), workers=1))  # type: ignore[arg-type]


def post(client: httpx.Client, *files: tuple[str, bytes]) -> httpx.Response:
    return client.post("/v1/read", files=pictures(*files))


def refused(answer: httpx.Response) -> tuple[int, str, float | None]:
    error = answer.json()["error"]
    assert set(error) == {"code", "reason", "limit"} and error["reason"]
    return answer.status_code, error["code"], error["limit"]


def settled(client: httpx.Client) -> bool:
    """Whether everything that requests held is given back."""

    def nothing_is_held() -> bool:
        text = client.get("/metrics").text
        return "mien_requests_under_way 0\n" in text and "mien_bytes_under_way 0\n" in text

    return wait_for(nothing_is_held)


def test_body(reader: Reader) -> None:
    with serve(reader, body=100_000) as client:
        assert refused(post(client, ("a", bytes(200_000)))) == (413, "body", 100_000)
        chunks = (bytes(10_000) for _ in range(20))
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        undeclared = client.post("/v1/read", content=_multipart_of(chunks), headers=headers)
        assert refused(undeclared) == (413, "body", 100_000)
        assert post(client, ("a", BLANK)).status_code == 200 and settled(client)


def _multipart_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A body without a length."""
    yield b'--x\r\nContent-Disposition: form-data; name="p"; filename="p"\r\n\r\n'
    yield from chunks


def test_an_answer_reaches_a_client_that_sends_far_too_much(reader: Reader) -> None:
    with serve(reader, body=10 * MIB) as client:
        assert refused(post(client, ("a", bytes(18 * MIB)))) == (413, "body", 10 * MIB)


@pytest.mark.parametrize(("kind", "told"), [("image/jpeg", "image/jpeg"), (None, "missing")])
def test_what_is_no_form_is_told_what_it_is_and_what_to_send(reader: Reader, kind: str | None, told: str) -> None:
    with serve(reader) as client:
        answer = client.post("/v1/read", content=BLANK, headers={"Content-Type": kind} if kind else {})
    assert refused(answer) == (415, "content_type", None)
    reason = answer.json()["error"]["reason"]
    assert f"is {told}, expected multipart/form-data" in reason and "curl -F pictures=@FILE" in reason


def test_pictures(reader: Reader) -> None:
    with serve(reader, pictures=2) as client:
        assert post(client, *[("a", BLANK)] * 2).status_code == 200
        assert refused(post(client, *[("a", BLANK)] * 3)) == (413, "pictures", 2)


def test_pixels(reader: Reader) -> None:
    with serve(reader, pixels=1200) as client:
        assert post(client, ("a", BLANK)).status_code == 200
        answer = post(client, ("a", encode(Image.new("RGB", (41, 30)), "PNG")))
        assert refused(answer) == (413, "pixels", 1200)
        assert "41 x 30 px" in answer.json()["error"]["reason"] and "max_pixels" not in answer.text


def test_faces(reader: Reader) -> None:
    class Crowd:
        def detect(self, image: np.ndarray) -> list[Detection]:
            return [Detection((0.0, 0.0, 20.0, 20.0), 1.0, None)] * image.shape[1]

    reader.detector = Crowd()
    with serve(reader, faces=40) as client:
        assert len(post(client, ("a", BLANK)).json()) == 40
        wider = encode(Image.new("RGB", (41, 30)), "PNG")
        assert refused(post(client, ("a", wider))) == (422, "faces", 40)
        mixed = post(client, ("a", wider), ("b", BLANK))
        assert mixed.status_code == 200 and mixed.json()[0]["status"].startswith("error: 41 faces")


def test_time(reader: Reader, slow: Slow) -> None:
    reader.detector = slow
    with serve(reader, seconds=4) as client:
        first, waiting = in_parallel(client, 2)  # the detector, not yet allowed, would take far longer
        assert refused(first) == refused(waiting) == (503, "time", 4) and first.headers["Retry-After"]
        assert slow.seen == 1  # the one that still waited for its turn was given up, not done for nobody
        assert 'mien_pictures_total{result="given up"} 2\n' in client.get("/metrics").text
        slow.allowed.set()
        assert settled(client) and post(client, ("a", BLANK)).status_code == 200


def in_parallel(client: httpx.Client, count: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: post(client, ("a", BLANK)), range(count)))


def test_requests(reader: Reader, slow: Slow) -> None:
    reader.detector = slow
    with serve(reader, requests=2) as client, ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(post, client, ("a", BLANK)) for _ in range(2)]
        wait_for(lambda: "mien_requests_under_way 2\n" in client.get("/metrics").text)
        answer = post(client, ("a", BLANK))
        assert refused(answer) == (429, "requests", 2) and answer.headers["Retry-After"] == "1"
        slow.allowed.set()
        assert [one.result().status_code for one in taken] == [200, 200]
        assert settled(client) and post(client, ("a", BLANK)).status_code == 200


def wait_for(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    raise AssertionError("it never came to hold")


def test_memory(reader: Reader, slow: Slow) -> None:
    reader.detector = slow
    padded = BLANK + bytes(60_000)
    with serve(reader, body=100_000, memory=100_000) as client, ThreadPoolExecutor(1) as pool:
        taken = pool.submit(post, client, ("a", padded))
        assert slow.started.acquire(timeout=PATIENCE)
        assert refused(post(client, ("a", padded))) == (429, "memory", 100_000)
        slow.allowed.set()
        assert taken.result().status_code == 200 and settled(client)


@pytest.mark.parametrize("large", [False, True])
def test_large_pictures_are_taken_one_at_a_time(reader: Reader, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    """Others side by side: here two meet in the detector, or wait for each other in vain."""
    meeting = threading.Barrier(2)

    class Meeting:
        def detect(self, image: np.ndarray) -> list[Detection]:
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(1 if large else PATIENCE)
            return []

    reader.detector = Meeting()
    monkeypatch.setattr(work, "LARGE", 40 * 30 - large)
    with in_thread(web.create_app(reader, workers=2)) as client:
        assert [answer.status_code for answer in in_parallel(client, 2)] == [200, 200]
    assert meeting.broken == large


def test_large_pictures_hold_no_place_of_the_others(
    reader: Reader, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two large ones, one in the detector and one waiting for it, leave both workers to small ones."""

    class SlowWhenLarge:
        def detect(self, image: np.ndarray) -> list[Detection]:
            return slow.detect(image) if image.shape[1] == 40 else []

    reader.detector = SlowWhenLarge()
    monkeypatch.setattr(work, "LARGE", 40 * 30 - 1)
    small = encode(Image.new("RGB", (30, 30)), "PNG")
    with in_thread(web.create_app(reader, workers=2)) as client, ThreadPoolExecutor(2) as pool:
        held = [pool.submit(post, client, ("a", BLANK)) for _ in range(2)]
        assert slow.started.acquire(timeout=PATIENCE)
        wait_for(lambda: "mien_requests_under_way 2\n" in client.get("/metrics").text)
        assert [post(client, ("b", small)).status_code for _ in range(3)] == [200] * 3 and slow.seen == 1
        slow.allowed.set()
        assert [one.result().status_code for one in held] == [200, 200]


def test_a_slow_upload(reader: Reader) -> None:
    with serve(reader, seconds=0.5) as client, half_a_request(client) as connection:
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # to the end: the connection is closed after it
        assert b"408 " in answer.split(b"\r\n")[0] and b'"upload_time"' in answer
        assert settled(client)


def half_a_request(client: httpx.Client) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=PATIENCE)
    head = b"POST /v1/read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    connection.sendall(head + b"Content-Length: 5000\r\n\r\n--x\r\n")
    return connection


def test_a_client_that_hangs_up_costs_nothing_more(reader: Reader, slow: Slow) -> None:
    reader.detector = slow
    with serve(reader) as client:
        half_a_request(client).close()
        for _ in range(3):  # the first is being searched, the others wait for the one worker
            with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=client.base_url, trust_env=False) as hasty:
                hasty.post("/v1/read", files=pictures(("a", BLANK)), timeout=httpx.Timeout(PATIENCE, read=0.5))
        assert settled(client)
        slow.allowed.set()
        assert post(client, ("a", BLANK)).status_code == 200
        assert slow.seen <= 3  # the first and the last; one that waited may just have been taken up, but never both


def test_what_is_given_up_while_it_waits_is_let_go(reader: Reader, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are nobody's any more when `max_memory` no longer counts them."""

    class Bytes(bytearray):
        """What a weak reference can watch."""

    kept: list[weakref.ref[Bytes]] = []
    read = work.Work.rows

    async def watched(self: work.Work, uploaded: Sequence[Picture]) -> object:
        data = [Bytes(picture.data) for picture in uploaded]
        kept.extend(map(weakref.ref, data))
        return await read(self, [Picture(picture.name, data.pop(0)) for picture in uploaded])

    monkeypatch.setattr(work.Work, "rows", watched)
    reader.detector = slow
    with serve(reader, seconds=2) as client:
        in_parallel(client, 4)  # one is being searched, three wait for its thread
        assert settled(client) and len(kept) == 4
        gc.collect()
        assert sum(data() is not None for data in kept) <= 1
        slow.allowed.set()
