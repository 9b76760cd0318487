"""benchmarks/claims.py: rows against the row they improve on, over seeds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scores_fixtures import made_up

from scripts import script


def scored(right: int, seed: int, *, rows: int = 400) -> Any:
    """Scores of which exactly `right` rows are right."""
    scores = made_up(rows, seed=seed)
    guesses = np.where(np.arange(rows) < right, scores.labels, (scores.labels + 1) % len(scores.classes))
    scores.probabilities[:] = np.eye(len(scores.classes), dtype=np.float32)[guesses]
    return scores


def finished(folder: Path, variant: str, seed: int, right: int) -> None:
    run = folder / "ad-corre" / "cpu" / f"{variant}--fer2013" / f"seed{seed}"
    run.mkdir(parents=True)
    scored(right, seed).save(run / "scores.npz")
    (folder / "ad-corre" / "cpu" / "asked.json").write_text('{"settings": ["epochs=3", "ce:lr=0.1"]}', encoding="utf-8")
    facts = {"recipe": {"epochs": 3}}
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (run / "times.csv").write_text(
        "epoch,train_s,epoch_s,images_per_s\n0,50,60,1\n1,50,60,1\n2,50,60,1\n", encoding="utf-8"
    )


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = script("claims")
    monkeypatch.setattr(module, "RUNS", tmp_path)
    return module


def test_a_row_is_judged_against_its_baseline_over_seeds(claims: Any, tmp_path: Path) -> None:
    for seed, (base, better) in enumerate([(200, 240), (202, 242), (204, 244)]):
        finished(tmp_path, "ce", seed, base)
        finished(tmp_path, "ad-corre", seed, better)
    finished(tmp_path, "ce-md", 0, 300)  # one seed is no sample
    found = claims.judged(claims.CLAIMS[0])
    assert list(found["rows"]) == ["CE", "Ad-Corre"]
    assert found["epochs"] == 3 and found["settings"] == ["epochs=3", "ce:lr=0.1"]
    assert found["minutes"] == pytest.approx(3.0)
    assert found["rows"]["CE"]["values"]["accuracy"] == pytest.approx([0.5, 0.505, 0.51])
    assert found["rows"]["CE"]["against_baseline"] == {}
    row = found["rows"]["Ad-Corre"]["against_baseline"]["accuracy"]
    assert row["difference"]["value"] == pytest.approx(0.1)
    assert row["printed"] == pytest.approx((63.36 - 56.46) / 100)
    low, high = row["difference"]["low"], row["difference"]["high"]
    # Welch by hand: both deviations 0.005, 4 degrees of freedom, t = 2.776
    assert high - low == pytest.approx(2 * 2.776445 * 0.005 * (2 / 3) ** 0.5, rel=1e-4)
    assert row["p"] == row["p_holm"] < 0.05  # one other row: each metric is a family of its own


def test_an_unmeasured_table_is_left_out(claims: Any, tmp_path: Path) -> None:
    finished(tmp_path, "ce", 0, 200)
    finished(tmp_path, "ce", 1, 200)
    assert claims.judged(claims.CLAIMS[0]) is None


def test_every_claim_names_rows_that_the_paper_prints(claims: Any) -> None:
    sizes = {}
    for claim in claims.CLAIMS:
        numbers = claims.printed_rows(claims.methods.load(claim.method), claim)
        assert claim.baseline in numbers, claim
        sizes[claim.method] = len(numbers)
        assert all(number.metric == claim.printed for number in numbers.values())
    assert sizes == {"ad-corre": 5, "lban-il": 4, "wcl": 5, "resface": 2, "mscar": 4}
