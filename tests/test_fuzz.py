"""Hostile pictures through the reader, in the process that a folder job would read them in: every one is answered, in
time, in bounded memory, by a reading or by an error that names the reason. `test_web_fuzz.py` does it to the server."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from mien import worker
from mutants import Mutant, bomb, mutants
from serving import peak_memory

pytestmark = pytest.mark.slow

SOAK = [pytest.mark.soak, pytest.mark.timeout(7200)]
SLOWEST = 5.0  # s of computing for one picture: a busy machine is no failure
LARGEST = 1_000_000_000  # bytes of the reading process's memory


@dataclass
class Watch:
    """What was answered, and at what cost. slowest: s of computing; searched: mutants that the detector saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    searched: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Watched(worker.Worker):
    """A reading process whose deaths are counted and whose pulse can be taken."""

    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def note(self, folder: Path, mutant: Mutant, watch: Watch) -> None:
        """Read one mutant and judge the answer."""
        path = folder / mutant.name
        path.write_bytes(mutant.data)
        before = sum(self.process().cpu_times()[:2])
        (first, *_) = self.read(str(path))
        watch.slowest = max(watch.slowest, sum(self.process().cpu_times()[:2]) - before)
        path.unlink()
        status = str(first["status"])
        kind, _, reason = status.partition(": ")
        watch.statuses[kind] += 1
        watch.searched[mutant.kind] += kind != "error"  # a picture that decodes goes through the detector
        if kind not in ("ok", "no face", "error") or (kind == "error" and not named(reason)):
            watch.wrong.append(f"{mutant.kind} {mutant.name}: {status}")


def named(reason: str) -> bool:
    """Whether an error says what is wrong in words, and not that the process died or a stranger's exception escaped."""
    return len(reason.split()) >= 3 and "process died" not in reason and "Traceback" not in reason


@pytest.fixture
def watched(tiny_model: Path, tmp_path: Path) -> Iterator[Watched]:
    reading = Watched(worker.Settings(str(tiny_model)))
    warm = tmp_path / "warm.png"
    Image.new("RGB", (64, 64)).save(warm)
    assert reading.read(str(warm))[0]["status"] == "no face"  # started: what follows measures pictures only
    yield reading
    reading.close()


@pytest.mark.parametrize("count", [pytest.param(130, id="some"), pytest.param(10_000, id="10000", marks=SOAK)])
def test_fuzz_of_the_reader(
    watched: Watched,
    hopper: np.ndarray,
    tmp_path: Path,
    count: int,
    record_property: Callable[[str, object], None],
) -> None:
    seed = int(os.environ.get("MIEN_FUZZ_SEED", "0"))
    small = Image.fromarray(hopper).crop((120, 80, 400, 400)).resize((140, 160))
    watch, first = Watch(), watched.process()
    for mutant in mutants(small, count, seed=seed):
        watched.note(tmp_path, mutant, watch)
    peak = peak_memory(first)
    searched = sum(watch.searched.values())
    for name, value in {
        "seed": seed,
        "mutants": count,
        "past decoding and through the detector": searched,
        "by kind": dict(watch.searched),
        "answers": dict(watch.statuses),
        "slowest, s of computing": round(watch.slowest, 2),
        "largest, MB": round(peak / 1e6),
    }.items():
        record_property(name, value)
    assert watch.wrong == []
    assert watched.process().pid == first.pid  # it never died
    assert watch.slowest < SLOWEST and peak < LARGEST
    assert searched >= count / 2 and watch.statuses["error"] >= count / 10


def test_bombs(watched: Watched, tmp_path: Path) -> None:
    """Few bytes, many pixels: what is beyond the limit is refused unseen, what is just within it is read."""
    watch, first = Watch(), watched.process()
    for side in (7000, 20_000):
        watched.note(tmp_path, Mutant("bomb", f"{side}.png", bomb(side)), watch)
    assert watch.statuses == {"no face": 1, "error": 1} and watch.wrong == []
    assert watched.process().pid == first.pid
    assert watch.slowest < 4 * SLOWEST  # 49 megapixels are searched to their end: that is work, and no hang
    assert peak_memory(first) < LARGEST


@pytest.mark.parametrize("reason", ["", "OSError", "the reading process died on it 2 times (exit status -11)"])
def test_an_answer_without_a_reason_would_be_noticed(reason: str) -> None:
    assert not named(reason)
