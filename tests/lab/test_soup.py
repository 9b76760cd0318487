"""The mean of several runs' weights: what it is, that every command takes it as a run, and what has no mean."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_fer
import torch

from mien import cli
from mien.classifier import Classifier
from mien.errors import DataError, UsageError
from mien.lab import datasets
from mien.lab.training import export, runs, soup
from mien.lab.training.export import TrainedRun
from mien.lab.training.parts import may_know
from mien.lab.training.recipes import Choice
from mien.lab.training.trainer import Source, train

pytestmark = pytest.mark.slow

SETTINGS = ("network.widths=(4,8,8,8)", "epochs=1", "batch=16", "sizes=()")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs that go on from the same one, and one from another random start with other widths."""
    folder = tmp_path_factory.mktemp("soup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(folder / "cache"))
        root = small_fer.write(folder / "data")

        def trained(name: str, *settings: str, seed: int = 0, pretrained: Path | None = None) -> Path:
            choice = Choice("mien-small", settings=(*SETTINGS, *settings))
            source = Source("ferplus", root, allow_partial=True)
            options = {"seed": seed, "pretrained": pretrained, "threads": 1, "say": lambda line: None}
            return train(choice, source, folder / name, **options)

        start = trained("start") / "best.ckpt"
        first, second = (trained(name, seed=seed, pretrained=start) for name, seed in (("first", 1), ("second", 2)))
        other = trained("other", "network.widths=(4,8,8,16)")
        stranger = trained("stranger", seed=7)
        soup.average([first, second], folder / "mean")
    return {
        "root": root,
        "first": first,
        "second": second,
        "other": other,
        "stranger": stranger,
        "mean": folder / "mean",
        "cache": folder / "cache",
    }


def test_every_weight_is_the_mean(world: dict[str, Path]) -> None:
    first, second, mean = (runs.load_network(world[name])[0].state_dict() for name in ("first", "second", "mean"))
    assert set(mean) == set(first)
    for name, value in mean.items():
        expected = (first[name] + second[name]) / 2 if value.is_floating_point() else first[name]
        assert torch.allclose(value, expected, atol=1e-6), name
    assert any(not torch.equal(first[name], second[name]) for name in mean)


def test_it_says_what_it_is_the_mean_of(world: dict[str, Path]) -> None:
    facts = json.loads((world["mean"] / "run.json").read_text())
    assert [one["run"] for one in facts["averaged"]] == ["first", "second"] and len(
        facts["averaged"][0]["sha256"]
    ) == 64
    assert facts["selection_rule"].startswith("the mean of the weights of 2 runs, of each the epoch with the highest")
    assert not {"pretrained", "teacher"} & set(facts)
    assert may_know(facts) == [
        "runs, of which it is the mean"
    ]  # whether they have learnt a part that they left out is not said


def test_it_is_evaluated_exported_and_gone_on_from_as_a_run(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(world["cache"]))
    data = ("--data", "ferplus", "--root", str(world["root"]), "--allow-partial")
    settings = tuple(word for setting in SETTINGS for word in ("--set", setting))
    for command in (
        ("average", str(world["first"]), str(world["second"]), "-o", str(tmp_path / "mean")),
        (
            "evaluate",
            str(tmp_path / "mean"),
            *data,
            "-o",
            str(tmp_path / "scores"),
            "--report",
            str(tmp_path / "page.html"),
        ),
        ("export", str(tmp_path / "mean"), "-o", str(tmp_path / "mean.onnx")),
        (
            "train",
            "mien-small",
            *data,
            *settings,
            "-o",
            str(tmp_path / "on"),
            "--pretrained",
            str(tmp_path / "mean" / "best.ckpt"),
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(command))
        assert not ended.value.code, capsys.readouterr().err
    rows = datasets.load("ferplus", world["root"], split="valid", allow_partial=True)
    run = TrainedRun(world["mean"])
    batch = run.card.input.prepare([rows.read(i) for i in range(4)])
    file = Classifier(tmp_path / "mean.onnx").run(batch).probabilities["ferplus"]
    assert file == pytest.approx(run.run(batch).probabilities["ferplus"], abs=1e-4)
    assert np.ptp(file) > 0


def test_runs_of_other_random_starts_are_named(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []
    soup.average([world["first"], world["second"], world["stranger"]], tmp_path / "mean", heard.append)
    assert len(heard) == 1 and "stranger: its weights do not resemble the first run's" in heard[0]
    assert json.loads((tmp_path / "mean" / "run.json").read_text())["notes"] == heard
    assert json.loads((world["mean"] / "run.json").read_text())["notes"] == []
    with pytest.raises(SystemExit) as ended:
        cli.main(["average", str(world["first"]), str(world["stranger"]), "-o", str(tmp_path / "told")])
    assert not ended.value.code and "do not resemble" in capsys.readouterr().err


def test_networks_of_other_options_have_no_mean(world: dict[str, Path], tmp_path: Path) -> None:
    """Although their weights have the same shapes; unless only training reads the option."""
    for setting, alike in (("network.enlarge=2.0", False), ("network.dropout=0.1", True)):
        other = tmp_path / setting
        shutil.copytree(world["second"], other)
        facts = json.loads((other / "run.json").read_text())
        facts["choice"]["settings"].append(setting)
        (other / "run.json").write_text(json.dumps(facts))
        if alike:
            soup.average([world["first"], other], tmp_path / "mean")
        else:
            with pytest.raises(UsageError, match=r"network.enlarge=2\.0: network differ from the first run's"):
                soup.average([world["first"], other], tmp_path / "mean")


def test_another_runs_checkpoint_is_told(world: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(world["first"], tmp_path / "run")
    shutil.copy(world["other"] / "best.ckpt", tmp_path / "run")
    with pytest.raises(
        DataError, match=r"best.ckpt: not the weights of the network that .*run.json tells of; copy it again"
    ):
        runs.load_network(tmp_path / "run")


def test_weights_that_are_not_finite_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(world["first"], tmp_path / "run")
    held = torch.load(tmp_path / "run/best.ckpt", weights_only=True)
    held["state_dict"]["average.network.head.bias"][1] = torch.nan
    torch.save(held, tmp_path / "run/best.ckpt")
    with pytest.raises(
        DataError, match=r"run/best.ckpt: weights that are not finite, first head.bias; train the run again"
    ):
        export.export(tmp_path / "run", tmp_path / "model.onnx")
    held["state_dict"]["average.network.head.bias"][1] = 0
    held["state_dict"]["average.network.head.weight"].fill_(3e38)
    torch.save(held, tmp_path / "run/best.ckpt")
    with pytest.raises(DataError, match=r"run/best.ckpt: answers about faces that are not finite; train the run again"):
        export.export(tmp_path / "run", tmp_path / "model.onnx")


def test_what_has_no_mean(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 run: the mean is of two or more"):
        soup.average([world["first"]], tmp_path / "a")
    with pytest.raises(UsageError, match=r"other: network differ from the first run's"):
        soup.average([world["first"], world["other"]], tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(UsageError, match="is not empty"):
        soup.average([world["first"], world["second"]], world["other"])


def test_runs_whose_faces_were_deleted_have_a_mean_too(world: dict[str, Path], tmp_path: Path) -> None:
    """Whoever passes runs on may delete them; export then reads faces from --root."""
    for name in ("first", "second"):
        shutil.copytree(world[name], tmp_path / name, ignore=shutil.ignore_patterns(runs.CROPS))
    mean = soup.average([tmp_path / "first", tmp_path / "second"], tmp_path / "mean")
    assert not (mean / runs.CROPS).exists()
    with pytest.raises(DataError, match=r"the faces for export's check are gone; pass --root DIR"):
        export.export(mean, tmp_path / "mean.onnx")
    assert export.export(mean, tmp_path / "mean.onnx", rows=export.validation_rows(mean, world["root"])).is_file()


def test_it_is_not_resumed(world: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(world["cache"]))
    before = (world["mean"] / "best.ckpt").read_bytes()
    source = Source("ferplus", world["root"], allow_partial=True)
    for seed in (0, 1):
        with pytest.raises(UsageError, match="holds another run"):
            train(
                Choice("mien-small", settings=SETTINGS),
                source,
                world["mean"],
                seed=seed,
                resume=True,
                threads=1,
                say=lambda line: None,
            )
    assert (world["mean"] / "best.ckpt").read_bytes() == before
