"""The examples run as they are written."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_read_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mien import demo

    (tmp_path / "not-a-picture.jpg").write_text("text")
    main = runpy.run_path(str(EXAMPLES / "read_pictures.py"))["main"]
    main([str(tmp_path / "not-a-picture.jpg"), str(demo.photograph())])
    printed = capsys.readouterr().out
    assert "not-a-picture.jpg" in printed
    assert "512 x 600 px, ok" in printed
    assert re.search(r"(neutral|happy) \d+%, then", printed)  # a slight smile


@pytest.mark.slow
def test_train_and_export(tmp_path: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / "train_and_export.py"))["main"]
    assert main(tmp_path, epochs=2) > 0.3  # eight classes: guessing gives 0.125
