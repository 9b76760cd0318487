"""What a run starts from and learns from: teachers, checkpoints, another network, another loss, a batch of one."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_fer
import torch
from torch import Tensor, nn

from mien import cli
from mien.classifier import Classifier, bundled_model
from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.evaluation.judge import judge
from mien.lab.networks.norm import SingleValueBatchWarning
from mien.lab.training import runs
from mien.lab.training.recipes import Choice, resolve
from mien.lab.training.teacher import Several, Teacher, load_teacher
from mien.lab.training.trainer import Source, train

pytestmark = pytest.mark.slow  # tiny trainings

TINY = ("network.width=0.05", "epochs=1", "batch=32")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small FER-2013, and a trained teacher of it."""
    place = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(place / "cache"))
        root = small_fer.write(place / "data")
        teacher = place / "teacher"
        train(Choice("ldg", "cpu", settings=TINY), source(root), teacher, threads=1, say=lambda line: None)
    return {"root": root, "teacher": teacher, "cache": place / "cache"}


@pytest.fixture(autouse=True)
def cache(world: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(world["cache"]))


def source(root: Path) -> Source:
    return Source("fer2013", root, allow_partial=True)


def command(root: Path, out: Path, method: str, *options: str, data: str = "fer2013") -> list[str]:
    where = [
        "--data",
        data,
        "--root",
        str(root),
        "--allow-partial",
        "--preset",
        "cpu",
        "--threads",
        "1",
        "-o",
        str(out),
    ]
    return ["train", method, *where, *(word for setting in TINY[1:] for word in ("--set", setting)), *options]


def ran(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def metrics(run: Path) -> dict[str, str]:
    head, *rows = (run / "metrics.csv").read_text().splitlines()
    return dict(zip(head.split(","), rows[-1].split(","), strict=True))


def test_the_generator_teaches_its_student(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "student"
    width = ("--set", TINY[0])
    status, _, told = ran(capsys, command(world["root"], run, "resface", "--teacher", str(world["teacher"]), *width))
    assert status == 0, told
    facts = runs.read(run)
    assert facts["teacher"]["file"] == "best.ckpt" and len(facts["teacher"]["sha256"]) == 64
    assert 0 < float(metrics(run)["train_label_distribution"]) < 1  # ln 7 / 7 for uniform answers to uniform targets


def test_a_student_without_a_teacher_or_votes_is_told_what_to_pass(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, told = ran(capsys, command(world["root"], tmp_path / "a", "resface"))
    assert status == 2 and "--teacher PATH" in told
    status, _, told = ran(capsys, command(world["root"], tmp_path / "b", "resface", "--set", "loss.source=votes"))
    assert status == 2 and "--data ferplus" in told
    status, _, told = ran(capsys, command(world["root"], tmp_path / "c", "resface", "--teacher", str(tmp_path / "no")))
    assert status == 2 and "no such file" in told
    assert not any((tmp_path / name).exists() for name in "abc")


def test_a_teacher_of_other_classes_order_or_colour_is_refused_by_name(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = str(world["teacher"])
    status, _, told = ran(
        capsys, command(world["root"], tmp_path / "a", "resface", "--teacher", teacher, data="ferplus")
    )
    assert status == 2
    assert (
        f"teacher {teacher}: it answers neutral, happy, sad, surprise, fear, disgust, anger; the student learns" in told
    )
    assert "contempt; train a teacher on the same dataset" in told
    assert not (tmp_path / "a").exists()
    spec = runs.spec_of(runs.load_network(world["teacher"])[2])
    rows = source(world["root"]).load("train")
    with pytest.raises(UsageError, match=r"it answers neutral, happy.*; the student learns anger, disgust"):
        load_teacher(world["teacher"], data=replace(rows, classes=rows.classes[::-1]), spec=spec)
    colour = runs.spec_of(runs.load_network(world["teacher"])[2])
    colour = type(colour)(64, 64, "rgb", colour.mean * 3, colour.std * 3)
    with pytest.raises(UsageError, match="it sees grey pictures, the student rgb"):
        load_teacher(world["teacher"], data=rows, spec=colour)


def test_a_teacher_sees_the_students_pictures_in_its_own_form(world: dict[str, Path]) -> None:
    """The student's normalisation is undone, the size changed, the teacher's own applied; nothing in it learns."""
    network, _, recipe, _ = runs.load_network(world["teacher"])
    own = runs.spec_of(recipe)
    student = type(own)(own.height, own.width, "grey", (0.1,), (0.7,))
    teacher = load_teacher(world["teacher"], data=source(world["root"]).load("train"), spec=student)
    pictures = torch.rand(3, 1, own.height, own.width, generator=torch.Generator().manual_seed(0))
    expected = network((pictures - own.mean[0]) / own.std[0]).logits
    assert isinstance(teacher, Teacher)
    found = teacher.about((pictures - 0.1) / 0.7).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher.about((torch.rand(2, 1, 40, 40) - 0.1) / 0.7).logits.shape == (2, 7)


def test_the_bundled_file_teaches_on_the_students_pictures(world: dict[str, Path], tmp_path: Path) -> None:
    """Its answers are the file's own for the same pixels; a rounding may cross a step of int8."""
    classifier = Classifier()
    spec = classifier.card.input
    rows = Source("ferplus", world["root"], allow_partial=True).load("train")
    teacher = load_teacher(bundled_model(), data=rows, spec=replace(spec, mean=(0.1,), std=(0.7,)))
    pictures = torch.rand(3, 1, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    assert isinstance(teacher, Teacher)
    told = teacher.about((pictures - 0.1) / 0.7)
    expected = classifier.run(spec.normalise(pictures.numpy())).probabilities
    assert torch.allclose(told.logits.softmax(dim=1), torch.from_numpy(expected["ferplus"]), atol=0.01)
    assert torch.allclose(told.heads["fer2013"].softmax(dim=1), torch.from_numpy(expected["fer2013"]), atol=0.01)
    with pytest.raises(UsageError, match="the student learns anger"):
        load_teacher(bundled_model(), data=replace(rows, classes=("anger",)), spec=spec)

    settings = ("network.widths=(4,4,4,8)", "epochs=1", "batch=32", "sizes=()", "loss.teacher_weight=0.5")
    run = train(
        Choice("mien-small", "cpu", settings=settings), Source("ferplus", world["root"], allow_partial=True),
        tmp_path / "run", teacher=bundled_model(), threads=1, say=lambda line: None,
    )  # fmt: skip
    assert runs.read(run)["teacher"] == {"file": bundled_model().name, "sha256": classifier.sha256}
    assert 0 < float(metrics(run)["train_teacher"]) < 3  # 0.5 (ln 8 + ln 7) = 2.0 for uniform answers of the student


class Telling(nn.Module):
    """Answers its number and the row's id in both heads (and its own), and keeps the pictures that it was shown."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.shown: list[Tensor] = []

    def forward(self, batch: Batch) -> NetworkOutput:
        self.shown.append(batch.images)
        told = torch.stack([torch.full((len(batch.ids),), self.number), batch.ids, batch.images[:, 0, 0, 0]], dim=1)
        own = {f"own {self.number}": told.double(), "fer2013": -told.to(torch.bfloat16)}
        return NetworkOutput(told.double(), torch.zeros(len(told), self.number + 1), heads=own)


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_several_teachers_answer_in_turn(rows: int) -> None:
    teachers = [Telling(number) for number in range(3)]
    several = Several(teachers)
    ids = torch.arange(10, 10 + rows)
    batch = Batch(torch.arange(float(rows)).view(-1, 1, 1, 1), torch.zeros(rows, dtype=torch.int64), None, ids)
    told = several(batch)
    expected = torch.tensor([[row % 3, 10 + row, row] for row in range(rows)], dtype=torch.float32)
    assert told.logits.dtype == torch.float32 and torch.equal(told.logits, expected)
    assert told.heads is not None and torch.equal(told.heads["fer2013"], -expected)
    assert list(told.heads) == (["fer2013", "own 0"] if rows == 1 else ["fer2013"])
    again = several(replace(batch, ids=ids + 5))  # as for a mixed batch's second labels
    assert torch.equal(again.logits[:, 1], expected[:, 1] + 5)
    for teacher in teachers[:rows]:
        assert teacher.shown[0] is teacher.shown[1]  # so that a network need not compute again


def test_one_teacher_named_twice_teaches_as_once(world: dict[str, Path], tmp_path: Path) -> None:
    """And both are in the run's facts; a run is resumed with the same teachers only."""
    settings = ("network.widths=(4,4,4,8)", "epochs=1", "batch=32", "sizes=()", "loss.teacher_weight=0.5")
    choice = Choice("mien-small", "cpu", settings=settings)
    rows = Source("ferplus", world["root"], allow_partial=True)
    other = tmp_path / "other.onnx"
    shutil.copy(bundled_model(), other)
    taught = {
        name: train(choice, rows, tmp_path / name, teacher=teacher, threads=1, say=lambda line: None)
        for name, teacher in (("once", bundled_model()), ("twice", [bundled_model(), other]))
    }
    once, twice = (metrics(taught[name]) for name in ("once", "twice"))
    assert float(once["train_teacher"]) == pytest.approx(float(twice["train_teacher"]), abs=1e-3)
    known = runs.read(taught["once"])["teacher"]
    assert runs.read(taught["twice"])["teacher"] == [known, {**known, "file": "other.onnx"}]
    with pytest.raises(UsageError, match="teacher differ"):
        train(choice, rows, taught["twice"], teacher=other, resume=True, threads=1, say=lambda line: None)


@pytest.mark.parametrize(
    ("method", "data", "settings", "told"),
    [
        ("ldg", "fer2013", TINY, "the loss Softmax asks no teacher"),
        ("resface", "ferplus", (*TINY, "loss.source=votes"), "the loss LabelDistribution asks no teacher"),
        ("mien-small", "ferplus", ("epochs=1",), "the loss TwoHeads asks no teacher"),  # teacher_weight is 0
    ],
)
def test_a_teacher_whom_the_loss_does_not_ask_is_refused(
    world: dict[str, Path], tmp_path: Path, method: str, data: str, settings: tuple[str, ...], told: str
) -> None:
    teacher = bundled_model() if data == "ferplus" else world["teacher"]
    with pytest.raises(UsageError, match=told):
        train(
            Choice(method, "cpu", settings=settings), Source(data, world["root"], allow_partial=True),
            tmp_path / "run", teacher=teacher, threads=1, say=lambda line: None,
        )  # fmt: skip
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_starts_from_a_checkpoint_and_says_what_matched(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    donor = world["teacher"] / "best.ckpt"
    run = tmp_path / "run"
    options = ("--pretrained", str(donor), "--set", TINY[0], "--set", "lr=1e-12")
    status, out, told = ran(capsys, command(world["root"], run, "ldg", *options))
    assert status == 0, told
    assert "pretrained: " in out and "0 of the network (besides its head) not found" in out
    assert "0 of the file unused" in out  # not even the classifier: the classes are the same
    assert runs.read(run)["pretrained"]["sha256"]
    before, after = runs.load_network(world["teacher"])[0], runs.load_network(run)[0]
    assert torch.allclose(before.stem.conv.weight, after.stem.conv.weight, atol=1e-6)
    assert torch.allclose(before.head.classify.weight, after.head.classify.weight, atol=1e-6)
    status, _, told = ran(capsys, command(world["root"], run, "ldg", "--set", TINY[0], "--set", "lr=1e-12", "--resume"))
    assert status == 2 and "pretrained differ" in told
    status, _, told = ran(capsys, command(world["root"], tmp_path / "other", "mscar", "--pretrained", str(donor)))
    assert status == 2 and "tensors match this network" in told


def test_a_frozen_stage_that_the_start_weights_lack_is_refused(world: dict[str, Path], tmp_path: Path) -> None:
    """It would stay random."""
    donor = torch.load(world["teacher"] / "best.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    kept = {
        name.removeprefix("network."): value for name, value in donor.items() if not name.endswith("stem.conv.weight")
    }
    torch.save(kept, tmp_path / "start.pth")
    place = Source("ferplus", world["root"], allow_partial=True)
    choice = Choice("ldg", "cpu", settings=(TINY[0], "frozen=('stem',)", "epochs=1"))
    with pytest.raises(
        UsageError, match=r"lacks 1 tensors of stages that this recipe does not train, as stem\.conv\.weight"
    ):
        train(choice, place, tmp_path / "run", pretrained=tmp_path / "start.pth", threads=1, say=lambda line: None)


def test_the_rule_of_both_label_sets_needs_a_loss_on_both_heads(world: dict[str, Path], tmp_path: Path) -> None:
    """Else FER-2013's head would stay random, and choose the epoch."""
    choice = Choice("mien-small", "cpu", loss="softmax", settings=("network.widths=(4,8)", "network.depths=(1,1)"))
    place = Source("ferplus", world["root"], allow_partial=True)
    with pytest.raises(UsageError, match="joint: the loss Softmax trains one head"):
        train(choice, place, tmp_path / "run", threads=1, say=lambda line: None)


def test_two_normalisations_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--set 'mean=\(0\.0, 0\.0, 0\.0\)' --set 'std=\(1\.0, 1\.0, 1\.0\)'"):
        resolve(Choice("wcl", settings=("network.input_norm=vggface2",)))
    settings = ("network.input_norm=vggface2", "mean=(0.0,0.0,0.0)", "std=(1.0,1.0,1.0)")
    assert resolve(Choice("wcl", settings=settings))[1].network.input_norm == "vggface2"


@pytest.mark.parametrize("known", [True, False], ids=["another order", "unknown"])
def test_a_classifier_of_other_classes_starts_anew(world: dict[str, Path], tmp_path: Path, known: bool) -> None:
    donor = tmp_path / "donor"
    shutil.copytree(world["teacher"], donor)
    facts = runs.read(donor)
    (donor / "run.json").unlink()
    if known:
        runs.write(donor, facts | {"classes": facts["classes"][::-1]})
    said: list[str] = []
    choice = Choice("ldg", "cpu", settings=(*TINY, "lr=1e-12"))
    held_out = replace(source(world["root"]), select_on="holdout")
    train(choice, held_out, tmp_path / "run", pretrained=donor / "best.ckpt", threads=1, say=said.append)
    assert any("unused: head." in line for line in said)
    notes = runs.read(tmp_path / "run")["notes"]
    assert [f"note: {note}" for note in notes] == [line for line in said if line.startswith("note: ")]
    assert len(notes) == known and all("best.ckpt may have learnt the tenth" in note for note in notes)
    before, after = runs.load_network(world["teacher"])[0], runs.load_network(tmp_path / "run")[0]
    assert torch.allclose(before.stem.conv.weight, after.stem.conv.weight, atol=1e-6)
    assert not torch.allclose(before.head.classify.weight, after.head.classify.weight, atol=1e-3)


def test_a_runs_report_shows_where_its_network_looks(world: dict[str, Path], tmp_path: Path) -> None:
    data = source(world["root"]).load("valid")
    page = tmp_path / "report.html"
    judge(world["teacher"], data, tmp_path / "out", page=page, faces=True)
    text = page.read_text(encoding="utf-8")
    assert "Where the network looks: Grad-CAM." in text  # a ResNet has no maps of its own
    counts, told = (
        runs.read(world["teacher"])["parameters"],
        json.loads((tmp_path / "out" / "metrics.json").read_text())["model"],
    )
    assert (told["trainable"], told["parameters"]) == (counts["trainable"], counts["trainable"] + counts["fixed"])
    network = runs.load_network(world["teacher"])[0]
    assert told["keras_total"] == told["parameters"] + sum(
        buffer.numel() for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))
    )
    assert "Learning curves" in text


def test_another_network_and_another_loss(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = ("--network", "resnet18", "--loss", "islets", "--set", TINY[0])
    status, _, told = ran(capsys, command(world["root"], tmp_path / "a", "ad-corre", *mixed))
    assert status == 0, told
    recipe = json.loads((tmp_path / "a" / "run.json").read_text())["recipe"]
    assert (recipe["network"]["options"], recipe["loss"]["options"]) == ("ResNet18", "Islets")
    assert {"train_softmax", "train_centre", "train_island", "train_islets", "loss_islets_lp"} <= set(
        metrics(tmp_path / "a")
    )
    grown = ("--loss", "ad-corre", "--set", TINY[0])
    status, _, told = ran(capsys, command(world["root"], tmp_path / "b", "mscar", *grown))
    assert status == 0, told
    assert runs.load_network(tmp_path / "b")[0].feature_dim == 7 * 256  # the head grew its embeddings
    assert np.isfinite(float(metrics(tmp_path / "b")["train_ed"]))


def test_batches_of_one_use_running_statistics_and_say_so_once(world: dict[str, Path], tmp_path: Path) -> None:
    settings = (TINY[0], "epochs=1", "batch=1", "size=32", "resize=32")
    choice = Choice("ad-corre", "cpu", "resnet18", "softmax", settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        train(choice, source(world["root"]), tmp_path / "run", threads=1, say=lambda line: None)
    said = [warning for warning in caught if warning.category is SingleValueBatchWarning]
    assert len(said) == 1
    assert np.isfinite(float(metrics(tmp_path / "run")["train_softmax"]))


def test_the_average_begins_at_the_pretrained_weights(world: dict[str, Path], tmp_path: Path) -> None:
    """At next to no learning rate the averaged weights stay those that the run started from."""
    settings = ("network.widths=(4,4,4,8)", "epochs=1", "batch=32", "sizes=()", "ema=0.999")
    place = Source("ferplus", world["root"], allow_partial=True)
    for name, more, start in (("first", (), None), ("second", ("lr=1e-9",), tmp_path / "first" / "best.ckpt")):
        choice = Choice("mien-small", "cpu", settings=(*settings, *more))
        train(choice, place, tmp_path / name, pretrained=start, seed=len(more), threads=1, say=lambda line: None)
    first, second = (
        torch.load(tmp_path / name / "best.ckpt", weights_only=True)["state_dict"] for name in ("first", "second")
    )
    weights = [key for key in first if key.startswith("average.network.trunk.") and key.endswith("convolution.weight")]
    assert weights and all(torch.allclose(first[key], second[key], atol=1e-6) for key in weights)
