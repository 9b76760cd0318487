"""The cost model of docs/scale.md: what it fits, what it projects, and that the document says what the results say."""

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mien.faces.mtcnn import Mtcnn
from mien.lab import methods
from scripts import script


@pytest.fixture(scope="module")
def model() -> ModuleType:
    return script("scale_model")


def sample(model: ModuleType, megapixels: float, faces: int, *, factor: float = 1.0) -> Any:
    """What pictures would take whose true costs are 1 + 20 M, 2 + 30 M + 4 F + 10 M F and 3 F + M F milliseconds."""
    product = megapixels * faces
    milliseconds = (1 + 20 * megapixels, 2 + 30 * megapixels + 4 * faces + 10 * product, 3 * faces + product + 1e-6)
    decode, detect, classify = (factor * value / 1e3 for value in milliseconds)
    return model.Sample("any", megapixels, faces, decode, detect, classify)


def test_the_fit_finds_the_costs_that_made_the_samples(model: ModuleType) -> None:
    sizes = [(0.01, 0), (0.01, 1), (0.08, 0), (0.3, 1), (0.3, 2), (1.2, 1)]
    fitted = model.fit([sample(model, *size) for size in sizes])
    assert np.allclose(np.array(fitted.decode) * 1e3, (1, 20), rtol=1e-3)
    assert np.allclose(np.array(fitted.detect) * 1e3, (2, 30, 4, 10), rtol=1e-3)
    assert np.allclose(np.array(fitted.classify) * 1e3, (3, 1), rtol=1e-3)
    assert max(fitted.error.values()) < 1e-2
    each = fitted.seconds(0.5, 2)
    assert {name: round(1e3 * value, 1) for name, value in each.items()} == {
        "decode": 11.0,
        "detect": 35.0,
        "classify": 7.0,
    }


def test_the_error_of_a_fit_is_that_of_the_average_pictures(model: ModuleType) -> None:
    """Kinds that take now 10 % more, now 10 % less than any straight line says, each of two pictures that differ."""
    samples = [
        sample(model, 0.1 * n, 1, factor=(1.1 if n % 2 else 0.9) * part) for n in range(1, 21) for part in (0.5, 1.5)
    ]
    assert len(model.averages(samples)) == 20
    assert model.fit(samples).error["decode"] == pytest.approx(0.1, abs=0.02)


def test_reading_costs_core_hours_hours_and_money(model: ModuleType) -> None:
    fitted = model.fit([sample(model, size, faces) for size in (0.1, 0.5, 1.0) for faces in (0, 1, 2)])
    job = model.Job(0.5, 1, cores=10, efficiency=0.5, price=0.2, overhead=2e-3, row_bytes=200)
    found = model.reading(fitted, job, 1_000_000)
    each = (11 + 26 + 3.5 + 2) / 1e3
    assert found.core_hours == pytest.approx(1e6 * each / 3600 / 0.5, rel=1e-3)
    assert found.hours == pytest.approx(found.core_hours / 10)
    assert found.money == pytest.approx(found.core_hours * 0.2)
    assert found.table_gigabytes == pytest.approx(0.2)


def test_training_is_bound_by_the_slower_of_computing_and_loading(model: ModuleType) -> None:
    run = model.Run("any", "data", "paper", rows=3600, epochs=100, size=48, macs=10**9)
    assert run.exaflops == pytest.approx(6e9 * 360_000 / 1e18)
    computing = model.training(run, model.Training(6, 0.75, 2000, 3), 1)  # 1 ms a picture, loading 0.5 ms
    assert computing == {"gpus": 1, "hours": pytest.approx(0.1), "money": pytest.approx(0.3), "bound_by": "compute"}
    loading = model.training(run, model.Training(6, 0.75, 500, 3), 8)  # 2 ms a picture to load, on each of eight
    assert loading == {
        "gpus": 8,
        "hours": pytest.approx(0.2 / 6),
        "money": pytest.approx(0.2 / 6 * 8 * 3),
        "bound_by": "loading",
    }


def test_every_paper_is_projected_with_every_dataset_it_prints(model: ModuleType) -> None:
    found = model.runs(defaultdict(lambda: 1))
    assert {run.method for run in found} == set(methods.NAMES)
    rows = {(run.method, run.dataset): run.rows for run in found}
    assert rows["ad-corre", "fer2013"] == 28_709 and rows["resface", "ferplus"] == 25_060
    assert rows["ad-corre", "affectnet"] == 283_901  # without contempt
    assert rows["wcl", "affectnet"] == 287_651 + 4_000 - 8_000  # its own split
    epochs = {(run.method, run.dataset): run.epochs for run in found}
    assert epochs["ad-corre", "affectnet"] == 20 and epochs["ad-corre", "rafdb"] == 60  # two presets
    assert set(script("scale_steps").recipes()) == {f"{run.method}/{run.preset}" for run in found} | {
        f"{name}/paper" for name in methods.NAMES
    }


def test_a_run_has_its_kinds_in_their_shares_and_in_random_order() -> None:
    pictures = script("scale_pictures")
    found = pictures.kinds(1000, seed=5)
    assert Counter(found) == {kind: round(1000 * kind.share) for kind in pictures.RUN}
    assert found == pictures.kinds(1000, seed=5) != pictures.kinds(1000, seed=6)
    assert len(set(found[:100])) == len(pictures.RUN)


@pytest.mark.slow
def test_pictures_repeat_and_photographs_have_a_face_to_find(tmp_path: Path) -> None:
    pictures = script("scale_pictures")
    wanted = [kind for kind in pictures.RUN for _ in range(2)]
    first = list(pictures.write(tmp_path / "a", wanted, seed=1))
    again = list(pictures.write(tmp_path / "b", wanted, seed=1))
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in again]
    assert len({one.read_bytes() for one in first}) == len(wanted)
    detector, painter = Mtcnn(), pictures.Painter(seed=2)
    for kind in pictures.RUN:
        pixels = np.asarray(painter.paint(kind, 7))
        assert pixels.shape == (kind.height, kind.width, 3)
        assert kind.name == "drawn" or len(detector.detect(pixels)) == 1, kind
    faceless = next(kind for kind in pictures.OTHERS if kind.name == "faceless")
    assert not any(detector.detect(np.asarray(painter.paint(faceless, number))) for number in range(6))


def test_the_check_compares_what_was_predicted_with_what_was_measured() -> None:
    scale = script("scale")
    predicted = {"core_seconds": 100.0, "wall_seconds": 60.0, "faces": 50, "table_bytes": 1000}
    about = {"date": "2026-01-01T00:00:00+00:00", "load_average": 1.0}
    took = scale.Cost(pictures=300, workers=2, cpu=110.0, wall=57.0, faces=50, failed=0, bytes=900)
    found = scale.compared(predicted | about, took)
    assert found["error"] == {"core_seconds": 0.1, "wall_seconds": -0.05, "faces": 0.0, "table_bytes": -0.1}
    assert found["predicted_at"] < found["finished_at"]


def test_the_overhead_is_what_the_pilot_took_beyond_the_stages(model: ModuleType) -> None:
    scale, pictures = script("scale"), script("scale_pictures")
    samples = [
        sample(model, kind.megapixels, int(kind.name == "photograph")) for kind in pictures.RUN + pictures.OTHERS
    ]
    samples = [
        model.Sample(kind.name, one.megapixels, one.faces, one.decode, one.detect, one.classify)
        for kind, one in zip(pictures.RUN + pictures.OTHERS, samples, strict=True)
    ]
    share = {scale.label(kind): kind.share for kind in pictures.RUN}
    fitted = model.fit(samples)
    stages = sum(scale.mixed(fitted, samples, share).values())
    start = scale.Cost(2, 2, 3.0, 2.0, 0, 0, 0)
    whole = scale.Cost(1002, 2, 3.0 + 1000 * (stages + 1e-3), 12.0, 0, 0, 0)
    pilot = scale.Pilot(start, whole, {name: round(1002 * value) for name, value in share.items()})
    assert scale.overhead(pilot, fitted, samples) == pytest.approx(1e-3, rel=0.05)
    wanted = pictures.kinds(10_000, seed=1)
    predicted = scale.prediction(wanted, samples, fitted, pilot, workers=2)
    assert predicted["core_seconds"] == pytest.approx(3.0 + 10_000 * (stages + 1e-3), rel=0.01)
    assert predicted["wall_seconds"] == pytest.approx(2.0 + 100, rel=0.01)  # ten times the pilot's ten seconds


def test_what_cannot_be_measured_has_no_default(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    scale = script("scale")
    monkeypatch.setattr(sys, "argv", ["scale.py", "project"])
    with pytest.raises(SystemExit) as ended:
        scale.parsed()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    for flag in ("width", "faces", "core-price", "gpu-price", "gpu-tflops", "gpu-scaling", "efficiency"):
        assert f"--{flag}" in told


def test_loading_takes_the_side_above_or_scales_by_pixels() -> None:
    scale = script("scale")
    loader = {"cores": 2, "images_per_s": {"48 px": {"loader_shards": 4000.0}, "112 px": {"loader_shards": 2000.0}}}
    assert [scale.loading_rate(side, loader) for side in (40, 48, 64, 112, 224)] == [2000, 2000, 1000, 1000, 250]


def test_the_document_is_up_to_date() -> None:
    tables = script("scale_tables")
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run `python benchmarks/scale.py document`"


def test_the_document_says_when_a_block_is_gone() -> None:
    with pytest.raises(SystemExit, match="begin scale-rates"):
        script("scale_tables").filled("nothing")


def test_a_command_is_one_of_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = script("scale")
    monkeypatch.setattr(sys, "argv", ["scale.py", "check", "--pictures", "10"])
    options: argparse.Namespace = scale.parsed()
    assert options.run is scale.check and options.pictures == 10 and options.pilot == scale.PILOT
