"""The command line, run in this process; once as a process of its own."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import films
import mien
from mien import cli, draw, images, jobs, tables, terminal, writing
from mien.reader import Reader, Reading

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


def test_help_breaks_no_line_at_80_columns() -> None:
    """Behind the first paragraph line breaks are kept: a line that the screen breaks, too, leaves a stump."""
    from typer.main import get_command

    def long(command: Any) -> list[str]:
        behind = [line for part in (command.help or "").split("\n\n")[1:] for line in part.splitlines()[:-1]]
        return [line for line in behind if len(line) > 78] + [
            line for below in getattr(command, "commands", {}).values() for line in long(below)
        ]

    assert long(get_command(cli.application())) == []


def test_version_and_help(run) -> None:
    assert run("--version") == Ran(0, f"mien {mien.__version__}\n", "")
    assert "read" in run("--help").out
    assert run().status == 2
    help = run("read", "--help").out
    assert all(word in help for word in ("--json", "--detector", "--model", "--min-face", "--out"))


def test_a_picture_that_memory_is_too_small_for_stops_no_other(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = images.load

    def short(source: object, **options: Any) -> np.ndarray:
        if isinstance(source, Path) and source.name == "large.png":
            raise MemoryError
        return load(source, **options)

    monkeypatch.setattr(images, "load", short)
    large = Path(shutil.copy(portrait, portrait.with_name("large.png")))
    ran = run("read", large, portrait, "--model", tiny_model, "-o", tmp_path / "out")
    assert ran.status == 1 and f"{large}: not enough memory to read it" in ran.err
    rows = list(csv.DictReader((tmp_path / "out" / "faces.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["error: not enough memory to read it", "ok"]


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
    assert ran.status == 2
    assert ran.err.startswith(f"mien: {tmp_path / 'out' / 'faces.csv'} is there already, and mien did not write it")


def test_a_folder_that_takes_nothing_is_named_before_the_work(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "out")
    ran = run("read", portrait, "--model", tiny_model, "-o", tmp_path / "out")
    assert ran.status == 2 and ran.out == ""
    assert ran.err == f"mien: {tmp_path / 'out'}: cannot be written to; choose another folder for -o\n"


@pytest.mark.parametrize("kind", tables.FORMATS)
def test_rows_of_other_pictures_that_a_call_replaces_are_told(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    other = portrait.with_name("other.jpg")
    shutil.copy(portrait, other)
    rest = ("--model", tiny_model, "-o", tmp_path / "out", "--format", kind, "--no-annotate")
    said = [run("read", *paths, *rest).err for paths in ([portrait, other], [other, portrait], [other])]
    assert said[:2] == ["", ""]
    assert f"faces.{kind}: the rows of 1 other pictures there are replaced" in said[2]


@pytest.mark.parametrize("kind", tables.FORMATS)
def test_a_picture_whose_name_is_not_utf8_is_no_other_picture(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    odd = portrait.with_name("=\udcff.png")
    shutil.copy(portrait, odd)
    rest = ("--model", tiny_model, "-o", tmp_path / "out", "--format", kind, "--no-annotate")
    assert [run("read", odd, *rest).err for _ in range(2)] == ["", ""]


def test_somebodys_file_called_as_a_table_is_not_one_of_miens(
    run, portrait: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "faces.parquet").write_text("a table of theirs in one file")
    (out / "hopper-mien.png").write_text("theirs")
    ran = run("read", portrait, "--model", tiny_model, "-o", out)
    assert ran.status == 2 and "hopper-mien.png is there already, and no table of mien's beside it" in ran.err
    ran = run("read", portrait, "--model", tiny_model, "-o", out, "--no-annotate", "--format", "parquet")
    assert ran.status == 2 and "faces.parquet is there already, and mien did not write it" in ran.err
    assert (out / "hopper-mien.png").read_text() == "theirs"


def test_a_table_of_another_format_that_stays_is_told(run, portrait: Path, tiny_model: Path, tmp_path: Path) -> None:
    rest = ("--model", tiny_model, "-o", tmp_path / "out", "--no-annotate")
    assert run("read", portrait, *rest).err == ""
    said = run("read", portrait, *rest, "--format", "jsonl").err
    assert said == f"mien: {tmp_path / 'out' / 'faces.csv'}: left as an earlier call wrote it\n"


@pytest.mark.parametrize("what", ["picture", "job", "video"])
def test_a_folder_that_another_is_writing_into_is_left_alone(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, what: str
) -> None:
    path = {"picture": portrait, "job": portrait.parent, "video": tmp_path / "v.mp4"}[what]
    if what == "video":
        films.write(path, [np.zeros((64, 64, 3), np.uint8)] * 3)
    command = ("read", path, "--model", tiny_model, "-o", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with writing.held(tmp_path / "out"):
        ran = run(*command)
        assert ran.status == 2
        assert (
            ran.err == f"mien: {tmp_path / 'out'}: another mien is writing here; wait for it or choose another for -o\n"
        )
        assert not list((tmp_path / "out").iterdir())
    assert run(*command).status == 0


def test_copies_that_are_gone_are_told(run, portrait: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = ("read", portrait.parent, "--model", tiny_model, "-o", tmp_path / "out", "--annotate")
    told = f"annotated copies in {tmp_path / 'out' / 'annotated'}"
    assert told in run(*command).out
    shutil.rmtree(tmp_path / "out" / "annotated")
    ran = run(*command)
    assert told not in ran.out and "annotated are gone; to have them written again, choose another -o" in ran.err


def test_a_folder_for_videos_that_cannot_be_made_is_told(run, tiny_model: Path, tmp_path: Path) -> None:
    videos = [films.write(tmp_path / f"{name}.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3) for name in "ab"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "b").touch()
    ran = run("read", *videos, "--model", tiny_model, "-o", out)
    assert ran.status == 2 and f"{out / 'b'}: cannot be made into a folder (File exists)" in ran.err


def interrupt_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, as by Ctrl-C, when that picture is read."""
    read = Reader.read

    def interrupted(self: Reader, image: object, **options: str) -> Reading:
        if options["source"].endswith(name):
            raise KeyboardInterrupt
        return read(self, image, **options)

    monkeypatch.setattr(Reader, "read", interrupted)


def test_what_was_read_before_an_interruption_is_in_the_table(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at("twin.png", monkeypatch)
    twin = Path(shutil.copy(portrait, portrait.with_name("twin.png")))
    ran = run("read", portrait, twin, "--model", tiny_model, "-o", tmp_path / "out", "--format", "jsonl")
    assert ran.status == 130 and ran.err.startswith(
        f"mien: stopped; the table in {tmp_path / 'out'} holds what was read"
    )
    (row,) = map(json.loads, (tmp_path / "out" / "faces.jsonl").read_text().splitlines())
    assert row["source"] == str(portrait) and row["status"] == "ok"


@pytest.mark.parametrize("kind", tables.FORMATS)
def test_a_whole_table_outlives_a_repetition_that_is_interrupted(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    twin = Path(shutil.copy(portrait, portrait.with_name("twin.png")))
    command = ("read", portrait, twin, "--model", tiny_model, "-o", tmp_path, "--format", kind, "--no-annotate")
    assert run(*command).status == 0
    interrupt_at("twin.png", monkeypatch)
    assert run(*command).status == 130
    assert tables.sources(tables.place(kind, tmp_path)) == {str(portrait), str(twin)}


@pytest.mark.parametrize("job", [False, True], ids=["picture", "job"])
def test_the_limit_of_pixels_can_be_moved(run, portrait: Path, tiny_model: Path, tmp_path: Path, job: bool) -> None:
    path = portrait.parent if job else portrait
    out = ["-o", tmp_path / "small", "--no-annotate"] if job else ["--json"]
    ran = run("read", path, *out, "--model", tiny_model, "--max-pixels", 0.3)
    told = (tmp_path / "small" / "faces.csv").read_text() if job else ran.out
    assert (
        ran.status == 1
        and "512 x 600 px are 0.3 megapixels, the limit is 0.3; reduce the picture or raise the limit" in told
    )
    assert "(--max-pixels, in Python max_pixels)" in told
    assert (
        run(
            "read", path, *out[:1], *([tmp_path / "large"] if job else []), "--model", tiny_model, "--max-pixels", 0.31
        ).status
        == 0
    )


def test_a_copy_that_cannot_be_written_fails_alone(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, out, save = Path(shutil.copy(portrait, portrait.with_name("twin.png"))), tmp_path / "out", draw.save

    def refuse(picture: Image.Image, path: Path) -> Path:
        if path.name == "hopper-mien.png":
            raise OSError(27, "File too large")
        return save(picture, path)

    monkeypatch.setattr(draw, "save", refuse)
    ran = run("read", portrait, twin, "--model", tiny_model, "-o", out, "--format", "jsonl")
    assert ran.status == 1 and f"its copy {out / 'hopper-mien.png'} cannot be written (File too large)" in ran.err
    rows = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok"] and rows[0]["p_happy"] is not None  # what was read is kept
    assert (out / "twin-mien.png").is_file() and not (out / "faces.csv").exists()


@pytest.mark.parametrize("format", tables.FORMATS)
def test_a_table_that_mien_did_not_write_is_not_replaced(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / "out"
    ours = tables.place(format, out)
    mine = ours if format != "parquet" else ours / "mine.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_text('{"id": 1}\n' if format == "jsonl" else "id,label\n")
    ran = run("read", portrait, "--model", tiny_model, "-o", out, "--format", format)
    assert ran.status == 2 and f"{ours} is there already, and mien did not write it" in ran.err
    assert mine.stat().st_size == 9 + (format == "jsonl")
    mine.unlink()
    for _ in range(2):  # its own it replaces
        assert run("read", portrait, "--model", tiny_model, "-o", out, "--format", format).status == 0


def test_a_picture_that_mien_did_not_write_is_not_replaced(
    run, portrait: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """What lies beside a table of mien's is its own to replace."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "hopper-mien.png").write_text("precious")
    for _ in range(2):
        ran = run("read", portrait, "--model", tiny_model, "-o", out)
        assert ran.status == 2 and f"{out / 'hopper-mien.png'} is there already, and no table of mien's" in ran.err
    assert [path.read_text() for path in out.iterdir()] == ["precious"]
    (out / "hopper-mien.png").unlink()
    for _ in range(2):
        assert run("read", portrait, "--model", tiny_model, "-o", out).status == 0
    bare = tmp_path / "bare"
    assert run("read", portrait, "--model", tiny_model, "-o", bare, "--no-annotate").status == 0
    assert [path.name for path in bare.iterdir()] == ["faces.csv"]


def test_what_is_to_be_read_is_not_overwritten(run, portrait: Path, tiny_model: Path) -> None:
    listed = portrait.with_name("faces.csv")
    listed.write_text("source,label\nhopper.png,happy\n")
    for folder in (portrait.parent, portrait.parent / ".." / "in"):
        ran = run("read", listed, "--model", tiny_model, "-o", folder)
        assert ran.status == 2 and f"{listed} is to be read, but -o would write its table there" in ran.err
    assert listed.read_text() == "source,label\nhopper.png,happy\n"
    assert not (portrait.parent / jobs.JOURNAL).exists()
    assert run("read", listed, "--model", tiny_model, "-o", portrait.parent / "out").status == 0


@pytest.mark.parametrize("kind", ["picture", "video"])
def test_a_folder_jobs_folder_is_its_own(run, portrait: Path, tiny_model: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    assert run("read", portrait.parent, "--model", tiny_model, "-o", out).status == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    ran = run("read", portrait if kind == "picture" else "absent.mp4", "--model", tiny_model, "-o", out)
    assert ran.status == 2 and f"{out} holds the table of a folder job" in ran.err and ran.out == ""
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_list_may_name_what_is_no_picture(run, portrait: Path, tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(portrait.parent)
    Path("folder").mkdir()
    Path("l.txt").write_text("folder\nclip.mp4\nhttps://example.org/a.jpg\nhopper.png\n")
    ran = run("read", "l.txt", "--json", "--model", tiny_model)
    assert ran.status == 1
    statuses = [row["status"] for row in json.loads(ran.out)]
    assert [status.split(":")[0] for status in statuses] == ["error", "error", "error", "ok"]
    assert "is a folder" in statuses[0] and "is a video" in statuses[1] and "never fetches" in statuses[2]
    assert len(ran.err.splitlines()) == 3
    monkeypatch.chdir(tmp_path)  # the list in another folder
    rows = json.loads(run("read", portrait.with_name("l.txt"), "--json", "--model", tiny_model).out)
    assert "never fetches" in rows[2]["status"]


def test_a_folder_that_cannot_be_opened_is_an_error(run, portrait: Path, tiny_model: Path, monkeypatch) -> None:
    closed, scandir = portrait.with_name("closed"), os.scandir
    closed.mkdir()

    def refuse(path: object) -> object:
        if Path(str(path)) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    ran = run("read", portrait.parent, "--json", "--model", tiny_model)
    assert ran.status == 1
    assert [row["status"].split(" (")[0] for row in json.loads(ran.out)] == [
        "ok",
        "error: the folder cannot be opened",
    ]
    assert ran.err.startswith(f"mien: {closed}: the folder cannot be opened (Permission denied)")


def test_what_the_terminals_encoding_lacks_is_spelt_out(
    portrait: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smile = portrait.with_name("\u263a.png")
    Image.new("RGB", (60, 60)).save(smile)
    streams = {name: io.TextIOWrapper(io.BytesIO(), "cp1252", "strict") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    with pytest.raises(SystemExit) as ended:
        cli.main(["read", str(smile), str(smile.with_suffix(".jpg")), "--model", str(tiny_model)])
    printed = {name: stream.detach().getvalue() for name, stream in streams.items()}  # type: ignore[attr-defined]
    assert ended.value.code == 1
    assert b"\\u263a.png" in printed["stdout"] and b"\\u263a.jpg: no such file" in printed["stderr"]


def test_pillows_warnings_are_not_printed(tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from test_images import huge_png

    def errors(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["read", *map(str, arguments), "--model", str(tiny_model)])
        assert ended.value.code == 1
        return capfd.readouterr().err

    large = tmp_path / "large.png"
    large.write_bytes(huge_png(10_000, 10_000))  # of which Pillow warns, and which mien refuses
    here = errors(large)
    assert here.startswith(f"mien: {large}: 10000 x 10000 px are") and here.count("\n") == 1
    assert errors(tmp_path, "-o", tmp_path / "out") == ""  # the same in a reading process


def test_an_escape_sequence_is_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.complain("a\x1b[31m\u202eb\udcff")
    assert capsys.readouterr().err == "mien: a\\x1b[31m\\u202eb\\udcff\n"


@pytest.mark.parametrize("columns", [0, 1, 20, 45, 60, 80])
def test_a_narrow_terminal_loses_no_text(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal.show_table("a.jpg", ("face", "next likeliest"), [("1", "unpronounceable 17%, other words 3%")])
    letters = "".join(re.findall(r"\w", capsys.readouterr().out))
    assert letters.startswith("ajpg") and all(text in letters for text in ("face", "nextlikeliest", "otherwords3"))


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
        (["{picture}", "-o", ""], "-o is empty: name a folder"),
        ([""], "the path is empty"),
        (["{picture}", "--max-pixels", "0"], "--max-pixels 0: expected a finite number of megapixels"),
        (
            ["{picture}", "--max-pixels", "1e-9"],
            "--max-pixels 1e-09: expected a finite number of megapixels, 0.000001 (one pixel)",
        ),
        (["{picture}", "--max-pixels", "inf"], "--max-pixels inf: expected a finite number"),
        (["{picture}", "--format", "nonsense"], "'nonsense': expected one of csv, jsonl, parquet"),
        (["{picture}", "--format", "jsonl"], "--format is of the table that -o writes: name a folder with -o"),
        (["{picture}", "--annotate"], "--annotate is of the annotated copies that -o writes"),
        (
            ["{folder}", "-o", "{folder}/out", "--annotate", "--engine", "ray"],
            "--annotate asks for annotated copies, and a job on Ray writes none",
        ),
        (["{picture}", "--detector", "whole", "--min-face", "80"], "--min-face is of a search, and --detector whole"),
        (["{picture}", "--min-face", "inf"], "min_face is inf: expected a number of px, at least 12"),
        (["{picture}", "-o", "{picture}/out", "--engine", "ray", "--threads", "2"], "--threads is not for the job"),
        (["{picture}", "--workers", "2"], "--workers is for the job of a folder or list"),
        (["{folder}", "-o", "{folder}/out", "--threads", "2"], "--threads is not for the job of a folder or list"),
        (["{picture}", "--fps", "0"], "--fps is for videos: name one, or leave it out"),
        (["{picture}", "--detector", "yunet:absent.onnx"], "absent.onnx"),
        (["{picture}", "--nonsense"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_exits_with_two(
    run, portrait: Path, tiny_model: Path, tmp_path: Path, arguments, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"picture": portrait, "folder": portrait.parent, "empty": tmp_path / "empty"}
    filled = [argument.format(**places) for argument in arguments]
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


def test_a_folder_whose_name_is_not_utf8_is_named_where_a_library_needs_it(
    run, portrait: Path, tmp_path: Path, tiny_model: Path
) -> None:
    ran = run("read", portrait.parent, "-o", tmp_path / "\udce9", "--format", "parquet", "--model", tiny_model)
    assert ran.status == 1
    assert r"\udce9" in ran.err and "not valid UTF-8" in ran.err and "Traceback" not in ran.err


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


def test_ctrl_c_while_the_command_line_is_loaded_is_no_traceback() -> None:
    code = (
        "import sys\nfrom mien.__main__ import main\n"
        "class Interrupted:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\nmain()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "mien: stopped\n")


def test_as_a_process(portrait: Path, tiny_model: Path) -> None:
    command = [sys.executable, "-m", "mien", "read", str(portrait), "--json", "--model", str(tiny_model)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0 and ran.stderr == ""
    assert json.loads(ran.stdout)[0]["status"] == "ok"
