"""Every figure of the papers has an entry, and those that scores can draw are drawn."""

from pathlib import Path

import numpy as np
import pytest
from scores_fixtures import made_up
from test_reproduce import Number

from mien.errors import UsageError
from mien.lab.evaluation.paper_table import Cell, Measured
from mien.lab.evaluation.scores import SCORES
from mien.lab.paper_figures import DRAWN, NEEDS, PAPER_FIGURES, draw_figures, section
from mien.lab.reproduce import FEATURES, Job, Plan

pytest.importorskip("matplotlib", reason="needs the extra eval")
pytest.importorskip("sklearn", reason="needs the extra eval")


def store(out: Path, variant: str, dataset: str, method: str = "ad-corre") -> Path:
    folder = out / Job(method, variant, dataset, "cpu", 0).folder
    folder.mkdir(parents=True)
    made_up(60).save(folder / SCORES)
    np.savez(folder / FEATURES, features=np.random.default_rng(0).normal(size=(60, 5)))
    return folder


@pytest.mark.parametrize(
    ("method", "numbers"),
    [("lban-il", "123456"), ("wcl", "123456"), ("resface", "1234"), ("mscar", "12345678"), ("ad-corre", "1234567")],
)
def test_no_figure_is_forgotten(method: str, numbers: str) -> None:
    entries = [figure for figure in PAPER_FIGURES if figure.method == method and figure.number != "ours"]
    assert sorted({figure.number for figure in entries}) == list(numbers)
    assert {figure.kind for figure in entries} <= {*DRAWN, *NEEDS, "sweep"}


def test_figures_are_drawn_from_the_runs_that_are_there(tmp_path: Path) -> None:
    store(tmp_path, "ad-corre", "fer2013")
    drawn = draw_figures("ad-corre", tmp_path, [], Plan("cpu"), number="4")
    assert [len(entry.pictures) for entry in drawn] == [0, 0, 1]
    assert "not run: ad-corre/cpu/ad-corre--affectnet/seed0" in drawn[0].missing
    assert drawn[2].missing == ""
    assert "alt=" in section(drawn)


def test_t_sne_and_curves_say_what_they_lack(tmp_path: Path) -> None:
    store(tmp_path, "ce", "affectnet")
    (entry,) = draw_figures("ad-corre", tmp_path, [], Plan("cpu"), number="5")
    assert len(entry.pictures) == 1
    assert entry.missing == "not run: ad-corre/cpu/ad-corre--affectnet/seed0"
    (tmp_path / "ad-corre/cpu/ce--affectnet/seed0" / FEATURES).unlink()
    (entry,) = draw_figures("ad-corre", tmp_path, [], Plan("cpu"), number="5")
    assert "no ad-corre/cpu/ce--affectnet/seed0/features.npz: delete scores.npz" in entry.missing
    folder = store(tmp_path, "mscar", "ferplus", "mscar")
    (entry,) = draw_figures("mscar", tmp_path, [], Plan("cpu"), number="6")
    assert "no metrics.csv" in entry.missing
    (folder / "metrics.csv").write_text("epoch,train_loss\n0,2\n1,1\n", encoding="utf-8")
    (entry,) = draw_figures("mscar", tmp_path, [], Plan("cpu"), number="6")
    assert (len(entry.pictures), entry.missing) == (1, "")


def test_the_lambda_curve_shows_printed_beside_measured(tmp_path: Path) -> None:
    rows = {"lambda 0.5": 63.36, "lambda 0.01": 49.33}
    numbers = [
        Number("Fig. 6", row, "AffectNet-7", value, "%", "affectnet", "accuracy", "ad-corre")
        for row, value in rows.items()
    ]
    bare = [Cell(number) for number in numbers]
    measured = [Cell(numbers[0], Measured((50.0,), 50.0, 48.0, 52.0, "", (), "", None), "measured"), bare[1]]
    without, with_ours = (
        draw_figures("ad-corre", tmp_path, cells, Plan("cpu"), number="6")[0].pictures[0].data.decode()
        for cells in (bare, measured)
    )
    assert "measured here" not in without
    assert "measured here" in with_ours
    assert without.index(">0.01<") < without.index(">0.5<")
    other = Number("Fig. 6", "lambda 0.5, by eq. 12", "AffectNet-7", 63.36, "%", "affectnet", "accuracy", "ad-corre")
    both = [*measured, Cell(other, Measured((51.0,), 51.0, 48.0, 52.0, "", (), "", None), "measured")]
    drawn = draw_figures("ad-corre", tmp_path, both, Plan("cpu"), number="6")[0].pictures[0].data.decode()
    assert "measured here, by eq. 12" in drawn and ">12<" not in drawn and drawn.count(">0.5<") == 1
    (entry,) = draw_figures("ad-corre", tmp_path, [], Plan("cpu"), number="6")
    assert "no printed numbers of Fig. 6" in entry.missing


def test_an_unknown_figure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are 1, 2, 3, 4, 5, 6, 7"):
        draw_figures("ad-corre", tmp_path, [], Plan("cpu"), number="12")


def test_runs_that_figures_show_are_runs_that_tables_need() -> None:
    pytest.importorskip("torch", reason="the methods need the extra lab")
    from mien.lab import methods
    from mien.lab.reproduce import jobs

    for name in methods.NAMES:
        method = methods.load(name)
        known = {job.folder for job in jobs(method, Plan("cpu", 1))}
        for figure in PAPER_FIGURES:
            if figure.method == name and figure.kind in DRAWN:
                for variant in figure.variants:
                    job = Job(name, variant, figure.dataset, "cpu", 0, figure.fold, figure.condition)
                    assert job.folder in known, (figure, job.folder)
