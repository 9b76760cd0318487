"""`mien data check` finds what was put there: damage, wrong counts, duplicates and the labels they contradict."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien.errors import DataError, UsageError
from mien.lab import datasets
from mien.lab.data_cli import app
from mien.lab.datasets import duplicates, layouts
from mien.lab.datasets.check import check
from mien.lab.datasets.check_report import summary

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and output of `mien data ARGUMENTS`; an exception that is not an exit is a failure of its own."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder dataset of 40 + 20 + 20 drawn faces that nothing is wrong with."""
    layouts.write("folder", tmp_path / "own", rows=40)
    return tmp_path / "own"


def test_a_sound_dataset_passes_and_every_table_is_written(own: Path, tmp_path: Path) -> None:
    status, output = run("check", "folder", "--root", own, "-o", tmp_path / "out")
    assert status == 0
    assert "train: 40 rows" in output
    assert "counts, files and labels are right" in output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "counts.csv", "sizes.csv", "problems.csv", "duplicates.csv", "near_duplicates.csv", "labels.png",
    }  # fmt: skip
    assert rows(tmp_path / "out/sizes.csv") == [{"width": "48", "height": "48", "pictures": "80"}]
    counts = {(row["split"], row["class"]): int(row["found"]) for row in rows(tmp_path / "out/counts.csv")}
    assert counts[("test", "all")] == 20
    with Image.open(tmp_path / "out/labels.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5, "the histogram shows bars"


def test_without_matplotlib_the_tables_are_refused_before_the_work(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"figures need the extra eval .matplotlib is not installed"):
        run("check", "folder", "--root", own, "-o", tmp_path / "out")
    assert run("check", "folder", "--root", own)[0] == 0


def test_unreadable_pictures_are_listed_and_fail(own: Path, tmp_path: Path) -> None:
    files = sorted(own.glob("train/*/*.png"))
    files[0].write_bytes(files[0].read_bytes()[:200])
    files[1].write_bytes(b"")
    files[2].write_text("not a picture")
    files[3].unlink()
    files[3].mkdir()  # what a file that cannot be opened looks like, even to the superuser
    status, output = run("check", "folder", "--root", own, "-o", tmp_path / "out")
    assert status == 1
    assert output.count("WRONG file train") == 4
    listed = {row["row"] for row in rows(tmp_path / "out/problems.csv")}
    assert listed == {file.relative_to(own).as_posix() for file in files[:4]}


def test_a_count_that_is_not_the_official_one_fails(tmp_path: Path) -> None:
    layouts.write("rafdb", tmp_path / "rafdb", rows=20)
    status, output = run("check", "rafdb", "--root", tmp_path / "rafdb", "-o", tmp_path / "out")
    assert status == 1
    assert "all: 20 rows, officially 12,271" in output
    found = {(row["split"], row["class"]): row for row in rows(tmp_path / "out/counts.csv")}
    assert found[("train", "fear")]["official"] == "281"
    assert found[("train", "fear")]["agrees"] == "no"


def test_a_label_out_of_range_fails_without_a_traceback(tmp_path: Path) -> None:
    layouts.write("rafdb", tmp_path / "rafdb", rows=20)
    file = tmp_path / "rafdb/basic/EmoLabel/list_patition_label.txt"
    file.write_text(file.read_text() + "train_99999.jpg 9\n")
    status, output = run("check", "rafdb", "--root", tmp_path / "rafdb")
    assert status == 1
    assert "'train_99999.jpg 9', expected a file name and a label from 1 to 7" in output


def test_an_absent_split_is_reported_without_failing(own: Path) -> None:
    (own / "test").rename(own.parent / "kept elsewhere")
    report = check("folder", own)
    assert set(report.absent) == {"test"}
    assert not report.fails
    assert "test: absent: " in summary(report)
    assert "none for test; add it, or drop the split folders" in summary(report)


@pytest.mark.parametrize("name", ["folder", "csv"])
def test_a_class_that_train_has_no_row_of_fails(name: str, tmp_path: Path) -> None:
    layouts.write(name, tmp_path / "own", rows=40)
    root = tmp_path / "own" / ("faces.csv" if name == "csv" else "")
    if name == "folder":
        (root / "train/fear").rename(tmp_path / "fear")
    else:
        lines = root.read_text().splitlines()
        root.write_text("\n".join(line for line in lines if ",fear,train" not in line))
    status, output = run("check", name, "--root", root)
    assert status == 1
    for split in ("valid", "test"):
        assert f"WRONG counts {split}: fear: " in output
    assert "rows, none in train; add some to train, or drop the class" in output
    assert output.splitlines()[-1] == "wrong: see above"


def test_pictures_in_sub_folders_are_checked_too(own: Path) -> None:
    for folder in own.glob("train/*"):
        (folder / "s1").mkdir()
        for file in folder.glob("*.png"):
            file.rename(folder / "s1" / file.name)
    status, output = run("check", "folder", "--root", own)
    assert status == 0
    assert "train: 40 rows" in output


def test_what_the_loader_notes_stands_with_the_split(tmp_path: Path) -> None:
    layouts.write("csv", tmp_path / "own", rows=40)
    file = tmp_path / "own/faces.csv"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([f"{head},gender", *(f"{line},f" for line in lines)]))
    status, output = run("check", "csv", "--root", file)
    assert status == 0
    assert output.count("; columns not used: 'gender'") == 3


def test_an_absent_picture_of_a_table_fails(tmp_path: Path) -> None:
    """There is no official count that would tell."""
    layouts.write("csv", tmp_path / "own", rows=20)
    next((tmp_path / "own/pictures").iterdir()).unlink()
    status, output = run("check", "csv", "--root", tmp_path / "own/faces.csv")
    assert status == 1
    assert "1 pictures are not in" in output


@pytest.mark.parametrize("name", ["folder", "fer2013"])
def test_without_a_root_the_cause_is_all_that_is_said(name: str) -> None:
    with pytest.raises(DataError, match=f"^{name} lies in files: pass --root the place where it lies$"):
        check(name, None)


def test_what_cannot_be_loaded_has_no_duplicates(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("path,emotion\na.png,happy\n")
    status, output = run("check", "csv", "--root", tmp_path / "faces.csv")
    assert status == 1
    assert "columns path, emotion; expected path,label" in output
    assert "sizes" not in output and "duplicates" not in output


def test_nothing_there_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing of sfew was found"):
        check("sfew", tmp_path)


def test_exact_duplicates_and_their_conflicts(own: Path, tmp_path: Path) -> None:
    happy, sad = sorted((own / "train/happy").iterdir()), sorted((own / "train/sad").iterdir())
    (own / "valid/happy/copy.png").write_bytes(happy[0].read_bytes())  # across splits, same label
    (own / "test/anger/copy.png").write_bytes(happy[1].read_bytes())  # across splits, another label
    (own / "train/sad/copy.png").write_bytes(sad[0].read_bytes())  # inside a split
    status, output = run("check", "folder", "--root", own, "-o", tmp_path / "out")
    assert status == 0, "duplicates alone do not fail"
    assert "exact duplicates: 3 repeats in 3 groups, 1 with conflicting labels" in output
    assert output.count("are right") == 1
    assert "labels conflict in 1 groups of exact duplicates and 0 near or mirrored pairs: -o DIR lists them" in output
    assert "  1 valid rows are in train, too: 1 groups, 0 with conflicting labels" in output
    assert "  1 test rows are in train, too: 1 groups, 1 with conflicting labels" in output
    assert "  0 test rows are in valid, too: 0 groups" in output
    table = rows(tmp_path / "out/duplicates.csv")
    assert {(row["split"], row["row"]) for row in table if row["conflict"] == "1"} == {
        ("train", happy[1].relative_to(own).as_posix()), ("test", "test/anger/copy.png"),
    }  # fmt: skip
    assert [row["across_splits"] for row in table if row["row"] == "train/sad/copy.png"] == ["0"]


def test_near_and_mirrored_duplicates(own: Path, tmp_path: Path) -> None:
    source = sorted((own / "train/happy").iterdir())[0]
    with Image.open(source) as picture:
        picture.resize((96, 96), Image.Resampling.BICUBIC).save(own / "test/sad/larger.jpg", quality=80)
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(own / "valid/happy/mirror.png")
        picture.point(lambda level: level * 0.8 + 20).save(own / "train/happy/brighter.png")
    status, output = run("check", "folder", "--root", own, "-o", tmp_path / "out")
    assert status == 0
    pairs = rows(tmp_path / "out/near_duplicates.csv")
    conflicts = sum(row["conflict"] == "1" for row in pairs)
    assert f"counts and files are right; labels conflict in 0 groups of exact duplicates and {conflicts} near" in output
    name = source.relative_to(own).as_posix()
    found = {
        (row["kind"], row["row_2"] if row["row_1"] == name else row["row_1"], row["across_splits"], row["conflict"])
        for row in pairs
        if name in (row["row_1"], row["row_2"])
    }
    assert found == {
        ("near", "test/sad/larger.jpg", "1", "1"),
        ("near", "train/happy/brighter.png", "0", "0"),
        ("mirrored", "valid/happy/mirror.png", "1", "0"),
    }


def test_every_close_pair_of_hashes_is_found() -> None:
    """Against a plain comparison of all pairs."""
    random = np.random.default_rng(5)
    hashes = random.integers(0, 2**63, 400).astype(np.uint64)
    for row in range(200):  # neighbours at every distance from 0 to 9
        bits = random.choice(64, row % 10, replace=False)
        hashes[row + 200] = hashes[row] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=0)
    first, second, distance = duplicates._close(hashes, hashes)
    found = {(int(i), int(j)): int(d) for i, j, d in zip(first, second, distance, strict=True)}
    plain = {
        (i, j): int(hashes[i] ^ hashes[j]).bit_count()
        for i in range(400)
        for j in range(i + 1, 400)
        if int(hashes[i] ^ hashes[j]).bit_count() <= duplicates.BITS
    }
    assert found == plain
    assert len(plain) >= 140


def test_hash_is_the_cosine_transform() -> None:
    """Against the plain double sum for one picture."""
    thumb = np.random.default_rng(2).integers(0, 256, (24, 24)).astype(np.uint8)
    wave = np.cos(np.pi / 24 * (np.arange(24) + 0.5)[None, :] * np.arange(8)[:, None])
    low = np.array([[(wave[i][:, None] * wave[j][None, :] * thumb).sum() for j in range(8)] for i in range(8)]).ravel()
    bits = "".join("1" if value > np.median(low[1:]) else "0" for value in low)
    assert int(duplicates.hashes(thumb[None])[0]) == int(bits, 2)


@pytest.mark.slow
def test_unrelated_faces_are_no_duplicates() -> None:
    report = check("synthetic", None)
    assert report.duplicates.exact == ()
    assert len(report.duplicates.near) < 0.01 * len(report.rows)


def test_list_names_every_dataset() -> None:
    status, output = run("list")
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()] == list(datasets.NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "told"), [
    ("fer2013", "280 valid rows are in train, too: 270 groups, 13 with conflicting labels"),
    ("ferplus", "251 valid rows are in train, too: 242 groups, 0 with conflicting labels"),
])  # fmt: skip
def test_the_real_fer2013_repeats_itself(name: str, told: str, shared: Callable[[str], Path]) -> None:
    status, output = run("check", name, "--root", shared(f"datasets/{name}"))
    assert status == 0
    assert told in output
    assert "test: absent" in output


def test_people_who_are_in_two_splits_are_told(tmp_path: Path) -> None:
    lines = ["path,label,split,subject"]
    for number, split in enumerate(("train", "train", "valid", "test", "test")):
        Image.new("L", (9, 9), 40 * number).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,happy,{split},{('ann', 'bo', 'bo', 'cy', '')[number]}")
    (tmp_path / "faces.csv").write_text("\n".join(lines))
    told = summary(check("csv", tmp_path / "faces.csv"))
    assert "subjects: 1 of 3 are in more than one split" in told
    (tmp_path / "faces.csv").write_text("\n".join(lines).replace("valid,bo", "valid,di"))
    assert "in more than one split" not in summary(check("csv", tmp_path / "faces.csv"))
