"""The pure parts of the scripts in benchmarks/: damage, counting, bounds and the choice of the file to ship."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mien.classifier import Classifier
from mien.expressions import BASIC, EXPRESSIONS
from mien.faces.detect import Detection
from mien.lab.datasets import FaceDataset
from mien.reader import Face
from scripts import script

SQUARE = ((18, 30), (18, 30))  # rows and columns of a bright square in the middle of 48 px


@pytest.fixture
def face() -> np.ndarray:
    """(48, 48) uint8: a rough slope with a smooth bright square in the middle."""
    rough = np.random.default_rng(0).integers(0, 40, (48, 48))
    made = (np.add.outer(np.arange(48), 2 * np.arange(48)) + rough).astype(np.uint8)
    made[slice(*SQUARE[0]), slice(*SQUARE[1])] = 250
    return made


def test_every_damage_is_seeded_changes_the_face_and_keeps_its_shape(face: np.ndarray) -> None:
    degradations = script("degradations")
    faces = np.stack([face, face[::-1]])
    for one in degradations.DEGRADATIONS:
        found = degradations.damaged(faces, one)
        assert found.shape == faces.shape and found.dtype == np.uint8, one
        assert np.array_equal(found, degradations.damaged(faces, one)), one
        assert np.abs(found.astype(int) - faces).mean() > 0.2, one


def test_the_stronger_damage_changes_more(face: np.ndarray) -> None:
    degradations = script("degradations")
    changes: dict[str, list[float]] = {}
    for one in degradations.DEGRADATIONS:
        gap = np.abs(degradations.damaged(face[None], one).astype(int) - face).mean()
        changes.setdefault(one.kind, []).append(float(gap))
    assert len(changes) == 8
    for kind, (weak, strong) in changes.items():
        assert kind == "scale" or weak < strong, kind


def test_turning_and_scaling_are_about_the_centre(face: np.ndarray) -> None:
    degradations = script("degradations")
    assert np.array_equal(degradations._turned(face, 0, 1), face)
    quarter = degradations._turned(face, 90, 1)
    assert np.abs(quarter.astype(int) - np.rot90(face, -1)).max() <= 1
    larger = degradations._turned(face, 0, 2.0)
    assert (larger[13:35, 13:35] == 250).all()  # the 12 px square is 24 px wide now
    assert (larger[:11] < 200).all()
    smaller = degradations._turned(face, 0, 0.5)
    assert (smaller == 250).sum() == pytest.approx(36, abs=16)


def test_damage_does_what_its_name_says(face: np.ndarray) -> None:
    degradations, random = script("degradations"), np.random.default_rng(0)
    assert degradations.darkened(0.4)(face, random).max() == 100
    covered = degradations.occluded(0.5)(face, random)
    assert (covered != face).sum() > 24 * 24 * 0.9
    assert len(np.unique(covered[covered != face])) == 1
    assert degradations.noisy(15)(np.full((48, 48), 128, np.uint8), random).std() == pytest.approx(15, abs=1.5)


def labelled(name: str, classes: tuple[str, ...], labels: list[int], rows: list[int], faces: np.ndarray) -> FaceDataset:
    return FaceDataset(
        name, "valid", "test", classes, np.array(labels), tuple(f"{row:05d}" for row in rows),
        lambda i: np.repeat(faces[rows[i]][..., None], 3, axis=2), "none",
    )  # fmt: skip


@pytest.fixture
def public() -> Any:
    """Four faces, all in FER-2013's label set and three of them in FER+'s."""
    faces = np.random.default_rng(0).integers(0, 256, (4, 48, 48), dtype=np.uint8)
    sets = {
        "fer2013": labelled("fer2013", BASIC, [0, 1, 2, 3], [0, 1, 2, 3], faces),
        "ferplus": labelled("ferplus", EXPRESSIONS, [0, 7, 3], [0, 1, 3], faces),
    }
    return script("public_test").PublicTest(faces, sets, {"fer2013": np.arange(4), "ferplus": np.array([0, 1, 3])})


def test_each_label_set_is_judged_on_its_own_rows(public: Any, tiny_model: Path) -> None:
    public_test, card = script("public_test"), Classifier(tiny_model).card
    answers = {"ferplus": np.eye(8)[[0, 7, 2, 4]].astype(np.float32)}  # the tiny model's only head, of eight
    found = public_test.judged(public, card, answers)
    assert found["ferplus"] == {"n": 3, "accuracy": pytest.approx(2 / 3), "ece": pytest.approx(1 / 3)}
    assert found["fer2013"]["accuracy"] == 0.5  # rows 0 and 2; contempt is dropped on row 1
    some = public_test.judged(public, card, answers, kept=np.array([True, False, True, False]))
    assert (some["ferplus"]["n"], some["fer2013"]["n"], some["fer2013"]["accuracy"]) == (1, 2, 1.0)


def test_crops_are_compared_on_the_rows_that_the_detector_covers(public: Any, tiny_model: Path) -> None:
    degradations, public_test = script("degradations"), script("public_test")
    model = Classifier(tiny_model)
    own = public_test.answers(model, public.faces)
    same = [np.repeat(one[..., None], 3, axis=2) for one in public.faces]
    found = degradations.crops_compared(public, model, own, [same[0], None, same[2], None])
    assert found["coverage"] == 0.5
    assert found["own_covered"] == found["remade"]  # the re-made crops are the own ones here
    assert found["remade"]["fer2013"]["n"] == 2
    assert found["remade"]["ferplus"]["n"] == 1
    assert found["own_uncovered"]["fer2013"]["n"] == 2
    assert found["same_answer"] == 1.0


def read_face(x: float, y: float, side: float, expression: str = "happy") -> Face:
    return Face((x, y, x + side, y + side), None, 0.9, expression, 1.0, {expression: 1.0})


def test_a_copy_is_missed_false_or_right() -> None:
    photographs, detector = script("photographs"), script("detector")
    view = detector.View("me 30 degrees", np.zeros((9, 9, 3), np.uint8), np.array([50.0, 50.0]), 40.0)
    right, wrong = read_face(30, 30, 40), read_face(200, 30, 40, "sad")
    assert detector.is_right(Detection(right.box, 0.9, None), view)
    both = photographs.outcome(view, "me", [wrong, right], others=False)
    assert (both.kind, both.expression, both.false) == ("turned", "happy", 1)
    missed = photographs.outcome(view, "me", [wrong], others=False)
    assert (missed.expression, missed.false) == (None, 1)
    assert photographs.outcome(view, "me", [wrong, right], others=True).false == 0


def test_missed_false_and_flipped_faces_are_counted_by_kind() -> None:
    photographs = script("photographs")
    outcome = photographs.Outcome
    found = photographs.counted(
        [
            outcome("hopper", "plain", "hopper plain", "happy", 0),
            outcome("hopper", "dark", "hopper dark", "sad", 2),
            outcome("hopper", "turned", "hopper 30 degrees", None, 0),
            outcome("hopper", "turned", "hopper -30 degrees", "happy", 0),
            outcome("stranger", "plain", "stranger plain", "fear", 0),
            outcome("coffee", "no face", "coffee", None, 1),
        ]
    )
    assert found["kinds"]["dark"] == {"pictures": 1, "missed": 0, "flips": 1, "false": 2}
    assert found["kinds"]["turned"] == {"pictures": 2, "missed": 1, "flips": 0, "false": 0}
    assert found["kinds"]["no face"] == {"pictures": 1, "missed": 0, "flips": 0, "false": 1}
    assert found["missed"] == ["hopper 30 degrees"]
    assert found["false"] == ["hopper dark", "coffee"]
    assert found["flips"] == {"hopper dark": "happy -> sad"}
    assert [row["agrees"] for row in found["read"]] == [True, None]


def test_copies_bound_the_best_answer() -> None:
    agreement = script("agreement")
    found = agreement.repeated(["a", "b", "a", "b", "b", "c"], [1, 2, 1, 2, 3, 0])
    assert (found["pictures"], found["conflicting"], found["pairs"]) == (2, 1, 4)
    assert found["best_answer_at_least"] == 0.5  # one of one pair, and one of three
    assert found["best_answer_at_most"] == pytest.approx(math.sqrt(0.5))


def test_labels_are_compared_by_name_and_row(public: Any) -> None:
    found = script("agreement").relabelled(public.data["fer2013"], public.data["ferplus"])
    assert found == {"n": 3, "agreement": pytest.approx(2 / 3)}


def variant(weights: str, views: str, accuracy: float, ms: float) -> dict[str, Any]:
    size = {"float32": 4, "float16": 2, "int8": 1}[weights]
    return {"weights": weights, "views": views, "mean_accuracy": accuracy, "ms_median": ms, "bytes": size}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("int8", "flip", "flip_ms", "expected"),
    [
        (0.7990, 0.01, 3.0, ("int8", "flip")),  # 0.1 points for a quarter of the file, and the flip is quick
        (0.7990, 0.01, 6.0, ("int8", "single")),  # the flip takes too long
        (0.7990, 0.002, 3.0, ("int8", "single")),  # the flip brings less than it costs
        (0.7960, 0.01, 3.0, ("float16", "flip")),  # int8 costs 0.4 points: the smallest that holds is half precision
    ],
)
def test_the_smallest_file_that_holds_is_shipped(
    int8: float, flip: float, flip_ms: float, expected: tuple[str, str]
) -> None:
    accuracies = {"float32": 0.8, "float16": 0.8, "int8": int8}
    rows = [variant(weights, "single", value, 1.5) for weights, value in accuracies.items()]
    rows += [variant(w, "flip, mean of probabilities", value + flip, flip_ms) for w, value in accuracies.items()]
    row = script("variants").chosen(rows)
    assert (row["weights"], row["views"].partition(",")[0]) == expected


@pytest.mark.slow
def test_of_two_networks_the_most_accurate_that_is_quick_enough_is_shipped() -> None:
    cases = (("single", 0.80, 2.9), ("flip", 0.83, 5.8), ("split", 0.82, 2.9))
    rows = [variant(w, f"{views} of 2 networks, mean of probabilities", *told) for views, *told in cases
            for w in ("float32", "int8")]  # fmt: skip
    assert script("variants").chosen(rows)["views"].startswith("split")


@pytest.mark.slow
def test_mini_xception_has_the_published_size_and_answers_seven() -> None:
    import torch

    mini_xception = script("mini_xception")
    network = mini_xception.MiniXception().eval()
    assert mini_xception.numbers(network) == 58_423
    for side in (48, 64):
        answered = network(torch.zeros(2, 1, side, side))
        assert answered.shape == (2, 7)
        assert torch.allclose(answered.sum(dim=1), torch.ones(2))


@pytest.mark.slow
def test_a_remembered_face_is_classified_once(tiny_model: Path) -> None:
    model, seen = Classifier(tiny_model), []

    class Counting:
        card, sha256 = model.card, model.sha256

        def run(self, batch: np.ndarray) -> Any:
            seen.append(len(batch))
            return model.run(batch)

    remembered = script("release").Remembered(Counting())
    batch = np.random.default_rng(0).normal(size=(5, 1, 48, 48)).astype(np.float32)
    for rows, new in (([0, 1, 2], 3), ([2, 4, 0], 1), ([1, 1, 3], 1), ([0, 3], 0)):
        before = sum(seen)
        found, expected = remembered.run(batch[rows]), model.run(batch[rows])
        assert sum(seen) - before == new
        assert found.probabilities["ferplus"] == pytest.approx(expected.probabilities["ferplus"], abs=1e-6)
        assert found.features == pytest.approx(expected.features, abs=1e-5)


def test_another_processors_answers_are_put_together_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, public_test = script("older_processor"), script("public_test")
    emulator = tmp_path / "emulator"
    emulator.write_text('#!/bin/sh\n[ "$1 $2" = "-cpu Haswell" ] || exit 3\nshift 2\nexec "$@"\n')
    emulator.chmod(0o755)
    monkeypatch.setattr(older, "EMULATOR", str(emulator))
    faces = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    here, there = public_test.answers(Classifier(tiny_model), faces), older.emulated(tiny_model, faces, "Haswell")
    assert set(there) == {"ferplus"} and there["ferplus"] == pytest.approx(here["ferplus"], abs=1e-6)


def test_doubted_labels_are_held_to_the_voters() -> None:
    confidence = np.array([0.0, 0.04, 0.05, 0.5, 0.9, 1.0])
    labels, first, voted = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 1, 1, 2, 2]), np.array([1, 0, -1, 1, 2, 0])
    found = script("doubted").by_band(confidence, labels, first, voted)
    assert [(band["n"], band["voted"]) for band in found] == [(2, 2), (1, 0), (0, 0), (1, 1), (2, 2)]
    assert [band["contradicted"] for band in found] == [0.5, None, None, 0.0, 0.5]
    assert [band["with_the_network"] for band in found] == [0.5, None, None, 1.0, 0.5]


def test_a_changed_answer_is_counted() -> None:
    older = script("older_processor")
    here, there = np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([[0.4, 0.6], [0.2, 0.8]])
    assert older.compared(here, there) == pytest.approx(
        {"same_expression": 0.5, "largest_change": 0.2, "mean_change": 0.1}
    )


def test_networks_answer_together_with_their_mean(tiny_model: Path) -> None:
    together = script("together")
    assert together.subsets("abc") == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    faces = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    model = Classifier(tiny_model)
    found = together.views(model, faces)
    expected = [script("public_test").answers(model, seen)["ferplus"] for seen in (faces, faces[..., ::-1])]
    assert found["single"]["ferplus"] == pytest.approx(expected[0], abs=1e-6)
    assert found["flip"]["ferplus"] == pytest.approx((expected[0] + expected[1]) / 2, abs=1e-6)
    other = {view: {"ferplus": np.ones((3, 8)) / 8} for view in found}
    assert together.mean([found, other])["single"]["ferplus"] == pytest.approx(
        (found["single"]["ferplus"] + 1 / 8) / 2, abs=1e-6
    )


def test_candidates_are_scored_at_temperatures_of_the_other_half() -> None:
    """How sharp a file's answers are makes no difference, and a row's loss is by hand at the other half's temperature."""
    candidates = script("candidates")
    random = np.random.default_rng(0)
    logits = random.normal(size=(600, 7)) + 2 * np.eye(7)[labels := random.integers(0, 7, 600)]
    plain, target = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), np.eye(7)[labels]
    sharp = plain**2 / (plain**2).sum(axis=1, keepdims=True)
    losses = [candidates.cross_fitted_loss(target, answers) for answers in (plain, sharp)]
    assert losses[0].mean() == pytest.approx(losses[1].mean(), abs=1e-4)
    temperature = candidates.best_temperature(target[::2], plain[::2])
    scaled = logits[1] / temperature
    assert losses[0][1] == pytest.approx(np.log(np.exp(scaled).sum()) - scaled[labels[1]])
    flipped = plain.copy()
    flipped[0], flipped[2] = 1 / 7, 1 / 7
    assert candidates.cross_fitted_loss(target, flipped)[2] == pytest.approx(np.log(7))


def test_candidates_differ_by_their_rows() -> None:
    candidates = script("candidates")
    first = {"fer2013": {"accuracy": np.array([1.0, 0.0, 1.0]), "loss": np.array([0.1, 0.2, 0.3])}}
    own = {"fer2013": {"accuracy": np.array([1.0, 1.0, 1.0]), "loss": np.array([0.0, 0.2, 0.1])}}
    found = candidates.compared(own, first)["fer2013"]
    assert (found["accuracy"]["value"], found["accuracy"]["difference"]) == (1.0, pytest.approx(1 / 3))
    assert found["loss"]["difference"] == pytest.approx(-0.1)
    assert found["loss"]["standard_error"] == pytest.approx(0.1 / 3**0.5)
