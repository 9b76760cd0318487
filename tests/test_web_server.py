"""`mien serve` as a process: what it refuses, what it leaves behind (nothing), how it stops."""

import logging
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from mien import cli
from mien.web import app, server
from mien.web.limits import Limits
from mutants import encode
from serving import START, Served, as_process, pictures, start

pytestmark = pytest.mark.slow  # servers, workers and their limits take seconds

TOKEN = "a-token-of-the-tests"
WATCH = """
import os, sys
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if path != os.devnull and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            print("WROTE", path, mode, flags, file=sys.stderr, flush=True)
    elif event in ("os.mkdir", "tempfile.mkstemp", "os.rename", "shutil.copyfile", "subprocess.Popen"):
        print("WROTE", event, arguments, file=sys.stderr, flush=True)
    elif event in ("socket.connect", "socket.sendto", "socket.gethostbyname"):
        print("ASKED", event, arguments, file=sys.stderr, flush=True)
sys.dont_write_bytecode = True
sys.addaudithook(watch)
"""


def head(served: Served, length: int) -> bytes:
    return (
        f"POST /v1/read HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def body(picture: bytes) -> bytes:
    name = b'--x\r\nContent-Disposition: form-data; name="p"; filename="a.png"\r\n\r\n'
    return name + picture + b"\r\n--x--\r\n"


def test_the_watch_sees_a_write_and_a_connection(tmp_path: Path, tiny_model: Path) -> None:
    """The next test means something: a spooled upload, as FastAPI would make it, is seen, and so is a question to another."""
    spool = "import socket, tempfile; f = tempfile.SpooledTemporaryFile(10); f.write(bytes(20))\n"
    ask = "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
    with as_process(tiny_model, code=WATCH + spool + ask, environment={"TMPDIR": str(tmp_path)}) as served:
        told = served.stop()[2]
    assert "WROTE" in told and "ASKED" in told


def test_nothing_is_written_nobody_asked_and_nothing_logged(
    tmp_path: Path, tiny_model: Path, hopper: np.ndarray
) -> None:
    large = encode(Image.fromarray(hopper).resize((1400, 1640)), "BMP")
    assert len(large) > 6_000_000  # far beyond the megabyte from which FastAPI spools
    damaged = encode(Image.fromarray(hopper), "TIFF")[:-5000]
    files = pictures(("secret-a.bmp", large), ("secret-b.tif", damaged), ("secret-c.jpg", b"nonsense"))
    with as_process(tiny_model, code=WATCH, environment={"TMPDIR": str(tmp_path)}) as served:
        answer = httpx.post(f"{served.url}/v1/read", files=files, timeout=START, trust_env=False)
        assert [row["status"][:5] for row in answer.json()] == ["ok", "error", "error"]
        refused = httpx.post(f"{served.url}/v1/read", files=files[1:], timeout=START, trust_env=False)
        assert refused.status_code == 422
        assert served.stop() == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_sigterm_finishes_what_was_taken_then_exits_0(tiny_model: Path) -> None:
    content = body(encode(Image.new("RGB", (640, 480)), "PNG"))
    with as_process(tiny_model, "--seconds", "200") as served:
        with connected(served) as connection:
            connection.sendall(head(served, len(content)) + content[:100])
            wait_until_taken(served)
            served.process.terminate()
            wait_until_closed(served.port)
            connection.sendall(content[100:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200") and b'"no face"' in answer
        assert served.process.wait(START) == 0


def connected(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=START)


def wait_until_taken(served: Served) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        metrics = httpx.get(f"{served.url}/metrics", timeout=START, trust_env=False).text
        if "mien_requests_under_way 1\n" in metrics:
            return
        time.sleep(0.05)
    raise AssertionError("the request was not taken")


def wait_until_closed(port: int) -> None:
    """Until new connections are refused."""
    end = time.monotonic() + START
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    raise AssertionError("the server still accepts connections")


def test_ctrl_c_says_that_it_waits_and_the_second_ends_it_without_a_traceback(tiny_model: Path) -> None:
    with as_process(tiny_model, "--seconds", "200") as served, connected(served) as connection:
        connection.sendall(head(served, 5000) + b"--x\r\n")
        wait_until_taken(served)
        served.process.send_signal(signal.SIGINT)
        assert served.process.stderr is not None
        assert served.process.stderr.readline() == "mien: finishing what was begun; Ctrl-C again ends at once\n"
        wait_until_closed(served.port)
        served.process.send_signal(signal.SIGINT)
        _, errors = served.process.communicate(timeout=START)
        assert (served.process.returncode, errors) == (0, "")


@pytest.mark.slow
def test_sigterm_waits_no_longer_than_the_time_limit(tiny_model: Path) -> None:
    """A client that never finishes its upload cannot keep the server alive. Ten seconds, so that the request is seen
    under way on a busy machine, too."""
    with as_process(tiny_model, "--seconds", "10") as served, connected(served) as connection:
        connection.sendall(head(served, 5000) + b"--x\r\n")
        wait_until_taken(served)
        assert served.stop(2 * START) == (0, "", "")
        assert b" 408 " in connection.recv(100)


def test_a_picture_that_was_given_up_keeps_nobody_waiting_at_the_end(tiny_model: Path) -> None:
    slow = "import time\nfrom mien.web.work import Work\nWork._search = lambda self, picture: time.sleep(600)\n"
    files = pictures(("a.png", encode(Image.new("RGB", (64, 48)), "PNG")))
    with as_process(tiny_model, "--seconds", "1", code=slow) as served:
        assert httpx.post(f"{served.url}/v1/read", files=files, timeout=START, trust_env=False).status_code == 503
        assert served.stop() == (0, "", "")


def test_a_head_that_does_not_end_is_given_up(tiny_model: Path) -> None:
    """The first one of a connection, begun or not, and one that follows an answered request."""
    whole = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with as_process(tiny_model, "--seconds", "1") as served:
        for before, begun in ((b"", b""), (b"", whole[:12]), (whole, whole[:12])):
            with connected(served) as connection:
                connection.sendall(before)
                assert not before or b'{"status":"ok"}' in received(connection, b"}")
                connection.sendall(begun)
                assert connection.recv(100) == b""  # closed; START later this would be a timeout


def test_a_body_that_goes_on_after_the_answer_is_given_up(tiny_model: Path) -> None:
    asked = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
    with as_process(tiny_model, "--seconds", "1") as served:
        with connected(served) as connection:
            connection.sendall(asked)
            assert b'{"status":"ok"}' in received(connection, b"}")
            connection.sendall(b"a")
            assert connection.recv(100) == b""  # closed; START later this would be a timeout
        with connected(served) as connection:
            connection.sendall(asked.replace(b"Content-Length: 1000000", b"Transfer-Encoding: chunked"))
            assert b'{"status":"ok"}' in received(connection, b"}")
            connection.sendall(b"ZZ\r\n")
            assert connection.recv(100) == b""
        assert served.stop() == (0, "", "Invalid HTTP request received.\n")


def test_an_answer_that_nobody_reads_is_given_up(tiny_model: Path) -> None:
    asked = b"GET /page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with as_process(tiny_model, "--seconds", "1") as served:
        with connected(served) as connection, pytest.raises(ConnectionError):  # and no timeout
            for _ in range(1000):
                connection.sendall(100 * asked)
        assert served.stop() == (0, "", "")


def test_a_refusal_is_seen_by_a_client_that_is_still_sending(tiny_model: Path) -> None:
    """Python's urllib asks to close the connection, and sends everything before it reads."""
    options = ("--host", "0.0.0.0", "--max-body", "4", "--seconds", "20")
    with as_process(tiny_model, *options, environment={"MIEN_TOKEN": TOKEN}) as served:
        for _ in range(5):
            with connected(served) as connection:
                connection.sendall(head(served, 6_000_000))
                connection.sendall(bytes(6_000_000))
                assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
    with as_process(tiny_model, "--max-body", "1", "--seconds", "2") as served, connected(served) as connection:
        connection.sendall(head(served, 1_900_000) + b"--x\r\n")  # slower than the server waits
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_what_is_no_http_is_logged_once(tiny_model: Path) -> None:
    with as_process(tiny_model) as served:
        for _ in range(5):
            with connected(served) as connection:
                connection.sendall(b"nonsense\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        assert served.stop() == (0, "", "Invalid HTTP request received.\n")


def test_the_log_says_nothing_a_thousand_times() -> None:
    seldom = server._Seldom("socket.accept() out of system resource")
    names = ("socket.accept() out of system resource", "another thing")
    records = [logging.LogRecord("asyncio", logging.ERROR, "", 0, name, None, None) for name in names * 3]
    for second, record in enumerate(records):
        record.created = 1000.0 + 20 * second
    assert [seldom.filter(record) for record in records] == [True, True, False, True, True, True]
    asked = "No supported WebSocket library detected. Please use \"pip install 'uvicorn[standard]'\""
    advice = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, asked, None, None)
    assert not server._is_no_advice(advice) and server._is_no_advice(records[1])


def received(connection: socket.socket, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        found += connection.recv(4096) or pytest.fail(f"closed after {found!r}")
    return found


def test_the_token_is_asked_for(tiny_model: Path) -> None:
    options = ("--host", "0.0.0.0", "--name", "pc.example")
    with as_process(tiny_model, *options, environment={"MIEN_TOKEN": TOKEN}) as served:
        url = f"http://127.0.0.1:{served.port}/v1/model"
        ours = {"Host": "pc.example", "Authorization": f"Bearer {TOKEN}"}
        statuses = [httpx.get(url, headers=headers, timeout=START, trust_env=False).status_code for headers in (
            ours, {}, ours | {"Authorization": "Bearer wrong"}, ours | {"Host": "other.example"},
        )]  # fmt: skip
        assert statuses == [200, 401, 401, 403]


@pytest.mark.parametrize(("options", "reason"), [
    (("--host", "0.0.0.0"), "set MIEN_TOKEN"),
    (("--detector", "nonsense"), "unknown detector"),
    (("--max-pixels", "nan"), "--max-pixels nan: expected a finite number"),
    (("--max-pixels", "1e-9"), "--max-pixels 1e-09: expected a finite number"),
    (("--seconds", "inf"), "--seconds inf: expected a finite number"),
])  # fmt: skip
def test_refuses_to_start(tiny_model: Path, options: tuple[str, ...], reason: str) -> None:
    process = start(tiny_model, *options)
    out, err = process.communicate(timeout=START)
    assert process.returncode == 2 and out == "" and err.startswith("mien: ") and reason in err


def test_the_options_reach_the_limits_and_the_reader(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(app, "create_app", lambda reader, **options: made.update(options, reader=reader))
    monkeypatch.setattr(server, "listen", lambda host, port: (host, port))
    monkeypatch.setattr(server, "run", lambda *arguments, **options: made.update(options))
    values = {"body": 3, "pictures": 4, "pixels": 5, "faces": 6, "requests": 7, "memory": 8}
    options = [word for name, value in values.items() for word in (f"--max-{name}", str(value))]
    with pytest.raises(SystemExit):
        cli.main(
            ["serve", "--model", str(tiny_model), *options, "--seconds", "9", "--workers", "2", "--min-face", "55"]
        )
    assert made["limits"] == Limits(
        body=3 << 20, pictures=4, pixels=5_000_000, faces=6, seconds=9, requests=7, memory=8 << 20
    )
    assert (made["seconds"], made["workers"], made["reader"].detector.min_face) == (9, 2, 55)
    with pytest.raises(SystemExit):
        cli.main(["serve", "--model", str(tiny_model), "--max-body", "400"])
    assert made["limits"].memory == 400 << 20  # one request is let in


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--max-memory", "1"), "--max-memory 1: one request may have 64 MiB; lower --max-body, too"),
        (
            ("--detector", "whole", "--min-face", "99"),
            "--min-face is of a search, and --detector whole searches nothing",
        ),
    ],
)
def test_options_that_would_be_passed_over_are_refused(
    options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", *options])
    assert ended.value.code == 2 and told in capsys.readouterr().err


def test_a_port_that_is_taken(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(tiny_model, "--port", str(taken.getsockname()[1]))
        _, err = process.communicate(timeout=START)
    assert process.returncode == 2 and "choose another --host or --port" in err


def test_without_the_extra(tiny_model: Path) -> None:
    process = start(tiny_model, code="import sys; sys.modules['fastapi'] = None")
    _, err = process.communicate(timeout=START)
    assert process.returncode == 2 and 'pip install "mien[serve]"' in err
