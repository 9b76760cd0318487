"""Many clients at once against `mien serve`, as benchmarks/load.py drives them: no failure but the stated limits, memory
that does not grow."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow

SOAK = [pytest.mark.soak, pytest.mark.timeout(1800)]
LIMITS = {"200", "429", "503"}  # answered, or turned away with a reason


@pytest.mark.parametrize(
    ("clients", "seconds"), [pytest.param(20, 3, id="20"), pytest.param(200, 60, id="200 for a minute", marks=SOAK)]
)
def test_load(
    tmp_path: Path, tiny_model: Path, clients: int, seconds: int, record_property: Callable[[str, object], None]
) -> None:
    out = tmp_path / "load.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py"), "--clients", str(clients)]
    run = subprocess.run(
        [*command, "--seconds", str(seconds), "--model", str(tiny_model), "-o", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.is_file(), run.stderr
    found = json.loads(out.read_text())
    for name in ("answers", "readings_per_second", "p50_ms", "p95_ms", "faces_in_a_batch", "memory_growth"):
        record_property(name, found[name])
    record_property("clients", clients)
    assert found["failures"] == [] and set(found["answers"]) <= LIMITS, found
    assert found["answers"]["200"] >= clients / 2 and found["exit_status"] == 0
    if seconds >= 60:  # in a few seconds every part of the server is touched for the first time
        assert found["memory_growth"] <= 1.2 and run.returncode == 0, found
