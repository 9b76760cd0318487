"""Files are whole or not there. A real limit on the size of files stands for a full disk."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien import cli, draw, tables, writing
from mien.errors import UsageError
from mien.lab.evaluation.scores import PROTOCOL_FIELDS, Scores

ROW, OTHER = (tables.failure(name, "a reason") for name in ("a.jpg", "b.jpg"))


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """bytes; what goes beyond fails as a write to a full disk does, with an error that names no file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_folder_is_held_until_the_block_ends(tmp_path: Path) -> None:
    with (
        writing.held(tmp_path),
        pytest.raises(UsageError, match="another mien is writing here"),
        writing.held(tmp_path),
    ):
        pass
    with writing.held(tmp_path), writing.held(writing.folder(tmp_path / "inner")):
        pass


@pytest.mark.parametrize("kind", tables.FORMATS)
def test_a_table_that_does_not_fit_leaves_the_earlier_one(tmp_path: Path, kind: str) -> None:
    path = tables.write([ROW], kind, tmp_path)
    with files_of_at_most(1000), pytest.raises(OSError) as raised:
        tables.write([OTHER] * 100, kind, tmp_path)
    assert raised.value.errno == errno.EFBIG and raised.value.filename.startswith(str(path))
    assert tables.sources(path) == {"a.jpg"} and names(tmp_path) == [path.name]
    tables.write([OTHER] * 100, kind, tmp_path)
    assert tables.sources(path) == {"b.jpg"}
    assert kind != "parquet" or names(path) == ["part-000000.parquet"]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_copy_that_does_not_fit_is_not_left_half(tmp_path: Path, hopper: np.ndarray, name: str) -> None:
    with files_of_at_most(5000), pytest.raises(OSError):
        draw.save(Image.fromarray(hopper), tmp_path / name)
    assert not names(tmp_path)
    assert draw.save(Image.fromarray(hopper), tmp_path / name).stat().st_size > 5000


def test_scores_that_do_not_fit_leave_the_earlier_ones(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def scores(rows: int) -> Scores:
        drawn = random.dirichlet(np.ones(2), rows)
        ids = np.array([str(row) for row in range(rows)])
        facts = dict.fromkeys(PROTOCOL_FIELDS, "-")
        return Scores(np.zeros(rows, int), drawn, ("happy", "sad"), ids, facts)

    path = tmp_path / "scores.npz"
    scores(3).save(path)
    with files_of_at_most(5000), pytest.raises(OSError):
        scores(3000).save(path)
    assert len(Scores.load(path).ids) == 3 and names(tmp_path) == [path.name]


def test_a_full_disk_is_said_with_the_file_and_the_next_step(
    tmp_path: Path, hopper: np.ndarray, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(hopper).save(tmp_path / "photos" / "hopper.png")
    command = ["read", str(tmp_path / "photos/hopper.png"), "--model", str(tiny_model), "-o", str(tmp_path / "out")]
    with files_of_at_most(10), pytest.raises(SystemExit) as ended:
        cli.main([*command, "--no-annotate"])
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"mien: {tmp_path / 'out/faces.csv'}: File too large: free some space or choose another place"
    )


def test_a_jobs_table_that_does_not_fit_is_named(tmp_path: Path) -> None:
    sink = tables.open_sink("csv", tmp_path)
    with files_of_at_most(1000), pytest.raises(OSError) as raised:
        sink.add([ROW] * 100)
        sink.commit()
    assert raised.value.filename == str(tmp_path / "faces.csv")
    sink.close()


def test_an_array_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with files_of_at_most(1000), pytest.raises(OSError) as raised:
        writing.array(tmp_path / "crops.npy", np.zeros(1000))
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / "crops.npy"))
    assert not names(tmp_path)
    writing.array(tmp_path / "crops.npy", np.arange(3))
    assert np.load(tmp_path / "crops.npy").tolist() == [0, 1, 2]


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        writing.text(tmp_path / "a", "b")
    assert str(raised.value) == f"[Errno {errno.EISDIR}] Is a directory: '{tmp_path / 'a'}'"
    assert names(tmp_path) == ["a"]


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, writing.whole(tmp_path / "a") as partial:
        partial.write_bytes((tmp_path / "absent").read_bytes())
    assert str(raised.value.filename) == str(tmp_path / "absent")


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    writing.text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), writing.whole(tmp_path / "a") as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with writing.whole(tmp_path / "a") as one:
        one.write_text("one, and longer")
        with writing.whole(tmp_path / "a") as other:
            other.write_text("two")
    assert (tmp_path / "a").read_text() == "one, and longer" and names(tmp_path) == ["a"]


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    writing.text(tmp_path / ("é" * 127), "long")
    assert (tmp_path / ("é" * 127)).read_text() == "long"


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef.partial").write_text("half")
    for theirs in ("a.partial", ".film.mp4.partial"):
        (tmp_path / theirs).write_text("somebody's")
    with writing.held(tmp_path):
        assert sorted(names(tmp_path)) == [".film.mp4.partial", "a.partial"]
