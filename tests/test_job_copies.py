"""Annotated copies of a folder's job."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien
from mien import cli, draw, images

pytestmark = pytest.mark.slow  # workers take seconds


@pytest.fixture
def read(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`read("photos", "-o", "out")` in tmp_path -> exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["read", *words, "--model", str(tiny_model), "--workers", "1"])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def photos(tmp_path: Path, hopper: np.ndarray) -> Path:
    """Two faces and a picture without one, in a folder and below it."""
    root = tmp_path / "photos"
    (root / "b").mkdir(parents=True)
    face = Image.fromarray(hopper).resize((128, 150))
    face.save(root / "hopper.jpg")
    face.save(root / "b/hopper.webp", lossless=True)
    Image.new("RGB", (100, 80), "navy").save(root / "b/blank.png")
    return root


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def statuses(table: Path) -> dict[str, str]:
    with table.open(newline="", encoding="utf-8") as file:
        return {row["source"]: row["status"] for row in csv.DictReader(file)}


def test_a_folders_pictures_have_copies_when_asked_for(
    read: Callable[..., tuple[int, str, str]], photos: Path, tiny_model: Path
) -> None:
    status, printed, _ = read("photos", "-o", "out", "--annotate")
    assert status == 0 and "annotated copies in out/annotated" in printed
    out = photos.parent / "out"
    copies = ["photos/b/blank.png", "photos/b/hopper.webp.png", "photos/hopper.jpg"]
    assert files(out) == [*(f"annotated/{name}" for name in copies), "faces.csv", "journal.jsonl"]
    reader = mien.Reader(tiny_model)
    pixels = images.load(photos / "b/hopper.webp")
    wanted = np.asarray(draw.annotate(pixels, reader.read(pixels)))
    np.testing.assert_array_equal(np.asarray(Image.open(out / "annotated/photos/b/hopper.webp.png")), wanted)
    assert read("photos", "-o", "plain")[0] == 0
    assert (photos.parent / "plain/faces.csv").read_bytes() == (out / "faces.csv").read_bytes()
    assert files(photos.parent / "plain") == ["faces.csv", "journal.jsonl"]


def test_what_a_killed_run_left_of_a_copy_is_cleared(read: Callable[..., tuple[int, str, str]], photos: Path) -> None:
    assert read("photos/b", "-o", "out", "--annotate")[0] == 0
    partial = photos.parent / "out/annotated/photos/b/.0123456789abcdef.partial"
    partial.write_bytes(b"half")
    assert read("photos", "-o", "out", "--annotate")[0] == 0
    assert not partial.exists()


def test_copies_among_the_pictures_are_not_read(read: Callable[..., tuple[int, str, str]], photos: Path) -> None:
    for _ in range(2):  # the same command goes on, and finds nothing new
        status, printed, _ = read("photos", "-o", "photos", "--annotate")
        assert status == 0 and printed.startswith("2 read, 1 without a face, 0 failed")
    assert len(images.in_folder(photos)) == 3
    assert len(images.in_folder(photos / "annotated")) == 3  # unless they are named


def test_somebodys_own_folder_of_that_name_is_read(read: Callable[..., tuple[int, str, str]], photos: Path) -> None:
    """Also in the folder of a job that writes no copies, when that goes on."""
    (photos / "annotated").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "annotated/own.png")
    for _ in range(2):
        assert read("photos", "-o", "photos")[1].startswith("2 read, 2 without a face, 0 failed")
        assert len(images.in_folder(photos)) == 4


def test_a_job_with_copies_goes_on_with_them(read: Callable[..., tuple[int, str, str]], photos: Path) -> None:
    assert read("photos", "-o", "out")[0] == 0
    status, _, told = read("photos", "-o", "out", "--annotate")
    assert status == 2 and "holds another job (annotated was None, now True)" in told
    assert read("photos", "-o", "copied", "--annotate")[0] == 0
    assert read("photos", "-o", "copied")[0] == 2


def test_what_lies_in_the_copies_place_stays(read: Callable[..., tuple[int, str, str]], photos: Path) -> None:
    own = photos.parent / "out/annotated/photos/hopper.jpg"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    status, _, told = read("photos", "-o", "out", "--annotate")
    assert status == 2 and "out/annotated is there already, and no job wrote it" in told
    assert own.read_text() == "mine" and read("photos", "-o", "out")[0] == 0


def test_a_copy_that_cannot_be_written_is_made_later(read: Callable[..., tuple[int, str, str]], photos: Path) -> None:
    """Its file counts as failed, so that --retry-failed reads it again."""
    out = photos.parent / "out"
    assert read("photos/b", "-o", "out", "--annotate")[0] == 0
    blocked = out / "annotated/photos/hopper.jpg"
    blocked.mkdir()
    assert read("photos", "-o", "out", "--annotate")[0] == 1
    told = statuses(out / "faces.csv")["photos/hopper.jpg"]
    assert told.startswith("error: its copy out/annotated/photos/hopper.jpg cannot be written (")
    blocked.rmdir()
    assert read("photos", "-o", "out", "--annotate", "--retry-failed")[0] == 0
    assert statuses(out / "faces.csv")["photos/hopper.jpg"] == "ok" and blocked.is_file()


def test_no_two_copies_are_alike() -> None:
    sources = [
        "a.jpg", "a.jpeg", "a.JPG", "a.png", "a.webp", "a.webp.png", "a.jpg.png", "b/a.jpg", "../a.jpg", "../../a.jpg", "/c/a.jpg",
        "c/a.jpg", "__up__/a.jpg", "___up__/a.jpg", "__root__/c/a.jpg",
        f"{'n' * 251}.gif", f"{'n' * 250}.gif.png", f"{'n' * 251}.jpg",
        "a.tiff", "a.tiff.png.png", "face", "face.png", "x.tmp", "x.tmp.png", "a.b.png",
    ]  # fmt: skip
    copies = [draw.copy_below(Path("out"), source) for source in sources]
    assert len(set(copies)) == len(sources)
    assert all(len(path.name) <= 255 for path in copies)
    assert all(path.is_relative_to("out") and ".." not in path.parts for path in copies)
    assert {path.suffix.lower() for path in copies} == {".jpg", ".jpeg", ".png"}
    assert copies[5].name == "a.webp.png.png" and copies[-1].name == "a.b.png"
