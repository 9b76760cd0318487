"""The model card: complete or refused, and the same after a round trip."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from mien.card import Head, InputSpec, ModelCard
from mien.errors import ModelError
from tiny_model import card


def test_round_trip() -> None:
    for one in (card(), card(colour="rgb", side=64)):
        assert ModelCard.from_json(one.to_json(), "x") == one


def paths(data: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in data.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict) and key != "heads":
            found += paths(value, f"{prefix}{key}.")
    return found


OPTIONAL = ("views", "weights", "window")  # absent in cards of before there was a choice
FIELDS = [*(path for path in paths(asdict(card())) if path not in OPTIONAL)]
FIELDS += [f"heads.ferplus.{name}" for name in asdict(card().head())]


@pytest.mark.parametrize("field", FIELDS)
def test_each_missing_field_is_named(field: str) -> None:
    data = json.loads(card().to_json())
    *holders, last = field.split(".")
    holder = data
    for name in holders:
        holder = holder[name]
    del holder[last]
    with pytest.raises(ModelError, match=rf"model\.onnx: .*lacks {field.replace('.', '[.]')}\b"):
        ModelCard.from_json(json.dumps(data), "model.onnx")


@pytest.mark.parametrize("text", ["", "{", "nonsense"])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ModelError, match="not JSON"):
        ModelCard.from_json(text, "x")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"card"'])
def test_what_is_not_an_object(text: str) -> None:
    with pytest.raises(ModelError, match="lacks everything"):
        ModelCard.from_json(text, "x")


def test_another_schema_is_refused() -> None:
    data = {**json.loads(card().to_json()), "schema": 99}
    with pytest.raises(ModelError, match="schema 99"):
        ModelCard.from_json(json.dumps(data), "x")


HEAD, INPUT, CROP = card().head(), card().input, card().crop


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"default_head": "other"}, "'other' is not among ferplus"),
        ({"input": replace(INPUT, colour="bgr")}, "'bgr'"),
        ({"input": replace(INPUT, colour="rgb")}, "1 means"),
        ({"input": replace(INPUT, std=(0.5, 0.5))}, "differ in length"),
        ({"input": replace(INPUT, std=(0.0,))}, "std is not positive"),
        ({"input": replace(INPUT, mean=(math.nan,))}, "a mean, std, template point or margin is not finite"),
        ({"crop": replace(CROP, template=((math.inf, 0.0), *CROP.template[1:]))}, "is not finite"),
        ({"crop": replace(CROP, margin=-0.5)}, "margin -0.5, expected 0 or more"),
        ({"input": replace(INPUT, height=0)}, "must be positive"),
        ({"crop": replace(CROP, template=CROP.template[:3])}, "3 template points"),
        ({"heads": {"ferplus": replace(HEAD, labels=("sad", "sad"))}}, "repeat"),
        (
            {"heads": {"ferplus": replace(HEAD, labels=("happy", "calm", "angry"))}},
            "labels 'angry', 'calm', expected of neutral",
        ),
        ({"heads": {"ferplus": replace(HEAD, temperature=0.0)}}, "temperature"),
        ({"heads": {"ferplus": replace(HEAD, output=["probabilities"])}}, "output is not a name"),
    ],
)
def test_contradictions_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        replace(card(), **change)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("", "heads", {"ferplus": [1]}), ("", "heads", [1]), ("", "input", 5), ("", "crop", None),
        ("input", "height", "48"), ("input", "mean", 0.5), ("input", "mean", ["x"]), ("input", "mean", [None]),
        ("input", "std", [0]), ("input", "note", "x"), ("crop", "template", [[0, 1, 2]]),
        ("heads", "ferplus", {**asdict(card().head()), "note": "x"}),
        ("heads", "ferplus", {**asdict(card().head()), "temperature": "x"}),
    ],
)  # fmt: skip
def test_fields_of_another_kind_are_refused_with_the_file(part: str, field: str, value: object) -> None:
    data = json.loads(card().to_json())
    (data[part] if part else data)[field] = value
    with pytest.raises(ModelError, match=r"^model\.onnx: "):
        ModelCard.from_json(json.dumps(data), "model.onnx")


def test_heads_by_name() -> None:
    two = replace(card(), heads={**card().heads, "fer2013": Head("p7", ("happy", "sad"), "majority", 1.0, "x")})
    assert two.head().output == "probabilities"
    assert two.head("fer2013").labels == ("happy", "sad")
    with pytest.raises(ModelError, match=r"'rafdb'.*ferplus, fer2013"):
        two.head("rafdb")


def test_preparation_by_hand() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (6, 5, 3), np.uint8)
    rgb = InputSpec(6, 5, "rgb", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)).prepare([crop, crop[::-1]])
    assert rgb.shape == (2, 3, 6, 5) and rgb.dtype == np.float32
    assert rgb[0, 1, 2, 3] == pytest.approx((crop[2, 3, 1] / 255 - 0.2) / 0.6, abs=1e-6)
    assert rgb[1, 2, 0, 4] == pytest.approx((crop[5, 4, 2] / 255 - 0.3) / 0.7, abs=1e-6)
    grey = InputSpec(6, 5, "grey", (0.5,), (0.25,)).prepare([crop])
    luma = crop @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey[0, 0], (luma / 255 - 0.5) / 0.25, atol=4 / 255 + 1e-6)


def test_preparation_resizes() -> None:
    crop = np.full((300, 200, 3), 77, np.uint8)
    assert (InputSpec(48, 40, "grey", (0.0,), (1.0,)).pixels([crop]) == 77).all()
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    expected = Image.fromarray(noise).convert("L").resize((48, 48), Image.Resampling.BILINEAR, reducing_gap=3.0)
    np.testing.assert_array_equal(card().input.pixels([noise])[0, 0], np.asarray(expected))
