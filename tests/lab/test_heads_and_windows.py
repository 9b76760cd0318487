"""Which head and which part of the picture a trained network answers with, whatever it was combined with; and combinations that
cannot work are refused before the training."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import small_fer
import torch
import torch.nn.functional as F

from mien.classifier import Classifier
from mien.errors import DataError, UsageError
from mien.lab import datasets
from mien.lab.batch import Batch
from mien.lab.datasets import layouts
from mien.lab.evaluation.evaluate import evaluate, windows
from mien.lab.training import export as exporting
from mien.lab.training import runs, trainer
from mien.lab.training.forms import Form
from mien.lab.training.recipes import Choice, resolve
from mien.lab.training.teacher import load_teacher
from mien.lab.training.trainer import Source, load_all, train

pytestmark = pytest.mark.slow

FACTS = {"selection_rule": "none", "seed": 0, "command": "none", "commit": "none"}
MSCAR = ("network.width=0.0625", "epochs=1", "batch=16", "lr=0.01")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return small_fer.write(tmp_path / "data")


def trained(folder: Path, root: Path, choice: Choice, *, data: str = "fer2013", rule: str | None = None) -> Path:
    source = Source(data, root, allow_partial=True, label_rule=rule)
    return train(choice, source, folder, threads=1, say=lambda line: None)


@pytest.mark.parametrize("data", ["fer2013", "ferplus"])
def test_a_second_head_that_nothing_was_learnt_by_answers_nothing(root: Path, tmp_path: Path, data: str) -> None:
    """The network of the bundled model with a loss that knows one head, on data called as the second head, and on others."""
    settings = (
        "network.widths=(4,8,8,8)",
        "network.dropout=0",
        "epochs=3",
        "batch=16",
        "sizes=()",
        "lr=0.1",
        "label_rule=majority",
    )
    settings = settings if data == "ferplus" else settings[:-1]
    run = trained(tmp_path / "run", root, Choice("mien-small", loss="softmax", settings=settings), data=data)
    network = runs.load_network(run)[0]
    rows = datasets.load(data, root, split="valid", allow_partial=True)
    alone = exporting.TrainedRun(run)
    assert list(alone.card.heads) == [data]
    batch = alone.card.input.prepare([rows.read(i) for i in range(len(rows))])
    with torch.no_grad():
        learnt = network(torch.from_numpy(batch)).logits.softmax(dim=1).numpy()
    assert alone.run(batch).probabilities[data] == pytest.approx(learnt, abs=1e-6)
    file = Classifier(exporting.export(run, tmp_path / "run.onnx"))
    assert file.run(batch).probabilities[data] == pytest.approx(learnt, abs=1e-4)
    with (run / "metrics.csv").open(newline="") as file_of_epochs:
        told = list(csv.DictReader(file_of_epochs))
    accuracies = [float(row[f"valid_accuracy_{data}"]) for row in told]
    assert (learnt.argmax(axis=1) == rows.labels).mean() == pytest.approx(
        max(accuracies), abs=1e-5
    )  # the epoch was chosen by this head
    chosen = told[accuracies.index(max(accuracies))]
    cross_entropy = -np.log(learnt[np.arange(len(rows)), rows.labels]).mean()
    assert float(chosen["valid_loss"]) == pytest.approx(cross_entropy, rel=1e-2)  # the run's in bfloat16


def test_both_label_sets_need_a_network_with_both_heads(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"label rule joint: the network .* has no second head"):
        trained(tmp_path / "run", root, Choice("mscar", "cpu", settings=MSCAR), data="ferplus", rule="joint")
    assert not (tmp_path / "run").exists()


def test_a_network_for_one_size_is_refused_before_it_sees_others(root: Path, tmp_path: Path) -> None:
    sizes = ("network.width=0.05", "size=64", "sizes=((0.0,64),(0.5,32))", "epochs=2", "batch=16")
    with pytest.raises(UsageError, match=r"of size=64 cannot see pictures of 32 px .*--set 'sizes=\(\)'"):
        trained(tmp_path / "run", root, Choice("mscar", "cpu", network="vgg19", settings=sizes))


def windowed(folder: Path, root: Path) -> Path:
    """A run that learns from 32 px windows of 48 px."""
    return trained(folder, root, Choice("mscar", "cpu", settings=(*MSCAR, "size=32", "resize=48")))


def test_networks_that_see_other_windows_do_not_share_a_file(root: Path, tmp_path: Path) -> None:
    whole, part = (
        trained(tmp_path / "whole", root, Choice("mscar", "cpu", settings=MSCAR)),
        windowed(tmp_path / "part", root),
    )
    assert exporting.TrainedRun(part).card.window == 32 and exporting.TrainedRun(whole).card.window is None
    for pair in ((whole, part), (part, whole)):
        with pytest.raises(UsageError, match="sees other pictures"):
            exporting.export(pair, tmp_path / "both.onnx", form=Form())


def test_a_files_ten_crop_is_its_runs(root: Path, tmp_path: Path) -> None:
    """Corners of 32 px windows in 48 px lie 8 px from the centre."""
    run = windowed(tmp_path / "run", root)
    rows = datasets.load("fer2013", root, split="valid", allow_partial=True)
    models = exporting.TrainedRun(run), Classifier(exporting.export(run, tmp_path / "run.onnx"))
    own, file = (evaluate(model, rows, views="tencrop", protocol=FACTS).probabilities for model in models)
    assert file == pytest.approx(own, abs=1e-5)
    batch = models[1].card.input.prepare([rows.read(0)])
    ten = [
        models[1].run(np.ascontiguousarray(view)).probabilities["fer2013"] for view in windows(batch, "tencrop", (8, 8))
    ]
    assert file[0] == pytest.approx(np.mean(ten, axis=0)[0], abs=1e-5)


def test_a_file_teaches_what_its_run_does_also_where_it_cuts_a_window(root: Path, tmp_path: Path) -> None:
    run = windowed(tmp_path / "run", root)
    file = exporting.export(run, tmp_path / "run.onnx")
    rows = datasets.load("fer2013", root, split="train", allow_partial=True)
    own = runs.spec_of(runs.load_network(run)[2])
    assert own.height == 32 and Classifier(file).card.window == 32
    pictures = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(pictures, torch.zeros(5, dtype=torch.int64), None, torch.arange(5))
    answers = [load_teacher(path, data=rows, spec=own)(batch).logits for path in (run, file)]
    assert F.softmax(answers[1], dim=1).numpy() == pytest.approx(F.softmax(answers[0], dim=1).numpy(), abs=1e-4)


def test_what_a_file_leaves_out_is_not_told_by_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    own = {"left_out": "1/2", "fingerprint": "f"}
    (tmp_path / "run.json").write_text(json.dumps({"data": own, "pretrained": None, "teacher": None}))
    assert trainer._left_out(tmp_path / "best.ckpt") == own
    for name in ("answers.npz", "pair.onnx", "weights.safetensors"):
        assert trainer._left_out(tmp_path / name) == {}


def test_where_no_epoch_can_be_chosen_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    recipe, root = resolve(Choice("mscar"))[1], tmp_path / "rafdb"
    layouts.write("rafdb", root, rows=40)
    source = Source("rafdb", root, allow_partial=True)
    with pytest.raises(DataError, match=r"rafdb has no split 'valid': .*; to train, pass --select-on holdout"):
        load_all(source, recipe)
    monkeypatch.setattr(trainer, "holdout_ids", lambda data: ())
    with pytest.raises(DataError, match="rows are too few to hold a tenth of them out"):
        load_all(Source("rafdb", root, allow_partial=True, select_on="holdout"), recipe)
