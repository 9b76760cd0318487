"""A server for the tests: in a thread of this process, or as the process that `mien serve` is."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

START = 60  # s


@contextmanager
def in_thread(app: Any, **options: Any) -> Iterator[httpx.Client]:
    """A client of the application, served on a free port of this process."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(app, http="h11", ws="none", lifespan="on", log_config=None, access_log=False, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=START, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def peak_memory(process: psutil.Process) -> int:
    """Bytes that the process held at most (Linux), else now."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return int(process.memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def pictures(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Named files as httpx wants them."""
    return [("pictures", file) for file in files]


@dataclass
class Served:
    """A running `mien serve`."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def stop(self, seconds: float = 30) -> tuple[int, str, str]:
        """SIGTERM; exit status, and what it printed after its address."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


@contextmanager
def as_process(
    model: Path, *options: str, code: str = "", environment: dict[str, str] | None = None
) -> Iterator[Served]:
    """`mien serve --port 0` with further options, up and answering. code: Python to run in it first."""
    process = start(model, *options, code=code, environment=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"{line}{process.communicate(timeout=START)}"
        yield Served(process, found[0])
    finally:
        process.kill()
        process.communicate()


def start(
    model: Path, *options: str, code: str = "", environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """The process, perhaps not yet answering."""
    run = f"{code}\nfrom mien.cli import main\nmain()"
    arguments: Sequence[str] = [sys.executable, "-c", run, "serve", "--port", "0", "--model", str(model), *options]
    variables = {name: value for name, value in os.environ.items() if name != "MIEN_TOKEN"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables | (environment or {})
    )
