"""RAF-DB's compound set: its eleven classes are no expressions, and are trained, judged and exported all the same."""

import csv
import json
from pathlib import Path

import pytest

from mien import Reader, cli
from mien.errors import ModelError
from mien.lab import datasets
from mien.lab.datasets import layouts

pytestmark = pytest.mark.slow  # a training run

pytest.importorskip("sklearn", reason="needs the extra eval")


def mien(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert not ended.value.code


def test_a_run_is_judged_and_exported_and_reads_no_face(tmp_path: Path) -> None:
    root = tmp_path / "rafdb"
    layouts.write("rafdb-compound", root, rows=66)
    data = ("--data", "rafdb-compound", "--root", root, "--allow-partial")
    small = ("--preset", "cpu", "--set", "epochs=1", "--set", "batch=16", "--set", "network.widths=(4,4,4,4)")
    run, file = tmp_path / "run", tmp_path / "run.onnx"
    mien("train", "mien-small", *small, "--loss", "softmax", *data, "--select-on", "holdout", "-o", run)
    mien("export", run, "-o", file)
    for model, out in ((run, tmp_path / "of-run"), (file, tmp_path / "of-file")):
        mien("evaluate", model, *data, "--split", "test", "-o", out)
    found = [json.loads((tmp_path / out / "metrics.json").read_text())["accuracy"] for out in ("of-run", "of-file")]
    assert found[0] == found[1]
    with pytest.raises(ModelError, match=r"run.onnx: answers with 'happily surprised', expected of neutral"):
        Reader(file)


def test_another_tools_answers_are_judged(tmp_path: Path) -> None:
    layouts.write("rafdb-compound", tmp_path, rows=22)
    test = datasets.load("rafdb-compound", tmp_path, split="test", allow_partial=True)
    with (tmp_path / "tool.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", *(f"p_{name}" for name in test.classes)])
        for name, label in zip(test.ids, test.labels, strict=True):
            rows.writerow([name, *(float(place == label) for place in range(11))])
    data = ("--data", "rafdb-compound", "--root", tmp_path, "--allow-partial", "--split", "test")
    mien("evaluate", tmp_path / "tool.csv", *data, "-o", tmp_path / "out")
    assert json.loads((tmp_path / "out/metrics.json").read_text())["accuracy"] == 1
