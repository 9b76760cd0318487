"""`mien evaluate` on a tiny model file: intervals, leaks, the report, and the refusal of data that do not fit."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_fer

import tiny_model
from mien import cli
from mien.errors import DataError, UsageError
from mien.lab import datasets
from mien.lab.datasets import layouts
from mien.lab.evaluation import judge, leaks
from mien.lab.evaluation.intervals import intervals
from mien.lab.evaluation.scores import Scores

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

pytest.importorskip("sklearn", reason="needs the extra eval")
pytest.importorskip("matplotlib", reason="needs the extra eval")

LEAKED = 5  # rows of PublicTest that are given pixels of Training


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small FER-2013 whose first PublicTest rows are copies of the first Training rows."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    root = small_fer.write(tmp_path / "data")
    file = root / "fer2013" / "fer2013.csv"
    with file.open(newline="") as opened:
        head, *rows = csv.reader(opened)
    for row in range(LEAKED):
        rows[140 + row][1] = rows[row][1]
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([head, *rows])
    return root


@pytest.fixture
def evaluate(root: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`evaluate("--views", "flip")` -> metrics.json."""

    def run(*options: str, data: str = "fer2013", model: Path = tiny_model) -> dict[str, Any]:
        where = ["--root", str(root), "--allow-partial"] if data != "synthetic" else []
        command = ["evaluate", str(model), "--data", data, *where, "-o", str(tmp_path / "out"), *options]
        with pytest.raises(SystemExit) as ended:
            cli.main(command)
        assert not ended.value.code
        return json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))

    return run


@pytest.mark.parametrize("package", ["sklearn.metrics", "scipy.stats", "matplotlib.figure"])
def test_a_missing_package_is_named_before_the_model_runs(
    root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(judge, "evaluate", lambda *_, **__: pytest.fail("the model has run"))
    data = datasets.load("fer2013", root, split="valid", allow_partial=True)
    missing = f"{package.partition('.')[0]} is not installed"
    with pytest.raises(UsageError, match=missing):
        judge.judge(tiny_model, data, tmp_path, page=tmp_path / "page.html")


def test_a_report_of_another_kind_is_refused_before_the_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judge, "evaluate", lambda *_, **__: pytest.fail("the model has run"))
    words = ["--data", "synthetic", "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report.txt")]
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", str(tiny_model), *words])
    assert ended.value.code == 2 and "report.txt: a report is one HTML file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_views_leave_no_folder(tiny_model: Path, tmp_path: Path) -> None:
    data = datasets.load("synthetic", None, split="valid")
    with pytest.raises(UsageError, match="views 'sideways': expected one of single, flip, tencrop"):
        judge.judge(tiny_model, data, tmp_path / "out", views="sideways", accept_mismatch=True)
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_no_folder_is_refused_before_the_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judge, "evaluate", lambda *_, **__: pytest.fail("the model has run"))
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", str(tiny_model), "--data", "synthetic", "--accept-mismatch", "-o", str(file)])
    told = f"{file}: cannot be made into a folder (File exists); choose another for -o"
    assert ended.value.code == 2 and told in capsys.readouterr().err


def test_metrics_come_with_intervals_leaks_and_costs(
    evaluate: Callable[..., dict[str, Any]],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = evaluate()
    span = found["intervals"]["accuracy"]
    assert span["value"] == pytest.approx(found["accuracy"])
    assert span["low"] <= found["accuracy"] <= span["high"]
    assert span["level"] == 0.95
    assert (found["leaks"]["checked"], found["leaks"]["leaked"], found["leaks"]["rows"]) == (True, LEAKED, 42)
    assert found["leaks"]["ids"] == [f"{row:05d}" for row in range(140, 140 + LEAKED)]
    scores = Scores.load(tmp_path / "out" / "scores.npz")
    right = scores.predictions == scores.labels
    assert found["leaks"]["accuracy_without"]["value"] == pytest.approx(right[LEAKED:].mean())
    assert found["clusters"] == "none" and scores.clusters is None  # no picture stands twice in this split
    assert found["intervals"]["macro_f1"] == asdict(intervals(scores)["macro_f1"])  # as `mien compare` has it
    assert found["model"]["bytes"] == tiny_model.stat().st_size
    assert found["model"]["ms_per_face"] > 0
    printed = capsys.readouterr().out
    assert f"[{100 * span['low']:.2f}, {100 * span['high']:.2f}]" in printed
    assert f"{LEAKED} of 42 rows also stand in the training split" in printed


def test_the_training_split_itself_is_not_called_a_leak(evaluate: Callable[..., dict[str, Any]]) -> None:
    assert evaluate("--split", "train")["leaks"] == {
        "checked": False,
        "sentence": "These rows are the training split itself.",
    }


def test_rows_of_the_training_split_that_were_not_learnt_are_no_leaks(
    root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """A run with --leave-out, a holdout or another fold learnt some rows of a split that is called train, too."""
    data = datasets.load("fer2013", root, split="train", allow_partial=True)
    learnt, rest = (data.subset(np.arange(first, len(data), 2)) for first in (0, 1))
    training = judge.Training(learnt)
    found = judge.judge(tiny_model, data, tmp_path / "out", training=training)["leaks"]
    assert (found["checked"], found["rows"], tuple(found["ids"])) == (True, len(data), learnt.ids)
    assert judge.judge(tiny_model, rest, tmp_path / "out", training=training)["leaks"]["leaked"] == 0


def test_leaks_are_looked_for_in_what_was_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the training rows of the fold that is judged: a file of fold 1 has learnt rows that fold 2 tests."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "ckplus"
    layouts.write("ckplus", root, rows=40)
    options: dict[str, Any] = {"fold": 1, "allow_partial": True}
    learnt = datasets.load("ckplus", root, split="train", **options)
    known = replace(
        tiny_model.card(learnt.classes).head(), trained_on=f"ckplus train, rows, fingerprint {learnt.fingerprint}"
    )
    file = tmp_path / "fold-1.onnx"
    tiny_model.write(file, replace(tiny_model.card(learnt.classes), heads={"ferplus": known}))
    assert judge.training_rows(file, "ckplus", root, **options).data is not None
    other = judge.training_rows(file, "ckplus", root, **options | {"fold": 2})
    assert other.data is None and "the file was trained on other rows" in other.absent


def test_rows_of_people_who_were_learnt_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MSCAR's division of CK+ puts frames of one sequence on both sides; the folds by subject do not."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    layouts.write("ckplus", tmp_path / "ckplus", rows=60)
    tiny_model.write(tmp_path / "tiny.onnx", tiny_model.card(("happy", "sad", "surprise", "fear", "disgust", "anger")))
    where = ["--data", "ckplus", "--root", str(tmp_path / "ckplus"), "--label-rule", "6-class", "--allow-partial"]
    for division, shared in ((["--protocol", "mscar"], True), (["--fold", "1"], False)):
        words = [*where, *division, "--split", "test", "--accept-mismatch", "-o", str(tmp_path / "out")]
        with pytest.raises(SystemExit):
            cli.main(["evaluate", str(tmp_path / "tiny.onnx"), *words])
        found = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
        assert set(found["leaks"]["shared"]) == ({"subject", "sequence"} if shared else set())
        rows = found["leaks"]["shared"].get("sequence")
        told = f"{rows} of {found['n']} rows are of sequences that also stand in the training split."
        assert (told in capsys.readouterr().out) == shared


def test_a_run_of_another_fold_is_judged_against_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_runs = pytest.importorskip("mien.lab.training.runs")
    """And of another label rule, which leaves other rows out."""
    asked: list[Path] = []
    facts = {"data": {"name": "ckplus", "protocol": None, "fold": 1}}
    monkeypatch.setattr(torch_runs, "read", lambda folder: facts)
    monkeypatch.setattr("mien.lab.training.export.training_rows", lambda folder, root: asked.append(folder) or [1, 2])
    found = judge.training_rows(tmp_path, "ckplus", None, fold=2, protocol=None)
    assert (found.data, asked) == ([1, 2], [tmp_path])
    layouts.write("rafdb", tmp_path / "data", rows=40)
    other = judge.training_rows(tmp_path, "rafdb", tmp_path / "data", fold=None, protocol=None, allow_partial=True)
    assert other.data is not None and len(asked) == 1


def test_without_a_training_split_it_says_so(root: Path, tiny_model: Path, tmp_path: Path) -> None:
    missing = judge.training_split("rafdb", root)
    assert missing.data is None
    data = datasets.load("fer2013", root, split="valid", allow_partial=True)
    found = judge.judge(tiny_model, data, tmp_path / "out", training=missing)
    assert not found["leaks"]["checked"]
    assert "the training split cannot be loaded" in found["leaks"]["sentence"]


def test_splits_too_large_to_hash_are_left_alone_and_said_so(
    root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "HASHED_ROWS", 100)  # under the 140 rows of Training
    training = judge.training_split("fer2013", root, allow_partial=True)
    assert training == judge.Training(absent="the training split has 140 rows, over 100")
    monkeypatch.setattr(leaks, "HASHED_ROWS", 41)  # under the 42 that are judged, too
    found = judge.judge(tiny_model, datasets.load("fer2013", root, split="valid", allow_partial=True), tmp_path / "out")
    assert (found["clusters"], found["leaks"]["checked"]) == ("none", False)
    assert found["intervals"]["macro_f1"]["how"].startswith("bootstrap by class")
    assert found["intervals"]["accuracy"]["how"] == "Wilson"


@pytest.mark.slow
def test_subjects_are_drawn_together_and_groups_are_reported(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "report.html"
    found = evaluate("--report", str(page), data="synthetic")
    assert found["clusters"] == "subject"
    assert found["intervals"]["macro_f1"]["how"].startswith("bootstrap by cluster")
    assert found["intervals"]["accuracy"]["how"] == "Wilson, by cluster"
    text = page.read_text(encoding="utf-8")
    for expected in ("By pose", "gap: ", found["leaks"]["sentence"], "ms_per_face", "Confusion matrix", "drawn"):
        assert expected in text
    assert "://" not in text
    assert "By subject" not in text
    (poses,) = (table for table in found["groups"] if table["attribute"] == "pose")
    assert {group["value"] for group in poses["groups"]} == {"frontal", "left", "right"}
    assert sum(group["rows"] for group in poses["groups"]) == found["n"]
    printed = capsys.readouterr().out
    assert f"gap: {poses['gap']['best']} - {poses['gap']['worst']}" in printed and "subject  rows" not in printed


@pytest.mark.slow
def test_faces_are_shown_only_where_they_are_asked_for(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    evaluate("--report", str(page), data="synthetic")
    without = page.read_text(encoding="utf-8")
    evaluate("--report", str(page), "--faces", data="synthetic")
    shown = page.read_text(encoding="utf-8")
    for caption in ("Right answers", "surest mistakes"):
        assert caption in shown and caption not in without
    assert shown.count("<img") == without.count("<img") + 2
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "any.onnx", "--data", "synthetic", "-o", str(tmp_path / "out"), "--faces"])
    assert ended.value.code == 2 and "--report" in capsys.readouterr().err


@pytest.mark.slow
def test_data_that_do_not_fit_are_refused_before_the_work_and_can_be_accepted(
    evaluate: Callable[..., dict[str, Any]], root: Path, tmp_path: Path
) -> None:
    colour = tiny_model.write(tmp_path / "colour.onnx", tiny_model.card(colour="rgb"))
    data = datasets.load("fer2013", root, split="valid", allow_partial=True)
    with pytest.raises(DataError, match=r"reads colour, the first 16 pictures are grey.*--accept-mismatch"):
        judge.judge(colour, data, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    page = tmp_path / "report.html"
    found = evaluate("--accept-mismatch", "--report", str(page), model=colour)
    assert found["mismatches"] == ["the model reads colour, the first 16 pictures are grey"]
    assert "Accepted although the model reads colour" in page.read_text(encoding="utf-8")


def test_the_same_evaluation_gives_the_same_numbers(evaluate: Callable[..., dict[str, Any]]) -> None:
    first, second = evaluate(), evaluate()
    assert first["intervals"] == second["intervals"]
    assert first["leaks"] == second["leaks"]
