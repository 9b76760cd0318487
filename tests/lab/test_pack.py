"""Packs: the same faces as before, in tar files that other tools read, without walking them or holding them in
memory."""

import gc
import json
import multiprocessing
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien import writing
from mien.errors import DataError, UsageError
from mien.lab import datasets
from mien.lab.data_cli import app
from mien.lab.datasets import fer2013, layouts, shards, synthetic
from mien.lab.datasets import pack as packing
from mien.lab.datasets.dataset import FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset
from mien.lab.datasets.pack import Encoding, pack


@pytest.fixture
def faces(tmp_path: Path) -> FaceDataset:
    layouts.write("rafdb", tmp_path / "rafdb", rows=23)
    return datasets.load("rafdb", tmp_path / "rafdb", split="train", allow_partial=True)


@pytest.fixture
def ten_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "ROWS", 10)


def assert_equal(one: FaceDataset, two: FaceDataset) -> None:
    assert (one.name, one.split, one.label_rule, one.classes) == (two.name, two.split, two.label_rule, two.classes)
    assert (one.ids, one.fingerprint, one.groups, one.note) == (two.ids, two.fingerprint, two.groups, two.note)
    np.testing.assert_array_equal(one.labels, two.labels)
    for row in range(len(one)):
        np.testing.assert_array_equal(one.read(row), two.read(row))


def test_a_pack_is_the_dataset_again(ten_a_shard: None, faces: FaceDataset, tmp_path: Path) -> None:
    pack([faces], tmp_path / "pack")
    again = datasets.load("rafdb", tmp_path / "pack", split="train")
    assert_equal(faces, again)
    assert sorted(path.name for path in (tmp_path / "pack").glob("*.tar")) == [
        "train-000000.tar", "train-000001.tar", "train-000002.tar",
    ]  # fmt: skip


def test_votes_come_back(tmp_path: Path) -> None:
    data = datasets.load("synthetic", None, split="valid")[:30]
    pack([data], tmp_path / "pack")
    again = datasets.load("synthetic", tmp_path / "pack", split="valid")
    assert_equal(data, again)
    np.testing.assert_array_equal(data.votes, again.votes)


def test_shards_are_webdataset_tars(ten_a_shard: None, faces: FaceDataset, tmp_path: Path) -> None:
    pack([faces], tmp_path / "pack")
    with tarfile.open(tmp_path / "pack/train-000001.tar") as tar:
        names = tar.getnames()
        assert names[:3] == ["00000010.jpg", "00000010.cls", "00000010.json"]
        content = {name: tar.extractfile(name).read() for name in names[:3]}  # type: ignore[union-attr]
    assert int(content["00000010.cls"]) == faces.labels[10]
    told = json.loads(content["00000010.json"])
    assert told["id"] == faces.ids[10]
    assert told["gender"] == faces.groups["gender"][10]
    assert content["00000010.jpg"] == faces.read.path(10).read_bytes()  # type: ignore[attr-defined]


def test_the_pictures_of_a_fold_are_copied_byte_by_byte(tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path / "ckplus", rows=24)
    fold = datasets.load("ckplus", tmp_path / "ckplus", split="test", fold=1, allow_partial=True)
    pack([fold], tmp_path / "pack", fold=1)
    packed = datasets.load("ckplus", tmp_path / "pack", split="test", fold=1)
    assert_equal(fold, packed)
    held = [packed.read.encoded(row) for row in range(len(packed))]  # type: ignore[attr-defined]
    assert held == [(tmp_path / "ckplus" / name).read_bytes() for name in fold.ids]


def test_packing_twice_gives_the_same_bytes(faces: FaceDataset, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack([faces], tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_resized_and_compressed(faces: FaceDataset, tmp_path: Path) -> None:
    pack([faces], tmp_path / "pack", encoding=Encoding(side=24, quality=90))
    again = datasets.load("rafdb", tmp_path / "pack", split="train")
    assert again.read(3).shape == (24, 24, 3)
    small = np.asarray(Image.fromarray(faces.read(3)).resize((24, 24), Image.Resampling.BILINEAR, reducing_gap=3.0))
    assert np.abs(again.read(3).astype(int) - small).mean() < 6
    assert again.note.endswith("packed as 24 px, JPEG of quality 90")
    pack([faces], tmp_path / "coarse", encoding=Encoding(side=24, quality=10))
    coarse = datasets.load("rafdb", tmp_path / "coarse", split="train")
    assert len({faces.fingerprint, again.fingerprint, coarse.fingerprint}) == 3  # other pixels are other rows


@pytest.mark.parametrize(("name", "protocol"), [("affectnet", "wcl"), ("fer2013", "ad-corre")])
def test_a_protocols_test_split_is_packed(name: str, protocol: str, tmp_path: Path) -> None:
    layouts.write(name, tmp_path / name, rows=60)
    options = ["--protocol", protocol, "--allow-partial"]
    result = CliRunner().invoke(
        app, ["pack", name, "--root", str(tmp_path / name), "-o", str(tmp_path / "pack"), *options]
    )
    assert result.exit_code == 0, result.output
    packed = datasets.load(name, tmp_path / "pack", split="test", protocol=protocol)
    held = datasets.load(name, tmp_path / name, split="test", protocol=protocol, allow_partial=True)
    assert (packed.ids, packed.split, packed.fingerprint) == (held.ids, held.split, held.fingerprint)


@pytest.mark.parametrize(
    ("name", "protocol", "splits"),
    [
        ("expw", "every", ("train", "valid", "test")),
        ("ckplus", "mscar", ("train", "test")),
        ("expw", "lban-il", ("all",)),
    ],
)
def test_the_splits_that_a_protocol_draws_are_packed(
    name: str, protocol: str, splits: tuple[str, ...], tmp_path: Path
) -> None:
    layouts.write(name, tmp_path / name, rows=30)
    options = ["--protocol", protocol, "--allow-partial"]
    result = CliRunner().invoke(
        app, ["pack", name, "--root", str(tmp_path / name), "-o", str(tmp_path / "pack"), *options]
    )
    assert result.exit_code == 0, result.output
    assert shards.splits(tmp_path / "pack") == splits


def test_test_is_test_beside_a_protocols_test(tmp_path: Path) -> None:
    layouts.write("fer2013", tmp_path / "fer2013", rows=40)
    asked = ({"split": "test"}, {"split": "test", "protocol": "ad-corre"})
    test, both = (datasets.load("fer2013", tmp_path / "fer2013", allow_partial=True, **options) for options in asked)
    assert (test.split, both.split) == ("test", fer2013.PUBLIC_PRIVATE)
    pack([test, both], tmp_path / "pack")
    for data in (test, both):
        assert_equal(data, datasets.load("fer2013", tmp_path / "pack", split=data.split))


def test_boxes_are_cut_before_packing(tmp_path: Path) -> None:
    layouts.write("affectnet", tmp_path / "affectnet", rows=9)
    data = datasets.load("affectnet", tmp_path / "affectnet", split="train", allow_partial=True)
    pack([data], tmp_path / "pack")
    assert_equal(data, datasets.load("affectnet", tmp_path / "pack", split="train"))


def _pixel(data: FaceDataset, row: int, sent: "multiprocessing.queues.Queue[int]") -> None:
    sent.put(int(data.read(row).sum()))


def test_another_process_reads_it(ten_a_shard: None, faces: FaceDataset, tmp_path: Path) -> None:
    pack([faces], tmp_path / "pack")
    data = datasets.load("rafdb", tmp_path / "pack", split="train")
    data.read(0)  # a file is open when the copy is made
    assert len(pickle.dumps(data.read)) < 1000, "the index does not travel"
    sums = []
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        sent = context.Queue()
        process = context.Process(target=_pixel, args=(data, 12, sent))
        process.start()
        sums.append(sent.get(timeout=60))
        process.join()
    assert sums == [int(faces.read(12).sum())] * 2


def test_damage_is_explained(faces: FaceDataset, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    pack([faces], out)
    good = (out / "train-000000.tar").read_bytes()
    (out / "train-000000.tar").write_bytes(good[:2000])
    with pytest.raises(DataError, match=r"train-000000.tar.*pack the dataset again"):
        datasets.load("rafdb", out, split="train").read(20)
    (out / "train-000000.tar").write_bytes(bytes(len(good)))
    with pytest.raises(DataError, match="cannot be decoded"):
        datasets.load("rafdb", out, split="train").read(20)
    (out / "train-000000.tar").unlink()
    with pytest.raises(DataError, match="cannot be opened"):
        datasets.load("rafdb", out, split="train").read(20)
    (out / "train.ids.txt").write_text("one\n")
    with pytest.raises(DataError, match="1 ids and 23 packed rows"):
        datasets.load("rafdb", out, split="train")
    (out / "train.index.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"train.index.npy: cannot be read"):
        datasets.load("rafdb", out, split="train")
    (out / "pack.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        datasets.load("rafdb", out, split="train")


@pytest.mark.parametrize(
    ("file", "kept", "told"),
    [
        ("pack.json", b"[]", "holds list, expected a JSON object"),
        ("pack.json", b'{"version": 1}', "lacks name, splits"),
        (
            "pack.json",
            b'{"version": 1, "name": "synthetic", "splits": {"train": {"rowt": 30}}}',
            "split 'train' lacks rows, ",
        ),
        ("pack.json", b'{"version": 1, "name": "synthetic", "splits": ["train"]}', "splits are no JSON object"),
        ("train.votes.npy", b"", "cannot be read"),
        ("train.votes.npy", 200, "cannot be read"),
        ("train.votes.npy", "valid.votes.npy", r"shape \(10, 8\), expected 30 rows"),
        ("train.index.npy", 100, "cannot be read"),
        ("train.groups.json", 20, "not JSON"),
        ("train.groups.json", b'{"subject": ["a"], "gender": 3}', "subject, gender not of 30 values"),
    ],
)
def test_a_damaged_file_is_named(file: str, kept: bytes | int | str, told: str, tmp_path: Path) -> None:
    """kept: of its bytes, how many are left; or what it holds instead; or whose bytes."""
    out = tmp_path / "pack"
    parts = {"train": 30, "valid": 10}
    pack([datasets.load("synthetic", None, split=split)[:rows] for split, rows in parts.items()], out)
    assert len(datasets.load("synthetic", out, split="train")) == 30
    if isinstance(kept, int):
        kept = (out / file).read_bytes()[:kept]
    (out / file).write_bytes(kept if isinstance(kept, bytes) else (out / kept).read_bytes())
    with pytest.raises(DataError, match=rf"{file}: {told}.*; pack the dataset again$"):
        shards.load(out, split="train")


def test_a_label_of_no_class_is_told(faces: FaceDataset, tmp_path: Path) -> None:
    pack([faces], tmp_path / "pack")
    index = np.load(tmp_path / "pack/train.index.npy")
    for label in (-1, 7):
        index["label"][3] = label
        np.save(tmp_path / "pack/train.index.npy", index)
        with pytest.raises(DataError, match="labels that are none of its 7 classes; pack the dataset again"):
            datasets.load("rafdb", tmp_path / "pack", split="train")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_a_pack_that_is_dropped_leaves_no_file_open(ten_a_shard: None, faces: FaceDataset, tmp_path: Path) -> None:
    pack([faces], tmp_path / "pack")
    for _ in range(5):
        data = datasets.load("rafdb", tmp_path / "pack", split="train")
        copy = pickle.loads(pickle.dumps(data.read))
        assert [data.read(row).sum() for row in range(23)] == [copy(row).sum() for row in range(23)]
    del data, copy
    gc.collect()
    assert not [file for file in Path("/proc/self/fd").iterdir() if tmp_path.resolve() in file.resolve().parents]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"name": "sfew"}, "holds rafdb packed, asked for sfew; name the right --data or --root$"),
        ({"split": "test"}, "split 'test' was not packed; it holds train"),
        ({"fold": 2}, "packed with fold None, asked for 2"),
        ({"label_rule": "compound"}, "packed with label rule 'basic'"),
    ],
)
def test_asking_for_something_else_is_refused(
    asked: dict[str, object], told: str, faces: FaceDataset, tmp_path: Path
) -> None:
    pack([faces], tmp_path / "pack")
    with pytest.raises(DataError, match=told):
        datasets.load(**({"name": "rafdb", "root": tmp_path / "pack", "split": "train"} | asked))  # type: ignore[arg-type]


def test_packing_never_overwrites_and_an_interrupted_pack_is_none(faces: FaceDataset, tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack([faces], tmp_path / "pack", progress=stop)
    assert not shards.is_packed(tmp_path / "pack")
    with pytest.raises(UsageError, match="is not empty: packing never overwrites"):
        pack([faces], tmp_path / "pack")


def test_packing_leaves_others_shards_alone(faces: FaceDataset, tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").write_text("another tool's")
    with pytest.raises(UsageError, match="is not empty: packing never overwrites"):
        pack([faces], tmp_path)
    assert (tmp_path / "train-000000.tar").read_text() == "another tool's"


def test_names_with_unicodes_line_breaks_come_back(faces: FaceDataset, tmp_path: Path) -> None:
    names = (*(f"a{ending}{row}" for row, ending in enumerate("\u2028\u2029\x85\x0b\x0c\x1c")), *faces.ids[6:])
    pack([replace(faces, ids=names)], tmp_path / "pack")
    assert datasets.load("rafdb", tmp_path / "pack", split="train").ids == names


def test_two_do_not_pack_into_one_folder(faces: FaceDataset, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with writing.held(tmp_path / "pack"), pytest.raises(UsageError, match="pack: another mien is writing here"):
        pack([faces], tmp_path / "pack")


def test_the_command_packs_what_is_there_and_the_check_reads_packs(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "own", rows=20)
    result = CliRunner().invoke(app, ["pack", "folder", "--root", str(tmp_path / "own"), "-o", str(tmp_path / "pack")])
    assert result.exit_code == 0, result.output
    assert "train 20, valid 10, test 10" in result.output
    result = CliRunner().invoke(app, ["check", "folder", "--root", str(tmp_path / "pack")])
    assert result.exit_code == 0, result.output
    assert "train: 20 rows" in result.output


def test_the_command_packs_kaggles_folders(tmp_path: Path) -> None:
    layouts.write("fer2013/folders", tmp_path / "own", rows=20)
    words = ["pack", "fer2013", "--root", str(tmp_path / "own"), "-o", str(tmp_path / "pack"), "--allow-partial"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "train 20, public+private " in result.output
    words = ["pack", "fer2013", "--root", str(tmp_path / "pack"), "-o", str(tmp_path / "smaller"), "--size", "24"]
    again = CliRunner().invoke(app, [*words, "--allow-partial"])
    assert again.exit_code == 0, again.output


READ_RANDOMLY = """
import sys
from pathlib import Path
import numpy as np
from mien.lab import datasets

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

before = peak()
data = datasets.load("synthetic", Path(sys.argv[1]), split="train")
assert len(data) == int(sys.argv[2])
for row in np.random.default_rng(0).permutation(len(data))[:20000]:
    data.read(int(row))
print(before, peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("count", "more"),
    [pytest.param(3_000, 30, marks=pytest.mark.slow), pytest.param(400_000, 300, marks=pytest.mark.soak)],
)
@pytest.mark.timeout(1500)
def test_memory_stays_flat(count: int, more: int, tmp_path: Path) -> None:
    """`count` faces of 112 px, read in random order, take at most `more` MB above the imports (decoded they are 38 kB
    each)."""
    drawn = synthetic.load(split="train", spec=synthetic.Spec(rows=(200, 1, 1), side=112))
    (tmp_path / "faces").mkdir()
    for row in range(200):
        Image.fromarray(drawn.read(row)).save(tmp_path / "faces" / f"{row}.jpg")
    files = FaceFiles(str(tmp_path / "faces"), tuple(f"{row % 200}.jpg" for row in range(count)))
    ids = tuple(f"Manually_Annotated_Images/{row % 1000}/{row:040x}.jpg" for row in range(count))
    labels = drawn.labels[np.arange(count) % 200]
    data = dataset(
        Listing(files, labels, {}, ids),
        name="synthetic",
        split="train",
        label_rule="drawn",
        classes=drawn.classes,
        allow_partial=False,
    )
    pack([data], tmp_path / "pack")
    command = [sys.executable, "-c", READ_RANDOMLY, str(tmp_path / "pack"), str(count)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, after = map(float, told.split())
    assert after - before < more
    assert after < 2000
