"""FER-2013 and FER+: layouts, official counts, label rules, bad files."""

import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_fer
from PIL import Image

from mien.errors import DataError
from mien.expressions import BASIC, EXPRESSIONS
from mien.lab import datasets
from mien.lab.datasets import fer2013, ferplus


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return small_fer.write(tmp_path / "data")


def load(root: Path, split: str, name: str = "fer2013", **options: str) -> datasets.FaceDataset:
    return datasets.load(name, root, split=split, allow_partial=True, **options)


def test_labels_are_mapped_by_name(small: Path) -> None:
    data = load(small, "train")
    # codes 0..6 repeat: angry disgust fear happy sad surprise neutral
    assert [data.classes[label] for label in data.labels[:7]] == [
        "anger", "disgust", "fear", "happy", "sad", "surprise", "neutral",
    ]  # fmt: skip
    assert data.classes == BASIC
    assert data[0].image.shape == (48, 48, 3)
    assert data[0].image.dtype == np.uint8


def test_a_wrong_count_names_both_numbers(small: Path) -> None:
    with pytest.raises(DataError, match=r"140 rows.*28,709.*--allow-partial"):
        datasets.load("fer2013", small, split="train")


def test_public_and_private_are_ad_corres_test(small: Path) -> None:
    both = load(small, "test", protocol="ad-corre")
    assert both.split == "public+private"
    assert len(both) == 84
    assert both.ids == load(small, "valid").ids + load(small, "test").ids


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst", ".zip"])
def test_compressed_files(small: Path, suffix: str) -> None:
    plain = small / "fer2013" / "fer2013.csv"
    before = load(small, "train")
    packed = plain.with_name(plain.name + suffix)
    text = plain.read_bytes()
    if suffix == ".zip":
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("fer2013.csv", text)
    elif suffix == ".zst":
        import zstandard

        packed.write_bytes(zstandard.compress(text))
    else:
        packed.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}[suffix](text))
    plain.unlink()
    assert load(small, "train").fingerprint == before.fingerprint


def test_the_competitions_columns(small: Path) -> None:
    """icml_face_data.csv: emotion, ' Usage', ' pixels' in that order, Windows line ends and a byte order mark."""
    plain = small / "fer2013" / "fer2013.csv"
    before = load(small, "valid")
    lines = [line.split(",") for line in plain.read_text().splitlines()]
    text = "\r\n".join(["emotion, Usage, pixels", *(f"{e},{u},{p}" for e, p, u in lines[1:])])
    (small / "fer2013" / "icml_face_data.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    plain.unlink()
    assert load(small, "valid").fingerprint == before.fingerprint


def test_kaggle_folders_are_mapped_by_name_and_have_no_valid(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for word in ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"):
            folder = tmp_path / part / word
            folder.mkdir(parents=True)
            Image.fromarray(np.full((48, 48), 90, np.uint8)).save(folder / "1.png")
    data = load(tmp_path, "train")
    assert [data.classes[label] for label in data.labels] == [
        "anger", "disgust", "fear", "happy", "neutral", "sad", "surprise",
    ]  # fmt: skip
    assert len(load(tmp_path, "public+private")) == 7
    with pytest.raises(DataError, match=r"no split 'valid'.*public \+ private"):
        load(tmp_path, "valid")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0,", "9,", r"line 2: emotion '9'"),
        (",Training", " 300,Training", r"line 2: 2305 pixel values"),
        ("emotion,", "feeling,", r"no column 'emotion'"),
    ],
)
def test_bad_rows_name_the_line(small: Path, old: str, new: str, words: str) -> None:
    file = small / "fer2013" / "fer2013.csv"
    text = file.read_text()
    at = text.index(old, 0 if old == "emotion," else text.index("\n"))
    file.write_text(text[:at] + new + text[at + len(old) :])
    with pytest.raises(DataError, match=words):
        load(small, "train")


def test_a_row_with_a_pixel_too_few(small: Path) -> None:
    file = small / "fer2013" / "fer2013.csv"
    lines = file.read_text().splitlines()
    code, pixels, usage = lines[3].split(",")
    lines[3] = f"{code},{pixels.rsplit(' ', 1)[0]},{usage}"
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 4: 2303 pixel values, expected 2304"):
        load(small, "train")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither fer2013.csv nor icml_face_data.csv"):
        load(tmp_path, "train")


def test_without_a_home_there_is_no_cache(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a container's user whom no file of users knows."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MIEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert fer2013.cache_folder() is None and len(load(small, "train")) > 0


def test_the_cache_is_keyed_by_content(small: Path) -> None:
    first = load(small, "train")
    cached = list(fer2013.cache_folder().glob("*.npz"))
    assert len(cached) == 1
    assert load(small, "train").fingerprint == first.fingerprint
    for damaged in (b"", cached[0].read_bytes()[:5000], b"no archive"):
        cached[0].write_bytes(damaged)
        assert load(small, "train").fingerprint == first.fingerprint
    file = small / "fer2013" / "fer2013.csv"
    file.write_text(file.read_text().replace("\n0,", "\n1,", 1))
    assert load(small, "train").labels[0] != first.labels[0]


# FER+: rows written by hand, votes in the release's order
#   neutral happiness surprise sadness anger disgust fear contempt unknown NF
BALLOTS = {
    "clear": [1, 9, 0, 0, 0, 0, 0, 0, 0, 0],  # the single neutral vote is an outlier
    "half": [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # no majority; a tie
    "unknown": [3, 0, 0, 0, 0, 0, 0, 0, 7, 0],
    "split": [4, 0, 0, 3, 3, 0, 0, 0, 0, 0],
    "not-a-face": [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    "led": [6, 0, 0, 0, 0, 0, 0, 0, 4, 0],
}
KEPT = {
    "majority": {"clear": "happy", "led": "neutral"},
    "argmax10": {"clear": "happy", "half": "neutral", "split": "neutral", "led": "neutral"},
    "argmax8": {"clear": "happy", "half": "neutral", "unknown": "neutral", "split": "neutral", "led": "neutral"},
    "crossentropy": {"clear": "happy", "half": "neutral", "split": "neutral", "led": "neutral"},
    "multi_target": {"clear": "happy", "half": "neutral", "split": "neutral", "led": "neutral"},
}


@pytest.mark.parametrize("rule", KEPT)
def test_label_rules_by_hand(rule: str) -> None:
    keep, labels, votes = ferplus.RULES[rule](np.array(list(BALLOTS.values())))
    found = {name: EXPRESSIONS[label] for name, kept, label in zip(BALLOTS, keep, labels, strict=True) if kept}
    assert found == KEPT[rule]
    assert np.allclose(votes[keep].sum(axis=1), 1)


def test_distributions_by_hand() -> None:
    ballots = np.array(list(BALLOTS.values()))
    rows = list(BALLOTS)
    _, _, soft = ferplus.RULES["crossentropy"](ballots)
    assert soft[rows.index("split")].tolist() == pytest.approx([0.4, 0, 0.3, 0, 0, 0, 0.3, 0])
    assert soft[rows.index("led")].tolist() == pytest.approx([1, 0, 0, 0, 0, 0, 0, 0])  # unknown is cut
    _, _, (enough,) = ferplus.RULES["crossentropy"](np.array([[6, 0, 0, 2, 0, 0, 0, 0, 0, 0]]))
    assert enough.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]  # three quarters are covered, no less
    _, _, targets = ferplus.RULES["multi_target"](ballots)
    assert targets[rows.index("split")].tolist() == pytest.approx([1 / 3, 0, 1 / 3, 0, 0, 0, 1 / 3, 0])


def test_ferplus_is_joined_by_row_and_skips_unnamed_rows(small: Path) -> None:
    file = small / "ferplus" / "fer2013new.csv"
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace("fer0000000.png", "")  # removed from FER+
    lines[2] = lines[2].replace("fer0000001.png", "fer0000005.png")  # a name that is not the row's
    file.write_text("\n".join(lines))
    data = load(small, "train", "ferplus")
    assert len(data) == 139
    assert data.ids[0] == "00001"
    assert data.classes[data.labels[0]] == "disgust"
    assert "1 unnamed rows skipped" in data.note


def test_joint_keeps_every_row_with_both_label_sets(small: Path) -> None:
    data = load(small, "train", "ferplus", label_rule="joint")
    hard = load(small, "train")
    assert len(data) == len(hard)
    assert [data.classes[i] for i in data.labels] == [hard.classes[i] for i in hard.labels]
    assert data.votes is not None
    assert data.votes[0].tolist() == pytest.approx([0, 0, 0, 0, 0, 0.3, 0.7, 0])  # 7 anger, 3 disgust


def test_files_that_do_not_match(small: Path) -> None:
    file = small / "ferplus" / "fer2013new.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match=r"223 rows, FER-2013 beside it has 224"):
        load(small, "train", "ferplus")
    lines[1] = lines[1].replace("Training", "PublicTest")
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 2: usage 'PublicTest'"):
        load(small, "train", "ferplus")


@pytest.mark.parametrize(("name", "option"), [("ferplus", "label_rule"), ("fer2013", "protocol")])
def test_unknown_options_are_named(small: Path, name: str, option: str) -> None:
    with pytest.raises(DataError, match="nonsense"):
        load(small, "train", name, **{option: "nonsense"})


# the real files

PER_CLASS = {"train": (4965, 7215, 4830, 3171, 4097, 436, 3995), "valid": (607, 895, 653, 415, 496, 56, 467)}


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "valid"])
def test_real_fer2013_counts(shared: Callable[[str], Path], split: str) -> None:
    data = datasets.load("fer2013", shared("datasets"), split=split)
    assert data.class_counts == PER_CLASS[split]


@pytest.mark.slow
@pytest.mark.parametrize("rule", list(ferplus.COUNTS))
def test_real_ferplus_counts_of_every_rule(shared: Callable[[str], Path], rule: str) -> None:
    for split, official in zip(("train", "valid"), ferplus.COUNTS[rule], strict=False):
        data = datasets.load("ferplus", shared("datasets"), split=split, label_rule=rule)
        assert len(data) == official
        assert data.votes is not None
