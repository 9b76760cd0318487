"""Bring your own faces: folders and tables, and what is wrong with them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import DataError
from mien.lab import datasets
from mien.lab.datasets import layouts
from mien.lab.datasets.dataset import AbsentSplitError


def save(path: Path, level: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (level, level, level)).save(path)


def test_folder_names_go_through_the_vocabulary(tmp_path: Path) -> None:
    for word in ("Angry", "happiness", "Natural"):
        save(tmp_path / "train" / word / "a.png")
        save(tmp_path / "test" / word / "a.png")
        save(tmp_path / "val" / word / "a.png")
    for split in datasets.SPLITS:
        data = datasets.load("folder", tmp_path, split=split)
        assert data.classes == ("neutral", "happy", "anger")
        found = {Path(name).parent.name: data.classes[label] for name, label in zip(data.ids, data.labels, strict=True)}
        assert found == {"Angry": "anger", "happiness": "happy", "Natural": "neutral"}


def test_a_class_that_one_split_lacks_does_not_shift_the_others(tmp_path: Path) -> None:
    for name in ("train/anger/a.png", "train/neutral/a.png", "test/anger/a.png", "valid/anger/a.png"):
        save(tmp_path / name)
    data = datasets.load("folder", tmp_path, split="test")
    assert data.classes == ("neutral", "anger")
    assert data.labels.tolist() == [1]


def test_undivided_folders_are_divided_within_each_class(tmp_path: Path) -> None:
    for word, count in (("happy", 20), ("sad", 10)):
        for number in range(count):
            save(tmp_path / word / f"{number}.png")
    parts = [datasets.load("folder", tmp_path, split=split) for split in datasets.SPLITS]
    assert [part.class_counts for part in parts] == [(16, 8), (2, 1), (2, 1)]
    assert len({name for part in parts for name in part.ids}) == 30
    assert parts[2].ids == datasets.load("folder", tmp_path, split="test").ids
    assert "seed 0" in parts[0].note


def test_a_missing_valid_is_taken_from_train(tmp_path: Path) -> None:
    for number in range(20):
        save(tmp_path / "train/happy" / f"{number}.png")
        save(tmp_path / "test/happy" / f"{number}.png")
    parts = [datasets.load("folder", tmp_path, split=split) for split in datasets.SPLITS]
    assert [len(part) for part in parts] == [18, 2, 20]
    assert not set(parts[0].ids) & set(parts[1].ids)


def test_pictures_in_folders_of_an_expressions_folder_are_read(tmp_path: Path) -> None:
    for name in (
        "happy/s2/a.png",
        "happy/s10/b/a.png",
        "happy/a.png",
        "sad/a.png",
        "happy/.hidden/a.png",
        "happy/s2/.a.png",
    ):
        save(tmp_path / "train" / name)
    save(tmp_path / ".elsewhere/c.png")
    (tmp_path / "train/happy/linked").symlink_to(tmp_path / ".elsewhere")
    (tmp_path / "train/happy/s2/loop").symlink_to(tmp_path / "train/happy")
    (tmp_path / "valid").symlink_to(tmp_path / "train")
    data = datasets.load("folder", tmp_path, split="train")
    assert data.ids == tuple(
        f"train/{name}"
        for name in ("happy/a.png", "happy/linked/c.png", "happy/s10/b/a.png", "happy/s2/a.png", "sad/a.png")
    )
    assert data.labels.tolist() == [0, 0, 0, 0, 1]
    assert data.groups == {"folder": ("", "linked", "s10/b", "s2", "")}
    assert data[2].image.shape == (5, 6, 3)
    assert len(datasets.load("folder", tmp_path, split="valid")) == 5


def test_an_expressions_folder_is_no_group(tmp_path: Path) -> None:
    """Accuracy by group would be recall by class."""
    for name in ("happy/a.png", "happy/ann/a.png", "sad/a.png", "sad/ann/a.png"):
        save(tmp_path / name)
    data = datasets.load("folder", tmp_path, split="all")
    assert data.groups == {"folder": ("", "ann", "", "ann")}


def test_owners_layouts_are_not_searched_deeper(tmp_path: Path) -> None:
    for word in ("Angry", "Happy"):
        save(tmp_path / "Train" / word / "film_1.png")
        save(tmp_path / "Train" / word / "more/film_2.png")
    data = datasets.load("sfew", tmp_path, split="train", allow_partial=True)
    assert data.ids == ("Train/Angry/film_1.png", "Train/Happy/film_1.png")


def test_unknown_folders_are_all_listed(tmp_path: Path) -> None:
    for word in ("happy", "bored", "1"):
        save(tmp_path / word / "a.png")
    with pytest.raises(DataError, match=r"unknown expressions 1, bored; expected directories named neutral"):
        datasets.load("folder", tmp_path, split="train")


def test_two_folders_of_one_expression_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "angry/a.png")
    save(tmp_path / "anger/a.png")
    with pytest.raises(DataError, match="both mean anger"):
        datasets.load("folder", tmp_path, split="train")


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "validation"):
        save(tmp_path / name / "happy" / "a.png")
    with pytest.raises(DataError, match="directories 'val' and 'validation' both mean valid; merge them"):
        datasets.load("folder", tmp_path, split="train")


def test_expressions_beside_split_folders_are_refused(tmp_path: Path) -> None:
    for name in ("train/happy", "test/happy", "Angry", "notes"):
        save(tmp_path / name / "a.png")
    with pytest.raises(DataError, match=r"Angry lie beside the split folders test, train.*e\.g\. test/Angry"):
        datasets.load("folder", tmp_path, split="train")


def test_split_folders_below_an_expression_are_refused(tmp_path: Path) -> None:
    """Read as one class they would put test pictures into training."""
    for name in ("happy/train", "happy/test", "sad/val"):
        save(tmp_path / name / "a.png")
    with pytest.raises(DataError, match=r"happy: split folders test, train lie below.*e\.g\. test/happy"):
        datasets.load("folder", tmp_path, split="train")


def test_a_person_may_be_called_like_a_split(tmp_path: Path) -> None:
    for name in "abcdefghij":
        save(tmp_path / "happy/Val" / f"{name}.png")
        save(tmp_path / "sad" / f"{name}.png")
    assert "Val" in datasets.load("folder", tmp_path, split="train").groups["folder"]


def table(root: Path, text: str, *, encoding: str = "utf-8") -> Path:
    for name in "abc":
        save(root / f"{name}.png")
    file = root / "faces.csv"
    file.write_bytes(text.encode(encoding))
    return file


def test_table_with_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    text = "Path,Label,split\r\na.png,Happy,train\r\nb.png, sadness ,validation\r\n"
    data = datasets.load("csv", table(tmp_path, text, encoding="utf-8-sig"), split="valid")
    assert data.ids == ("b.png",)
    assert data.classes == ("happy", "sad")
    assert data.labels.tolist() == [1]
    assert data[0].image.shape == (5, 6, 3)


def test_table_votes_are_normalised_and_in_class_order(tmp_path: Path) -> None:
    text = "path,label,split,p_sad,p_happy,p_fear\na.png,happy,train,1,3,0\nb.png,sad,train,2,0,0\n"
    data = datasets.load("csv", table(tmp_path, text), split="train")
    assert data.classes == ("happy", "sad", "fear")
    np.testing.assert_allclose(data.votes, [[0.75, 0.25, 0], [0, 1, 0]])
    assert data.note == ""


def test_a_label_that_its_votes_contradict_is_noted(tmp_path: Path) -> None:
    text = "path,label,split,p_sad,p_happy\na.png,happy,train,3,1\nb.png,sad,train,1,1\nc.png,sad,valid,0,1\n"
    data = datasets.load("csv", table(tmp_path, text), split="train")
    assert data.labels.tolist() == [0, 1]
    assert data.note == "the label is not the likeliest p_ class in 1 of 2 rows"


def test_a_tables_absent_pictures_may_be_left_out(tmp_path: Path) -> None:
    """With their votes and groups."""
    rows = ("a.png,happy,s1,1,0", "gone.png,happy,s2,0,1", "b.png,sad,s3,1,3", "c.png,happy,s4,1,4")
    file = table(tmp_path, "\n".join(["path,label,subject,p_happy,p_sad", *rows]))
    with pytest.raises(DataError, match=r"1 pictures are not in .*gone.png.*--allow-partial"):
        datasets.load("csv", file, split="all")
    data = datasets.load("csv", file, split="all", allow_partial=True)
    assert data.ids == ("a.png", "b.png", "c.png")
    assert data.labels.tolist() == [0, 1, 0]
    assert data.groups == {"subject": ("s1", "s3", "s4")}
    np.testing.assert_allclose(data.votes, [[1, 0], [0.25, 0.75], [0.2, 0.8]])
    assert data.note == "1 pictures absent: gone.png; the label is not the likeliest p_ class in 1 of 3 rows"


def test_a_table_without_validation_rows_is_told_the_way(tmp_path: Path) -> None:
    file = table(tmp_path, "path,label,split\na.png,happy,train\nb.png,sad,test\n")
    with pytest.raises(
        AbsentSplitError, match=r"csv valid .*: no labelled face; .*to train without, pass --select-on holdout"
    ):
        datasets.load("csv", file, split="valid")


def test_table_tells_the_person_and_attributes_and_names_what_it_does_not_use(tmp_path: Path) -> None:
    head = "path,label,split,Subject,group_Gender,age,"
    rows = ("a.png,happy,train,s1,f,30,", "b.png,sad,test,s2,m,40,", "c.png,sad,train,,,50,")
    data = datasets.load("csv", table(tmp_path, "\n".join([head, *rows])), split="train")
    assert data.groups == {"subject": ("s1", ""), "gender": ("f", "")}
    assert data[0].groups == {"subject": "s1", "gender": "f"}
    assert data.note == "columns not used: 'age', '' (an attribute is called group_<name>)"


def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / "happy" / f"{number}.png", number)
    (tmp_path / "happy" / "3.png").rename(tmp_path / "happy" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"row 'happy/caf.udce9.png': its name is not UTF-8 .*; rename the file"):
        datasets.load("folder", tmp_path, split="all")


def test_a_persons_faces_in_a_table_stay_together(tmp_path: Path) -> None:
    """Where the table is divided, where a tenth is held out, and where accuracy gets its interval and groups."""
    from mien.lab.evaluation.judge import clusters_of
    from mien.lab.training.parts import holdout_ids

    lines = ["path,label,subject"]
    for number in range(200):
        save(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{('happy', 'sad')[number % 2]},{'' if number < 20 else f's{number // 4}'}")
    file = tmp_path / "faces.csv"
    file.write_text("\n".join(lines))
    parts = {split: datasets.load("csv", file, split=split) for split in datasets.SPLITS}
    people = [set(filter(None, part.groups["subject"])) for part in parts.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 45
    assert [len(part) for part in parts.values()] == [156, 22, 22]
    assert {part.note for part in parts.values()} == {"divided by subject into train 156, valid 22, test 22 rows"}
    train = parts["train"]
    held = set(holdout_ids(train))
    sides = {(name, row in held) for row, name in zip(train.ids, train.groups["subject"], strict=True) if name}
    assert 0 < len(held) < len(train)
    assert len(sides) == len({name for name, _ in sides})
    assert clusters_of(train, None) == (train.groups["subject"], "subject")


@pytest.mark.parametrize(("people", "found"), [(1, (6, 0, 0)), (2, (3, 3, 0)), (3, (2, 2, 2))])
def test_few_people_go_to_train_first(people: int, found: tuple[int, ...], tmp_path: Path) -> None:
    rows = [f"{number}.png,happy,s{number % people}" for number in range(6)]
    for number in range(6):
        save(tmp_path / f"{number}.png")
    file = table(tmp_path, "\n".join(["path,label,subject", *rows]))
    for split, count in zip(datasets.SPLITS, found, strict=True):
        if count:
            assert len(datasets.load("csv", file, split=split)) == count
        else:
            with pytest.raises(
                DataError, match=f"of {people} subjects none is left for {split}; give the rows a split"
            ):
                datasets.load("csv", file, split=split)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,label\na.png,happy\nb.png,bored\nc.png,3\n", "unknown label '3', 'bored'; expected neutral"),
        ("path,label,split\na.png,happy,train\nb.png,sad,dev\n", "unknown split 'dev'"),
        ("file,label\na.png,happy\n", "columns file, label; expected path,label"),
        ("", "columns none"),
        ("path,label,p_joy,p_pain\na.png,happy,1,0\n", "unknown column 'pain'"),
        ("path,label,p_happy\na.png,happy,many\n", "holds something that is no number"),
        ("path,label,p_happy\n\na.png,happy,1\nb.png,happy,-1\n", "lines 4: p_ values .-1.0., expected finite numbers"),
        ("path,label,p_happy\na.png,happy,nan\n", "lines 2: p_ values .nan., expected finite numbers"),
        (
            "path,label,p_happy\na.png,happy,1\nb.png,happy,0\n",
            "lines 3: p_ values sum to 0, expected a vote in every row",
        ),
        ("path,label,p_sad\na.png,fear,1\nb.png,anger,0\n", "a p_ column for every label: add p_fear, p_anger"),
        ("path,label,subject,group_subject\na.png,happy,s,s\n", "subject and group_subject mean the same"),
        ("path,label\n\na.png,happy\nb.png,happy,train\n", "lines 4 do not have the header's 2 cells"),
        ("path,label,split\na.png,happy,train\nz.png,happy,train\n", "1 pictures are not in .*z.png"),
        ("path,label,split\na.png,happy,test\n", "no labelled face"),
        ("path,label\na.png,happy\n,sad\n", "line 3: no path; expected a picture in every row"),
        ("path,label\na.png,happy\nb.png,sad\na.png,sad\n", "lines 2 and 4: 'a.png' twice; expected a row per face"),
    ],
)
def test_bad_tables_are_explained(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        datasets.load("csv", table(tmp_path, text), split="train")


def test_columns_without_a_name_are_passed_over(tmp_path: Path) -> None:
    """As spreadsheets leave them at the end."""
    data = datasets.load("csv", table(tmp_path, "path,label,,\na.png,happy,,\nb.png,sad,,\n"), split="all")
    assert data.ids == ("a.png", "b.png")


def test_table_and_folder_hold_the_same_faces(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "folder", rows=20)
    layouts.write("csv", tmp_path / "csv", rows=20)
    one = datasets.load("folder", tmp_path / "folder", split="train")
    two = datasets.load("csv", tmp_path / "csv/faces.csv", split="train")
    by_name = {Path(sample.id).name: sample for sample in two}
    assert len(one) == len(two) == 20
    for sample in one:
        other = by_name[Path(sample.id).name]
        assert one.classes[sample.label] == two.classes[other.label]
        np.testing.assert_array_equal(sample.image, other.image)


def test_votes_for_one_expression_in_two_columns_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    table = tmp_path / "faces.csv"
    for columns, told in (
        ("p_anger,p_angry", "columns p_anger, p_angry are votes for one expression"),
        ("p_anger,p_anger", "more than one column is called p_anger"),
    ):
        table.write_text(f"path,label,{columns}\na.png,anger,8,0\n")
        with pytest.raises(DataError, match=told):
            datasets.load("csv", table, split="train")


def test_a_split_without_a_folder_is_absent(tmp_path: Path) -> None:
    save(tmp_path / "valid/happy/a.png")
    with pytest.raises(AbsentSplitError, match="folders valid but none for train; add it"):
        datasets.load("folder", tmp_path, split="train")
    for name in "abc":
        save(tmp_path / f"train/happy/{name}.png")
    assert len(datasets.load("folder", tmp_path, split="train")) == 3
    with pytest.raises(AbsentSplitError, match="folders train, valid but none for test; add it"):
        datasets.load("folder", tmp_path, split="test")


def test_undivided_faces_have_ten_folds(tmp_path: Path) -> None:
    """Of folders and of a table without subjects: every row tested once, every class in every fold as evenly as can be."""
    lines = ["path,label"]
    for word, count in (("happy", 34), ("sad", 21)):
        for number in range(count):
            save(tmp_path / "faces" / word / f"{number}.png")
            lines.append(f"faces/{word}/{number}.png,{word}")
    (tmp_path / "faces.csv").write_text("\n".join(lines))
    for name, root in (("folder", tmp_path / "faces"), ("csv", tmp_path / "faces.csv")):
        whole = datasets.load(name, root, split="all")
        tested = [datasets.load(name, root, split="test", fold=fold) for fold in range(1, 11)]
        assert sorted(row for part in tested for row in part.ids) == sorted(whole.ids)
        assert len(whole) == 55
        assert {part.class_counts[0] for part in tested} == {3, 4}
        assert {part.class_counts[1] for part in tested} == {2, 3}
        for fold, part in enumerate(tested, start=1):
            assert part.note == f"fold {fold} of 10, dealt out within each class with seed 0"
            train = datasets.load(name, root, split="train", fold=fold)
            assert set(train.ids) == set(whole.ids) - set(part.ids)


def test_folds_of_a_table_keep_a_persons_faces_together(tmp_path: Path) -> None:
    for row in range(60):
        save(tmp_path / f"{row}.png")
    for people, folds in ((2, 2), (3, 3), (25, 10)):
        rows = [f"{row}.png,happy,s{row % people}" for row in range(60)]
        file = table(tmp_path, "\n".join(["path,label,subject", *rows]))
        tested = [datasets.load("csv", file, split="test", fold=fold) for fold in range(1, folds + 1)]
        assert sum(map(len, tested)) == 60
        people_of = [set(part.groups["subject"]) for part in tested]
        assert sum(map(len, people_of)) == len(set.union(*people_of)) == people
        assert tested[0].note.startswith("fold 1 of ") and tested[0].note.endswith(", by subject")


@pytest.mark.parametrize(
    ("text", "split", "fold", "told"),
    [
        ("path,label,split\na.png,happy,train\n", "test", 1, "fold 1 of rows that a split column divides"),
        ("path,label\na.png,happy\n", "test", 11, "csv: fold 11, expected 1 to 10"),
        ("path,label\na.png,happy\n", "valid", 1, "no split 'valid' under cross-validation"),
        ("path,label,subject\na.png,happy,ann\n", "train", 1, "one subject, ann: folds by subject need two or more"),
    ],
)
def test_folds_that_a_table_has_not_are_refused(text: str, split: str, fold: int, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        datasets.load("csv", table(tmp_path, text), split=split, fold=fold)


def test_divided_folders_have_no_folds(tmp_path: Path) -> None:
    save(tmp_path / "train/happy/a.png")
    for options in ({"split": "test", "fold": 1}, {"split": "all"}):
        with pytest.raises(DataError, match="folders train divide the pictures: leave --fold out"):
            datasets.load("folder", tmp_path, **options)
