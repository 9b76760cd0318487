"""`make soak`: every test marked soak, each counted and timed, written to benchmarks/results/soak.json with date and machine.

A soak test says what it did (counts, seed) with pytest's `record_property`; a failing test fails the whole.
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
    """Collects outcome, seconds and notes of each test."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.skipped or report.failed:
            notes = dict(report.user_properties)
            self.tests[report.nodeid] = {"outcome": report.outcome, "seconds": round(report.duration, 1), **notes}


def main() -> int:
    recorder = Recorder()
    status = pytest.main([str(ROOT / "tests"), "-m", "soak", "-o", "timeout=7200", *sys.argv[1:]], plugins=[recorder])
    found = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores, Python {platform.python_version()}",
        "load_average": os.getloadavg()[0],
        "tests": recorder.tests,
    }
    RESULT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"{len(recorder.tests)} soak tests, written to {RESULT.relative_to(ROOT)}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
