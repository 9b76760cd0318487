"""Aligning a whole dataset: upright faces, a manifest that hides nothing, and no work done twice after a kill."""

import csv
import errno
import functools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien import writing
from mien.errors import DataError, MienError, UsageError
from mien.faces.mtcnn import Mtcnn
from mien.lab import datasets
from mien.lab.data_cli import app
from mien.lab.datasets import align_dataset, layouts
from mien.lab.datasets.align_dataset import align
from mien.lab.datasets.check import check
from mien.lab.datasets.fer2013 import TEMPLATE


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def own(root: Path, count: int = 6) -> datasets.FaceDataset:
    layouts.write("folder", root, rows=count)
    return datasets.load("folder", root, split="train")


def test_a_tilted_face_is_put_upright(shared: Callable[[str], Path], tmp_path: Path) -> None:
    with Image.open(shared("photos/obama-240p.jpg")) as picture:
        (tmp_path / "own/train/happy").mkdir(parents=True)
        picture.convert("RGB").rotate(25, expand=True).save(tmp_path / "own/train/happy/a.png")
        picture.convert("RGB").save(tmp_path / "own/train/happy/b.png")
    data = datasets.load("folder", tmp_path / "own", split="train")
    assert len(data) == 1, "the other became valid"
    counts = align([data], tmp_path / "out", root=tmp_path / "own", side=112)
    assert counts == {"aligned": 1}
    (row,) = rows(tmp_path / "out")
    assert float(row["score"]) > 0.9
    crop = datasets.load("folder", tmp_path / "out", split="train").read(0)
    assert crop.shape == (112, 112, 3)
    (found,) = Mtcnn(min_face=40).refine(crop, [(0, 0, 112, 112)])
    assert found.landmarks is not None
    off = np.abs(np.array(found.landmarks) / 112 - np.array(TEMPLATE))
    assert off.max() < 0.08, "the five points lie where the template has them"


def test_given_boxes_are_used(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """Two faces in one picture: the box decides which, not the size."""
    with Image.open(shared("photos/obama-240p.jpg")) as picture:
        face = picture.convert("RGB")
    (found, *_) = Mtcnn(min_face=40).detect(np.asarray(face))
    sheet = Image.new("RGB", (face.width * 2, face.height))
    sheet.paste(face, (0, 0))
    small = face.resize((face.width * 3 // 4, face.height * 3 // 4))
    sheet.paste(small, (face.width, 0))
    (tmp_path / "expw/image/origin").mkdir(parents=True)
    (tmp_path / "expw/label").mkdir()
    sheet.save(tmp_path / "expw/image/origin/a.png")
    left, top, right, bottom = (round(0.75 * edge) for edge in found.box)
    line = f"a.png 0 {top} {left + face.width} {right + face.width} {bottom} 90.0 3\n"
    (tmp_path / "expw/label/label.lst").write_text(line)
    data = datasets.load("expw", tmp_path / "expw", split="all", protocol="every", allow_partial=True)
    align([data], tmp_path / "out", root=tmp_path / "expw")
    (row,) = rows(tmp_path / "out")
    assert row["status"] == "aligned"
    assert float(row["left_eye_x"]) > face.width, "the smaller face on the right, which the box names"


def test_a_part_has_its_boxes_too(tmp_path: Path) -> None:
    layouts.write("expw", tmp_path / "expw", rows=20)
    found = []
    for split in ("all", "train"):
        data = datasets.load("expw", tmp_path / "expw", split=split, protocol="every", allow_partial=True)
        align([data[:6]], tmp_path / split, root=tmp_path / "expw", side=32)
        table = rows(tmp_path / split)
        told = [(row["status"], row["left"], (tmp_path / split / row["path"]).read_bytes()) for row in table]
        found.append(dict(zip(data.ids, told, strict=False)))
    whole, part = found
    assert len(part) == 6
    both = whole.keys() & part.keys()
    assert both
    assert {name: part[name] for name in both} == {name: whole[name] for name in both}
    assert "whole" not in {status for status, *_ in part.values()}


def test_every_picture_has_a_row_and_a_reason(tmp_path: Path) -> None:
    data = own(tmp_path / "own")
    broken = tmp_path / "own" / data.ids[2]
    broken.write_bytes(broken.read_bytes()[:100])
    counts = align([data], tmp_path / "out", root=tmp_path / "own", side=64)
    table = rows(tmp_path / "out")
    assert [row["id"] for row in table] == list(data.ids)
    assert sum(counts.values()) == 6
    assert {row["status"] for row in table} <= {"aligned", "box", "whole", "unreadable"}
    assert table[2]["status"] == "unreadable"
    assert table[2]["path"] == ""
    assert data.ids[2] in table[2]["reason"]
    for row in table:
        assert (row["status"] == "aligned") or row["reason"]
        if row["path"]:
            with Image.open(tmp_path / "out" / row["path"]) as picture:
                assert picture.size == (64, 64)


def test_the_output_stands_for_the_dataset(tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path / "ckplus", rows=10)
    data = datasets.load("ckplus", tmp_path / "ckplus", split="all", label_rule="8-class", allow_partial=True)
    align([data], tmp_path / "out", root=tmp_path / "ckplus", side=32)
    test = datasets.load("ckplus", tmp_path / "out", split="test", fold=1, allow_partial=True)
    plain = datasets.load("ckplus", tmp_path / "ckplus", split="test", fold=1, allow_partial=True)
    assert test.ids == plain.ids
    np.testing.assert_array_equal(test.labels, plain.labels)
    assert test.read(0).shape == (32, 32, 3)
    assert test.fingerprint != plain.fingerprint
    assert "aligned with MTCNN, 32 px, margin 0" in test.note
    align([data], tmp_path / "wider", root=tmp_path / "ckplus", side=32, margin=0.4)
    wider = datasets.load("ckplus", tmp_path / "wider", split="test", fold=1, allow_partial=True)
    assert (wider.ids, "margin 0.4" in wider.note) == (test.ids, True)
    assert wider.fingerprint != test.fingerprint  # a run on the one does not go on with the other
    report = check("ckplus", tmp_path / "out")
    assert [len(part) for part in report.splits.values()] == [32]
    assert report.sizes == {(32, 32): 32}
    with pytest.raises(DataError, match="holds ckplus aligned, asked for sfew"):
        datasets.load("sfew", tmp_path / "out", split="train")


def test_an_unfinished_alignment_is_not_taken_for_whole(tmp_path: Path) -> None:
    data = own(tmp_path / "own")

    def stop(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align([data], tmp_path / "out", root=tmp_path / "own", progress=stop)
    with pytest.raises(DataError, match="3 of 6 rows of folder train are not aligned"):
        datasets.load("folder", tmp_path / "out", split="train")
    torn = (tmp_path / "out/manifest.csv").read_bytes()[:-25]
    (tmp_path / "out/manifest.csv").write_bytes(torn)  # killed while the third row was written
    align([data], tmp_path / "out", root=tmp_path / "own")
    assert [row["id"] for row in rows(tmp_path / "out")] == list(data.ids)


def test_a_full_disk_names_the_manifest(tmp_path: Path) -> None:
    data = own(tmp_path / "own", 80)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # bytes: more than a picture of 24 px
    try:
        with pytest.raises(OSError) as full:
            align([data], tmp_path / "out", root=tmp_path / "own", side=24)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (full.value.errno, full.value.filename) == (errno.EFBIG, str(tmp_path / "out/manifest.csv"))


def test_further_splits_may_follow(tmp_path: Path) -> None:
    """What the message about rows that are not aligned says to do."""
    root, out = tmp_path / "own", tmp_path / "out"
    layouts.write("folder", root, rows=40)
    held = {split: datasets.load("folder", root, split=split) for split in ("train", "valid")}
    align([held["valid"]], out, root=root, side=24)
    with pytest.raises(
        DataError, match=r"not aligned, e.g. .*; run `mien data align` with --split train into the same folder"
    ):
        datasets.load("folder", out, split="train")
    assert align([held["train"]], out, root=root, side=24).total() == len(held["train"])
    for split, data in held.items():
        assert datasets.load("folder", out, split=split).ids == data.ids
    assert align(list(held.values()), out, root=root, side=24).total() == len(held["train"]) + len(held["valid"])
    with pytest.raises(UsageError, match="holds another alignment: splits"):
        align([held["train"][:3]], out, root=root, side=24)


def test_rows_that_came_later_need_a_new_folder(tmp_path: Path) -> None:
    """What the message says must not be refused."""
    data = own(tmp_path / "own")
    align([data], tmp_path / "out", root=tmp_path / "own", side=24)
    first = tmp_path / "own" / data.ids[0]
    first.with_name("later.png").write_bytes(first.read_bytes())
    with pytest.raises(
        DataError, match=r"has changed since it was aligned: 1 of 7 .*; run `mien data align` into a new folder"
    ):
        datasets.load("folder", tmp_path / "out", split="train")


@pytest.mark.parametrize(
    ("file", "kept", "told"),
    [
        ("align.json", b'{"name"', "not JSON"),
        ("align.json", b"[]", "holds list, expected a JSON object"),
        ("align.json", b'{"name": "folder"}', "lacks root, side, margin, splits"),
        ("manifest.csv", b"\xff\n", "cannot be read"),
        ("manifest.csv", b"split,row\n", "its first line is not split,row,id"),
        ("manifest.csv", None, "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(file: str, kept: bytes | None, told: str, tmp_path: Path) -> None:
    data = own(tmp_path / "own", 2)
    align([data], tmp_path / "out", root=tmp_path / "own", side=24)
    if kept is None:
        (tmp_path / "out" / file).unlink()
    else:
        (tmp_path / "out" / file).write_bytes(kept)
    message = rf"{file}: {told}.*; run `mien data align` into a new folder$"
    with pytest.raises(DataError, match=message):
        datasets.load("folder", tmp_path / "out", split="train")
    if kept is not None:
        with pytest.raises(DataError, match=message):
            align([data], tmp_path / "out", root=tmp_path / "own", side=24)


def test_an_original_that_moved_is_told(tmp_path: Path) -> None:
    """And what the message says helps."""
    data = own(tmp_path / "own", 2)
    align([data], tmp_path / "out", root=tmp_path / "own", side=24)
    (tmp_path / "own").rename(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=r"out was aligned from .*own, which is not there; .* its new place as root in .*align.json$"
    ):
        datasets.load("folder", tmp_path / "out", split="train")
    settings = tmp_path / "out/align.json"
    settings.write_text(settings.read_text().replace(str(tmp_path / "own"), str(tmp_path / "elsewhere")))
    assert datasets.load("folder", tmp_path / "out", split="train").ids == data.ids


def test_two_do_not_align_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with writing.held(tmp_path / "out"), pytest.raises(UsageError, match="out: another mien is writing here"):
        align([own(tmp_path / "own")], tmp_path / "out", root=tmp_path / "own")


@pytest.mark.slow
def test_a_killed_worker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align_dataset, "end_with_parent", functools.partial(os._exit, 9))
    with pytest.raises(MienError, match=r"a worker process was killed, .* goes on where it stopped, with --workers 1"):
        align([own(tmp_path / "own")], tmp_path / "out", root=tmp_path / "own", workers=2)


def test_another_alignment_is_never_mixed_in(tmp_path: Path) -> None:
    data = own(tmp_path / "own")
    align([data[:2]], tmp_path / "out", root=tmp_path / "own", side=32)
    with pytest.raises(UsageError, match=r"holds another alignment: .*side 32 before, 48 now"):
        align([data], tmp_path / "out", root=tmp_path / "own", side=48)


@pytest.mark.slow
def test_workers_and_one_process_give_the_same_rows(tmp_path: Path) -> None:
    layouts.write("affectnet", tmp_path / "affectnet", rows=24)
    for workers in (1, 2):
        arguments = ["align", "affectnet", "--root", str(tmp_path / "affectnet"), "--allow-partial", "--size", "48"]
        out = str(tmp_path / f"out{workers}")
        result = CliRunner().invoke(app, [*arguments, "--workers", str(workers), "-o", out])
        assert result.exit_code == 0, result.output
    assert rows(tmp_path / "out1") == rows(tmp_path / "out2")
    assert len(rows(tmp_path / "out1")) == 36
    for row in rows(tmp_path / "out1"):
        one, two = (tmp_path / f"out{workers}" / row["path"] for workers in (1, 2))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_killed_and_started_again_it_loses_nothing(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "own", rows=60)
    command = [sys.executable, "-c", "from mien.lab.data_cli import app; app()", "align", "folder"]
    command += ["--root", str(tmp_path / "own"), "-o", str(tmp_path / "out"), "--workers", "2"]
    manifest = tmp_path / "out/manifest.csv"
    for least in (5, 25):
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 200  # s; a busy machine is no failure
        while not (manifest.is_file() and manifest.read_bytes().count(b"\n") > least):
            assert time.monotonic() < deadline, "the first rows did not come"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    found = [(row["split"], row["row"]) for row in rows(tmp_path / "out")]
    assert len(found) == len(set(found)) == 120
    assert len(list((tmp_path / "out").glob("*/*.png"))) == 120
