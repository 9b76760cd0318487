"""`mien pool`: folds as one evaluation."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scores_fixtures import made_up

import tiny_model
from mien import cli
from mien.errors import DataError, UsageError
from mien.lab import datasets
from mien.lab.datasets import layouts
from mien.lab.evaluation import pooling
from mien.lab.evaluation.compare import compare
from mien.lab.evaluation.groups import by_group
from mien.lab.evaluation.leaks import leak_report
from mien.lab.evaluation.scores import Scores

pytest.importorskip("sklearn", reason="needs the extra eval")
pytest.importorskip("matplotlib", reason="needs the extra eval")


def rows_of(scores: Scores, rows: np.ndarray, **changes: Any) -> Scores:
    """Some of the rows, as the scores of a fold."""
    return Scores(
        scores.labels[rows],
        scores.probabilities[rows],
        scores.classes,
        scores.ids[rows],
        {**scores.protocol, "model_sha256": str(rows[0]), "data_fingerprint": str(rows[0]), **changes},
        votes=None if scores.votes is None else scores.votes[rows],
        clusters=None if scores.clusters is None else scores.clusters[rows],
        groups={name: values[rows] for name, values in scores.groups.items()},
    )


def folds_of(scores: Scores, folds: int = 3) -> dict[str, Scores]:
    return {
        f"part-{fold}": rows_of(
            scores, np.arange(fold - 1, len(scores.ids), folds), note=f"protocol subject, fold {fold} of {folds}"
        )
        for fold in range(1, folds + 1)
    }


def test_the_whole_is_its_parts_whatever_their_order() -> None:
    plain = made_up(60, method="mscar")
    whole = replace(plain, clusters=np.array([f"s{row // 4}" for row in range(60)]), votes=plain.probabilities)
    parts = folds_of(whole)
    found = pooling.joined(parts)
    for name in ("labels", "probabilities", "ids", "votes", "clusters"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert found.protocol["note"] == "pooled: folds 1 to 3"
    assert found.protocol["method"] == "mscar"
    assert found.protocol["model_sha256"] == ["0", "1", "2"]
    again = pooling.joined(dict(reversed(parts.items())))
    np.testing.assert_array_equal(again.ids, found.ids)
    assert again.protocol["data_fingerprint"] == found.protocol["data_fingerprint"]


def saved(parts: dict[str, Scores], where: Path) -> list[Path]:
    """Their folders."""
    for name, part in parts.items():
        (where / name).mkdir()
        part.save(where / name / "scores.npz")
    return [where / name for name in parts]


def test_groups_are_judged_over_all_parts(tmp_path: Path) -> None:
    """One attribute is known of a part only."""
    whole = replace(made_up(90), groups={"gender": np.array(["w", "m"] * 45)}, clusters=np.repeat(np.arange(30), 3))
    parts = folds_of(whole)
    parts["part-2"] = replace(parts["part-2"], groups={**parts["part-2"].groups, "age": np.full(30, "old")})
    found = pooling.pool(saved(parts, tmp_path), tmp_path / "all", page=tmp_path / "page.html")
    gender, age = found["groups"]
    assert gender == asdict(by_group(whole, whole.groups["gender"], attribute="gender", clusters=whole.clusters))
    assert [(group["value"], group["rows"]) for group in age["groups"]] == [("old", 30)] and age["unknown"] == 60
    assert "gender" in pooling.as_text(found) and "<h2>By gender</h2>" in (tmp_path / "page.html").read_text()
    again = Scores.load(tmp_path / "all/scores.npz")
    np.testing.assert_array_equal(again.groups["gender"], whole.groups["gender"])


def test_the_accuracy_of_each_part_bears_its_name() -> None:
    """As `folds/*` puts the tenth before the second."""
    parts = [{"name": name, "accuracy": value} for name, value in (("1", 0.5), ("10", 0.25), ("2", 0.75))]
    assert pooling.spread(parts).startswith("Accuracy of each part: 1 50.00, 10 25.00, 2 75.00; their mean 50.00,")


def test_a_part_is_never_overwritten(tmp_path: Path) -> None:
    folders = saved(folds_of(made_up(60)), tmp_path)
    before = (folders[0] / "scores.npz").read_bytes()
    with pytest.raises(
        UsageError, match="part-1 holds one of the folds, which would be overwritten: name another folder"
    ):
        pooling.pool(folders, tmp_path / "elsewhere/../part-1")
    assert (folders[0] / "scores.npz").read_bytes() == before


def test_two_pooled_methods_can_be_compared() -> None:
    one, two = (pooling.joined(folds_of(made_up(90, seed=seed))) for seed in (0, 1))
    assert compare({"one": one, "two": two}).rows == 90


def test_what_is_no_cross_validation_is_refused() -> None:
    parts = folds_of(made_up(60))
    with pytest.raises(DataError, match="row row00000 is in part-1 and in part-3: expected each row in one part"):
        pooling.joined({**parts, "part-3": parts["part-1"]})
    with pytest.raises(DataError, match="the parts are the folds 1 of 3, 2 of 3: expected each of 1 to 3 once"):
        pooling.joined({name: parts[name] for name in ("part-1", "part-2")})
    unlike = rows_of(parts["part-3"], np.arange(20), views="tencrop")
    with pytest.raises(DataError, match="part-3: views tencrop; part-1 has made up: pool folds of one"):
        pooling.joined({**parts, "part-3": unlike})
    unknown = rows_of(parts["part-3"], np.arange(20), note="")
    with pytest.raises(DataError, match="the folds 1 of 3, 2 of 3, none"):
        pooling.joined({**parts, "part-3": unknown})
    fewer = made_up(20, classes=("happy", "sad"))
    with pytest.raises(DataError, match="part-3: classes happy, sad; part-1 has neutral"):
        pooling.joined({**parts, "part-3": fewer})
    with pytest.raises(UsageError, match="1 evaluation: expected those of two or more folds"):
        pooling.pool([Path("one")], Path("out"))


def test_parts_that_are_no_folds_are_counted() -> None:
    whole = made_up(60)
    found = pooling.joined({"a": rows_of(whole, np.arange(20)), "b": rows_of(whole, np.arange(20, 60))})
    assert found.protocol["note"] == "pooled: 2 parts"
    assert found.clusters is None and found.votes is None


def test_a_report_of_another_kind_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["pool", "one", "two", "-o", str(tmp_path / "all"), "--report", str(tmp_path / "page.txt")])
    assert ended.value.code == 2 and "page.txt: a report is one HTML file" in capsys.readouterr().err


@pytest.mark.slow
def test_folds_of_a_dataset_are_evaluated_and_pooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, as one does after `mien train ... --fold K`."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    layouts.write("ckplus", tmp_path / "ckplus", rows=60)
    tiny_model.write(tmp_path / "tiny.onnx", tiny_model.card(("happy", "sad", "surprise", "fear", "disgust", "anger")))
    folds = []
    for fold in range(1, 11):
        folds.append(str(tmp_path / f"fold-{fold}"))
        run(
            "evaluate", str(tmp_path / "tiny.onnx"), "--data", "ckplus", "--root", str(tmp_path / "ckplus"), "--fold", str(fold),
            "--split", "test", "--label-rule", "6-class", "--allow-partial", "--accept-mismatch", "-o", folds[-1],
        )  # fmt: skip
    capsys.readouterr()
    run("pool", *folds, "-o", str(tmp_path / "all"), "--report", str(tmp_path / "pages/page.html"))
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "all/metrics.json").read_text())
    parts = [json.loads((Path(fold) / "metrics.json").read_text()) for fold in folds]
    scores = Scores.load(tmp_path / "all/scores.npz")
    assert found["n"] == sum(part["n"] for part in parts) == len(set(scores.ids))
    assert found["accuracy"] == pytest.approx(sum(part["n"] * part["accuracy"] for part in parts) / found["n"])
    assert found["protocol"]["note"] == "pooled: folds 1 to 10"
    assert found["clusters"] == "subject" and scores.clusters is not None
    each = np.array([part["accuracy"] for part in parts])
    assert f"their mean {100 * each.mean():.2f}, standard deviation {100 * each.std(ddof=1):.2f}." in printed
    assert [part["accuracy"] for part in found["parts"]] == each.tolist()
    page = (tmp_path / "pages/page.html").read_text()
    assert "<h2>Parts</h2>" in page and f"{found['n']:,} rows" in page


@pytest.mark.slow
def test_answers_in_a_table_for_each_fold_are_pooled(tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path / "ckplus", rows=60)
    folds = []
    for fold in range(1, 11):
        test = datasets.load("ckplus", tmp_path / "ckplus", split="test", fold=fold, allow_partial=True)
        with (tmp_path / f"fold-{fold}.csv").open("w", newline="") as file:
            answers = csv.writer(file)
            answers.writerow(["id", *test.classes])
            answers.writerows(
                [name, *np.eye(len(test.classes))[label]] for name, label in zip(test.ids, test.labels, strict=True)
            )
        folds.append(str(tmp_path / f"fold-{fold}"))
        run(
            "evaluate", f"{folds[-1]}.csv", "--data", "ckplus", "--root", str(tmp_path / "ckplus"), "--fold", str(fold),
            "--split", "test", "--allow-partial", "-o", folds[-1],
        )  # fmt: skip
    run("pool", *folds, "-o", str(tmp_path / "all"))
    found = json.loads((tmp_path / "all/metrics.json").read_text())
    assert found["accuracy"] == 1 and found["protocol"]["note"] == "pooled: folds 1 to 10"


def test_leaks_and_mismatches_of_the_parts_are_added_up(tmp_path: Path) -> None:
    whole = made_up(60)
    parts = folds_of(whole)
    folders = saved(parts, tmp_path)
    for folder, part in zip(folders, parts.values(), strict=True):
        known = {"checked": True, "ids": [str(part.ids[0])], "shared": {"subject": 2}}
        (folder / "metrics.json").write_text(json.dumps({"leaks": known, "mismatches": ["the pictures are grey"]}))
    found = pooling.pool(folders, tmp_path / "all", page=tmp_path / "page.html")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["metrics.json", "scores.npz"]
    assert found["mismatches"] == ["the pictures are grey"]
    assert "Accepted although the pictures are grey." in (tmp_path / "page.html").read_text()
    assert found["leaks"]["leaked"] == 3
    sentence = leak_report(whole, np.arange(60) < 3).sentence
    assert (
        found["leaks"]["sentence"] == f"{sentence} 6 of 60 rows are of subjects that also stand in the training split."
    )
    (folders[1] / "metrics.json").unlink()
    assert pooling.pool(folders, tmp_path / "all")["leaks"] == {
        "checked": False,
        "sentence": "Leaks were not looked for in 1 of 3 parts.",
    }


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    assert not ended.value.code
