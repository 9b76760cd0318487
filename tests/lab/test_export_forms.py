"""The forms of an exported file: the flip folded in, half-precision and int8 weights, and what the card says of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import small_fer
import torch
from scores_fixtures import made_up

import tiny_model
from mien import cli
from mien.card import ModelCard
from mien.classifier import Classifier
from mien.errors import ModelError, UsageError
from mien.lab import datasets
from mien.lab.evaluation.calibration import apply_temperature, fit_temperature, negative_log_likelihood
from mien.lab.evaluation.evaluate import evaluate
from mien.lab.networks.pretrained import load_pretrained
from mien.lab.training import export as exporting
from mien.lab.training import forms, runs
from mien.lab.training.forms import Form
from mien.lab.training.recipes import Choice
from mien.lab.training.trainer import Source, train

pytestmark = pytest.mark.slow  # the fixture trains and exports

SETTINGS = ("network.widths=(8,16,16,16)", "network.dropout=0", "epochs=6", "lr=0.05", "batch=16", "sizes=()")
TEMPERATURES = {"ferplus": 0.7, "fer2013": 1.3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small dataset, a two-headed run on it, and its float32 file at TEMPERATURES."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(folder / "cache"))
        root = small_fer.write(folder / "data")
        source = Source("ferplus", root, allow_partial=True)
        run = train(Choice("mien-small", settings=SETTINGS), source, folder / "run", threads=1, say=lambda line: None)
        model = exporting.export(run, folder / "model.onnx", temperatures=TEMPERATURES)
    return {"root": root, "run": run, "model": model}


def rows(root: Path, name: str = "fer2013", split: str = "valid") -> datasets.FaceDataset:
    return datasets.load(name, root, split=split, allow_partial=True)


def batch_of(model: Classifier, data: datasets.FaceDataset, count: int) -> np.ndarray:
    return model.card.input.prepare([data.read(i) for i in range(count)])


def mirrored(batch: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(batch[..., ::-1])


def test_a_folded_flip_answers_as_evaluate_averages_views(world: dict[str, Path], tmp_path: Path) -> None:
    path = exporting.export(world["run"], tmp_path / "flip.onnx", form=Form("flip"), temperatures=TEMPERATURES)
    plain, folded, data = Classifier(world["model"]), Classifier(path), rows(world["root"])
    for count in (1, 5):
        batch = batch_of(plain, data, count)
        ours, one, other = folded.run(batch), plain.run(batch), plain.run(mirrored(batch))
        for head in TEMPERATURES:
            mean = (one.probabilities[head] + other.probabilities[head]) / 2
            assert ours.probabilities[head] == pytest.approx(mean, abs=1e-5)
            assert not np.allclose(ours.probabilities[head], one.probabilities[head], atol=1e-5)
        assert ours.features == pytest.approx((one.features + other.features) / 2, abs=1e-4)
    facts = {"selection_rule": "none", "seed": 0, "command": "test", "commit": "test"}
    inside, outside = evaluate(folded, data, protocol=facts), evaluate(plain, data, views="flip", protocol=facts)
    assert inside.probabilities == pytest.approx(outside.probabilities, abs=1e-5)
    assert folded.card.views == "flip, mean of probabilities"
    assert inside.protocol["views"] == "single; in the file: flip, mean of probabilities"
    assert outside.protocol["views"] == "flip, mean of probabilities"


def test_the_flip_can_average_logits_instead(world: dict[str, Path]) -> None:
    plain = exporting.TrainedRun(world["run"], temperatures=TEMPERATURES)
    folded = exporting.TrainedRun(world["run"], temperatures=TEMPERATURES, form=Form("flip", "logits"))
    batch = np.random.default_rng(0).normal(size=(3, 1, 48, 48)).astype(np.float32)
    views = [plain.run(view).probabilities["ferplus"] for view in (batch, mirrored(batch))]
    geometric = np.sqrt(views[0] * views[1])
    expected = geometric / geometric.sum(axis=1, keepdims=True)
    assert folded.run(batch).probabilities["ferplus"] == pytest.approx(expected, abs=1e-5)
    assert folded.card.views == "flip, mean of logits"


def test_the_temperature_is_the_best_for_the_folded_answer(world: dict[str, Path]) -> None:
    plain, data = exporting.TrainedRun(world["run"]), rows(world["root"])
    batch = plain.card.input.prepare([data.read(i) for i in range(len(data))])
    views = np.stack([plain.run(view).probabilities["fer2013"] for view in (batch, mirrored(batch))])
    for average in ("probabilities", "logits"):
        found = exporting.fitted_temperatures([plain], {"fer2013": data}, Form("flip", average))["fer2013"]

        def cost(temperature: float, average: str = average) -> float:
            tempered = apply_temperature(views, temperature)
            mean = tempered.mean(axis=0) if average == "probabilities" else np.exp(np.log(tempered).mean(axis=0))
            return negative_log_likelihood(data.labels, mean / mean.sum(axis=1, keepdims=True))

        assert cost(found) <= min(cost(found * factor) for factor in (0.8, 0.95, 1.05, 1.25)) + 1e-9


def test_views_that_disagree_have_another_temperature_for_another_mean(
    world: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, data = exporting.TrainedRun(world["run"]), rows(world["root"])
    logits = 5 * np.random.default_rng(0).normal(size=(2, len(data), 7))
    logits[:, np.arange(len(data)), data.labels] += 4
    views = apply_temperature(np.exp(logits - logits.max()), 1.0)
    monkeypatch.setattr(exporting, "_views_of", lambda *given: list(views))
    found = {
        average: exporting.fitted_temperatures([plain], {"fer2013": data}, Form("flip", average))["fer2013"]
        for average in ("probabilities", "logits")
    }
    mean = np.exp(np.log(views).mean(axis=0))
    once = fit_temperature(data.labels, mean / mean.sum(axis=1, keepdims=True))
    assert found["logits"] == pytest.approx(once, rel=1e-3) != found["probabilities"]
    assert abs(np.log(found["probabilities"] / once)) > 0.05


def test_one_view_twice_has_the_temperature_of_one() -> None:
    scores = made_up()
    once = fit_temperature(scores.labels, scores.probabilities)
    assert fit_temperature(scores.labels, np.stack([scores.probabilities] * 2)) == pytest.approx(once, rel=1e-3)


def test_half_precision_weights_halve_the_file_and_are_unpacked_once_at_load(
    world: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(world["model"])
    path, unpacked = tmp_path / "half.onnx", tmp_path / "loaded.onnx"
    onnx.save(forms.halved(model), path)
    numbers = sum(int(np.prod(t.dims)) for t in model.graph.initializer if int(np.prod(t.dims)) >= forms.SMALL)
    saved = world["model"].stat().st_size - path.stat().st_size
    assert 2 * numbers * 0.8 < saved <= 2 * numbers  # two bytes a weight, less the casts' own
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(unpacked)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(unpacked)
    assert "Cast" not in {node.op_type for node in loaded.graph.node}
    assert {t.data_type for t in loaded.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    plain, half = Classifier(world["model"]), Classifier(path)
    batch = batch_of(plain, rows(world["root"]), 7)
    for head in TEMPERATURES:
        gap = np.abs(plain.run(batch).probabilities[head] - half.run(batch).probabilities[head]).max()
        assert 0 < gap < 1e-3


def test_int8_is_measured_on_faces_and_stays_close(world: dict[str, Path], tmp_path: Path) -> None:
    faces = rows(world["root"], "ferplus", "train")
    form = Form("flip", weights="int8")
    path = exporting.export(world["run"], tmp_path / "int8.onnx", form=form, faces=faces, temperatures=TEMPERATURES)
    model = onnx.load(path)
    kinds = [node.op_type for node in model.graph.node]
    assert "QuantizeLinear" in kinds
    assert "DequantizeLinear" in kinds
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    float_weights = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    assert first.input[1] in float_weights  # the first convolution is left alone
    assert sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4 for t in model.graph.initializer) == 6
    classifier, data = Classifier(path), rows(world["root"])
    assert (classifier.card.weights, classifier.card.views) == ("int8", "flip, mean of probabilities")
    trained = exporting.TrainedRun(world["run"], temperatures=TEMPERATURES, form=form)
    for count in (1, 9):
        batch = batch_of(classifier, data, count)
        found = exporting.disagreement(trained, classifier, batch)
        assert 1e-5 < found.mean < form.tolerance.mean
        assert found.largest < form.tolerance.largest
        assert classifier.run(batch).probabilities["ferplus"].shape == (count, 8)


def test_onnx_runtime_keeps_the_first_pooling_of_an_int8_file_in_float(world: dict[str, Path], tmp_path: Path) -> None:
    faces = rows(world["root"], "ferplus", "train")
    path = exporting.export(world["run"], tmp_path / "int8.onnx", form=Form(weights="int8"), faces=faces)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    makers = {output: node.op_type for node in nodes for output in node.output}
    pooled = [makers[node.input[0]] for node in nodes if node.op_type == "MaxPool"]
    whole = [maker for maker in pooled if maker.startswith(("Quantize", "QLinear"))]
    assert (len(pooled), len(whole)) == (3, 2)


def test_only_what_reads_the_picture_is_a_first_convolution() -> None:
    from onnx import TensorProto, helper

    def conv(name: str, groups: int) -> onnx.NodeProto:
        return helper.make_node("Conv", [f"{name}.x", f"{name}.weight"], [f"{name}.y"], name, group=groups)

    def kernel(name: str, *dims: int) -> onnx.TensorProto:
        return helper.make_tensor(f"{name}.weight", TensorProto.FLOAT, dims, np.zeros(dims).ravel())

    nodes = [conv("picture", 1), conv("depthwise", 4), conv("point", 1), conv("computed", 1)]
    kernels = [kernel("picture", 4, 1, 3, 3), kernel("depthwise", 4, 1, 3, 3), kernel("point", 8, 4, 1, 1)]
    graph = helper.make_graph(nodes, "graph", [], [], kernels)
    assert [node.name for node in forms._first_convolutions(graph, 1)] == ["picture"]


def test_int8_without_faces_is_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pass --root"):
        forms.stored(onnx.load(world["model"]), "int8")
    with pytest.raises(UsageError, match="pass --root"):
        exporting.export(world["run"], tmp_path / "model.onnx", form=Form(weights="int8"))
    assert list(tmp_path.iterdir()) == []


def test_a_mean_over_the_tolerance_is_refused(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(forms.TOLERANCES, "float32", forms.Tolerance(largest=1.0, mean=0.0))
    with pytest.raises(ModelError, match=r"on the mean of 32 faces; float32 may differ by 1\.0 and 0\.0"):
        exporting.export(world["run"], tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "tencrop"}, "views 'tencrop': a file holds one of single, flip, split"),
        ({"average": "votes"}, "average 'votes'.*probabilities, logits"),
        ({"weights": "int4"}, "weights 'int4'.*float32, float16, int8"),
    ],
)
def test_a_form_that_does_not_exist_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Form(**options)


def test_a_card_of_before_there_were_forms_is_single_and_float32() -> None:
    card = tiny_model.card()
    plain = {key: value for key, value in json.loads(card.to_json()).items() if key not in ("views", "weights")}
    assert ModelCard.from_json(json.dumps(plain), "old.onnx") == card
    told = ModelCard.from_json(json.dumps({**plain, "views": "flip, mean of logits", "weights": "int8"}), "new.onnx")
    assert (told.views, told.weights) == ("flip, mean of logits", "int8")


def test_looks_pair_each_picture_with_its_own_mirror_image() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [9.0, 10.0]])  # two pictures, then their mirror images
    assert exporting._by_look(values, 2).mean(dim=0).tolist() == [[3.0, 4.0], [6.0, 7.0]]


@pytest.fixture(scope="module")
def second(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run on the same rows, from another random start."""
    source = Source("ferplus", world["root"], allow_partial=True)
    folder = tmp_path_factory.mktemp("second") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(folder.parent / "cache"))
        return train(Choice("mien-small", settings=SETTINGS), source, folder, threads=1, seed=1, say=lambda line: None)


SEEN = {"single": ((0,), (0,)), "flip": ((0, 1), (0, 1)), "split": ((0,), (1,))}  # views -> what each network sees


@pytest.mark.parametrize("views", list(SEEN))
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_networks_of_one_file_answer_with_the_mean_over_what_they_see(
    world: dict[str, Path], second: Path, tmp_path: Path, views: str, average: str
) -> None:
    form, pair = Form(views, average), (world["run"], second)
    path = exporting.export(pair, tmp_path / "pair.onnx", form=form, temperatures=TEMPERATURES)
    alone = [exporting.TrainedRun(folder, temperatures=TEMPERATURES) for folder in pair]
    together = Classifier(path)
    for count in (1, 5):
        batch = batch_of(together, rows(world["root"]), count)
        pictures = (batch, mirrored(batch))
        found = together.run(batch)
        each = [[network.run(pictures[look]) for look in own] for network, own in zip(alone, SEEN[views], strict=True)]
        for head in TEMPERATURES:
            answers = np.stack([answer.probabilities[head] for own in each for answer in own])
            if average == "logits":
                answers = np.exp(np.log(answers).mean(axis=0))[None]
            mean = answers.mean(axis=0)
            assert found.probabilities[head] == pytest.approx(mean / mean.sum(axis=1, keepdims=True), abs=1e-5)
        features = [np.mean([answer.features for answer in own], axis=0) for own in each]
        assert found.features == pytest.approx(np.concatenate(features, axis=1), abs=1e-4)
    assert together.card.views == f"{views} of 2 networks, mean of {average}"


def test_the_temperature_of_networks_is_the_best_for_their_common_answer(world: dict[str, Path], second: Path) -> None:
    alone, data = [exporting.TrainedRun(folder) for folder in (world["run"], second)], rows(world["root"])
    batch = alone[0].card.input.prepare([data.read(i) for i in range(len(data))])
    found = exporting.fitted_temperatures(alone, {"fer2013": data}, Form("split"))["fer2013"]
    answers = [alone[0].run(batch), alone[1].run(mirrored(batch))]
    assert found == pytest.approx(
        fit_temperature(data.labels, np.stack([answer.probabilities["fer2013"] for answer in answers]))
    )


def test_int8_leaves_the_first_convolution_of_every_network_alone(
    world: dict[str, Path], second: Path, tmp_path: Path
) -> None:
    form, pair = Form("split", weights="int8"), (world["run"], second)
    faces = rows(world["root"], "ferplus", "train")
    path = exporting.export(pair, tmp_path / "int8.onnx", form=form, faces=faces, temperatures=TEMPERATURES)
    graph = onnx.load(path).graph
    kernels = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    whole = {tensor.name: tensor.dims[1] for tensor in kernels if tensor.data_type == onnx.TensorProto.INT8}
    floats = [tensor.dims[1] for tensor in kernels if tensor.data_type == onnx.TensorProto.FLOAT]
    assert (len(whole), 1 in whole.values(), floats) == (12, False, [1, 1])


def test_networks_of_one_file_must_share_rows_and_pictures(
    world: dict[str, Path], second: Path, tmp_path: Path
) -> None:
    facts = json.loads((second / "run.json").read_text())
    facts["data"]["fingerprint"] = "0" * 16
    other = tmp_path / "other"
    shutil.copytree(second, other)
    (other / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=f"{other}: it was trained on other rows"):
        exporting.export((world["run"], other), tmp_path / "pair.onnx")
    with pytest.raises(UsageError, match="name two runs or more"):
        exporting.export(world["run"], tmp_path / "alone.onnx", form=Form("split"))
    assert not list(tmp_path.glob("*.onnx"))


def test_a_network_starts_from_the_first_of_a_file(world: dict[str, Path], second: Path, tmp_path: Path) -> None:
    pair = exporting.export((world["run"], second), tmp_path / "pair.onnx", temperatures=TEMPERATURES)
    network = runs.load_network(second)[0]
    batch = batch_of(Classifier(pair), rows(world["root"]), 5)
    load_pretrained(network, pair, [torch.from_numpy(batch)])
    first = runs.load_network(world["run"])[0]
    with torch.no_grad():
        ours, theirs = network(torch.from_numpy(batch)).features, first(torch.from_numpy(batch)).features
    assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-3)


def test_the_command_writes_networks_together_and_refuses_two_sorts_of_views(
    world: dict[str, Path], second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pair.onnx"
    words = ["export", str(world["run"]), str(second), "-o", str(out), "--split"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 0
    assert "views: split of 2 networks, mean of probabilities; weights: float32" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--flip"])
    assert stopped.value.code == 2
    assert "--flip and --split" in capsys.readouterr().err


def test_the_command_names_the_form_that_it_wrote(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "half.onnx"
    words = ["export", str(world["run"]), "-o", str(out), "--flip", "--average", "logits", "--weights", "float16"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 0
    assert "views: flip, mean of logits; weights: float16" in capsys.readouterr().out
    card = Classifier(out).card
    assert (card.views, card.weights) == ("flip, mean of logits", "float16")
