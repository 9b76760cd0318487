"""What is read stays here: no connection is opened, and ONNX Runtime's telemetry is off before it can begin."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WATCH = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        print("ASKED", event, arguments, file=sys.stderr)
sys.addaudithook(watch)
"""


def test_reading_opens_no_connection(tiny_model: Path, hopper: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "hopper.npy", hopper)
    read = "import numpy, mien; print(mien.read(numpy.load(sys.argv[1]), model=sys.argv[2]))\n"
    ask = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
    told = [
        subprocess.run(
            [sys.executable, "-c", WATCH + code, str(tmp_path / "hopper.npy"), str(tiny_model)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stderr
        for code in (read, ask)
    ]
    assert told[0] == "" and told[1].startswith("ASKED socket.connect")  # so it would be told


def files_left_by(code: str, home: Path, *arguments: str, **variables: str) -> list[str]:
    """The files that a process left in its home and its temporary folder, both `home`."""
    dropped = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    places = {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code, *arguments], env=kept | places | variables, check=True, timeout=120)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_reading_leaves_no_identifier_and_no_queue_of_reports(
    tiny_model: Path, hopper: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "hopper.npy", hopper)
    home = tmp_path / "home"
    home.mkdir()
    code = "import sys, numpy, mien; print(mien.read(numpy.load(sys.argv[1]), model=sys.argv[2]))"
    assert files_left_by(code, home, str(tmp_path / "hopper.npy"), str(tiny_model)) == []


@pytest.mark.parametrize(("told", "calls"), [("1", 1), ("0", 0)])
def test_an_onnxruntime_that_was_imported_first_is_told_to_report_nothing_more(told: str, calls: int) -> None:
    code = (
        "import onnxruntime, os, sys\ncalls = []\nonnxruntime.disable_telemetry_events = lambda: calls.append(1)\n"
        "os.environ['ORT_DISABLE_TELEMETRY'] = sys.argv[1]\nimport mien.classifier\nprint(len(calls))"
    )
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}  # of the import before mien
    ran = subprocess.run(
        [sys.executable, "-c", code, told], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout == f"{calls}\n", ran.stderr


def test_this_test_would_notice(tiny_model: Path, tmp_path: Path) -> None:
    """With the telemetry left on there are traces, where this ONNX Runtime has one (from 1.29, Linux and macOS)."""
    code = "import mien, sys; mien.Reader(sys.argv[1])"
    left = files_left_by(code, tmp_path, str(tiny_model), ORT_DISABLE_TELEMETRY="0", ORT_RUNNING_UNIT_TESTS="0")
    if not left:
        pytest.skip("this ONNX Runtime keeps no telemetry files; nothing to compare with")
    assert any("onnxruntime" in name.lower() or name == ".ses" for name in left)
