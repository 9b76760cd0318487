"""Fixtures that every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("mien", deadline=None)  # a busy machine is no failure
settings.load_profile("mien")

ROOT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path:
    """Where the prepared photographs and datasets lie: MIEN_SHARED, else ../shared beside the checkout."""
    return Path(os.environ.get("MIEN_SHARED") or ROOT.parent / "shared")


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """`shared("photos/obama.jpg")`: the path, or a skip that says what is absent."""

    def find(name: str) -> Path:
        path = shared_folder() / name
        if not path.exists():
            pytest.skip(f"needs {name} under MIEN_SHARED or ../shared")
        return path

    return find


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with a complete card and random weights: for everything but what a real model would answer."""
    import tiny_model

    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.onnx", tiny_model.card())


@pytest.fixture(scope="session")
def hopper() -> np.ndarray:
    """Grace Hopper's portrait from matplotlib, RGB uint8 (600, 512, 3)."""
    from mien import demo, images

    return images.load(demo.photograph())


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """Eileen Collins's portrait from scikit-image, RGB uint8 (512, 512, 3)."""
    import skimage.data

    return skimage.data.astronaut()


# A skipped check is not a passed one. Where CI is set, only these reasons may skip a test; any other skip fails the run.
ALLOWED_SKIPS = ("under MIEN_SHARED or ../shared", "needs Chromium")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in unexpected_skips(terminalreporter):
        terminalreporter.write_line(f"skipped without leave: {reason}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and unexpected_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def unexpected_skips(reporter: pytest.TerminalReporter) -> list[str]:
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    return [reason for reason in reasons if not any(allowed in reason for allowed in ALLOWED_SKIPS)]
