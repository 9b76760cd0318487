"""How many cores count as this process's own: fewer than it may run on where a quota grants less time."""

import os
from pathlib import Path

import pytest

from mien import cores


@pytest.fixture
def of_eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of eight cores, whose control groups lie below this folder; mine is told by the file `mine`."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "MINE", tmp_path / "mine")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("mine", "files", "expected"),
    [
        (None, {}, 8),  # no control groups, as on another system
        ("0::/a/b\n", {}, 8),  # nothing is said of them
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "20000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),  # the group around it
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),  # a container that sees its own group as the root
        ("0::/a/b\n", {"a/b/cpu.max": "6400000 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "unheard of\n", "cpu.max": "400000 0\n"}, 8),
        (
            "5:memory:/m\n4:cpu,cpuacct:/a\n0::/\n",
            {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_quota_counts(of_eight: Path, mine: str | None, files: dict[str, str], expected: int) -> None:
    if mine is not None:
        write(of_eight / "mine", mine)
    for name, text in files.items():
        write(of_eight / "groups" / name, text)
    assert cores.cores() == expected


def test_where_affinity_is_unknown_the_machines_cores_count(of_eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.cores() == 6
