"""From a trained run to an ONNX file and to Scores: agreement, cards, heads, views, and evaluation without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import small_fer

from mien import cli
from mien.card import METADATA_KEY, InputSpec
from mien.classifier import Classifier
from mien.errors import DataError, ModelError, UsageError
from mien.lab import datasets
from mien.lab.evaluation.evaluate import _corner_shifts, aligned_to, evaluate, windows
from mien.lab.evaluation.judge import judge
from mien.lab.evaluation.scores import Scores
from mien.lab.training import export as exporting
from mien.lab.training.forms import Form
from mien.lab.training.recipes import Choice
from mien.lab.training.trainer import Source, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small dataset, a two-headed run of two epochs on it, and its export."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(folder / "cache"))
        root = small_fer.write(folder / "data")
        settings = ("network.widths=(4,8,8,8)", "network.dropout=0", "epochs=6", "lr=0.05", "batch=16", "sizes=()")
        source = Source("ferplus", root, allow_partial=True)
        run = train(Choice("mien-small", settings=settings), source, folder / "run", threads=1, say=lambda line: None)
        model = exporting.export(run, folder / "model.onnx", rows=small_rows(root))
    return {"root": root, "run": run, "model": model, "cache": folder / "cache"}


def small_rows(root: Path) -> dict[str, datasets.FaceDataset]:
    return {name: load(root, name) for name in ("fer2013", "ferplus")}


def load(root: Path, name: str) -> datasets.FaceDataset:
    return datasets.load(name, root, split="valid", allow_partial=True)


def test_the_file_agrees_with_torch_on_batches_of_any_size(world: dict[str, Path]) -> None:
    classifier = Classifier(world["model"])
    temperatures = {name: head.temperature for name, head in classifier.card.heads.items()}
    run = exporting.TrainedRun(world["run"], temperatures=temperatures)
    data = load(world["root"], "fer2013")
    for count in (1, 5, 42):
        batch = classifier.card.input.prepare([data.read(i) for i in range(count)])
        assert exporting.disagreement(run, classifier, batch).largest < Form().tolerance.largest
    assert all(temperature != 1 for temperature in temperatures.values())


def test_the_card_says_everything(world: dict[str, Path]) -> None:
    card = Classifier(world["model"]).card
    assert card.default_head == "ferplus"
    assert {name: (head.output, len(head.labels)) for name, head in card.heads.items()} == {
        "ferplus": ("probabilities", 8), "fer2013": ("probabilities_fer2013", 7),
    }  # fmt: skip
    assert (card.input.height, card.input.colour, card.method, card.licence) == (48, "grey", "mien-small", "not stated")
    assert "140 rows" in card.heads["ferplus"].trained_on


def test_temperatures_are_fitted_on_the_rows_of_the_run_or_not_at_all(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    other = small_fer.write(tmp_path / "data", seed=1)
    for root, same in ((world["root"], True), (other, False)):
        monkeypatch.setattr(exporting, "load_data", lambda source, recipe, root=root: (None, small_rows(root)))
        if same:
            assert set(exporting.validation_rows(world["run"], root)) == {"fer2013", "ferplus"}
        else:
            with pytest.raises(DataError, match="the run was selected on fer2013 rows with fingerprint"):
                exporting.validation_rows(world["run"], root)


def test_the_file_names_no_folder_of_the_builder(world: dict[str, Path]) -> None:
    text = world["model"].read_bytes()
    assert str(world["root"].parent).encode() not in text
    assert b"site-packages" not in text
    assert str(Path(exporting.__file__).parents[4]).encode() not in text


def test_a_file_that_disagrees_is_refused_and_removed(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporting.write_graph

    def spoiled(trained: exporting.TrainedRun, path: Path, *, faces: np.ndarray | None = None) -> None:
        write(trained, path, faces=faces)
        model = onnx.load(path)
        weights = next(t for t in model.graph.initializer if "convolution.weight" in t.name or "head" in t.name)
        values = onnx.numpy_helper.to_array(weights) + np.float32(0.5)
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        onnx.save(model, path)

    monkeypatch.setattr(exporting, "write_graph", spoiled)
    with pytest.raises(ModelError, match="differ by"):
        exporting.export(world["run"], tmp_path / "bad.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_learnt_next_to_nothing_can_be_exported(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its temperature has no best value; int8 needs the rows nevertheless."""
    monkeypatch.setenv("MIEN_CACHE", str(world["cache"]))
    monkeypatch.setattr(exporting, "_views_of", lambda models, data, head, form: [np.full((len(data), 8), 1 / 8)])
    command = ["export", str(world["run"]), "--root", str(world["root"]), "-o", str(tmp_path / "model.onnx")]
    for words, status in (((), 1), (("--uncalibrated", "--weights", "int8"), 0)):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, *words])
        told = capsys.readouterr()
        assert (ended.value.code or 0) == status, told.err
        assert status == 0 or "or leave it at 1 by --uncalibrated" in " ".join(told.err.split())
    assert {head.temperature for head in Classifier(tmp_path / "model.onnx").card.heads.values()} == {1.0}


def test_int8_of_a_run_on_drawn_faces_needs_no_root(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(world["run"]), "-o", str(tmp_path / "model.onnx"), "--weights", "int8"]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 1 and "pass --root" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(exporting, "source_of", lambda folder, root: (Source("synthetic", root), None))
    drawn = datasets.load("synthetic", None, split="valid")[:40]
    monkeypatch.setattr(exporting, "load_data", lambda source, recipe: (drawn, {}))
    (tmp_path / "run").mkdir()
    for file in world["run"].glob("*.*"):
        shutil.copy(file, tmp_path / "run")
    facts = json.loads((tmp_path / "run/run.json").read_text())
    facts["data"]["fingerprint"] = drawn.fingerprint
    (tmp_path / "run/run.json").write_text(json.dumps(facts))
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(tmp_path / "run"), *command[2:]])
    assert not ended.value.code


def test_a_dataset_without_label_rules_is_read_again_for_its_temperature(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a part of the data, too: what counts is that the rows are those of the run."""
    monkeypatch.setenv("MIEN_CACHE", str(world["cache"]))
    source = Source("fer2013", world["root"], allow_partial=True)
    settings = ("network.width=0.0625", "epochs=1", "batch=16")
    run = train(Choice("mscar", "cpu", settings=settings), source, tmp_path / "run", threads=1, say=lambda line: None)
    out = tmp_path / "int8.onnx"
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(run), "-o", str(out), "--root", str(world["root"]), "--weights", "int8"])
    assert ended.value.code == 0
    assert Classifier(out).card.head().temperature != 1
    other = small_fer.write(tmp_path / "other", seed=1)
    for rows in (exporting.validation_rows, exporting.training_rows):
        with pytest.raises(DataError, match=r"now gives"):
            rows(run, other)


def test_export_needs_an_onnx_name(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        exporting.export(world["run"], tmp_path / "model.bin")


def test_evaluation_writes_scores_and_metrics(world: dict[str, Path], tmp_path: Path) -> None:
    data = load(world["root"], "ferplus")
    found = judge(world["model"], data, tmp_path)
    scores = Scores.load(tmp_path / "scores.npz")
    assert scores.probabilities.shape == (len(data), 8)
    assert np.allclose(scores.probabilities.sum(axis=1), 1, atol=1e-5)
    assert scores.ids.tolist() == list(data.ids)
    assert found["accuracy"] == pytest.approx((scores.predictions == data.labels).mean())
    assert json.loads((tmp_path / "metrics.json").read_text())["protocol"]["head"] == "ferplus"
    assert scores.protocol["model_sha256"] == Classifier(world["model"]).sha256


def test_a_run_and_its_file_score_alike(world: dict[str, Path], tmp_path: Path) -> None:
    data = load(world["root"], "fer2013")
    judge(world["run"], data, tmp_path / "run")
    judge(world["model"], data, tmp_path / "file")
    run, file = (Scores.load(tmp_path / name / "scores.npz") for name in ("run", "file"))
    assert run.predictions.tolist() == file.predictions.tolist()
    assert run.protocol["head"] == file.protocol["head"] == "fer2013"


def test_head_can_be_chosen(world: dict[str, Path]) -> None:
    classifier, data = Classifier(world["model"]), load(world["root"], "fer2013")
    eight = evaluate(classifier, data, head="ferplus", protocol=FACTS)
    assert eight.probabilities.shape[1] == 7  # contempt dropped, renormalised
    assert np.allclose(eight.probabilities.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ModelError, match="no head 'emotion'"):
        evaluate(classifier, data, head="emotion", protocol=FACTS)


FACTS = {"selection_rule": "none", "seed": 0, "command": "test", "commit": "test"}


def test_columns_are_matched_by_name() -> None:
    answers = np.array([[0.2, 0.3, 0.5]])
    dropped = aligned_to(answers, ("sad", "happy", "contempt"), ("happy", "sad"))
    assert dropped[0] == pytest.approx([0.6, 0.4])
    lacking = aligned_to(answers, ("sad", "happy", "fear"), ("happy", "disgust", "sad", "fear"))
    assert lacking[0] == pytest.approx([0.3, 0, 0.2, 0.5])
    silent = aligned_to(
        np.array([[0.0, 0, 1], [np.nan, np.nan, np.nan]]), ("sad", "happy", "contempt"), ("happy", "sad")
    )
    np.testing.assert_array_equal(silent, np.array([[0.5, 0.5], [np.nan, np.nan]], np.float32))
    with pytest.raises(DataError, match="no class in common"):
        aligned_to(answers, ("a", "b", "c"), ("happy", "sad"))


def test_views() -> None:
    batch = np.arange(2 * 36, dtype=np.float32).reshape(2, 1, 6, 6)
    assert [len(list(windows(batch, name, (1, 1)))) for name in ("single", "flip", "tencrop")] == [1, 2, 10]
    views = list(windows(batch, "tencrop", (1, 1)))
    assert np.array_equal(views[1], batch[..., ::-1])
    corner = views[2][..., 1:5, 1:5]  # what a network that looks at the middle 4 px sees of the first corner
    assert np.array_equal(corner, batch[..., 0:4, 0:4])
    constant = np.full((1, 1, 6, 6), 3, np.float32)  # methods.md 6.4, item 11
    assert all(np.array_equal(view, constant) for view in windows(constant, "tencrop", (2, 2)))


@pytest.mark.parametrize("side", [36, 37])
def test_the_corners_of_an_odd_rest_are_the_pictures(side: int) -> None:
    spec = InputSpec(side, side, "grey", (0.0,), (1.0,))
    card = SimpleNamespace(input=spec, window=32)
    batch = np.arange(side * side, dtype=np.float32).reshape(1, 1, side, side)
    margin = (side - 32) // 2
    seen = [
        view[..., margin : margin + 32, margin : margin + 32]
        for view in windows(batch, "tencrop", _corner_shifts(card))  # type: ignore[arg-type]
    ]
    for corner, (down, right) in zip(seen[2::2], ((0, 0), (0, -32), (-32, 0), (-32, -32)), strict=True):
        assert np.array_equal(corner, batch[..., down:, right:][..., :32, :32])


def test_views_average_probabilities_or_logits(world: dict[str, Path]) -> None:
    classifier, data = Classifier(world["model"]), load(world["root"], "fer2013")
    single, ten, logits = (
        evaluate(classifier, data, views=views, average=average, protocol=FACTS)
        for views, average in (("single", "probabilities"), ("tencrop", "probabilities"), ("tencrop", "logits"))
    )
    batch = classifier.card.input.prepare([data.read(0)])
    views = [
        classifier.run(np.ascontiguousarray(v)).probabilities["fer2013"][0] for v in windows(batch, "tencrop", (2, 2))
    ]
    assert ten.probabilities[0] == pytest.approx(np.mean(views, axis=0), abs=1e-5)
    geometric = np.exp(np.mean(np.log(views), axis=0))
    assert logits.probabilities[0] == pytest.approx(geometric / geometric.sum(), abs=1e-5)
    assert not np.allclose(single.probabilities, ten.probabilities)
    with pytest.raises(UsageError, match="average 'logits': a single view has no mean"):
        evaluate(classifier, data, average="logits", protocol=FACTS)
    with pytest.raises(UsageError, match="expected one of single, flip, tencrop"):
        evaluate(classifier, data, views="five", protocol=FACTS)


def test_an_onnx_file_is_evaluated_without_torch(world: dict[str, Path], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from mien.cli import main\n"
        f"main(['evaluate', {str(world['model'])!r}, '--data', 'ferplus', '--root', {str(world['root'])!r}, "
        f"'--allow-partial', '-o', {str(tmp_path)!r}])"
    )
    environment = {"MIEN_CACHE": str(world["cache"]), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert (tmp_path / "scores.npz").is_file()


def test_what_is_neither_run_nor_file_is_refused(world: dict[str, Path], tmp_path: Path) -> None:
    data = load(world["root"], "fer2013")
    with pytest.raises(DataError, match="not a run folder"):
        judge(tmp_path, data, tmp_path)
    with pytest.raises(UsageError, match="expected a run folder"):
        judge(tmp_path / "weights.pth", data, tmp_path)
    bare = tmp_path / "bare.onnx"
    model = onnx.load(world["model"])
    del model.metadata_props[:]
    onnx.save(model, bare)
    with pytest.raises(ModelError, match=METADATA_KEY):
        judge(bare, data, tmp_path)
