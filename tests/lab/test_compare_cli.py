"""`mien compare`: from folders with Scores to a printed and a written comparison."""

import csv
import io
import json
from pathlib import Path

import pytest
from scores_fixtures import made_up

from mien import cli
from mien.errors import DataError
from mien.lab.evaluation.compare_files import facts_beside, load, names

pytest.importorskip("sklearn", reason="needs the extra eval")


def folder(place: Path, *, skill: float, seed: int, facts: dict[str, float] | None = None) -> Path:
    place.mkdir(parents=True)
    made_up(300, seed=seed, skill=skill).save(place / "scores.npz")
    if facts is not None:
        (place / "metrics.json").write_text(json.dumps({"accuracy": 0.5, "model": facts}))
    return place


def test_three_models_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak = folder(tmp_path / "weak", skill=0.5, seed=1, facts={"bytes": 2_500_000, "ms_per_face": 1.25})
    strong = folder(tmp_path / "strong", skill=3.0, seed=2)
    twin = folder(tmp_path / "twin", skill=3.0, seed=2, facts={"parameters": 7e6, "macs": 9e7, "ms_per_face": 3.0})
    out = tmp_path / "pages"
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(weak), str(strong / "scores.npz"), str(twin), "-o", str(out)])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "300 faces" in printed
    for verdict in ("strong is better", "twin is better", "no difference beyond noise"):
        assert verdict in printed
    assert "ms a face" in printed
    assert sorted(path.name for path in out.iterdir()) == ["comparison.csv", "comparison.html", "comparison.md"]
    rows = list(csv.DictReader(io.StringIO((out / "comparison.csv").read_text(encoding="utf-8"))))
    facts = {
        (row["model"], row["quantity"]): float(row["value"]) for row in rows if row["quantity"] in ("bytes", "macs")
    }
    assert facts == {("weak", "bytes"): 2_500_000, ("twin", "macs"): 9e7}
    html = (out / "comparison.html").read_text(encoding="utf-8")
    assert "Paired tests" in html
    assert "twin - strong" in html


def test_names_are_folders_and_grow_until_they_differ(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "seed0" / "scores.npz", tmp_path / "b" / "seed0" / "scores.npz", tmp_path / "b.npz"]
    assert names(files[:1]) == ["seed0"]
    assert names(files[:2]) == ["a/seed0", "b/seed0"]
    assert names(files[1:]) == ["seed0", "b"]
    with pytest.raises(DataError, match="given twice"):
        names([files[0], files[1], files[0]])


def test_what_cannot_be_compared_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = folder(tmp_path / "one", skill=1.0, seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no scores.npz in this folder; write one with `mien evaluate"):
        load([one, tmp_path / "empty"])
    for broken in ("[", '{"model": null}', '{"model": {"macs": "many"}}', '{"model": {"macs": null}}'):
        (one / "metrics.json").write_text(broken)
        with pytest.raises(DataError, match="cannot be read"):
            facts_beside(one / "scores.npz")
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(tmp_path / "absent.npz"), str(one)])
    assert ended.value.code == 1
    assert "absent.npz: not a scores file" in capsys.readouterr().err
