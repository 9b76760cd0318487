"""A reader that abstains: only the answer changes, never the probabilities behind it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien
from mien import cli, jobs
from mien.errors import UsageError
from mien.reader import UNSURE
from mien.worker import Settings


def test_a_face_under_the_threshold_is_unsure_and_keeps_its_numbers(tiny_model: Path, hopper: np.ndarray) -> None:
    (answered,) = mien.Reader(tiny_model).read(hopper)
    (exactly,) = mien.Reader(tiny_model, abstain_below=answered.confidence).read(hopper)
    (abstained,) = mien.Reader(tiny_model, abstain_below=np.nextafter(answered.confidence, 1)).read(hopper)
    assert exactly == answered
    assert abstained.expression == UNSURE == "unsure"
    assert replace(abstained, expression=answered.expression) == answered


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(tiny_model: Path, tmp_path: Path, wrong: float) -> None:
    with pytest.raises(UsageError, match="expected a probability"):
        mien.Reader(tiny_model, abstain_below=wrong)
    with pytest.raises(UsageError, match="expected a probability"):
        jobs.run(["a.jpg"], tmp_path / "out", settings=Settings(str(tiny_model), abstain_below=wrong), format="csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_line_abstains_for_one_picture_and_for_a_folder(
    tiny_model: Path, hopper: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "in" / "hopper.png"
    picture.parent.mkdir()
    Image.fromarray(hopper).save(picture)
    common = ["--model", str(tiny_model), "--abstain-below", "1.0"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["read", str(picture), "--json", *common])
    assert not ended.value.code
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["expression"], row["confidence"] < 1) == (UNSURE, True)
    with pytest.raises(SystemExit) as ended:
        cli.main(["read", str(picture.parent), "-o", str(tmp_path / "out"), "--workers", "1", *common])
    assert not ended.value.code
    assert ",unsure," in (tmp_path / "out" / "faces.csv").read_text(encoding="utf-8")
