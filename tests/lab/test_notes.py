"""What a run's reader is told before its numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mien.classifier import bundled_model
from mien.expressions import BASIC
from mien.lab import methods
from mien.lab.datasets import FaceDataset
from mien.lab.training import runs
from mien.lab.training.notes import notes_of

GREY = methods.load("mien-small").recipes["paper"]  # 48 px


def dataset(name: str = "fer2013", *, shape: tuple[int, int] = (48, 48)) -> FaceDataset:
    return FaceDataset(
        name=name, split="train", label_rule="majority", classes=BASIC, labels=np.arange(7), ids=tuple("abcdefg"),
        read=lambda row: np.zeros((*shape, 3), np.uint8), fingerprint="0" * 16,
    )  # fmt: skip


def checkpoint(folder: Path, *, name: str = "fer2013", fingerprint: str = "0" * 16, **more: Any) -> Path:
    facts = {"data": {"name": name, "fingerprint": fingerprint}, "pretrained": None, "teacher": None} | more
    runs.write(folder, facts)
    (folder / "best.ckpt").write_bytes(b"")
    return folder / "best.ckpt"


def test_stretched_faces_are_named_and_square_ones_are_not() -> None:
    assert notes_of(dataset(), GREY, "valid", []) == []
    (told,) = notes_of(dataset("expw", shape=(96, 48)), GREY, "valid", [])
    assert told.startswith("expw: a picture of 48x96 px would be stretched to 48x48")


def test_a_class_that_nobody_can_learn_is_named() -> None:
    lacking = replace(dataset(), labels=np.array([0, 1, 2, 3, 4, 5, 5]))
    assert notes_of(lacking, GREY, "valid", []) == [
        "the training rows hold none of anger: the network cannot learn what is not there"
    ]
    voted = replace(lacking, votes=np.full((7, 7), 1 / 7, np.float32))
    assert notes_of(voted, GREY, "valid", []) == []


def test_a_last_side_that_is_not_the_size_is_named() -> None:
    assert notes_of(dataset(shape=(64, 64)), replace(GREY, size=64, sizes=()), "valid", []) == []
    (told,) = notes_of(dataset(shape=(64, 64)), replace(GREY, size=64), "valid", [])
    assert told == "the run ends on pictures of 48 px (sizes) and is judged on those of 64 px (size)"


@pytest.mark.parametrize(
    ("name", "facts", "knows"),
    [
        ("fer2013", {}, False),  # the same rows: the tenth was held out there, too
        ("fer2013", {"fingerprint": "1" * 16}, True),
        ("ferplus", {"fingerprint": "1" * 16, "name": "fer2013"}, True),  # one's pictures are the other's
        ("rafdb", {"fingerprint": "1" * 16, "name": "expw"}, False),
        ("rafdb", {"name": "expw", "teacher": {"file": "best.ckpt"}}, True),  # nobody knows what taught that
    ],
)
def test_a_start_that_may_know_the_holdout(tmp_path: Path, name: str, facts: dict[str, Any], knows: bool) -> None:
    path = checkpoint(tmp_path / "run", **facts)
    told = notes_of(dataset(name), GREY, "holdout", [path])
    assert [note.split(" may have learnt")[0] for note in told] == (["run/best.ckpt"] if knows else [])
    assert notes_of(dataset(name), GREY, "valid", [path]) == []


def test_a_mean_of_runs_does_not_say_what_it_started_from(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "mean")
    facts = runs.read(path.parent)
    runs.write(path.parent, {"data": facts["data"]})
    assert len(notes_of(dataset(), GREY, "holdout", [path])) == 1


def test_the_bundled_file_says_what_it_learnt() -> None:
    assert len(notes_of(dataset(), GREY, "holdout", [bundled_model()])) == 1
    assert notes_of(dataset("rafdb"), GREY, "holdout", [bundled_model(), Path("answers.npz"), Path("theirs.pth")]) == []
