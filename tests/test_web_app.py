"""What the server answers: readings, the model, health, metrics, its description, the page."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from mien import tables
from mien.errors import ImageError
from mien.reader import Reader
from mien.web import app as web
from mien.web.batching import Batcher
from mien.web.guard import HEADERS
from mien.web.limits import Gate, Limits
from mien.web.metrics import Histogram, Metrics
from mutants import encode
from serving import START, in_thread, pictures

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`


@pytest.fixture(scope="module")
def reader(tiny_model: Path) -> Reader:
    return Reader(tiny_model)


@pytest.fixture(scope="module")
def client(reader: Reader) -> Iterator[httpx.Client]:
    with in_thread(web.create_app(reader)) as client:
        yield client


@pytest.fixture(scope="module")
def portrait(hopper: np.ndarray) -> bytes:
    return encode(Image.fromarray(hopper).resize((256, 300)), "PNG")


def post(client: httpx.Client, *named: tuple[str, bytes]) -> httpx.Response:
    return client.post("/v1/read", files=pictures(*named))


def test_answers_what_the_command_line_prints(
    client: httpx.Client, reader: Reader, portrait: bytes, astronaut: np.ndarray
) -> None:
    second = encode(Image.fromarray(astronaut), "JPEG")
    blank = encode(Image.new("RGB", (64, 48)), "PNG")
    answer = post(client, ("hopper.png", portrait), ("astronaut.jpg", second), ("blank.png", blank))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"  # what was read of a face stays nowhere
    named = {"hopper.png": portrait, "astronaut.jpg": second, "blank.png": blank}
    expected = [row for name, data in named.items() for row in tables.rows(reader.read(data, source=name))]
    assert len(expected) == 3
    assert_same(answer.json(), expected)


def assert_same(rows: list, expected: list) -> None:
    """Equal, probabilities up to the rounding that a larger batch may change."""
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name, value in other.items():
            if name.startswith("p_") or name == "confidence":
                assert row[name] == pytest.approx(value, abs=2e-6), name
            else:
                assert row[name] == value, name


def test_a_bad_picture_among_good_ones_says_why_in_its_row(client: httpx.Client, portrait: bytes) -> None:
    answer = post(client, ("a.png", portrait), ("b.png", portrait[:5000]), ("c.txt", b"hello, world"))
    assert answer.status_code == 200
    statuses = [row["status"] for row in answer.json()]
    assert statuses[0] == "ok" and statuses[1].startswith("error: its pixels cannot be decoded")
    assert statuses[2].startswith("error: not a picture in a format that mien reads")
    assert [row["source"] for row in answer.json()] == ["a.png", "b.png", "c.txt"]


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [(b"hello, world", 415, "format"), (b"", 422, "damaged"), (b"P6 9 9 255\n123", 422, "damaged")],
)
def test_nothing_readable_is_refused(client: httpx.Client, data: bytes, status: int, code: str) -> None:
    answer = post(client, ("secret-name.png", data))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["limit"]) == (status, code, None)
    assert error["reason"] and "<" not in error["reason"]


def test_names(client: httpx.Client, portrait: bytes) -> None:
    """A name is the client's own: kept as it is, but for its length; a missing one is a number."""
    answer = post(client, ("Ünïcode 名.png", portrait), ("=1+1.png", portrait), ("x" * 999, portrait))
    assert [row["source"] for row in answer.json()] == ["Ünïcode 名.png", "=1+1.png", "x" * 255]


def test_concurrent_requests_share_batches_and_get_their_own_answers(
    reader: Reader, hopper: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model waits until all sixteen faces ask for it, so that how they are shared does not depend on speed."""
    classify, run, asked, all_asked = Batcher.classify, reader.classifier.run, [], threading.Event()

    async def count(self: Batcher, crops: np.ndarray) -> np.ndarray:
        asked.append(len(crops))
        if len(asked) == 20:
            all_asked.set()
        return await classify(self, crops)

    def wait(batch: np.ndarray) -> object:
        assert len(asked) <= 4 or all_asked.wait(START)
        return run(batch)

    monkeypatch.setattr(Batcher, "classify", count)
    monkeypatch.setattr(reader.classifier, "run", wait)
    small = np.asarray(Image.fromarray(hopper).resize((256, 300)))
    bodies = [encode(Image.fromarray(np.roll(small, 7 * shift, axis=1)), "PNG") for shift in range(4)] * 4
    with in_thread(web.create_app(reader, workers=4)) as client, ThreadPoolExecutor(16) as pool:
        alone = [post(client, ("p.png", body)).json() for body in bodies[:4]] * 4
        together = list(pool.map(lambda body: post(client, ("p.png", body)).json(), bodies))
        metrics = client.get("/metrics").text
    for rows, expected in zip(together, alone, strict=True):
        assert_same(rows, expected)
    faces, batches = (number(metrics, f"mien_batch_faces_{name}") for name in ("sum", "count"))
    assert faces == sum(asked) == 20 and batches <= 4 + 3  # four alone, the first of sixteen, the other fifteen


def test_a_batch_is_closed_once_it_holds_its_rows(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = reader.classifier.run
    monkeypatch.setattr(reader.classifier, "run", lambda batch: sizes.append(len(batch)) or run(batch))
    spec = reader.classifier.card.input
    crops = np.random.default_rng(0).random((10, len(spec.mean), spec.height, spec.width), np.float32)

    async def all_at_once() -> list[np.ndarray]:
        batcher = Batcher(reader.classifier, metrics=Metrics(Gate(Limits()), model={}), rows=4)
        serving = asyncio.create_task(batcher.run())
        answers = await asyncio.gather(*(batcher.classify(crops[start : start + 2]) for start in range(0, 10, 2)))
        serving.cancel()
        return answers

    answers = np.concatenate(asyncio.run(all_at_once()))
    assert sizes == [4, 4, 2]
    assert answers == pytest.approx(run(crops).probabilities[reader.classifier.card.default_head], abs=2e-6)


def number(metrics: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    assert found, name
    return float(found[1])


def test_model(client: httpx.Client, reader: Reader) -> None:
    model = client.get("/v1/model").json()
    assert model["sha256"] == reader.classifier.sha256
    assert model["card"] == json.loads(reader.classifier.card.to_json())
    assert model["licence"] == "Apache-2.0" and model["labels"] == list(reader.classifier.card.head().labels)
    assert model["limits"]["pixels"] == Limits().pixels


def test_health(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    for path in ("/healthz", "/", "/v1/model", "/metrics"):
        head = client.head(path)
        assert head.status_code == 200 and head.content == b""


def test_metrics_are_well_formed_and_count(reader: Reader, portrait: bytes) -> None:
    with in_thread(web.create_app(reader)) as client:
        post(client, ("secret-name.png", portrait))
        post(client, ("secret-name.png", b"nonsense"))
        post(client, ("good.png", portrait), ("cut.png", portrait[:3000]), ("cut.png", portrait[:3000]))
        client.get("/secret-path")
        answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    line = re.compile(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.e+-]+')
    assert all(line.fullmatch(text) for text in answer.text.splitlines()), answer.text
    assert "secret" not in answer.text
    assert number(answer.text, 'mien_requests_total{path="/v1/read",status="200"}') == 2
    assert number(answer.text, 'mien_requests_total{path="/v1/read",status="415"}') == 1
    assert number(answer.text, 'mien_requests_total{path="other",status="404"}') == 1
    assert number(answer.text, 'mien_pictures_total{result="refused"}') == 3
    refusals = {"format": 1, "damaged": 2, "not_found": 1}  # a picture that is its request's refusal is counted once
    assert {code: number(answer.text, f'mien_refusals_total{{code="{code}"}}') for code in refusals} == refusals
    assert number(answer.text, "mien_faces_total") == 2
    assert number(answer.text, "mien_requests_under_way") == number(answer.text, "mien_bytes_under_way") == 0


def test_a_sum_keeps_its_digits_however_long_the_server_runs() -> None:
    histogram = Histogram("mien_read_seconds", "", (1.0,))
    for value in (2_000_000, 0.25, 0.25):
        histogram.observe(value)
    assert number("\n".join(histogram.lines()), "mien_read_seconds_sum") == 2_000_000.5


def test_openapi_describes_the_rows_without_a_foreign_address(client: httpx.Client) -> None:
    answer = client.get("/openapi.json")
    described = answer.json()
    assert set(described["paths"]) == {"/v1/read", "/v1/model", "/healthz", "/metrics"}
    responses = described["paths"]["/v1/read"]["post"]["responses"]
    assert {"200", "401", "403", "408", "413", "415", "422", "429", "500", "503"} <= set(responses)
    assert set(described["paths"]["/healthz"]["get"]["responses"]) == {"200", "403"}  # the host's
    (token,) = described["components"]["securitySchemes"]
    asked = {path: next(iter(methods.values())).get("security") for path, methods in described["paths"].items()}
    assert asked == {"/healthz": None} | {path: [{}, {token: []}] for path in ("/v1/read", "/v1/model", "/metrics")}
    row = responses["200"]["content"]["application/json"]["schema"]["items"]
    assert tuple(row["properties"]) == tables.COLUMNS
    assert "://" not in answer.text
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


@pytest.mark.parametrize(("path", "method", "status", "told"), [
    ("/nowhere", "GET", 404, "not_found"), ("/v1/read", "GET", 405, "POST"), ("/v1/read", "OPTIONS", 405, "POST"),
    ("/v1/read/", "POST", 404, "not_found"),
    ("/v1/model", "POST", 405, "GET, HEAD"), ("/", "POST", 405, "GET, HEAD"), ("/..%2f..%2fetc/passwd", "GET", 404, "not_found"),
])  # fmt: skip
def test_unknown_paths_and_methods(client: httpx.Client, path: str, method: str, status: int, told: str) -> None:
    """told: the code, or the methods that the path has."""
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == ("method" if status == 405 else told)
    assert (f"{method} is not for this path, which takes {told}" if status == 405 else "POST /v1/read") in answer.text
    assert answer.headers.get("Allow") == (told if status == 405 else None)


@pytest.mark.parametrize("path", sorted(web.PAGES))
def test_pages_are_whole_safe_and_our_own(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200 and answer.content == (files("mien.web") / web.PAGES[path][0]).read_bytes()
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.headers["cache-control"] == "no-cache"  # a new version is seen at once
    assert "default-src 'self'" in HEADERS["Content-Security-Policy"] and "unsafe" not in str(HEADERS)
    addresses = set(re.findall(r"[\w+.-]*://[\w.]*|//\w[\w-]*\.\w+", answer.text))
    assert addresses <= {"http://www.w3.org"}  # the SVG namespace, a name and no address
    inline = r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+="
    assert not path.endswith((".html", "/")) or not re.search(inline, answer.text)


def test_the_page_lists_the_tables_columns() -> None:
    """One truth: the CSV of the page has the columns of faces.csv."""
    script = (files("mien.web") / "results.js").read_text()
    drawing = (files("mien.web") / "drawing.js").read_text()
    listed = re.search(r"COLUMNS = \[(.*?)\];", script, re.DOTALL)
    assert listed
    plain = re.findall(r'"(\w+)"', listed[1])
    colours = re.findall(r'(\w+): "#', drawing)
    assert (*plain[:-1], *(f"p_{name}" for name in colours), plain[-1]) == tables.COLUMNS


def test_a_defect_is_reported_without_a_word_about_the_picture(
    tiny_model: Path, portrait: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(tiny_model)

    class Broken:
        def detect(self, image: np.ndarray) -> list:
            raise RuntimeError("secret pixels")

    reader.detector = Broken()
    with in_thread(web.create_app(reader)) as client:
        answer = post(client, ("secret-name.png", portrait))
        assert client.get("/healthz").status_code == 200
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    assert "RuntimeError at " in caplog.text and "secret" not in caplog.text + answer.text


def test_a_failing_model_fails_its_own_batch_only(tiny_model: Path, portrait: bytes) -> None:
    reader = Reader(tiny_model)
    run, broken = reader.classifier.run, [True]

    def fail_once(batch: np.ndarray) -> object:
        if broken.pop() if broken else False:
            raise ImageError("the graph failed")
        return run(batch)

    reader.classifier.run = fail_once  # type: ignore[assignment, method-assign]
    with in_thread(web.create_app(reader)) as client:
        assert [post(client, ("p.png", portrait)).status_code for _ in range(2)] == [500, 200]
