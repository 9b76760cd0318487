"""A model file as mien exports it, small enough to make in a test; its weights are random, its answers mean nothing."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mien.card import METADATA_KEY, CropSpec, Head, InputSpec, ModelCard
from mien.expressions import EXPRESSIONS

# Rounded from benchmarks/results/template.json.
TEMPLATE = ((0.32, 0.38), (0.68, 0.38), (0.50, 0.59), (0.35, 0.78), (0.65, 0.78))
FEATURES = 5


def card(labels: tuple[str, ...] = EXPRESSIONS, *, colour: str = "grey", side: int = 48) -> ModelCard:
    """A complete card for `write`."""
    channels = {"grey": 1, "rgb": 3}[colour]
    return ModelCard(
        heads={"ferplus": Head("probabilities", labels, "majority", 1.0, "nothing")},
        default_head="ferplus",
        input=InputSpec(side, side, colour, (0.5,) * channels, (0.25,) * channels),
        crop=CropSpec(TEMPLATE, 0.0),
        method="tiny",
        seed=0,
        commit="none",
        licence="Apache-2.0",
    )


def write(
    path: Path, card: ModelCard, *, metadata: dict[str, Any] | str | None = "card", features: str = "features"
) -> Path:
    """Write the graph flatten -> gemm -> softmax. metadata: the card's JSON object, a text to put instead, or None."""
    spec, classes = card.input, len(card.head().labels)
    pixels = len(spec.mean) * spec.height * spec.width
    generator = np.random.default_rng(7)
    weights = {
        "w": generator.normal(0, 4 / np.sqrt(pixels), (pixels, FEATURES)),
        "v": generator.normal(0, 1, (FEATURES, classes)),
        "b": generator.normal(0, 1, (classes,)),
    }
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], [features]),
        helper.make_node("Gemm", [features, "v", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", len(spec.mean), spec.height, spec.width])
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes]),
        helper.make_tensor_value_info(features, TensorProto.FLOAT, ["n", FEATURES]),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    text = json.dumps(asdict(card)) if metadata == "card" else metadata
    if text is not None:
        helper.set_model_props(model, {METADATA_KEY: text if isinstance(text, str) else json.dumps(text)})
    onnx.save(model, path)
    return path
