"""Folder jobs: what is read, in which order, what is written, and what survives being killed."""

import csv
import functools
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import rich.console
from PIL import Image

import mien
from mien import cli, images, job_cli, jobs, storage, tables, terminal, worker
from mien.errors import UsageError

pytestmark = pytest.mark.slow  # servers, workers and their limits take seconds


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, hopper: np.ndarray, astronaut: np.ndarray) -> Path:
    """Twelve files in nested folders: faces of two sizes, faceless pictures, a broken file, an empty one, a text."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("", "b", "b/c", "z é"):
        place = root / folder
        place.mkdir(exist_ok=True)
        Image.fromarray(hopper).resize((128, 150)).save(place / "hopper.jpg")
        Image.fromarray(astronaut).resize((160, 160)).save(place / "astronaut.png")
    Image.new("RGB", (100, 80), "navy").save(root / "b" / "blank.png")
    (root / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (root / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def settings(tiny_model: Path) -> worker.Settings:
    return worker.Settings(str(tiny_model))


@pytest.fixture(scope="module")
def expected(tree: Path, tiny_model: Path) -> list[tables.Row]:
    """The rows, one picture after the other in this process."""
    reader = mien.Reader(tiny_model)
    found: list[tables.Row] = []
    for path in images.in_folder(tree):
        try:
            found += tables.rows(reader.read(path))
        except mien.errors.ImageError as error:
            found.append(tables.failure(str(path), str(error).removeprefix(f"{path}: ")))
    return found


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def text(rows: list[tables.Row]) -> list[dict[str, str]]:
    """Rows as a CSV reader gives them back."""
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


def run(tree: Path, out: Path, settings: worker.Settings, **options) -> jobs.Summary:
    out.mkdir(exist_ok=True)
    return jobs.run(images.in_folder(tree), out, settings=settings, **options)


def test_a_folder_is_walked_in_order(tree: Path) -> None:
    names = [str(path.relative_to(tree)) for path in images.in_folder(tree)]
    assert names[:3] == ["astronaut.png", "empty.png", "hopper.jpg"]
    assert len(names) == len(set(names)) == 11 and "notes.txt" not in names
    assert names.index("b/broken.jpg") < names.index("b/c/hopper.jpg") < names.index("z é/hopper.jpg")


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert images.in_folder(tmp_path) == [tmp_path / "a.png"]


def test_lists_name_pictures(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a.jpg\n\nb c.png\n/x/y.jpg\na.jpg\n")
    assert images.gather([tmp_path / "l.txt"]) == [tmp_path / "a.jpg", tmp_path / "b c.png", Path("/x/y.jpg")]
    (tmp_path / "l.csv").write_text('id,path\n1,"a,b.jpg"\n2,c.jpg\n')
    assert images.gather([tmp_path / "l.csv"]) == [tmp_path / "a,b.jpg", tmp_path / "c.jpg"]
    (tmp_path / "there.png").touch()
    (tmp_path / "blank.png ").touch()
    (tmp_path / "l.txt").write_text("there.png \r\nblank.png \nabsent.png \n")
    found = images.gather([tmp_path / "l.txt"])
    assert [path.name for path in found] == ["there.png", "blank.png ", "absent.png "]
    assert storage.gather([str(tmp_path / "l.txt")]) == [str(path) for path in found]
    odd = "we\x85ird\u2028.png"
    (tmp_path / "l.txt").write_bytes(f"{odd}\rb.png\n".encode())
    assert images.gather([tmp_path / "l.txt"]) == [tmp_path / odd, tmp_path / "b.png"]
    for name in ("wide.txt", "wide.csv"):  # as PowerShell 5 writes it
        (tmp_path / name).write_text("source\na.png\n", encoding="utf-16")
        with pytest.raises(
            UsageError, match=rf"{name}: it holds NUL bytes, as UTF-16 text does; save the list as UTF-8"
        ):
            images.gather([tmp_path / name])
    (tmp_path / "none.csv").write_text("id,name\n1,a.jpg\n")
    with pytest.raises(UsageError, match=r"columns are id, name; expected .*path"):
        images.gather([tmp_path / "none.csv"])
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UsageError, match="names no pictures"):
        images.gather([tmp_path / "empty.txt"])
    with pytest.raises(UsageError, match="cannot be opened"):
        images.gather([tmp_path / "absent.txt"])


def test_rows_are_those_of_reading_one_by_one(
    tree: Path, tmp_path: Path, settings: worker.Settings, expected: list[tables.Row]
) -> None:
    seen: list[tuple[int, int]] = []
    summary = run(tree, tmp_path / "out", settings, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert table(tmp_path / "out" / "faces.csv") == text(expected)
    assert (summary.read, summary.no_face, summary.failed, summary.faces) == (8, 1, 2, 8)
    assert seen == [(done, 11) for done in range(12)]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_other_formats_hold_the_same_rows(
    tree: Path, tmp_path: Path, settings: worker.Settings, expected: list[tables.Row], format: str
) -> None:
    summary = run(tree, tmp_path / "out", settings, workers=2, format=format)
    if format == "jsonl":
        found = [json.loads(line) for line in summary.out.read_text().splitlines()]
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(summary.out).to_pylist()
    assert found == [dict(row) for row in expected]


def test_the_table_of_a_job_lists_its_pictures(
    tree: Path, tmp_path: Path, settings: worker.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths start where mien ran, whatever folder it lies in."""
    monkeypatch.chdir(tree.parent)
    pictures = images.in_folder(Path(tree.name))
    (tmp_path / "out").mkdir()
    jobs.run(pictures, tmp_path / "out", settings=settings, workers=1)
    assert images.gather([tmp_path / "out" / "faces.csv"]) == pictures
    assert storage.gather([str(tmp_path / "out" / "faces.csv")]) == [str(path) for path in pictures]


def test_a_finished_job_does_nothing_more(tree: Path, tmp_path: Path, settings: worker.Settings, monkeypatch) -> None:
    first = run(tree, tmp_path / "out", settings, workers=1)
    before = (tmp_path / "out" / "faces.csv").read_bytes()
    monkeypatch.setattr(worker, "_start", None)  # reading one file more would call it
    assert run(tree, tmp_path / "out", settings, workers=1) == first
    assert (tmp_path / "out" / "faces.csv").read_bytes() == before


@pytest.mark.parametrize("format", tables.FORMATS)
def test_what_was_read_before_an_interruption_is_not_read_again(
    tree: Path, tmp_path: Path, settings: worker.Settings, format: str
) -> None:
    def interrupted(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tree, tmp_path / "out", settings, workers=1, format=format, progress=interrupted)
    progress: list[int] = []
    run(tree, tmp_path / "out", settings, workers=1, format=format, progress=lambda done, total: progress.append(done))
    assert progress == list(range(6, 12))


def test_new_files_are_added_to_a_finished_job(tmp_path: Path, settings: worker.Settings) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b", "a"):
        Image.new("RGB", (60, 60)).save(folder / f"{name}.png")
        run(folder, tmp_path / "out", settings, workers=1)
    assert [Path(row["source"]).stem for row in table(tmp_path / "out" / "faces.csv")] == ["b", "a"]


def test_the_bar_shows_how_far_how_fast_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = functools.partial(rich.console.Console, file=screen, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(rich.console, "Console", lambda stderr: terminal())
    with job_cli.progress_bar() as progress:
        for done in range(31):
            progress(done, 40)
            time.sleep(0.01)
    assert re.search(r"30/40 \d+\.\d files/s \d:\d\d:\d\d", screen.getvalue()), screen.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_every_torn_state_is_taken_up(
    tree: Path, tmp_path: Path, settings: worker.Settings, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal cut at every kind of place, the table longer or shorter than it says: the same table comes out."""
    monkeypatch.setattr(tables.ParquetSink, "ROWS", 3)
    out = tmp_path / "out"
    summary = run(tree, out, settings, workers=2, format=format)

    def content() -> object:
        if format == "csv":
            return summary.out.read_bytes()
        import pyarrow.parquet

        return pyarrow.parquet.read_table(summary.out).to_pylist()

    whole, journal = content(), (out / jobs.JOURNAL).read_bytes()
    lines = journal.splitlines(keepends=True)
    for keep, torn in (
        (0, b""),
        (0, lines[0][:20]),
        (1, b""),
        (2, lines[2][:-1]),
        (3, lines[3][:9]),
        (len(lines), b""),
    ):
        (out / jobs.JOURNAL).write_bytes(b"".join(lines[:keep]) + torn)
        assert run(tree, out, settings, workers=2, format=format) == summary
        assert content() == whole, (keep, torn)
    if format == "csv":
        summary.out.write_bytes(summary.out.read_bytes()[:-700])
    else:
        (summary.out / "part-000001.parquet").unlink()
    assert run(tree, out, settings, workers=2, format=format) == summary
    assert content() == whole


def test_another_job_in_the_folder_is_refused(tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    run(tree, tmp_path / "out", settings, workers=2)
    with pytest.raises(UsageError, match=r"another job \(format was 'csv', now 'jsonl'\)"):
        run(tree, tmp_path / "out", settings, format="jsonl")
    (tmp_path / "out" / jobs.JOURNAL).write_text("not a journal\n")
    with pytest.raises(UsageError, match="not a journal"):
        run(tree, tmp_path / "out", settings)
    with pytest.raises(UsageError, match=r"'xlsx'.*csv, jsonl, parquet"):
        run(tree, tmp_path / "out", settings, format="xlsx")


def test_another_detector_under_the_same_path_is_another_job(
    tree: Path, tmp_path: Path, settings: worker.Settings
) -> None:
    from mien.faces import yunet

    file, content = tmp_path / "yunet.onnx", yunet.WHEEL.paths()[yunet.FILE].read_bytes()
    file.write_bytes(content)
    settings = replace(settings, detector=f"yunet:{file}")
    assert run(tree / "b" / "c", tmp_path / "out", settings) == run(tree / "b" / "c", tmp_path / "out", settings)
    moved = replace(settings, detector=f"yunet:{file.rename(tmp_path / 'moved.onnx')}")
    assert run(tree / "b" / "c", tmp_path / "out", moved).read == 2
    file.write_bytes(content.replace(b"pytorch", b"pytorcx", 1))
    assert file.read_bytes() != content
    with pytest.raises(UsageError, match=r"holds another job \(detector was 'yunet:[0-9a-f]{64}', now 'yunet:"):
        run(tree / "b" / "c", tmp_path / "out", settings)


def test_a_picture_that_is_named_twice_stands_once(tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    summary = jobs.run([tree / "hopper.jpg"] * 2, tmp_path, settings=settings)
    assert summary.read == len(table(tmp_path / "faces.csv")) == 1


def test_a_table_that_no_job_wrote_is_not_overwritten(tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "faces.csv").write_text("mine\n")
    for _ in range(2):  # nor the second time
        with pytest.raises(UsageError, match=r"faces\.csv is there already, and no job wrote it"):
            run(tree, out, settings)
    assert [path.name for path in out.iterdir()] == ["faces.csv"] and (out / "faces.csv").read_text() == "mine\n"


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_journal_that_no_job_wrote_is_kept(
    tree: Path, tmp_path: Path, settings: worker.Settings, ending: str
) -> None:
    (tmp_path / "journal.jsonl").write_text('{"my": "diary"}' + ending)
    with pytest.raises(UsageError, match=r"journal\.jsonl is there already|holds another job"):
        jobs.run([tree / "hopper.jpg"], tmp_path, settings=settings, workers=1)
    assert (tmp_path / "journal.jsonl").read_text() == '{"my": "diary"}' + ending
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_a_table_that_took_an_unbegun_jobs_place_is_kept(tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    """The job was killed before it wrote a row."""
    jobs.run([tree / "hopper.jpg"], tmp_path, settings=settings, workers=1)
    journal, table = tmp_path / "journal.jsonl", tmp_path / "faces.csv"
    first = journal.read_bytes().splitlines(keepends=True)[0]
    for begun in (first, first[:9], b""):
        journal.write_bytes(begun)
        table.write_text("name,score\nme,1\n")
        with pytest.raises(UsageError, match=r"faces\.csv is there already"):
            jobs.run([tree / "hopper.jpg"], tmp_path, settings=settings, workers=1)
        assert table.read_text() == "name,score\nme,1\n"
        table.unlink()
        jobs.run([tree / "hopper.jpg"], tmp_path, settings=settings, workers=1)
        assert table.exists()


@pytest.mark.parametrize("name", ["part-0.parquet", "part-00000-1a2b.snappy.parquet", "part-000000.parquet"])
def test_a_table_of_another_programs_parts_is_kept(
    tree: Path, tmp_path: Path, settings: worker.Settings, tiny_model: Path, name: str
) -> None:
    """Arrow's names for its parts, Spark's, and a name that mien might have given."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "out" / "faces.parquet"
    table.mkdir(parents=True)
    parquet.write_table(arrow.table({"x": [1, 2]}), table / name)
    before = (table / name).read_bytes()
    with pytest.raises(UsageError, match=r"faces\.parquet is there already, and no job wrote it"):
        run(tree, tmp_path / "out", settings, format="parquet")
    with pytest.raises(UsageError, match=r"faces\.parquet is there already, and mien did not write it"):
        tables.refuse_foreign(table)
    assert [(path.name, path.read_bytes()) for path in table.iterdir()] == [(name, before)]


def test_parts_at_a_url_that_no_job_wrote_are_kept(tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    """Another program's, and those of a job in a folder; and the other way round."""
    pytest.importorskip("fsspec")
    pictures = images.in_folder(tree / "b" / "c")

    def at_url(place: Path, format: str = "csv") -> jobs.Summary:
        return jobs.run(pictures, place.as_uri(), settings=settings, workers=1, format=format)

    spark = tmp_path / "spark" / "faces.csv" / "part-00000-1a2b.csv"
    spark.parent.mkdir(parents=True)
    spark.write_text("x\n1\n")
    with pytest.raises(UsageError, match=r"faces\.csv is there already, and no job at a URL wrote it"):
        at_url(tmp_path / "spark")
    assert spark.read_text() == "x\n1\n" and not (tmp_path / "spark" / "journal").exists()
    run(tree / "b" / "c", tmp_path / "folder", settings)
    for format in ("csv", "jsonl"):
        with pytest.raises(UsageError, match=r"is there already, and no job at a URL wrote it"):
            at_url(tmp_path / "folder", format)
    assert at_url(tmp_path / "url").read == at_url(tmp_path / "url").read == 2
    with pytest.raises(UsageError, match="holds the table of a folder job"):
        jobs.refuse_a_jobs_folder(tmp_path / "url")


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_another_table_in_the_tables_place_is_refused(
    tree: Path, tmp_path: Path, settings: worker.Settings, format: str
) -> None:
    out = tmp_path / "out"
    summary = run(tree, out, settings, workers=2, format=format)
    path = summary.out if format == "csv" else summary.out / "part-000000.parquet"
    whole, journal = path.read_bytes(), (out / jobs.JOURNAL).read_bytes()
    path.write_bytes(whole[:-9] + b"x" + whole[-8:])
    with pytest.raises(UsageError, match=rf"faces\.{format} is no longer the table that the job in its folder wrote"):
        run(tree, out, settings, format=format)
    assert (out / jobs.JOURNAL).read_bytes() == journal
    path.write_bytes(whole)
    assert run(tree, out, settings, format=format) == summary


def test_a_journal_without_checksums_is_taken_up(tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    out = tmp_path / "out"
    summary = run(tree, out, settings, workers=2)
    old = re.sub(rb'"check": \d+, ', b"", (out / jobs.JOURNAL).read_bytes())
    assert b"check" not in old
    (out / jobs.JOURNAL).write_bytes(old)
    assert run(tree, out, settings) == summary and (out / jobs.JOURNAL).read_bytes() == old


@pytest.mark.parametrize("line", [b'{"files": []}', b'{"mark": 9}', b'{"mark": 9, "files": [{"name": "a"}]}', b"[]"])
def test_a_line_that_no_job_wrote_is_refused(
    tree: Path, tmp_path: Path, settings: worker.Settings, line: bytes
) -> None:
    run(tree, tmp_path / "out", settings, workers=2)
    with (tmp_path / "out" / jobs.JOURNAL).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UsageError, match=r"journal\.jsonl: not a journal that mien wrote"):
        run(tree, tmp_path / "out", settings)


def test_a_module_in_the_current_folder_is_not_run(
    tree: Path, tmp_path: Path, settings: worker.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of pictures from anywhere may be the current one."""
    place = tmp_path / "place"
    place.mkdir()
    for name in ("csv", "json", "mien", "numpy"):
        (place / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.chdir(place)
    summary = run(tree, tmp_path / "out", settings, workers=1)
    assert not (tmp_path / "ran").exists()
    assert (summary.read, summary.no_face, summary.failed) == (8, 1, 2)


def test_each_video_has_a_folder_of_its_own(tmp_path: Path) -> None:
    videos = [Path("col") / name for name in ("a.mp4", "a.mov", "a-2.mp4", "A.mkv", "b.mp4")]
    folders = job_cli._folders(videos, tmp_path, format="csv")
    assert [folder.name for folder in folders if folder] == ["a", "a-2", "a-2-2", "A-3", "b"]
    assert all(folder and folder.is_dir() for folder in folders)
    assert job_cli._folders(videos[:1], tmp_path, format="csv") == [tmp_path]
    dotted = job_cli._folders([Path("...mp4"), Path("b.mp4")], tmp_path / "dots", format="csv")
    assert [folder.resolve().parent for folder in dotted if folder] == [(tmp_path / "dots").resolve()] * 2


def test_parquet_without_pyarrow_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r'pip install "mien\[tables\]"'):
        tables.open_sink("parquet", tmp_path)


def test_the_settings_reach_the_worker(tree: Path, settings: worker.Settings) -> None:
    def read(**changes: object) -> dict[str, object]:
        requests, answers = io.StringIO(json.dumps(str(tree / "hopper.jpg")) + "\n"), io.StringIO()
        worker.serve(replace(settings, **changes), requests, answers)
        (row,) = json.loads(answers.getvalue())
        return row

    plain = read()
    assert plain["face"] == 1 and 0 < plain["width"] < 128
    assert (read(detector="whole")["x"], read(detector="whole")["width"]) == (0, 128)
    assert read(min_face=400.0)["status"] == "no face"
    assert read(abstain_below=1.0)["expression"] == "unsure"
    assert str(read(max_pixels=1000)["status"]).startswith("error: 128 x 150 px")


def test_a_worker_whose_job_was_killed_ends_quietly(tree: Path, settings: worker.Settings) -> None:
    command = [sys.executable, "-P", "-m", "mien.worker", json.dumps(asdict(settings))]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write(json.dumps(str(tree / "hopper.jpg")) + "\n")
        process.stdin.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)


def test_a_file_that_kills_its_reader_is_recorded(tmp_path: Path, settings: worker.Settings, monkeypatch) -> None:
    """A worker that exits on one name stands for a decoder that crashes; the files after it are still read."""
    crashing = tmp_path / "crashing.py"
    crashing.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    path = json.loads(line)\n"
        "    if 'bad' in path: os.abort()\n"
        "    print(json.dumps([{'source': path, 'face': None, 'status': 'no face'}]), flush=True)\n"
    )

    def start(settings: worker.Settings) -> subprocess.Popen[str]:
        command = [sys.executable, str(crashing)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii")

    monkeypatch.setattr(worker, "_start", start)
    reading = worker.Worker(settings)
    statuses = [reading.read(name)[0]["status"] for name in ("a", "bad", "b")]
    reading.close()
    assert statuses == ["no face", "error: the reading process died on it 2 times (exit status -6)", "no face"]


def test_who_stops_waits_for_no_picture_in_hand(settings: worker.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, time; sys.stdin.readline(); print('[]', flush=True); sys.stdin.readline(); time.sleep(100)"

    def start(settings: worker.Settings) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii")

    monkeypatch.setattr(worker, "_start", start)
    began = time.monotonic()
    found = jobs.processes(["a.jpg", "b.jpg"], settings, 1)
    assert next(found) == ("a.jpg", [])
    time.sleep(0.2)  # s: the second one is in hand
    found.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 50


def test_a_killed_worker_loses_nothing(
    tree: Path,
    tmp_path: Path,
    settings: worker.Settings,
    expected: list[tables.Row],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started, killed = worker._start, [], []
    read, asked, deaths = worker.Worker.read, itertools.count(1), threading.Event()

    def remember(settings: worker.Settings) -> "subprocess.Popen[str]":
        started.append(start(settings))
        return started[-1]

    def hold(self: worker.Worker, path: str) -> list[tables.Row]:
        if next(asked) > 4:  # two that are reported, two that may be in hand; the others come after the deaths
            assert deaths.wait(120)
        return read(self, path)

    def kill(done: int, total: int) -> None:
        if done == 2:  # all at one moment: a file in hand at two moments would rightly be blamed for both deaths
            killed.extend(started)
            for process in killed:
                process.kill()
            deaths.set()

    monkeypatch.setattr(worker, "_start", remember)
    monkeypatch.setattr(worker.Worker, "read", hold)
    summary = run(tree, tmp_path / "out", settings, workers=2, progress=kill)
    assert killed and len(started) > len(killed)  # somebody was killed, and somebody went on
    assert {process.returncode for process in killed} == {-signal.SIGKILL}
    assert table(tmp_path / "out" / "faces.csv") == text(expected)
    assert (summary.read, summary.no_face, summary.failed) == (8, 1, 2)


def heed_interrupts() -> None:
    """A shell's background jobs are started with SIGINT ignored, and hand that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


KILLED = """
import os, signal, sys, threading
timer = threading.Timer(float(sys.argv[1]), os.killpg, (0, signal.SIGKILL))
timer.daemon = True
timer.start()
from mien import cli
cli.main(sys.argv[2:])
"""


def kill_until_done(arguments: list[str], random: random.Random, *, longest: float) -> int:
    """Run mien, which kills its own process group at random moments, however late this process may be, until it ends by
    itself; the number of kills. longest: s, what it takes. The first moment lies before anything can have been read, so
    that there is one on any machine."""
    kills = 0
    while True:
        moment = longest * (random.uniform(0.3, 1) if kills else 0.15)
        command = [sys.executable, "-c", KILLED, str(moment), *arguments]
        with subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            _, errors = process.communicate()  # until its workers are gone, too
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 1, errors.decode()  # two files cannot be read
            return kills
        kills += 1
        longest *= 1.1  # so that it ends on a busy machine, too


def survive_kills(tree: Path, out: Path, model: Path, seed: int, format: str) -> int:
    arguments = ["read", str(tree), "--format", format, "--model", str(model), "-o"]
    began = time.monotonic()
    whole = [sys.executable, "-m", "mien", *arguments, str(out.with_name("whole"))]
    subprocess.run(whole, stdout=subprocess.DEVNULL, check=False)
    return kill_until_done([*arguments, str(out)], random.Random(seed), longest=time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments(
    tree: Path, tmp_path: Path, tiny_model: Path, expected: list[tables.Row], seed: int
) -> None:
    kills = survive_kills(tree, tmp_path / "out", tiny_model, seed, "csv")
    assert kills >= 1
    assert table(tmp_path / "out" / "faces.csv") == text(expected)


HELD = """
import sys, time
from pathlib import Path
from mien import cli, worker
read = worker.Worker.read
def held(self, path):
    while "copy0" not in path and not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    return read(self, path)
worker.Worker.read = held
cli.main(sys.argv[2:])
"""


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(
    tree: Path, tmp_path: Path, tiny_model: Path, expected: list[tables.Row]
) -> None:
    out = tmp_path / "out"
    listed, gate = tmp_path / "list.txt", tmp_path / "gate"  # all but the first copy wait until the keys are pressed
    links = [tmp_path / f"copy{number}" for number in range(4)]
    for link in links:
        link.symlink_to(tree)
    listed.write_text(
        "\n".join(str(link / path.relative_to(tree)) for link in links for path in images.in_folder(tree))
    )
    arguments = ["read", str(listed), "-o", str(out), "--model", str(tiny_model)]
    command = [sys.executable, "-c", HELD, str(gate), *arguments]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts
    ) as process:
        while not (out / "faces.csv").is_file() or (out / "faces.csv").stat().st_size < 300:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        gate.touch()
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 130
    assert errors.decode() == f"mien: stopped; the same command goes on in {out}\n"
    before = len(table(out / "faces.csv"))
    assert 0 < before < 4 * len(expected)
    again = [sys.executable, "-m", "mien", *arguments]
    assert subprocess.run(again, stdout=subprocess.DEVNULL, check=False).returncode == 1
    assert len(table(out / "faces.csv")) == 4 * len(expected)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kills_at_many_random_moments(
    tmp_path: Path, hopper: np.ndarray, tiny_model: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(900):
        Image.fromarray(hopper).resize((100 + number % 300, 120 + number % 300)).save(folder / f"{number:03}.jpg")
    settings = worker.Settings(str(tiny_model))
    run(folder, tmp_path / "whole", settings)
    total = 0
    for seed in range(10):
        out = tmp_path / f"out{seed}"
        random_moments = random.Random(seed)
        command = [sys.executable, "-m", "mien", "read", str(folder), "-o", str(out), "--model", str(tiny_model)]
        for _ in range(5):
            process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
            time.sleep(random_moments.uniform(0.5, 2.5))
            os.killpg(process.pid, signal.SIGKILL)
            total += process.wait() == -signal.SIGKILL
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert (out / "faces.csv").read_bytes() == (tmp_path / "whole" / "faces.csv").read_bytes()
    record_property("kills", total)
    record_property("jobs", 10)
    record_property("files in each", 900)
    assert total >= 20


def test_two_jobs_cannot_share_a_folder(tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    (tmp_path / "out").mkdir()
    code = (
        "import sys\nfrom pathlib import Path\nfrom mien import jobs\n"
        "journal = jobs.Journal(Path(sys.argv[1]), {'format': 'csv'})\nprint('locked', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match="another mien is writing here"):
            run(tree, tmp_path / "out", settings)


def test_read_folder_gives_readings_in_order(tree: Path, tiny_model: Path) -> None:
    reader = mien.Reader(tiny_model)
    found = list(mien.read_folder(tree, reader=reader, threads=2))
    assert [one.source for one in found] == [str(path) for path in images.in_folder(tree)]
    assert [one.status.split(":")[0] for one in found].count("error") == 2
    failed = found[1]
    assert isinstance(failed, mien.UnreadableFile) and failed.reason == "the file is empty"
    assert list(failed) == failed.to_deepface() == failed.to_fer() == []
    assert failed.rows() == [tables.failure(failed.source, "the file is empty")]
    assert list(failed.to_pandas()["status"]) == ["error: the file is empty"]
    assert failed.to_dict()["status"] == "error: the file is empty"
    with pytest.raises(UsageError, match="threads=0: expected 1 or more"):
        mien.read_folder(tree, reader=reader, threads=0)
    with pytest.raises(UsageError, match=r"mien\.read for a picture"):
        mien.read_folder(tree / "hopper.jpg", reader=reader)


def test_read_folder_reads_no_further_ahead_than_it_says() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return item

    results = jobs.in_order(range(1000), work, threads=2, ahead=3)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 7
    assert list(results) == list(range(1, 1000))


def test_a_list_from_the_command_line(tree: Path, tmp_path: Path, tiny_model: Path, capsys) -> None:
    paths = tmp_path / "list.txt"
    paths.write_text(f"{tree / 'hopper.jpg'}\nabsent.jpg\n{tree / 'b' / 'blank.png'}\n")

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            cli.main(["read", str(paths), "-o", str(tmp_path / "out"), "--model", str(tiny_model), *arguments])
        printed = capsys.readouterr()
        return int(exit.value.code or 0), printed.out, printed.err

    status, printed, errors = command("--workers", "1")
    assert (status, errors) == (1, "")
    assert printed.splitlines()[0] == "1 read, 1 without a face, 1 failed; 1 faces"
    statuses = [row["status"] for row in table(tmp_path / "out" / "faces.csv")]
    assert statuses == ["ok", "error: no such file", "no face"]
    (tmp_path / "absent.jpg").write_bytes((tree / "hopper.jpg").read_bytes())
    status, printed, errors = command("--workers", "1")
    assert status == 1 and "1 read, 1 without a face, 1 failed" in printed
    assert errors.strip().endswith("not tried again: 1; to read them, add --retry-failed")
    status, printed, errors = command("--workers", "1", "--retry-failed")
    assert (status, errors) == (0, "") and printed.startswith("2 read, 1 without a face, 0 failed")
    assert [row["status"] for row in table(tmp_path / "out" / "faces.csv")] == ["ok", "no face", "ok"]
    status, _, errors = command("--json")
    assert status == 2 and "--format jsonl" in errors
    status, _, errors = command("--format", "parquet")
    assert status == 2 and "holds another job" in errors


def test_names_cannot_steer_the_terminal(tmp_path: Path, tiny_model: Path, capsys) -> None:
    out, missing = tmp_path / "o\x1b[31m", tmp_path / "e\x1b[31mx.mp4"
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    for paths in (tmp_path, missing):
        with pytest.raises(SystemExit):
            cli.main(["read", str(paths), "-o", str(out / paths.name), "--model", str(tiny_model)])
    with pytest.raises(SystemExit), terminal.stopped(f"the same command goes on in {out}"):
        raise KeyboardInterrupt
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.out.count("o\\x1b[31m") == 1 and printed.err.count("\\x1b[31m") >= 2
