"""`make soak`: every test marked soak, each counted and timed, written to benchmarks/results/soak.json with date and machine.

    python benchmarks/soak.py [-k EXPRESSION] [PYTEST OPTIONS...]

A part of it can be run by itself: `-k fuzz` the hostile pictures and requests, `-k load` the server under 200 clients,
`-k kills` the jobs that are killed, `-k half_a_minute` the long film, `-k many_times` hypothesis. The other tests keep
what an earlier run found, with that run's date. A soak test says what it did (counts, seed) with pytest's
`record_property`; a failing test fails the whole.
"""

import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "soak.json"


class Recorder:
    """Collects outcome, seconds and notes of each test, and where and when it ran."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.skipped or report.failed:
            found = {"outcome": report.outcome, "seconds": round(report.duration, 1), **surroundings()}
            self.tests[report.nodeid] = {**found, "notes": dict(report.user_properties)}
            write(self.tests)  # as it comes: what is cut short keeps what it found


def surroundings() -> dict[str, Any]:
    """When and on what."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores, Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def write(tests: dict[str, dict[str, Any]]) -> None:
    """Put these tests' results beside those of earlier runs."""
    before = json.loads(RESULT.read_text())["tests"] if RESULT.is_file() else {}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"tests": {**before, **tests}}, indent=1, sort_keys=True) + "\n")


def main() -> int:
    recorder = Recorder()
    status = pytest.main([str(ROOT / "tests"), "-m", "soak", "-o", "timeout=7200", *sys.argv[1:]], plugins=[recorder])
    for name, found in recorder.tests.items():
        print(f"{found['outcome']} in {found['seconds']} s: {name}\n    {json.dumps(found['notes'])}")
    print(f"{len(recorder.tests)} soak tests, written to {RESULT.relative_to(ROOT)}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
