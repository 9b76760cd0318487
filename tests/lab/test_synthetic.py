"""Drawn faces: the same every time, true to their spec, and learnable."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien.errors import UsageError
from mien.expressions import EXPRESSIONS
from mien.lab import datasets
from mien.lab.datasets.synthetic import Spec, load

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

SMALL = Spec(rows=(160, 80, 80))


def pixels(split: str, spec: Spec) -> np.ndarray:
    data = load(split=split, spec=spec)
    return np.stack([data.read(i) for i in range(len(data))])


def test_the_same_spec_draws_the_same_pixels() -> None:
    first, again = load(split="train", spec=SMALL), load(split="train", spec=SMALL)
    assert first.fingerprint == again.fingerprint
    np.testing.assert_array_equal(first.read(7), again.read(7))
    other = load(split="train", spec=replace(SMALL, seed=1))
    assert other.fingerprint != first.fingerprint
    assert np.abs(other.read(7).astype(int) - first.read(7)).mean() > 5


def test_it_needs_no_folder_and_is_in_three_splits() -> None:
    data = datasets.load("synthetic", None, split="valid")
    assert data.classes == EXPRESSIONS
    assert data.read(0).shape == (48, 48, 3)
    assert data.read(0).dtype == np.uint8


def test_no_person_and_no_picture_is_in_two_splits() -> None:
    parts = [load(split=split, spec=SMALL) for split in datasets.SPLITS]
    people = [set(part.groups["subject"]) for part in parts]
    assert sum(map(len, people)) == len(set.union(*people))
    faces = [part.read(i).tobytes() for part in parts for i in range(len(part))]
    assert len(set(faces)) == len(faces) == 320


def test_labels_are_as_frequent_as_the_imbalance_says() -> None:
    assert load(split="train", spec=SMALL).class_counts == (20,) * 8
    counts = load(split="train", spec=replace(SMALL, rows=(4000, 1, 1), imbalance=16.0, side=16)).class_counts
    assert counts[0] / counts[-1] == pytest.approx(16, rel=0.02)
    assert list(counts) == sorted(counts, reverse=True)


def test_label_noise_moves_training_labels_only() -> None:
    noisy = replace(SMALL, rows=(2000, 80, 80), label_noise=0.3, side=16)
    clean = replace(noisy, label_noise=0.0)
    moved = load(split="train", spec=noisy).labels != load(split="train", spec=clean).labels
    assert moved.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(load(split="test", spec=noisy).labels, load(split="test", spec=clean).labels)


def test_votes_agree_with_the_truth_the_more_the_stronger_the_expression() -> None:
    def agreement(low: float, high: float) -> float:
        data = load(split="test", spec=replace(SMALL, rows=(1, 1, 800), intensity=(low, high), side=16))
        assert data.votes is not None
        np.testing.assert_allclose(data.votes.sum(axis=1), 1, atol=1e-6)
        return float(data.votes[np.arange(800), data.labels].mean())

    assert agreement(0.95, 1.0) > 0.9 > agreement(0.5, 0.6) + 0.1


def test_each_knob_changes_the_picture() -> None:
    plain = replace(SMALL, pose=0, light=0, covered=0, noise=0)
    still = pixels("test", plain)
    for change in ({"pose": 1.0}, {"light": 1.0}, {"covered": 1.0}, {"noise": 0.1}, {"intensity": (0.2, 0.3)}):
        assert np.abs(pixels("test", replace(plain, **change)).astype(int) - still).mean() > 0.5, change


def test_expressions_differ_more_than_people_blink() -> None:
    """With everything else held still, the mean faces of two expressions are visibly apart."""
    spec = Spec(rows=(1, 1, 800), pose=0, light=0, covered=0, noise=0, intensity=(1, 1), identities=1)
    data = load(split="test", spec=spec)
    images = np.stack([data.read(i) for i in range(len(data))]).astype(float)
    means = [images[data.labels == label].mean(axis=0) for label in range(8)]
    spread = max(images[data.labels == label].std(axis=0).mean() for label in range(8))
    for one in range(8):
        for other in range(one):
            assert np.abs(means[one] - means[other]).max() > 40, (EXPRESSIONS[one], EXPRESSIONS[other])
    assert spread < 10


@pytest.mark.parametrize(
    "change",
    [{"rows": (0, 1, 1)}, {"side": 8}, {"label_noise": 1.0}, {"imbalance": 0.5}, {"classes": ("sad", "happy")}],
)
def test_specs_that_cannot_be_meant_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        load(split="train", spec=replace(SMALL, **change))  # type: ignore[arg-type]


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(UsageError, match="'dev'"):
        load(split="dev", spec=SMALL)


@pytest.mark.slow
def test_a_small_network_learns_it() -> None:
    """Three convolutions, five epochs: more than 90 % of test faces."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    train, test = load(split="train"), load(split="test")
    x, y, tx, ty = (
        *(_tensors(torch, train)),
        *(_tensors(torch, test)),
    )
    blocks = [_block(torch, before, after) for before, after in ((1, 16), (16, 32), (32, 64))]
    network = torch.nn.Sequential(*blocks, torch.nn.Flatten(), torch.nn.Linear(64 * 36, 8))
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(5):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(tx).argmax(1) == ty).float().mean().item()
    assert accuracy > 0.9


@pytest.mark.soak
def test_the_newcomers_command_reaches_ninety_per_cent(tmp_path: Path) -> None:
    """`mien train mscar --data synthetic --preset cpu`, as the documents give it."""
    from mien.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["train", "mscar", "--data", "synthetic", "--preset", "cpu", "-o", str(tmp_path / "run")])
    assert not ended.value.code
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert max(float(row["selection"]) for row in csv.DictReader(file)) > 0.9


def _tensors(torch, data):  # type: ignore[no-untyped-def]
    images = np.stack([data.read(i)[..., 1] for i in range(len(data))])
    return torch.tensor(images / 127.5 - 1, dtype=torch.float32)[:, None], torch.tensor(data.labels)


def _block(torch, before, after):  # type: ignore[no-untyped-def]
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
