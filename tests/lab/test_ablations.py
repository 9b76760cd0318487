"""benchmarks/ablations.py: short passes that differ in their loss alone, compared over seeds."""

import json
from pathlib import Path
from typing import Any

import pytest

from mien.lab.training.recipes import Choice, describe, resolve
from scripts import script


@pytest.fixture
def ablations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = script("ablations")
    monkeypatch.setattr(module, "RECORDS", tmp_path)
    return module


def recipe_of(one: Any) -> dict[str, Any]:
    words = one.words
    loss = words[words.index("--loss") + 1] if "--loss" in words else None
    settings = tuple(words[i + 1] for i, word in enumerate(words) if word == "--set")
    return describe(resolve(Choice("mien-small", loss=loss, settings=settings))[1])


def finished(ablations: Any, name: str, *accuracies: float) -> None:
    one = next(one for one in ablations.PASSES if one.name == name)
    for seed, accuracy in enumerate(accuracies):
        folder = ablations.RECORDS / ablations.folder_of(one, seed)
        folder.mkdir()
        score = {"accuracy": {"value": accuracy}, "balanced_accuracy": {"value": accuracy - 0.02}}
        (folder / "score.json").write_text(json.dumps(score), encoding="utf-8")
        (folder / "run.json").write_text(
            '{"pretrained": {"file": "best.ckpt", "sha256": "ab"}, "started": "2026-11-26T10:11:12+00:00"}',
            encoding="utf-8",
        )
        (folder / "times.csv").write_text(
            "epoch,train_s,epoch_s,images_per_s\n0,50,60,1\n1,50,60,1\n", encoding="utf-8"
        )


def test_passes_differ_in_nothing_but_the_loss(ablations: Any) -> None:
    recipes = [recipe_of(one) for one in ablations.PASSES]
    losses = [str(recipe.pop("loss")) for recipe in recipes]
    assert len(set(losses)) == len(losses)
    for recipe in recipes:
        recipe["network"].pop("second_head")
        assert recipe == recipes[0]
    names = [ablations.folder_of(one, 0) for one in ablations.PASSES]
    assert len(set(names)) == len(names) and all(name.replace("-", "").isalnum() for name in names)


def test_passes_are_compared_with_the_labels_alone(ablations: Any) -> None:
    finished(ablations, "labels alone", 0.700, 0.704)
    finished(ablations, "labels and votes", 0.720, 0.724)
    finished(ablations, "MSCAR's cosine loss", 0.703, 0.705)
    rows = ablations.compared([row for row in map(ablations.measured, ablations.PASSES) if row is not None])
    found = {row["name"]: row for row in rows}
    assert list(found) == ["labels alone", "labels and votes", "MSCAR's cosine loss"]
    assert found["labels alone"]["minutes"] == pytest.approx(2) and "against_baseline" not in found["labels alone"]
    votes, cosine = (found[name]["against_baseline"]["accuracy"] for name in list(found)[1:])
    assert votes["difference"]["value"] == pytest.approx(0.02) and votes["p"] < 0.05 and votes["difference"]["low"] > 0
    assert cosine["difference"]["value"] == pytest.approx(0.002) and cosine["p"] > 0.05
    assert cosine["difference"]["low"] < 0 < cosine["difference"]["high"]


def test_one_seed_is_no_comparison(ablations: Any) -> None:
    finished(ablations, "labels alone", 0.700, 0.704)
    finished(ablations, "labels and votes", 0.720)
    rows = ablations.compared([row for row in map(ablations.measured, ablations.PASSES) if row is not None])
    assert not any("against_baseline" in row for row in rows)
