"""Parts of a training split that a run leaves out: fixed, disjoint, even, copies together, and kept on resume and export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_fer

from mien.errors import UsageError
from mien.lab.training import export, runs
from mien.lab.training.parts import Part, holdout_ids
from mien.lab.training.recipes import Choice, resolve
from mien.lab.training.trainer import Source, load_data, train

TINY = ("network.widths=(4,8,8,8)", "epochs=1", "batch=16", "sizes=()")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_fer.write(tmp_path_factory.mktemp("data"))


def source(root: Path, part: Part | None = None, **options: str) -> Source:
    return Source("ferplus", root, allow_partial=True, leave_out=part, **options)


@pytest.mark.parametrize("select_on", ["valid", "holdout"])
def test_the_parts_together_are_the_training_rows(data: Path, select_on: str) -> None:
    _, recipe = resolve(Choice("mien-small"))
    whole, validation = load_data(source(data, select_on=select_on), recipe)
    left: list[str] = []
    for number in (1, 2, 3):
        rows, held = load_data(source(data, Part(number, 3), select_on=select_on), recipe)
        assert [s.ids for s in held.values()] == [s.ids for s in validation.values()]
        out = sorted(set(whole.ids) - set(rows.ids))
        assert abs(len(out) - len(whole) / 3) <= 1
        counts = np.array(whole.class_counts) - np.array(rows.class_counts)
        assert (np.abs(counts - np.array(whole.class_counts) / 3) <= 1).all()
        left += out
    assert sorted(left) == sorted(whole.ids)


def test_copies_stay_in_one_part(data: Path) -> None:
    whole = source(data, label_rule="joint").load("train")
    shown = np.arange(140)
    shown[100:140] = np.arange(1, 41)  # the classes go round: the same picture under another label
    copied = replace(whole, read=lambda i: whole.read(int(shown[i])))
    parts = [set(shown[Part(number, 4).rows(copied)]) for number in (1, 2, 3, 4)]
    assert sum(map(len, parts)) == len(set(shown))


@pytest.mark.parametrize("name", ["subject", "film", "sequence", "picture"])
def test_what_was_sampled_together_is_not_divided(data: Path, name: str) -> None:
    whole = source(data, label_rule="joint").load("train")
    groups = {name: tuple(f"{i // 5}" for i in range(140)), "gender": ("woman",) * 140}
    grouped = replace(whole, groups=groups)
    parts = [{groups[name][row] for row in Part(number, 4).rows(grouped)} for number in (1, 2, 3, 4)]
    assert sum(map(len, parts)) == 28
    place = {row: i for i, row in enumerate(grouped.ids)}
    held = {place[row] for row in holdout_ids(grouped)}
    assert not {groups[name][row] for row in held} & {groups[name][row] for row in set(range(140)) - held}
    assert len(held) == 10  # two of 28 groups: 14 rows at most


@pytest.mark.parametrize(("people", "parts", "told"), [(None, 141, "140 picture"), (28, 29, "28 subject")])
def test_more_parts_than_there_is_to_share_out_are_refused(
    data: Path, people: int | None, parts: int, told: str
) -> None:
    """One of them would leave nothing out, and its run would answer nothing."""
    whole = source(data, label_rule="joint").load("train")
    if people is not None:
        whole = replace(whole, groups={"subject": tuple(f"{i % people}" for i in range(140))})
    with pytest.raises(
        UsageError, match=rf"part 1/{parts}: \S+ train has {told}\(s\) to share out among {parts} parts"
    ):
        Part(1, parts).rows(whole)
    assert len(Part(1, parts - 1).rows(whole))


def test_one_of_a_few_people_is_held_out(data: Path) -> None:
    """Nine people, as ten folds of ten people leave them: each has more than a tenth of the rows."""
    whole = source(data, label_rule="joint").load("train")
    people = tuple("ab"[i % 2] if i < 30 else f"{i % 7}" for i in range(140))  # two of 15 rows, seven of 15 or 16
    grouped = replace(whole, groups={"subject": people})
    held = [row for row in range(140) if grouped.ids[row] in set(holdout_ids(grouped))]
    assert len(held) in (15, 16) and len({people[row] for row in held}) == 1
    uneven = tuple("one" if i < 100 else "two" if i < 120 else "three" for i in range(140))
    assert len(holdout_ids(replace(whole, groups={"subject": uneven}))) == 20
    assert holdout_ids(replace(whole, groups={"subject": ("one",) * 140})) == ()


def test_who_would_be_too_much_is_passed_over(data: Path) -> None:
    """One person has half of the rows, seventy have one each: wherever that one stands, a tenth is held out."""
    whole = source(data, label_rule="joint").load("train")
    for first in range(0, 70, 5):
        people = tuple("many" if first <= i < first + 70 else f"{i}" for i in range(140))
        assert len(holdout_ids(replace(whole, groups={"subject": people}))) == 14


def test_a_picture_with_many_copies_ends_its_class(data: Path) -> None:
    """Single pictures are held out up to the first that would be too much; who passes over it holds out 14, and others than
    earlier versions did."""
    whole = source(data, label_rule="joint").load("train")
    shown = np.array(
        [i if i < 70 else i % 35 for i in range(140)]
    )  # of 20 rows of a class, five pictures stand there three times
    copied = replace(whole, read=lambda i: whole.read(int(shown[i])))
    held = [row for row in range(140) if copied.ids[row] in set(holdout_ids(copied))]
    assert held == [46, 54, 62, 64, 68]
    assert len(holdout_ids(whole)) == 14


def test_a_run_remembers_the_part_that_it_left_out(data: Path, tmp_path: Path) -> None:
    choice, part = Choice("mien-small", settings=TINY), Part(2, 3)
    run = train(choice, source(data, part), tmp_path / "run", say=lambda line: None)
    assert runs.read(run)["data"]["left_out"] == "2/3"
    assert export.training_rows(run, data).ids == load_data(source(data, part), resolve(choice)[1])[0].ids
    with pytest.raises(UsageError, match="holds another run"):
        train(choice, source(data, Part(1, 3)), run, resume=True, say=lambda line: None)
    with pytest.raises(UsageError, match="holds another run"):
        train(choice, source(data), run, resume=True, say=lambda line: None)


@pytest.mark.parametrize("text", ["", "1", "1/", "/3", "0/3", "4/3", "1/1", "-1/3", "1/3/3", "a/b", "1.0/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"part .*expected K/N"):
        Part.parse(text)
    assert str(Part.parse("1/3")) == "1/3"
