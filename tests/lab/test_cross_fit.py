"""Out-of-fold answers: who answers which row, that they teach and tell doubtful labels, and what is refused."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_fer
import torch

from mien import cli
from mien.card import InputSpec
from mien.classifier import bundled_model
from mien.errors import DataError, UsageError
from mien.expressions import BASIC, EXPRESSIONS
from mien.lab import datasets, ranks
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.datasets import FaceDataset
from mien.lab.training import runs
from mien.lab.training.cross_fit import believed, cross_fit, summary, write_table
from mien.lab.training.cross_fitted import CrossFitted
from mien.lab.training.export import TrainedRun
from mien.lab.training.parts import Part
from mien.lab.training.recipes import Choice
from mien.lab.training.soup import average
from mien.lab.training.teacher import RowAnswers, Several, load_teacher, load_teachers
from mien.lab.training.trainer import Source, _left_out, train

pytestmark = pytest.mark.slow  # tiny trainings

TINY = ("network.widths=(4,8,8,8)", "epochs=4", "batch=16", "sizes=()", "lr=0.05")


def trained(root: Path, folder: Path, part: Part | None, *settings: str, data: str = "ferplus", seed: int = 0) -> Path:
    source = Source(data, root, allow_partial=True, leave_out=part)
    choice = Choice("mien-small", settings=(*TINY, *settings))
    return train(choice, source, folder, seed=seed, threads=1, say=lambda line: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small FER-2013 with votes, and a run for each third."""
    place = tmp_path_factory.mktemp("cross")
    root = small_fer.write(place / "data")
    folders = {str(n): trained(root, place / str(n), Part(n, 3), seed=n) for n in (1, 2, 3)}
    return {"root": root, **folders}


def fer_plus(root: Path) -> FaceDataset:
    return datasets.load("ferplus", root, split="train", label_rule="joint", allow_partial=True)


def folders(world: dict[str, Path], numbers: str = "123") -> list[Path]:
    return [world[number] for number in numbers]


def test_every_row_is_answered_by_the_run_that_left_it_out(world: dict[str, Path]) -> None:
    found, data = cross_fit(folders(world, "312"), world["root"])
    assert found.ids == data.ids and len(data) == 140
    assert found.classes == {"ferplus": EXPRESSIONS, "fer2013": BASIC} and found.default_head == "ferplus"
    for number in (1, 2, 3):
        run = TrainedRun(world[str(number)])
        rows = Part(number, 3).rows(data)
        assert found.facts["runs"][f"{number}/3"] == run.sha256
        pictures = run.card.input.prepare([data.read(int(row)) for row in rows])
        mirrored = np.ascontiguousarray(pictures[..., ::-1])
        for head, answers in found.probabilities.items():
            expected = (run.run(pictures).probabilities[head] + run.run(mirrored).probabilities[head]) / 2
            assert np.allclose(answers[rows], expected, atol=1e-6)


def test_what_went_before_a_start_counts_too(world: dict[str, Path], tmp_path: Path) -> None:
    """A start that left the part out is no start for it where its own start or teacher had learnt it, or other rows were dealt."""
    facts = runs.read(world["1"])
    own = {name: facts["data"][name] for name in ("left_out", "fingerprint")}
    assert _left_out(world["1"] / "best.ckpt") == own
    learnt = {"file": "best.ckpt", "sha256": "0"}
    for origin, clean in (
        ({"pretrained": learnt}, False),
        ({"teacher": learnt}, False),
        ({"teacher": {"file": "a.npz", "sha256": "0"}}, False),
        ({"teacher": [learnt | own, learnt]}, False),
        ({"teacher": [learnt | own, learnt | own]}, True),
        ({"pretrained": {"file": "a.pth", "sha256": "0"}}, True),
        ({"pretrained": learnt | own}, True),
        ({"pretrained": learnt | own | {"fingerprint": "of other rows"}}, False),
    ):
        start = tmp_path / "start"
        shutil.copytree(world["1"], start, dirs_exist_ok=True)
        runs.write(start, {**facts, **origin})
        assert bool(_left_out(start / "best.ckpt")) == clean
        try:
            cross_fit([start, *folders(world, "23")], world["root"])
        except UsageError as error:
            assert not clean and "may have learnt from part 1/3" in str(error)
        else:
            assert clean
    kept = {name: value for name, value in facts.items() if name not in ("pretrained", "teacher")}
    runs.write(start, {**kept, "averaged": []})
    assert _left_out(start / "best.ckpt") == {}  # a mean of runs does not say


def test_a_file_comes_back_as_it_was(world: dict[str, Path], tmp_path: Path) -> None:
    found, _ = cross_fit(folders(world), world["root"])
    path = tmp_path / "new" / "answers.npz"
    found.save(path)
    back = CrossFitted.load(path)
    assert (back.ids, back.classes, back.default_head) == (found.ids, found.classes, found.default_head)
    assert json.loads(json.dumps(dict(found.facts))) == dict(back.facts)
    for head, answers in found.probabilities.items():
        assert np.array_equal(back.probabilities[head], answers)
    assert [file.name for file in path.parent.iterdir()] == ["answers.npz"]
    whole = path.read_bytes()
    for name, held in {"cut": whole[:-300], "empty": b"", "text": b"hello"}.items():
        damaged = tmp_path / f"{name}.npz"
        damaged.write_bytes(held)
        with pytest.raises(DataError, match=rf"{damaged}: not answers about left-out rows .*mien cross-fit"):
            CrossFitted.load(damaged)
    np.savez(
        tmp_path / "other.npz",
        ids=np.arange(3),
        card=np.array(json.dumps({"default_head": "a", "classes": {}, "facts": {}})),
    )
    with pytest.raises(DataError, match="its arrays are not those that it names"):
        CrossFitted.load(tmp_path / "other.npz")


def test_answers_follow_the_rows_of_the_student(world: dict[str, Path], tmp_path: Path) -> None:
    """A student of fewer rows, in another order, is told each row's own answer."""
    found, data = cross_fit(folders(world), world["root"])
    found.save(tmp_path / "answers.npz")
    spec = runs.spec_of(runs.load_network(world["1"])[2])
    chosen = np.array([99, 3, 50, 0])
    teacher = load_teacher(tmp_path / "answers.npz", data=data.subset(chosen), spec=spec)
    assert isinstance(teacher, RowAnswers)
    told = teacher(Batch(torch.zeros(2, 1, 48, 48), torch.zeros(2, dtype=torch.int64), None, torch.tensor([3, 1])))
    assert told.heads is not None
    for head, logits in (("ferplus", told.logits), ("fer2013", told.heads["fer2013"])):
        assert np.allclose(logits.softmax(dim=1).numpy(), found.probabilities[head][[0, 3]], atol=1e-6)
    fewer = CrossFitted(
        found.ids[:-2], {h: p[:-2] for h, p in found.probabilities.items()}, found.classes, "ferplus", {}
    )
    fewer.save(tmp_path / "fewer.npz")
    with pytest.raises(UsageError, match=r"no answer for 2 of the 140 training rows, first '00138'"):
        load_teacher(tmp_path / "fewer.npz", data=data, spec=spec)


def test_the_commands_teach_by_out_of_fold_answers(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, table, root = tmp_path / "answers.npz", tmp_path / "rows.csv", str(world["root"])

    def ran(arguments: Sequence[str]) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out + told.err

    status, told = ran(
        ["cross-fit", *map(str, folders(world)), "--root", root, "-o", str(answers), "--table", str(table)]
    )
    assert status == 0, told
    assert told.startswith(f"{answers}: 140 rows; fer2013: the label is the first answer for ")
    settings = [word for setting in (*TINY, "loss.teacher_weight=0.5") for word in ("--set", setting)]
    student = [
        "train", "mien-small", "--data", "ferplus", "--root", root, "--allow-partial", "--threads", "1", *settings,
        "--teacher", str(answers), "-o", str(tmp_path / "student"),
    ]  # fmt: skip
    assert ran(student)[0] == 0
    assert runs.read(tmp_path / "student")["teacher"]["file"] == "answers.npz"
    columns = (tmp_path / "student" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "train_teacher" in columns
    status, told = ran([*student[:-1], str(tmp_path / "x"), "--set", "loss.teacher_flip=True"])
    assert status == 2 and "are the mean over both views as they are; leave it out" in " ".join(told.split())
    status, told = ran(["cross-fit", str(world["1"]), "--root", root, "-o", str(tmp_path / "answers.txt")])
    assert status == 2 and "expected a file name that ends in .npz" in told
    status, told = ran([*student[:-4], "-o", str(tmp_path / "x"), "--teacher", str(tmp_path / "none.npz")])
    assert status == 2 and "no such file; pass a run folder, an .onnx file of mien, or the .npz" in " ".join(
        told.split()
    )


def test_out_of_fold_teachers_answer_only_about_what_they_left_out(world: dict[str, Path]) -> None:
    data = fer_plus(world["root"])
    spec = InputSpec(48, 48, "grey", (0.5,), (0.25,))
    paths = folders(world, "231")
    teacher = load_teachers(paths, data=data, spec=spec, out_of_fold=True)
    assert teacher is not None
    rows = np.random.default_rng(0).permutation(len(data))[:40]
    pictures = torch.rand(40, 1, 48, 48)
    told = teacher(Batch(pictures, torch.zeros(40, dtype=torch.int64), None, torch.from_numpy(rows)))
    assert told.heads is not None
    seen = 0
    for path in paths:
        own = load_teacher(path, data=data, spec=spec)
        mine = np.isin(rows, Part.parse(runs.read(path)["data"]["left_out"]).rows(data))
        expected = own.about(pictures[mine])
        assert torch.allclose(told.logits[mine], expected.logits, atol=1e-5)
        assert torch.allclose(told.heads["fer2013"][mine], expected.heads["fer2013"], atol=1e-5)
        seen += int(mine.sum())
    assert seen == 40


def test_of_several_that_left_a_row_out_each_answers_in_turn() -> None:
    asked: list[tuple[int, list[int]]] = []

    class Asked(torch.nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, batch: Batch) -> NetworkOutput:
            asked.append((self.number, batch.ids.tolist()))
            told = torch.full((len(batch.ids), 2), float(self.number))
            return NetworkOutput(told, told)

    may = np.array([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 1]], bool)
    several = Several([Asked(number) for number in range(4)], may)
    ids = torch.tensor([0, 0, 1, 2, 2, 3, 3, 1, 0])
    told = several(Batch(torch.zeros(9, 1, 1, 1), ids, None, ids)).logits[:, 0]
    assert told.tolist() == [0, 2, 1, 2, 1, 2, 0, 1, 0]  # place modulo how many may
    assert asked == [(0, [0, 3, 0]), (1, [1, 2, 1]), (2, [0, 2, 3])]


def test_several_processes_count_their_pictures_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which teacher a picture meets is what one process would choose."""

    class Number(torch.nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, batch: Batch) -> NetworkOutput:
            told = torch.full((len(batch.ids), 2), float(self.number))
            return NetworkOutput(told, told)

    def turns(rows: slice) -> list[float]:
        ids = torch.arange(8)[rows]
        return (
            Several([Number(n) for n in range(3)])(Batch(torch.zeros(len(ids), 1, 1, 1), ids, None, ids))
            .logits[:, 0]
            .tolist()
        )

    whole = turns(slice(8))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "own", lambda rank=rank: rank)
        parts += turns(slice(4 * rank, 4 * rank + 4))
    assert parts == whole


def test_a_student_is_taught_out_of_fold(world: dict[str, Path], tmp_path: Path) -> None:
    """From the command on; resumed with the same question only."""
    words = [
        "train",
        "mien-small",
        "--data",
        "ferplus",
        "--root",
        str(world["root"]),
        "--allow-partial",
        "--threads",
        "1",
    ]
    for setting in (*TINY, "epochs=1", "loss.teacher_weight=0.5", "loss.teacher_flip=True"):
        words += ["--set", setting]
    teachers = [word for path in folders(world) for word in ("--teacher", str(path))]
    command = [*words, *teachers, "-o", str(tmp_path / "student")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--out-of-fold"])
    assert not ended.value.code
    facts = runs.read(tmp_path / "student")
    assert [of["asked"] for of in facts["teacher"]] == ["out of fold"] * 3
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--resume"])
    assert ended.value.code == 2


def test_out_of_fold_teachers_know_nothing_of_the_tenth_that_chooses(world: dict[str, Path], tmp_path: Path) -> None:
    def held_out(folder: str, part: Part | None, **options: Any) -> Path:
        source = Source("ferplus", world["root"], allow_partial=True, leave_out=part, select_on="holdout")
        choice = Choice("mien-small", settings=(*TINY, "epochs=1", *(["loss.teacher_weight=0.5"] if options else [])))
        return train(choice, source, tmp_path / folder, threads=1, say=lambda line: None, **options)

    halves = [held_out(f"without-{n}", Part(n, 2)) for n in (1, 2)]
    flattered = [note for note in runs.read(held_out("plain", None, teacher=halves))["notes"] if "flatters" in note]
    assert [note.partition(" ")[0] for note in flattered] == [f"without-{n}/best.ckpt" for n in (1, 2)]
    told = runs.read(held_out("out-of-fold", None, teacher=halves, out_of_fold=True))["notes"]
    assert not [note for note in told if "flatters" in note]


def test_teachers_that_cannot_answer_out_of_fold_are_named(world: dict[str, Path], tmp_path: Path) -> None:
    data = fer_plus(world["root"])
    spec = InputSpec(48, 48, "grey", (0.5,), (0.25,))

    def refused(paths: Sequence[Path], told: str, rows: FaceDataset = data) -> None:
        with pytest.raises(UsageError, match=told):
            load_teachers(paths, data=rows, spec=spec, out_of_fold=True)

    refused([], "pass --teacher RUN for each run")
    refused(folders(world, "13"), r"47 of the 140 training rows were learnt by every teacher, first '\d+'")
    whole = trained(world["root"], tmp_path / "whole", None, "epochs=1")
    refused([*folders(world), whole], f"teacher {whole} is no run that left a part out")
    refused([bundled_model()], "is no run that left a part out")
    refused([tmp_path / "answers.npz"], "such answers are out of fold as they are; leave --out-of-fold out")
    fewer = data.subset(Part(1, 3).rows(data))
    refused(folders(world), "learnt other rows than these without part 1/3", fewer)
    source = Source("ferplus", world["root"], allow_partial=True, leave_out=Part(1, 3))
    second = tmp_path / "second"
    choice = Choice("mien-small", settings=(*TINY, "epochs=1"))
    train(choice, source, second, threads=1, pretrained=whole / "best.ckpt", say=lambda line: None)
    refused([second], f"teacher {second}: its --pretrained, best.ckpt, may have learnt part 1/3")
    mean = average([second, second], tmp_path / "mean")
    refused([mean], f"teacher {mean}: its runs, of which it is the mean, may have learnt part 1/3")
    with pytest.raises(UsageError, match=f"{mean}: its runs, of which it is the mean, may have learnt from part 1/3"):
        cross_fit([mean, world["2"], world["3"]], world["root"])


def test_the_table_begins_with_the_label_that_is_least_believed(world: dict[str, Path], tmp_path: Path) -> None:
    found, data = cross_fit(folders(world), world["root"])
    write_table(found, data, tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted(row["id"] for row in rows) == sorted(data.ids)
    believed_in = [float(row["label_probability"]) for row in rows]
    assert believed_in == sorted(believed_in)
    for row in rows[:5] + rows[-5:]:
        place = data.ids.index(row["id"])
        answers = found.probabilities["fer2013"][place]
        assert row["label"] == data.classes[data.labels[place]]
        assert float(row["label_probability"]) == pytest.approx(answers[BASIC.index(row["label"])], abs=1e-4)
        assert row["answer"] == BASIC[int(answers.argmax())]
        assert float(row["answer_probability"]) == pytest.approx(answers.max(), abs=1e-4)
    head, confidence = believed(found, data)
    assert head == "fer2013"
    right = 100 * np.mean([row["label"] == row["answer"] for row in rows])
    assert f"first answer for {right:.1f} %" in summary(found, data)
    assert f"for {100 * (confidence < 0.05).mean():.1f} %" in summary(found, data)


def test_runs_that_do_not_share_out_the_rows_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    root = world["root"]
    with pytest.raises(UsageError, match=r"the runs left out 1/3, 3/3; expected one run for each of 1/3, 2/3, 3/3"):
        cross_fit(folders(world, "13"), root)
    with pytest.raises(UsageError, match=r"the runs left out 1/3, 2/3, 2/3; expected"):
        cross_fit(folders(world, "122"), root)
    half = trained(root, tmp_path / "half", Part(2, 2), "epochs=1")
    with pytest.raises(UsageError, match=r"the runs left out 1/3, 2/2, 3/3; expected"):
        cross_fit([world["1"], half, world["3"]], root)
    all_rows = trained(root, tmp_path / "all", None, "epochs=1")
    with pytest.raises(UsageError, match=r"trained on all rows.*--leave-out K/N"):
        cross_fit([all_rows], root)
    for name, start in (("pretrained", all_rows), ("pretrained", world["2"]), ("teacher", world["2"])):
        place = tmp_path / f"{name}-{start.name}"
        source = Source("ferplus", root, allow_partial=True, leave_out=Part(1, 3))
        origin = start / "best.ckpt" if name == "pretrained" else start
        settings = (*TINY, "epochs=1", *(["loss.teacher_weight=0.5"] if name == "teacher" else []))
        train(
            Choice("mien-small", settings=settings), source, place, threads=1, say=lambda line: None, **{name: origin}
        )
        with pytest.raises(UsageError, match=rf"{place}: its --{name}, best.ckpt, may have learnt from part 1/3"):
            cross_fit([place, world["2"], world["3"]], root)
    second = tmp_path / "second"
    source = Source("ferplus", root, allow_partial=True, leave_out=Part(1, 3))
    choice = Choice("mien-small", settings=(*TINY, "epochs=1"))
    train(choice, source, second, threads=1, pretrained=world["1"] / "best.ckpt", say=lambda line: None)
    assert cross_fit([second, world["2"], world["3"]], root)[0].facts["pretrained"][0]["left_out"] == "1/3"
    other = tmp_path / "other"
    shutil.copytree(world["2"], other)
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**facts, "selection_rule": "another"}))
    with pytest.raises(UsageError, match=f"{other}: it was trained on other data, labels or selection"):
        cross_fit([world["1"], other, world["3"]], root)
    elsewhere = small_fer.write(tmp_path / "elsewhere", seed=1)
    with pytest.raises(DataError, match="pass the root that it was trained on"):
        cross_fit(folders(world), elsewhere)
