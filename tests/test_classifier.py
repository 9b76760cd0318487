"""ONNX + card -> probabilities and features."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import tiny_model as tiny
from conftest import ROOT
from mien import classifier
from mien.classifier import Classifier
from mien.errors import ModelError


def faces(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(3).integers(0, 255, (count, 48, 48, 3), np.uint8))


def test_probabilities_and_features(tiny_model: Path) -> None:
    model = Classifier(tiny_model)
    prediction = model.predict(faces(5))
    probabilities = prediction.probabilities["ferplus"]
    assert probabilities.shape == (5, 8) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert prediction.features.shape == (5, tiny.FEATURES)
    raw = ort.InferenceSession(str(tiny_model)).run(["probabilities"], {"image": model.card.input.prepare(faces(5))})[0]
    np.testing.assert_allclose(probabilities, raw, atol=1e-6)


def test_a_file_below_a_folder_whose_name_is_not_utf_8(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xff")
    folder.mkdir()
    model = Classifier(shutil.copy(tiny_model, folder / "tiny.onnx"))
    assert model.sha256 == Classifier(tiny_model).sha256
    assert len(model.predict(faces(2)).features) == 2


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_any_number_in_blocks(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    whole = Classifier(tiny_model).predict(faces(count))
    monkeypatch.setattr(classifier, "BATCH", 3)
    monkeypatch.setattr(classifier, "ROWS", 2)
    blocks = Classifier(tiny_model).predict(faces(count))
    assert blocks.probabilities["ferplus"].shape == (count, 8) and blocks.features.shape == (count, tiny.FEATURES)
    np.testing.assert_allclose(blocks.probabilities["ferplus"], whole.probabilities["ferplus"], atol=1e-6)


def test_sha256_names_the_file(tiny_model: Path) -> None:
    assert Classifier(tiny_model).sha256 == hashlib.sha256(tiny_model.read_bytes()).hexdigest()


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx: no such model file"):
        Classifier(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.onnx: ONNX Runtime cannot load it"):
        Classifier(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="carries no card"):
        Classifier(tiny.write(tmp_path / "bare.onnx", tiny.card(), metadata=None))
    with pytest.raises(ModelError, match="not JSON"):
        Classifier(tiny.write(tmp_path / "odd.onnx", tiny.card(), metadata="{"))
    partial = {name: value for name, value in json.loads(tiny.card().to_json()).items() if name not in ("crop", "seed")}
    with pytest.raises(ModelError, match=r"partial\.onnx: .*lacks crop, seed"):
        Classifier(tiny.write(tmp_path / "partial.onnx", tiny.card(), metadata=partial))


def test_a_card_that_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    seven = json.loads(tiny.card(tiny.EXPRESSIONS[:7]).to_json())
    with pytest.raises(ModelError, match="7 labels, but the graph gives 8"):
        Classifier(tiny.write(tmp_path / "seven.onnx", tiny.card(), metadata=seven))
    head = replace(tiny.card().head(), output="elsewhere")
    astray = json.loads(replace(tiny.card(), heads={"ferplus": head}).to_json())
    with pytest.raises(ModelError, match="'elsewhere'"):
        Classifier(tiny.write(tmp_path / "astray.onnx", tiny.card(), metadata=astray))
    large = json.loads(tiny.card(side=64).to_json())
    with pytest.raises(ModelError, match=r"the card says 1 x 64 x 64 pictures, the graph takes 1 x 48 x 48"):
        Classifier(tiny.write(tmp_path / "large.onnx", tiny.card(), metadata=large))
    with pytest.raises(ModelError, match="no output named 'features'"):
        Classifier(tiny.write(tmp_path / "bare.onnx", tiny.card(), features="hidden"))


def changed(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """A tiny model's file after `change`."""
    model = onnx.load(tiny.write(path, tiny.card()))
    change(model)
    onnx.save(model, path)
    return path


def one_at_a_time(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def reshaped_to_one(model: onnx.ModelProto) -> None:
    """Takes any batch, and fails on more than one picture."""
    shape = onnx.numpy_helper.from_array(np.array([1, 48 * 48], np.int64), "one")
    model.graph.initializer.append(shape)
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Reshape", ["image", "one"], ["flat"]))


def not_a_number(model: onnx.ModelProto) -> None:
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), "b"))


def logits(model: onnx.ModelProto) -> None:
    model.graph.node[3].CopyFrom(onnx.helper.make_node("Identity", ["logits"], ["probabilities"]))


def half_precision(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model.graph.node[0].input[0] = "wide"
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["wide"], to=onnx.TensorProto.FLOAT))


def of_a_number(model: onnx.ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 48 * 48], np.int64), "flat shape"))
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Expand", ["image", "flat shape"], ["flat"]))


def with_a_number_for_an_answer(model: onnx.ModelProto) -> None:
    answer = next(value for value in model.graph.output if value.name == "probabilities")
    del answer.type.tensor_type.shape.dim[:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (of_a_number, r"takes image: tensor\(float\) \[\]; expected one input"),
        (with_a_number_for_an_answer, "with 8 labels, but the graph gives None"),
        (
            one_at_a_time,
            r"takes image: tensor\(float\) \[1, 1, 48, 48\]; expected one input, tensor\(float\) with a batch",
        ),
        (half_precision, r"takes image: tensor\(float16\).*; expected one input, tensor\(float\)"),
        (reshaped_to_one, r"the graph fails on a batch of 2 \(.*\); export it again"),
        (not_a_number, "head 'ferplus' answers with no probabilities"),
        (logits, "head 'ferplus' answers with no probabilities"),
    ],
)
def test_a_graph_that_cannot_answer_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    path = changed(tmp_path / "odd.onnx", change)
    with pytest.raises(ModelError, match=rf"{path}: .*{words}"):
        Classifier(path)


def test_unknown_providers_are_named(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"NoSuchProvider.*CPUExecutionProvider"):
        Classifier(tiny_model, providers=["NoSuchProvider"])


def test_without_the_bundled_model_its_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        classifier, "files", lambda package: tmp_path / "mien.zip" / package
    )  # what a zip file's looks like
    with pytest.raises(ModelError, match=r"mien\.zip/mien/models: expected exactly one .* not as a zip file"):
        classifier.bundled_model()


def test_exactly_one_model_is_bundled() -> None:
    path = classifier.bundled_model()
    assert path.stat().st_size <= 10_000_000
    card = Classifier(path).card
    measured = json.loads((ROOT / "benchmarks" / "results" / "template.json").read_text())["template"]
    np.testing.assert_allclose(card.crop.template, measured, atol=0.005)
    assert set(card.head().labels) <= set(tiny.EXPRESSIONS) and path.with_name("MODEL_CARD.md").is_file()
