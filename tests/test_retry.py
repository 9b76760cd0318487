"""--retry-failed: what is read again, what the table then holds, and that nothing is lost when it is stopped at any step."""

import csv
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien import cli, images, jobs, retry, tables, worker
from mien.errors import UsageError
from test_writing import files_of_at_most

pytestmark = pytest.mark.slow  # reading processes take seconds

ODD = "=1,\n\udcff é"  # of a file's name: what spreadsheets, CSV and UTF-8 trip over


@pytest.fixture
def folder(tmp_path: Path, hopper: np.ndarray) -> Path:
    """A face, a faceless picture, and three files that are none, in the order a to e."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", f"c {ODD}", "d"):
        (folder / f"{name}.png").write_bytes(b"nothing")
    Image.fromarray(hopper).resize((128, 150)).save(folder / "b.png")
    Image.new("RGB", (60, 60)).save(folder / "e.png")
    return folder


@pytest.fixture
def settings(tiny_model: Path) -> worker.Settings:
    return worker.Settings(str(tiny_model))


@pytest.fixture
def read(folder: Path, tmp_path: Path, settings: worker.Settings) -> Callable[..., jobs.Summary]:
    def read(format: str = "csv", out: str = "out", **options: Any) -> jobs.Summary:
        (tmp_path / out).mkdir(exist_ok=True)
        pictures = images.in_folder(folder)
        return jobs.run(pictures, tmp_path / out, settings=settings, workers=1, format=format, **options)

    return read


def mend(folder: Path, name: str) -> None:
    Image.new("RGB", (50, 50)).save(folder / f"{name}.png")


def statuses(summary: jobs.Summary) -> list[tuple[str, str]]:
    """Each row's file, by the first letter of its name, and its status up to the colon."""
    path = Path(summary.out)
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[Any] = list(csv.DictReader(file))
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
    return [(row["source"].partition("/in/")[2][0], row["status"].partition(":")[0]) for row in rows]


@pytest.mark.parametrize("format", tables.FORMATS)
def test_failed_files_are_read_again_and_stand_once(
    folder: Path, read: Callable[..., jobs.Summary], format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables.ParquetSink, "ROWS", 2)
    monkeypatch.setattr(retry, "LINE", 1)
    assert (read(format).failed, read(format).failed_before) == (3, 3)
    for name in ("a", f"c {ODD}"):
        mend(folder, name)
    found = read(format, retry_failed=True)
    assert (found.read, found.no_face, found.failed, found.failed_before) == (1, 3, 1, 0)
    assert statuses(found) == [("b", "ok"), ("e", "no face"), ("a", "no face"), ("c", "no face"), ("d", "error")]
    assert read(format) == found and statuses(read(format))[-1] == ("d", "error")  # it goes on as any job
    mend(folder, "d")
    assert statuses(read(format, retry_failed=True))[-1] == ("d", "no face")
    assert {path.name for path in Path(found.out).parent.iterdir()} == {jobs.JOURNAL, f"faces.{format}"}


def test_a_file_that_has_changed_is_told(
    folder: Path,
    read: Callable[..., jobs.Summary],
    tmp_path: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that failed is told as such, and one that is gone has not changed."""
    assert read().changed == 0 and read().changed == 0
    mend(folder, "b")
    mend(folder, "d")
    (folder / "e.png").unlink()
    assert read().changed == 1 and statuses(read())[1] == ("b", "ok")
    with pytest.raises(SystemExit):
        cli.main(["read", str(folder), "-o", str(tmp_path / "out"), "--model", str(tiny_model)])
    assert "files that have changed since they were read: 1; to read them anew" in capsys.readouterr().err


def test_a_journal_of_before_files_had_stamps_goes_on(
    folder: Path, read: Callable[..., jobs.Summary], tmp_path: Path
) -> None:
    read()
    journal = tmp_path / "out" / jobs.JOURNAL
    journal.write_text(re.sub(r', "stamp": "[\d ]+"', "", journal.read_text()))
    mend(folder, "b")
    assert read().changed == 0


def test_what_is_no_longer_asked_for_is_told_apart(
    folder: Path,
    read: Callable[..., jobs.Summary],
    tmp_path: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A broken file that was removed fails no later run."""
    assert (read().failed, read().gone) == (3, 0)
    for name in ("a", "d"):
        (folder / f"{name}.png").unlink()
    assert (read().failed, read().failed_before, read().gone) == (3, 1, 2)
    mend(folder, f"c {ODD}")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["read", str(folder), "-o", str(tmp_path / "out"), "--model", str(tiny_model), "--retry-failed"])
    assert ended.value.code == 0
    assert "files that failed in an earlier run and are not among today's: 2" in capsys.readouterr().err


def test_a_folder_that_opens_by_now_has_failed_no_more(
    folder: Path, read: Callable[..., jobs.Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    below = folder / "z"
    below.mkdir()
    mend(below, "z")
    with monkeypatch.context() as patched:
        patched.setattr(images, "in_folder", lambda folder: [folder / "b.png", below])  # as while it cannot be opened
        assert (read().read, read().failed) == (1, 1)
    for name in ("a", f"c {ODD}", "d"):
        mend(folder, name)
    assert (read().failed, read().gone) == (1, 1)
    found = read(retry_failed=True)
    assert (found.read, found.no_face, found.failed, found.gone) == (1, 5, 0, 0)
    assert [name for name, _ in statuses(found)] == list("bacdez")


def test_rows_that_stay_keep_their_bytes(folder: Path, read: Callable[..., jobs.Summary]) -> None:
    before = Path(read().out).read_bytes().split(b"\r\n")
    after = Path(read(retry_failed=True).out).read_bytes().split(b"\r\n")
    assert sorted(before) == sorted(after) and before != after


def test_without_a_failure_nothing_is_touched(
    folder: Path, read: Callable[..., jobs.Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", f"c {ODD}", "d"):
        mend(folder, name)
    first = read(retry_failed=True)
    monkeypatch.setattr(retry, "prepare", None)
    assert read(retry_failed=True) == first


def test_only_what_is_asked_for_is_forgotten(
    folder: Path, read: Callable[..., jobs.Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    read()
    (folder / "a.png").unlink()  # its row stays the last that is known of it
    mend(folder, "d")
    rows = statuses(read(retry_failed=True))
    assert rows == [("a", "error"), ("b", "ok"), ("e", "no face"), ("c", "error"), ("d", "no face")]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_stopped_at_any_step_nothing_is_lost(
    folder: Path, tmp_path: Path, read: Callable[..., jobs.Summary], format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(format, out="first")
    mend(folder, "a")
    reached = 0
    for step in itertools.count():
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(tmp_path / "first", tmp_path / "out")
        with monkeypatch.context() as patched:
            dies_at(step, patched)
            try:
                read(format, retry_failed=True)
            except KeyboardInterrupt:
                reached += 1
            else:
                break
        with pytest.raises(UsageError, match="holds another job"):
            read("jsonl")
        found = read(format)
        assert found.failed in (2, 3) and sorted(name for name, _ in statuses(found)) == list("abcde"), step
        found = read(format, retry_failed=True)
        assert (found.read, found.no_face, found.failed) == (1, 2, 2)
        assert sorted(statuses(found)) == [
            ("a", "no face"), ("b", "ok"), ("c", "error"), ("d", "error"), ("e", "no face"),
        ], step  # fmt: skip
        assert {path.name for path in (tmp_path / "out").iterdir()} == {jobs.JOURNAL, f"faces.{format}"}
    assert reached >= 10


@pytest.mark.parametrize("format", tables.FORMATS)
def test_a_full_disk_is_named(
    folder: Path, tmp_path: Path, read: Callable[..., jobs.Summary], tiny_model: Path, capsys, format: str
) -> None:
    """A repetition with room enough goes on."""
    read(format)
    copies = tmp_path / "out" / retry.BEGUN
    size = 100 if format != "parquet" else 1000
    command = ["read", str(folder), "-o", str(tmp_path / "out"), "--model", str(tiny_model), "--format", format]
    with files_of_at_most(size), pytest.raises(SystemExit) as ended:
        cli.main([*command, "--retry-failed"])
    told = capsys.readouterr().err
    assert ended.value.code == 1 and f"mien: {copies}" in told and "free some space" in told, told
    assert read(format, retry_failed=True).failed == 3


@pytest.mark.parametrize(
    ("format", "damage"),
    [("csv", b"\xff"), ("jsonl", b"\xff"), ("jsonl", b"x"), ("jsonl", b"[]\n"), ("parquet", 50 * b"x")],
)
def test_a_damaged_table_is_named_and_kept(
    read: Callable[..., jobs.Summary], format: str, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its last part or row, which the journal knows."""
    monkeypatch.setattr(tables.ParquetSink, "ROWS", 2)
    monkeypatch.setattr(tables, "CHECKED", 9)
    table = Path(read(format).out)
    part = table / "part-000000.parquet" if format == "parquet" else table
    content = part.read_bytes()
    at = 4 if format == "parquet" else content.index(b"\n") + 1
    damaged = content[:at] + damage + content[at + len(damage) :]
    part.write_bytes(damaged)
    with pytest.raises(UsageError, match=rf"faces\.{format}: it is damaged \(.+\), so that no row can be taken out"):
        read(format, retry_failed=True)
    assert part.read_bytes() == damaged and read(format).failed == 3


def dies_at(step: int, patched: pytest.MonkeyPatch) -> None:
    """The process ends before the step-th change that `retry` makes on the disk, or after it: a removal of folders half way."""
    steps = itertools.count()

    def before(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return changed

    def half(path: Path, **options: Any) -> None:
        if not Path(path).is_dir():
            return
        first = sorted(Path(path).iterdir())[:1]
        for file in first:
            shutil_rmtree(file) if file.is_dir() else file.unlink()
        if next(steps) == step:
            raise KeyboardInterrupt
        shutil_rmtree(path)

    shutil_rmtree = shutil.rmtree
    patched.setattr(retry.shutil, "rmtree", before(half))
    for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "mkdir"), (os, "fsync")):
        patched.setattr(owner, name, before(getattr(owner, name)))
    patched.setattr(tables, "copy_without_failures", before(tables.copy_without_failures))


def test_what_it_is_for_is_said(folder: Path, tmp_path: Path, settings: worker.Settings, capsys) -> None:
    for paths in (["x.jpg", "-o", str(tmp_path)], [str(folder)]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["read", *paths, "--retry-failed"])
        assert ended.value.code == 2 and "--retry-failed is for the job of a folder or list" in capsys.readouterr().err
    with pytest.raises(UsageError, match="in a folder, not at a URL"):
        jobs.run([folder / "a.png"], "memory://out", settings=settings, retry_failed=True)
