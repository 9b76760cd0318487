"""One test per trap that a dataset's owner has laid, and one per way in which files are damaged."""

import lzma
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.errors import DataError, ImageError
from mien.expressions import BASIC, EXPRESSIONS
from mien.lab import datasets
from mien.lab.datasets import affectnet, ckplus, expw, fer2013, layouts, rafdb, sfew
from mien.lab.datasets.dataset import AbsentSplitError, FaceDataset
from mien.lab.datasets.splitting import by_subject, contiguous, stratified

Load = Callable[..., FaceDataset]


def load(name: str, root: Path, **options: object) -> FaceDataset:
    return datasets.load(name, root, allow_partial=True, **options)  # type: ignore[arg-type]


def save(path: Path, level: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


# RAF-DB


def rafdb_labels(root: Path, lines: str) -> None:
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel/list_patition_label.txt").write_text(lines)
    for name in ("train_00001", "train_00002", "test_0001"):
        save(root / "Image/aligned" / f"{name}_aligned.jpg", 90)


def test_rafdb_labels_count_from_one(tmp_path: Path) -> None:
    rafdb_labels(tmp_path, "train_00001.jpg 1\ntrain_00002.jpg 7\ntest_0001.jpg 4\n")
    data = load("rafdb", tmp_path, split="train")
    assert [data.classes[label] for label in data.labels] == ["surprise", "neutral"]
    assert BASIC[load("rafdb", tmp_path, split="test").labels[0]] == "happy"


@pytest.mark.parametrize("line", ["train_00001.jpg 0", "train_00001.jpg 8", "train_00001.jpg happy", "train_00001.jpg"])
def test_rafdb_lines_out_of_range_are_named(line: str, tmp_path: Path) -> None:
    rafdb_labels(tmp_path, f"train_00002.jpg 3\n{line}\n")
    with pytest.raises(DataError, match=rf"list_patition_label.txt, line 2: '{line}'.*1 to 7"):
        load("rafdb", tmp_path, split="train")


def test_rafdb_list_is_spelt_as_its_owner_does(tmp_path: Path) -> None:
    rafdb_labels(tmp_path, "train_00001.jpg 1\n")
    (tmp_path / rafdb.LABELS).rename(tmp_path / "EmoLabel/list_partition_label.txt")
    with pytest.raises(DataError, match=r"no EmoLabel/list_patition_label.txt"):
        load("rafdb", tmp_path, split="train")


def test_rafdb_copies_that_could_be_either_are_refused(tmp_path: Path) -> None:
    """Folders 1 to 6: the owner's codes without 7 or AffectNet's without 0."""
    for code in range(1, 7):
        save(tmp_path / f"train/{code}/a.jpg", 90)
    with pytest.raises(DataError, match=r"no EmoLabel/list_patition_label.txt"):
        load("rafdb", tmp_path, split="train")


def test_rafdb_attributes_become_groups(tmp_path: Path) -> None:
    layouts.write("rafdb", tmp_path, rows=8)
    data = load("rafdb", tmp_path, split="train")
    assert data.groups["gender"][:3] == ("female", "unsure", "male")
    assert data.groups["race"][:3] == ("African-American", "Asian", "Caucasian")
    assert data.groups["age"][:5] == ("4-19", "20-39", "40-69", "70+", "0-3")


def test_rafdb_compound_has_its_eleven_classes(tmp_path: Path) -> None:
    layouts.write("rafdb-compound", tmp_path, rows=22)
    data = load("rafdb-compound", tmp_path, split="train")
    assert data.classes[0] == "happily surprised"
    assert data.classes[10] == "disgustedly surprised"
    assert data.labels.tolist() == [number % 11 for number in range(1, 23)]


def test_rafdb_has_no_validation_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its owner ships train and test"):
        load("rafdb", tmp_path, split="valid")


# AffectNet


def affectnet_rows(root: Path, *rows: str, name: str = "validation.csv", ending: str = "\n", mark: str = "") -> None:
    file = root / "Manually_Annotated_file_lists" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((mark + "".join(row + ending for row in rows)).encode())


def test_affectnet_validation_has_no_header(tmp_path: Path) -> None:
    affectnet_rows(tmp_path, "1/a.png,2,3,4,5,1;2,6,0,0", "1/b.png,2,3,4,5,1;2,0,0,0")
    for name in "ab":
        save(tmp_path / f"Manually_Annotated_Images/1/{name}.png", 90)
    data = load("affectnet", tmp_path, split="valid")
    assert [data.classes[label] for label in data.labels] == ["anger", "neutral"]


def test_affectnet_box_is_corner_and_size(tmp_path: Path) -> None:
    affectnet_rows(tmp_path, "1/a.png,2,3,4,5,1;2,6,0,0")
    save(tmp_path / "Manually_Annotated_Images/1/a.png", 90)
    assert load("affectnet", tmp_path, split="valid")[0].image.shape == (5, 4, 3)


def test_affectnet_reads_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    affectnet_rows(tmp_path, header, "1/a.png,2,3,4,5,1;2,6,0,0", ending="\r\n", mark="\ufeff")
    save(tmp_path / "Manually_Annotated_Images/1/a.png", 90)
    assert load("affectnet", tmp_path, split="valid").ids == ("Manually_Annotated_Images/1/a.png",)


def test_affectnet_leaves_out_what_shows_no_expression(tmp_path: Path) -> None:
    rows = [f"1/{code}.png,2,3,4,5,1;2,{code},0,0" for code in range(11)]
    affectnet_rows(tmp_path, *rows)
    for code in range(11):
        save(tmp_path / f"Manually_Annotated_Images/1/{code}.png", 90)
    assert load("affectnet", tmp_path, split="valid").labels.tolist() == list(range(8))
    seven = load("affectnet", tmp_path, split="valid", label_rule="7-class")
    assert seven.classes == BASIC
    assert seven.labels.tolist() == list(range(7))


@pytest.mark.parametrize("code", ["11", "-1", "happy", "", "inf", "nan"])
def test_affectnet_codes_out_of_range_are_named(code: str, tmp_path: Path) -> None:
    affectnet_rows(tmp_path, "1/a.png,2,3,4,5,1;2,6,0,0", f"1/b.png,2,3,4,5,1;2,{code},0,0")
    with pytest.raises(DataError, match=rf"validation.csv, line 2: expression '{code}', expected a code in 0-10"):
        load("affectnet", tmp_path, split="valid")


@pytest.mark.parametrize("cells", ["2,3,4,x", "2,3,4,nan", "2,inf,4,5"])
def test_affectnet_boxes_that_are_none_are_named(cells: str, tmp_path: Path) -> None:
    affectnet_rows(tmp_path, f"1/a.png,{cells},1;2,6,0,0")
    with pytest.raises(DataError, match=r"validation.csv, line 1: face box .*expected four numbers"):
        load("affectnet", tmp_path, split="valid")


@pytest.mark.parametrize("value", [np.array("3"), np.array(3), np.array("3.0"), np.array([3])], ids=str)
def test_affectnet_npy_may_be_a_string(value: np.ndarray, tmp_path: Path) -> None:
    save(tmp_path / "val_set/images/17.jpg", 90)
    (tmp_path / "val_set/annotations").mkdir()
    np.save(tmp_path / "val_set/annotations/17_exp.npy", value)
    data = load("affectnet", tmp_path, split="valid")
    assert [data.classes[label] for label in data.labels] == ["surprise"]


def test_affectnet_npy_that_is_damaged_is_named(tmp_path: Path) -> None:
    save(tmp_path / "val_set/images/17.jpg", 90)
    (tmp_path / "val_set/annotations").mkdir()
    (tmp_path / "val_set/annotations/17_exp.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"17_exp.npy: cannot be read"):
        load("affectnet", tmp_path, split="valid")


def test_affectnet_official_counts_are_those_of_the_papers() -> None:
    full, new = Path("full"), "8-class"
    assert affectnet.official(full, split="train", label_rule=new, protocol="official").rows == 287_651
    assert affectnet.official(full, split="train", label_rule="7-class", protocol="official").rows == 283_901
    assert affectnet.official(full, split="valid", label_rule="7-class", protocol="official").rows == 3_500
    drawn = affectnet.official(full, split="train", label_rule=new, protocol="wcl")
    assert tuple(drawn.counts[name] for name in EXPRESSIONS) == (  # type: ignore[index]
        74_374, 133_915, 24_959, 13_590, 5_878, 3_303, 24_382, 3_250,
    )  # fmt: skip


def test_affectnet_2021_lacks_one_contempt_face(tmp_path: Path) -> None:
    (tmp_path / "val_set").mkdir()
    assert affectnet.official(tmp_path, split="valid", label_rule="8-class", protocol="official").rows == 3_999
    assert affectnet.official(tmp_path, split="valid", label_rule="7-class", protocol="official").rows == 3_500


def test_affectnet_wcl_draws_disjoint_and_repeatable_parts(tmp_path: Path) -> None:
    layouts.write("affectnet", tmp_path, rows=64)
    parts = {split: load("affectnet", tmp_path, split=split, protocol="wcl") for split in datasets.SPLITS}
    ids = [set(part.ids) for part in parts.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 96
    assert parts["valid"].class_counts == parts["test"].class_counts == (3,) * 8
    assert parts["test"].ids == load("affectnet", tmp_path, split="test", protocol="wcl").ids
    assert any("train00" in name for name in ids[1]), "valid is drawn from the official training part, too"


def test_affectnet_has_no_official_test(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="never published"):
        load("affectnet", tmp_path, split="test")


# SFEW


def test_sfew_folders_are_read_by_name(tmp_path: Path) -> None:
    for word in ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"):
        save(tmp_path / f"Val/Val_Aligned_Faces/{word}/Film_{word}.png", 90)
    data = load("sfew", tmp_path, split="valid")
    assert {name.split("_")[-1]: data.classes[label] for name, label in zip(data.ids, data.labels, strict=True)} == {
        "Angry.png": "anger", "Disgust.png": "disgust", "Fear.png": "fear", "Happy.png": "happy",
        "Neutral.png": "neutral", "Sad.png": "sad", "Surprise.png": "surprise",
    }  # fmt: skip


def test_sfew_test_labels_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="never published"):
        load("sfew", tmp_path, split="test")


def test_sfew_counts_are_upper_bounds(tmp_path: Path) -> None:
    layouts.write("sfew", tmp_path, rows=40)
    assert len(datasets.load("sfew", tmp_path, split="train")) == 40
    for number in range(67):
        save(tmp_path / f"Train/Train_Aligned_Faces/Disgust/More_{number}.png", 90, (2, 2))
    with pytest.raises(DataError, match=r"disgust 7., officially 66"):
        datasets.load("sfew", tmp_path, split="train")


# ExpW


def expw_lines(root: Path, *lines: str) -> None:
    (root / "label").mkdir(parents=True)
    (root / "label/label.lst").write_text("".join(f"{line}\n" for line in lines))
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[10:140, 30:150] = 255  # the face: top 10, left 30, right 150, bottom 140
    (root / "image/origin").mkdir(parents=True)
    Image.fromarray(picture).save(root / "image/origin/a.png")


def test_expw_box_is_top_left_right_bottom(tmp_path: Path) -> None:
    expw_lines(tmp_path, "a.png 0 10 30 150 140 80.5 3")
    face = load("expw", tmp_path, split="all")[0].image
    assert face.shape == (130, 120, 3)
    assert face.min() == 255


@pytest.mark.parametrize("word", ["cofidence", "confidence"])
def test_expw_header_may_be_there_and_misspelt(word: str, tmp_path: Path) -> None:
    header = f"image_name face_id_in_image face_box_top face_box_left face_box_right face_box_bottom face_box_{word} "
    expw_lines(tmp_path, header + "expression_label", "a.png 0 10 30 150 140 80.5 6")
    data = load("expw", tmp_path, split="all")
    assert [data.classes[label] for label in data.labels] == ["neutral"]


def test_expw_small_faces_are_left_out(tmp_path: Path) -> None:
    expw_lines(tmp_path, "a.png 0 10 30 130 110 80.5 3", "a.png 1 10 30 129 110 80.5 3", "a.png 2 0 0 200 50 80.5 3")
    assert load("expw", tmp_path, split="all").ids == ("a.png#0", "a.png#2")
    assert len(load("expw", tmp_path, split="all", protocol="every")) == 3


@pytest.mark.parametrize(
    "line",
    [
        "a.png 0 10 30 150 140 80.5 7",
        "a.png 0 10 30 150 80.5 3",
        "a.png 0 10 150 30 140 80.5 3",
        "a.png 0 x 30 150 140 8 3",
        "a.png 0 10 30 inf 140 80.5 3",
        "a.png 0 10 nan 150 140 80.5 3",
    ],
)
def test_expw_bad_lines_are_named(line: str, tmp_path: Path) -> None:
    expw_lines(tmp_path, "a.png 0 10 30 150 140 80.5 3", line)
    with pytest.raises(DataError, match=r"label.lst, line 2"):
        load("expw", tmp_path, split="all")


def test_expw_box_outside_the_picture_is_named(tmp_path: Path) -> None:
    expw_lines(tmp_path, "a.png 0 300 30 150 500 80.5 3")
    with pytest.raises(DataError, match=r"a.png: face box left 30, top 300.*outside the 300x200 picture"):
        load("expw", tmp_path, split="all")[0]


def test_expw_folds_are_neighbouring_rows(tmp_path: Path) -> None:
    layouts.write("expw", tmp_path, rows=43)
    whole = load("expw", tmp_path, split="all")
    tested = [load("expw", tmp_path, split="test", fold=fold) for fold in range(1, 11)]
    assert [name for part in tested for name in part.ids] == list(whole.ids), "in order, each row tested once"
    assert {len(part) for part in tested} == {4, 5}
    train = load("expw", tmp_path, split="train", fold=4)
    assert set(train.ids) == set(whole.ids) - set(tested[3].ids)
    shuffled = load("expw", tmp_path, split="test", fold=4, protocol="shuffled")
    assert set(shuffled.ids) != set(tested[3].ids)


def test_expw_official_counts_are_those_of_the_papers() -> None:
    assert expw.OFFICIAL["lban-il"].rows == 41_748
    assert expw.OFFICIAL["every"].rows == 91_793


@pytest.mark.parametrize("options", [{}, {"fold": 0}, {"fold": 11}, {"fold": 3, "split": "valid"}])
def test_cross_validation_needs_a_fold(options: dict[str, object], tmp_path: Path) -> None:
    layouts.write("expw", tmp_path, rows=12)
    with pytest.raises(DataError, match="fold"):
        load("expw", tmp_path, **({"split": "test"} | options))


# CK+


def test_ckplus_takes_the_last_three_frames_and_may_take_the_first(tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path, rows=20)
    seven = load("ckplus", tmp_path, split="all")
    assert len(seven) == 3 * 16, "four of twenty sequences are not labelled"
    assert {name[-12:] for name in seven.ids} == {"00000004.png", "00000005.png", "00000006.png"}
    assert seven.classes == ("happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    eight = load("ckplus", tmp_path, split="all", label_rule="8-class")
    first = [name for name, label in zip(eight.ids, eight.labels, strict=True) if label == 0]
    assert len(first) == 16
    assert {name[-12:] for name in first} == {"00000001.png"}
    six = load("ckplus", tmp_path, split="all", label_rule="6-class")
    assert len(six) == len(seven) - 3 * list(seven.labels).count(6) // 3
    assert "contempt" not in six.classes


def test_ckplus_labels_are_floats_in_text(tmp_path: Path) -> None:
    for code, word in ((1, "anger"), (2, "contempt"), (5, "happy"), (7, "surprise")):
        place = f"S001/{code:03d}"
        for frame in range(3):
            save(tmp_path / f"cohn-kanade-images/{place}/S001_{frame}.png", 90)
        (tmp_path / f"Emotion/{place}").mkdir(parents=True)
        (tmp_path / f"Emotion/{place}/S001_emotion.txt").write_text(f"   {code:.7e}\n")
        data = load("ckplus", tmp_path, split="all")
        assert data.classes[data.labels[-1]] == word


@pytest.mark.parametrize("text", ["0.0000000e+00", "8.0000000e+00", "", "inf", "anger"])
def test_ckplus_labels_out_of_range_are_named(text: str, tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path, rows=5)
    file = next(tmp_path.glob("Emotion/*/*/*_emotion.txt"))
    file.write_text(text)
    with pytest.raises(DataError, match=rf"{file.name}.*expected a code from 1 to 7"):
        load("ckplus", tmp_path, split="all")


def test_ckplus_folds_keep_people_apart_and_the_paper_does_not(tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path, rows=60)
    tested: list[str] = []
    for fold in range(1, 11):
        train = load("ckplus", tmp_path, split="train", fold=fold)
        test = load("ckplus", tmp_path, split="test", fold=fold)
        assert not set(train.groups["subject"]) & set(test.groups["subject"])
        assert len(train) + len(test) == 3 * 48
        tested += test.ids
    assert len(tested) == len(set(tested)) == 3 * 48
    train = load("ckplus", tmp_path, split="train", protocol="mscar")
    test = load("ckplus", tmp_path, split="test", protocol="mscar")
    assert len(test) == int(0.15 * 144)
    assert not set(train.ids) & set(test.ids)
    assert set(train.groups["sequence"]) & set(test.groups["sequence"]), "the paper's split shares sequences"


def test_ckplus_counts_are_those_of_the_papers() -> None:
    assert ckplus.official("7-class").rows == 981
    assert ckplus.official("7-class").counts == {
        "anger": 135, "contempt": 54, "disgust": 177, "fear": 75, "happy": 207, "sad": 84, "surprise": 249,
    }  # fmt: skip
    assert int(ckplus.TEST_SHARE * 981) == 147
    assert ckplus.official("8-class").rows == 981 + 327


def test_what_macos_puts_beside_files_is_passed_over(tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path / "ckplus", rows=5)
    layouts.write("affectnet/2021", tmp_path / "affectnet", rows=8)
    layouts.write("ferplus", tmp_path / "fer2013", rows=40)
    votes = tmp_path / "fer2013/fer2013new.csv"
    (tmp_path / "ferplus").mkdir()
    votes.rename(tmp_path / "ferplus/fer2013new.csv")
    (tmp_path / "ferplus/._fer2013new.csv").write_bytes(b"\0\5\x16\7")
    with zipfile.ZipFile(tmp_path / "fer2013/fer2013.csv.zip", "w") as archive:
        archive.write(tmp_path / "fer2013/fer2013.csv", "fer2013.csv")
        archive.writestr("__MACOSX/._fer2013.csv", b"\0\5\x16\7")
    (tmp_path / "fer2013/fer2013.csv").unlink()
    for pattern in ("ckplus/Emotion/*/*/*_emotion.txt", "affectnet/*/annotations/*_exp.npy"):
        beside = next(tmp_path.glob(pattern))
        beside.with_name(f"._{beside.name}").write_bytes(b"\0\5\x16\7\0\2\0\xff")
    assert load("ferplus", tmp_path / "ferplus", split="train")
    assert load("ckplus", tmp_path / "ckplus", split="all")
    assert load("affectnet", tmp_path / "affectnet", split="train")
    assert load("affectnet", tmp_path / "affectnet", split="valid")


@pytest.mark.parametrize("layout", ["fer2013/folders", "rafdb/owner-codes", "sfew", "folder"])
def test_the_folder_of_macos_archives_is_no_class(layout: str, tmp_path: Path) -> None:
    layouts.write(layout, tmp_path / "kept", rows=8)
    name = layout.partition("/")[0]
    before = datasets.load(name, tmp_path / "kept", split="train", allow_partial=True)
    for folder in [path for path in (tmp_path / "kept").rglob("*") if path.is_dir()]:
        save(folder / "__MACOSX/a.png", 90)
    after = datasets.load(name, tmp_path / "kept", split="train", allow_partial=True)
    assert after.ids == before.ids


def test_ckplus_short_sequences_are_named(tmp_path: Path) -> None:
    layouts.write("ckplus", tmp_path, rows=5)
    folder = next(tmp_path.glob("Emotion/*/*/*_emotion.txt")).parent.relative_to(tmp_path / "Emotion")
    for name in list((tmp_path / "cohn-kanade-images" / folder).iterdir())[:4]:
        name.unlink()
    with pytest.raises(DataError, match=f"1 labelled sequences with too few frames: {folder};"):
        datasets.load("ckplus", tmp_path, split="all")
    assert f"1 labelled sequences with too few frames: {folder}" in load("ckplus", tmp_path, split="all").note
    shutil.rmtree(tmp_path / "cohn-kanade-images" / folder)
    data = load("ckplus", tmp_path, split="all")
    assert str(folder) not in data.groups["sequence"] and len(data) > 0


# FER-2013 and FER+: the traps of their columns are in the layouts' test; here the damaged files.


def test_fer2013_row_with_a_pixel_too_few_is_named(tmp_path: Path) -> None:
    good, short = " ".join(["7"] * 2304), " ".join(["7"] * 2303)
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n3,{good},Training\n3,{short},Training\n")
    with pytest.raises(DataError, match=r"fer2013.csv, line 3: 2303 pixel values, expected 2304"):
        fer2013.load(tmp_path, split="train", allow_partial=True, cache=False)


@pytest.mark.parametrize("code", ["7", "-1", "happy", ""])
def test_fer2013_label_out_of_range_is_named(code: str, tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 2304)
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n{code},{pixels},Training\n")
    with pytest.raises(DataError, match=rf"line 2: emotion '{code}', expected a code in 0-6"):
        fer2013.load(tmp_path, split="train", allow_partial=True, cache=False)


def test_rafdb_blank_lines_are_passed_over(tmp_path: Path) -> None:
    layouts.write("rafdb", tmp_path, rows=8)
    listing = tmp_path / "basic" / rafdb.LABELS
    listing.write_text(f"{listing.read_text()}\n\n")
    assert len(load("rafdb", tmp_path, split="train")) == 8


def test_fer2013_blank_lines_are_passed_over(tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 2304)
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n3,{pixels},Training\n\n")
    assert len(fer2013.load(tmp_path, split="train", allow_partial=True, cache=False)) == 1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("3,{pixels}", "2 cells, expected 3: emotion, pixels, usage"),
        ("3,{pixels},Training,7", "4 cells, expected 3"),
        ("3,{pixels},Trainings", "usage 'Trainings', expected one of Training, PublicTest, PrivateTest"),
        ("\u00b2,{pixels},Training", "emotion '\u00b2', expected a code in 0-6"),
        ("3,\u0667{pixels},Training", "0 pixel values, expected 2304"),
    ],
)
def test_fer2013_rows_that_are_none_are_named(row: str, told: str, tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 2304)
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n{row.format(pixels=pixels)}\n", "utf-8")
    with pytest.raises(DataError, match=rf"fer2013.csv, line 2: {told}"):
        fer2013.load(tmp_path, split="train", allow_partial=True, cache=False)


def test_fer2013_folders_that_are_none_are_named(tmp_path: Path) -> None:
    save(tmp_path / "train/happy/a.png", 90)
    with pytest.raises(AbsentSplitError, match="test: no such folder"):
        load("fer2013", tmp_path, split="public+private")
    save(tmp_path / "train/contempt/a.png", 90)
    with pytest.raises(DataError, match=r"train: directories 'contempt'; expected neutral, happy"):
        load("fer2013", tmp_path, split="train")
    save(tmp_path / "train/bored/a.png", 90)
    with pytest.raises(DataError, match=r"train: unknown expressions bored"):
        load("fer2013", tmp_path, split="train")


@pytest.mark.parametrize("votes", ["1,2,3", "", "1,2,3,4,5,6,7,8,9,x", "-1,2,3,4,5,6,7,8,9,1", "1,2,3,4,5,6,7,8,9,1,1"])
def test_ferplus_rows_without_ten_votes_are_named(votes: str, tmp_path: Path) -> None:
    layouts.write("ferplus", tmp_path, rows=8)
    (file,) = tmp_path.rglob("fer2013new.csv")
    lines = file.read_text().splitlines()
    lines[2] = ",".join([*lines[2].split(",")[:2], votes])
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"fer2013new.csv, line 3: votes .*; expected 10 whole numbers"):
        load("ferplus", tmp_path, split="train")


def test_fer2013_reads_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 2304)
    (tmp_path / "fer2013.csv").write_bytes(f"\ufeffemotion,pixels,Usage\r\n3,{pixels},Training\r\n".encode())
    data = fer2013.load(tmp_path, split="train", allow_partial=True, cache=False)
    assert [data.classes[label] for label in data.labels] == ["happy"]


def test_ferplus_is_joined_by_position_and_skips_unnamed_rows(tmp_path: Path) -> None:
    layouts.write("ferplus", tmp_path, rows=40)
    drawn = layouts.faces("train", rows=40)
    data = load("ferplus", tmp_path, split="train", label_rule="argmax8")
    assert len(data) == 39
    assert data.votes is not None
    assert drawn.votes is not None
    for row in range(39):
        np.testing.assert_array_equal(data.read(row)[..., 1], drawn.read(row)[..., 1])
        np.testing.assert_allclose(data.votes[row][:7], drawn.votes[row], atol=1e-6)


# Damage that any dataset can have


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for name in datasets.NAMES:
        if name != "synthetic":
            with pytest.raises(DataError, match=str(tmp_path / "nowhere")):
                datasets.load(name, tmp_path / "nowhere", split="train")


@pytest.mark.parametrize("name", ["rafdb", "rafdb-compound", "affectnet", "sfew", "expw", "ckplus", "folder", "csv"])
def test_an_empty_folder_says_what_was_expected(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected|pass --root|no directory|wants"):
        load(name, tmp_path, split="train" if name not in ("expw", "ckplus") else "all")


def test_missing_pictures_are_named_or_counted(tmp_path: Path) -> None:
    layouts.write("rafdb", tmp_path, rows=8)
    (tmp_path / "basic/Image/aligned/train_00003_aligned.jpg").unlink()
    with pytest.raises(DataError, match=r"1 pictures are not in .*train_00003_aligned.jpg"):
        datasets.load("rafdb", tmp_path, split="train")
    data = load("rafdb", tmp_path, split="train")
    assert len(data) == 7
    assert "1 pictures absent: Image/aligned/train_00003_aligned.jpg" in data.note


def test_a_split_without_any_of_its_pictures_is_told(tmp_path: Path) -> None:
    layouts.write("rafdb", tmp_path, rows=2)
    for number in (1, 2):
        (tmp_path / f"basic/Image/aligned/train_0000{number}_aligned.jpg").unlink()
    with pytest.raises(AbsentSplitError, match=r"no labelled face \(2 pictures absent: Image/aligned/train_00001_"):
        load("rafdb", tmp_path, split="train")


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    layouts.write("rafdb", tmp_path, rows=8)
    file = tmp_path / "basic/Image/aligned/train_00003_aligned.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    data = load("rafdb", tmp_path, split="train")
    with pytest.raises(ImageError, match=r"train_00003_aligned.jpg"):
        data[2]
    assert data[3].image.shape == (48, 48, 3)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.write("rafdb", tmp_path, rows=8)
    opened = Path.open

    def refused(path: Path, *arguments: Any, **options: Any) -> Any:  # chmod does not stop the superuser
        if path.name == Path(rafdb.LABELS).name:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError, match=r"list_patition_label.txt: cannot be read"):
        load("rafdb", tmp_path, split="train")


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    rafdb_labels(tmp_path, "")
    (tmp_path / rafdb.LABELS).write_bytes(b"train_00001.jpg \xff\n")
    with pytest.raises(DataError, match="not a UTF-8 text file"):
        load("rafdb", tmp_path, split="train")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00junk", b"emotion,pixels,Usage\n3,\x00,Training\n"])
@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".zip"])
def test_damaged_tables_and_archives_are_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"fer2013.csv{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=r"fer2013.*(cannot be read|no column|pixel values|no row|CSV files inside)"):
        load("fer2013", tmp_path, split="train")


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    layouts.write("fer2013", tmp_path, rows=8)
    packed = lzma.compress((tmp_path / "fer2013.csv").read_bytes())
    (tmp_path / "fer2013.csv").unlink()
    (tmp_path / "fer2013.csv.xz").write_bytes(packed[:-2000])
    with pytest.raises(DataError, match=r"fer2013 under .*cannot be read \(EOFError"):
        load("fer2013", tmp_path, split="train")


def test_an_affectnet_list_in_another_encoding_is_named(tmp_path: Path) -> None:
    affectnet_rows(tmp_path, "1/a.png,2,3,4,5,1;2,6,0,0")
    file = tmp_path / "Manually_Annotated_file_lists/validation.csv"
    file.write_bytes(file.read_bytes().replace(b"a.png", b"\xe4.png"))
    with pytest.raises(DataError, match=r"affectnet under .*UnicodeDecodeError"):
        load("affectnet", tmp_path, split="valid")


@pytest.mark.parametrize(
    ("name", "options"),
    [("rafdb", {"fold": 1}), ("sfew", {"protocol": "x"}), ("fer2013", {"label_rule": "x"}),
     ("ckplus", {"label_rule": "x"}), ("expw", {"protocol": "x"}),
     ("affectnet", {"protocol": "x"}), ("affectnet", {"label_rule": "x"})],
)  # fmt: skip
def test_options_that_a_dataset_does_not_have_are_refused(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"{name} has no"):
        load(name, tmp_path, split="train", **options)


def test_official_counts_are_complete() -> None:
    assert rafdb.OFFICIAL["train"].rows == 12_271
    assert rafdb.OFFICIAL["test"].rows == 3_068
    assert sfew.OFFICIAL["train"].rows == 958
    assert sfew.OFFICIAL["valid"].rows == 436


# How rows are divided


def test_stratified_parts_are_disjoint_and_balanced() -> None:
    labels = np.repeat([0, 1, 2], [100, 30, 5])
    parts = stratified(labels, (0.8, 0.1, 0.1), seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(135))
    assert [np.bincount(labels[part], minlength=3).tolist() for part in parts] == [[80, 24, 3], [10, 3, 1], [10, 3, 1]]
    again = stratified(labels, (0.8, 0.1, 0.1), seed=4)
    assert parts[2].tolist() != again[2].tolist()


def test_contiguous_folds_differ_by_at_most_one_row() -> None:
    assert [part.tolist() for part in contiguous(5, 3)] == [[0, 1], [2, 3], [4]]


def test_subjects_are_never_divided() -> None:
    subjects = ["c", "a", "b", "a", "c", "d"]
    folds = [part.tolist() for part in by_subject(subjects, 2)]
    assert folds == [[0, 1, 3, 4], [2, 5]]  # a, c and b, d
