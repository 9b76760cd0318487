"""`mien evaluate ANSWERS.csv`: another tool's answers, judged as a model's are."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien import cli
from mien.errors import DataError
from mien.expressions import BASIC
from mien.lab import datasets
from mien.lab.datasets import FaceDataset
from mien.lab.evaluation import answers, judge
from mien.lab.evaluation.compare_files import load
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.scores import Scores

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

pytest.importorskip("sklearn", reason="needs the extra eval")


@pytest.fixture
def data() -> FaceDataset:
    return datasets.load("synthetic", None, split="test")


def told(data: FaceDataset, *, seed: int = 0) -> list[list[object]]:
    """Head and rows, in another order than the data's, of a tool that likes the right class."""
    generator = np.random.default_rng(seed)
    rows: list[list[object]] = []
    for row in generator.permutation(len(data)):
        weights = generator.random(len(data.classes))
        weights[data.labels[row]] += 0.5
        rows.append([data.ids[row], *(weights / weights.sum())])
    return [["ID", *("Angry" if name == "anger" else f"p_{name}" for name in data.classes)], *rows]


def written(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_answers_are_matched_to_their_rows_and_classes(data: FaceDataset, tmp_path: Path) -> None:
    rows = told(data)
    scores = answers.read(written(tmp_path / "tool.csv", rows), data)
    by_id = {str(row[0]): row[1:] for row in rows[1:]}
    assert scores.ids.tolist() == list(data.ids) and scores.labels.tolist() == list(data.labels)
    assert scores.probabilities == pytest.approx(np.array([by_id[name] for name in data.ids], np.float32), abs=1e-6)


def test_answers_are_judged_and_compared_from_the_command_line(
    data: FaceDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("a", "b")):
        table = written(tmp_path / f"{name}.csv", told(data, seed=seed))
        page = ["--report", str(tmp_path / "page.html"), "--faces"]
        with pytest.raises(SystemExit) as ended:
            cli.main(
                ["evaluate", str(table), "--data", "synthetic", "--split", "test", "-o", str(tmp_path / name), *page]
            )
        assert not ended.value.code
    printed = capsys.readouterr().out
    assert "selected by: not known: answers in a table" in printed and "ms a face" not in printed
    found = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert found["accuracy"] == summary(answers.read(tmp_path / "a.csv", data))["accuracy"] and found["model"] == {}
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert not ended.value.code and "b - a" in capsys.readouterr().out
    assert set(load([tmp_path / "a", tmp_path / "b"])[0]) == {"a", "b"}


def test_answers_to_other_rows_are_left_out_and_told(data: FaceDataset, tmp_path: Path) -> None:
    rows = told(data)
    alone = answers.read(written(tmp_path / "tool.csv", rows), data)
    more = answers.read(written(tmp_path / "more.csv", [*rows, ["of another split", *rows[1][1:]]]), data)
    assert (more.probabilities == alone.probabilities).all()
    assert alone.protocol["note"] == data.note and more.protocol["note"].endswith("1 answers to other rows")


def test_an_answer_of_a_class_that_the_data_lack_is_told(data: FaceDataset, tmp_path: Path) -> None:
    seven = replace(data.subset(np.flatnonzero(data.labels < len(BASIC))), classes=BASIC, votes=None)
    head, *rows = told(seven)
    sure = [[*row, 0.0] for row in rows]
    sure[0][1:] = [0.0] * len(BASIC) + [1.0]
    found = judge.judge(written(tmp_path / "tool.csv", [[*head, "contempt"], *sure]), seven, tmp_path / "out")
    said = "1 answers are of classes that the data lack only, and count as neutral"
    assert found["protocol"]["note"] == f"{data.note}; {said}"
    assert f"\nnote: {data.note}; {said}\n" in judge.printed(found)
    scores = Scores.load(tmp_path / "out/scores.npz")
    row = scores.ids.tolist().index(sure[0][0])
    assert scores.probabilities[row] == pytest.approx(1 / len(BASIC))
    assert scores.classes[scores.predictions[row]] == "neutral"


@pytest.mark.parametrize(("foreign", "said"), [(0, []), (1, ["1 answers to other rows"])])
def test_an_answer_to_a_row_that_stands_twice_is_one_answer(
    data: FaceDataset, tmp_path: Path, foreign: int, said: list[str]
) -> None:
    rows = told(data)
    twice = data.subset(np.array([0, *range(len(data))]))
    others = [["of another split", *rows[1][1:]]] * foreign
    scores = answers.read(written(tmp_path / "tool.csv", [*rows, *others]), twice)
    assert scores.protocol["note"] == "; ".join([*([data.note] if data.note else []), *said])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.pop(), r"1 of \d+ rows of synthetic test have no answer, first "),
        (lambda rows: rows.append(rows[3]), "stands there twice"),
        (lambda rows: rows[0].__setitem__(0, "picture"), "expected one called id"),
        (lambda rows: rows[0].__setitem__(1, "bored"), "unknown expression 'bored'"),
        (lambda rows: rows[0].__setitem__(1, "p_happy"), "each once"),
        (lambda rows: rows[2].__setitem__(1, "high"), r"line 3: .*high.*: expected ID, p_neutral"),
        (lambda rows: rows[2].__setitem__(1, -2.5), "is -2.5, expected 0 or more: are these logits"),
        (lambda rows: rows[2].__setitem__(1, 90.0), "sum to 90"),
        (lambda rows: rows.clear(), "expected one called id"),
    ],
)
def test_what_is_amiss_is_named(data: FaceDataset, tmp_path: Path, change, said: str) -> None:
    rows = told(data)
    change(rows)
    with pytest.raises(DataError, match=said) as raised:
        answers.read(written(tmp_path / "tool.csv", rows), data)
    assert str(tmp_path / "tool.csv") in str(raised.value)


def test_views_and_heads_are_of_a_model(data: FaceDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = written(tmp_path / "tool.csv", told(data))
    for option in (("--views", "flip"), ("--head", "ferplus"), ("--average", "logits"), ("--accept-mismatch",)):
        with pytest.raises(SystemExit) as ended:
            cli.main(["evaluate", str(table), "--data", "synthetic", "-o", str(tmp_path / "out"), *option])
        assert ended.value.code == 2 and "no views, heads or input to choose" in capsys.readouterr().err
