"""The command line, run in this process; once as a process of its own."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien
from mien import cli, tables

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> Ran:
        with pytest.raises(SystemExit) as exit:
            cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ran(int(exit.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def portrait(hopper: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "in" / "hopper.png"
    path.parent.mkdir()
    Image.fromarray(hopper).save(path)
    return path


def test_version_and_help(run) -> None:
    assert run("--version") == Ran(0, f"mien {mien.__version__}\n", "")
    assert "read" in run("--help").out
    assert run().status == 2
    help = run("read", "--help").out
    assert all(word in help for word in ("--json", "--detector", "--model", "--min-face", "--out"))


def test_a_table_for_each_picture(run, portrait: Path, tiny_model: Path) -> None:
    blank = portrait.with_name("blank.png")
    Image.new("RGB", (100, 90)).save(blank)
    ran = run("read", portrait, blank, "--model", tiny_model)
    assert ran.status == 0 and ran.err == ""
    assert "512 x 600" in ran.out and "expression" in ran.out
    assert "no face" in ran.out


def test_json_is_all_that_is_on_standard_output(run, portrait: Path, tiny_model: Path) -> None:
    broken = portrait.with_name("broken.jpg")
    broken.write_bytes(b"nothing")
    ran = run("read", broken, portrait, "--json", "--model", tiny_model)
    assert ran.status == 1
    failed, face = json.loads(ran.out)
    assert failed["status"].startswith("error: not a picture") and failed["face"] is None
    assert tuple(face) == tables.COLUMNS
    assert face["source"] == str(portrait) and face["face"] == 1 and face["status"] == "ok"
    assert 150 < face["width"] < 220 and 200 < face["height"] < 270
    assert sum(face[f"p_{name}"] for name in mien.EXPRESSIONS) == pytest.approx(1, abs=1e-5)
    assert ran.err.startswith(f"mien: {broken}: not a picture")


def test_out_writes_the_table_and_the_copies(run, portrait: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = shutil.copy(portrait, tmp_path / "other" / portrait.name)
    (tmp_path / "other" / "cut.png").write_bytes(portrait.read_bytes()[:3000])
    out = tmp_path / "new" / "folder"
    ran = run("read", portrait, twin, tmp_path / "other" / "cut.png", "--model", tiny_model, "-o", out)
    assert ran.status == 1
    assert sorted(path.name for path in out.iterdir()) == ["faces.csv", "hopper-mien-2.png", "hopper-mien.png"]
    with (out / "faces.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"][:6] for row in rows] == ["ok", "ok", "error:"]
    assert tuple(rows[0]) == tables.COLUMNS
    assert str(out / "faces.csv") in ran.out and str(out / "hopper-mien-2.png") in ran.out
    with Image.open(out / "hopper-mien.png") as copy:
        assert copy.size == (1024, 1200)


def test_what_cannot_be_written_is_named(run, portrait: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "faces.csv").mkdir(parents=True)
    ran = run("read", portrait, "--model", tiny_model, "-o", tmp_path / "out")
    assert ran.status == 1
    assert ran.err == f"mien: {tmp_path / 'out' / 'faces.csv'}: Is a directory\n"


def test_a_folder_stands_for_its_pictures(run, portrait: Path, tiny_model: Path, tmp_path: Path) -> None:
    (portrait.parent / "notes.txt").write_text("hello")
    ran = run("read", portrait.parent, "--json", "--model", tiny_model)
    assert ran.status == 0 and [row["source"] for row in json.loads(ran.out)] == [str(portrait)]


def test_whole_and_min_face(run, portrait: Path, tiny_model: Path) -> None:
    (row,) = json.loads(run("read", portrait, "--json", "--detector", "whole", "--model", tiny_model).out)
    assert (row["x"], row["y"], row["width"], row["height"], row["detection_score"]) == (0, 0, 512, 600, 1)
    (row,) = json.loads(run("read", portrait, "--json", "--min-face", 400, "--model", tiny_model).out)
    assert row["status"] == "no face"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["https://example.org/a.jpg"], "download"),
        (["clip.mp4", "{picture}"], "two commands"),
        (["{empty}"], "no pictures"),
        (["{picture}", "--detector", "dlib"], "mtcnn, whole"),
        (["{picture}", "--min-face", "3"], "min_face"),
        (["{picture}", "--model", "absent.onnx"], "no such model"),
        (["{picture}", "-o", "{picture}"], "choose another"),
        (["{picture}", "--nonsense"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_exits_with_two(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, arguments, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [argument.format(picture=portrait, empty=tmp_path / "empty") for argument in arguments]
    model = [] if "--model" in filled else ["--model", str(tiny_model)]
    ran = run("read", *filled, *model)
    assert ran.status == 2
    assert words in " ".join(ran.err.replace("│", " ").split())
    assert "Traceback" not in ran.err and ran.out == ""


def test_file_names_cannot_steer_the_terminal(run, portrait: Path, tiny_model: Path) -> None:
    odd = portrait.with_name("[red]\x1b[2J\n\udce9.png")
    shutil.copy(portrait, odd)
    ran = run("read", odd, odd.with_name("absent\x1b.png"), "--model", tiny_model)
    assert ran.status == 1
    assert "\x1b[2J" not in ran.out and "\x1b" not in ran.err
    assert r"\x1b[2J\n\udce9.png" in ran.out.replace("\n", "") and "[red]" in ran.out


def test_demo_reads_grace_hopper(run, tmp_path: Path) -> None:
    ran = run("demo", "-o", tmp_path / "d")
    assert ran.status == 0
    assert "grace_hopper.jpg" in "".join(ran.out.split())
    assert str(tmp_path / "d" / "grace_hopper-mien.jpg") in ran.out
    assert (tmp_path / "d" / "grace_hopper-mien.jpg").stat().st_size > 10_000


def test_demo_without_matplotlib_names_the_extra(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.cbook"):
        monkeypatch.setitem(sys.modules, name, None)
    ran = run("demo", "-o", tmp_path / "d")
    assert ran.status == 2 and "mien[plots]" in ran.err


def test_as_a_process(portrait: Path, tiny_model: Path) -> None:
    command = [sys.executable, "-m", "mien", "read", str(portrait), "--json", "--model", str(tiny_model)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0 and ran.stderr == ""
    assert json.loads(ran.stdout)[0]["status"] == "ok"
