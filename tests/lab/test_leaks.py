"""Leaks, mismatching preprocessing, and accuracy by group."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scores_fixtures import made_up

from mien.card import CropSpec, Head, InputSpec, ModelCard
from mien.errors import DataError
from mien.expressions import BASIC, EXPRESSIONS
from mien.lab.datasets.dataset import FaceDataset
from mien.lab.evaluation.groups import attributes, by_group, group_tables, rows_of
from mien.lab.evaluation.leaks import (
    check_preprocessing,
    duplicate_clusters,
    leak_report,
    leaking,
    pixel_hash,
    pixel_hashes,
    preprocessing_mismatches,
)
from mien.lab.evaluation.paired import aligned
from mien.lab.evaluation.scores import Scores


def dataset(images: list[np.ndarray], *, rule: str = "majority", classes: tuple[str, ...] = BASIC) -> FaceDataset:
    return FaceDataset(
        name="fer2013", split="test", label_rule=rule, classes=classes, labels=np.zeros(len(images), np.int64),
        ids=tuple(f"row{i}" for i in range(len(images))), read=lambda i: images[i], fingerprint="0" * 16,
    )  # fmt: skip


def card(*, colour: str = "grey", rule: str = "majority", labels: tuple[str, ...] = BASIC) -> ModelCard:
    channels = 1 if colour == "grey" else 3
    return ModelCard(
        heads={"fer2013": Head("probabilities", labels, rule, 1.0, "fer2013 Training")},
        default_head="fer2013",
        input=InputSpec(48, 48, colour, (0.5,) * channels, (0.25,) * channels),
        crop=CropSpec(((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))),
        method="made up", seed=0, commit="none", licence="none",
    )  # fmt: skip


def noise(seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_only_exact_copies_share_a_hash() -> None:
    picture = noise(0)
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    assert pixel_hash(picture) == pixel_hash(picture.copy())
    assert pixel_hash(picture) == pixel_hash(np.asfortranarray(picture))
    assert pixel_hash(picture) != pixel_hash(changed)
    assert pixel_hash(np.zeros((2, 8, 3), np.uint8)) != pixel_hash(np.zeros((8, 2, 3), np.uint8))


def test_copies_across_splits_are_found_and_counted_out() -> None:
    pictures = [noise(i) for i in range(6)]
    train, test = dataset(pictures[:4]), dataset([pictures[2], pictures[5], pictures[0]])
    leaked = leaking(pixel_hashes(train), pixel_hashes(test))
    assert leaked.tolist() == [True, False, True]
    labels = np.array([0, 1, 0])
    probabilities = np.eye(7, dtype=np.float32)[[0, 0, 0]]
    found = leak_report(replace(made_up(3), labels=labels, probabilities=probabilities), leaked)
    assert (found.leaked, found.accuracy.value) == (2, pytest.approx(2 / 3))
    assert found.without is not None
    assert found.without.value == 0.0
    assert found.leaked_only is not None
    assert found.leaked_only.value == 1.0
    assert found.ids == ("row00000", "row00002")
    assert "2 of 3 rows" in found.sentence
    assert "0.00 % without" in found.sentence


def test_no_leak_and_nothing_but_leaks() -> None:
    scores = made_up(4)
    assert leak_report(scores, np.zeros(4, bool)).sentence.startswith("None of the 4")
    everything = leak_report(scores, np.ones(4, bool))
    assert everything.without is None
    assert "nothing is left" in everything.sentence
    with pytest.raises(DataError, match="3 leak flags for 4 rows"):
        leak_report(scores, np.zeros(3, bool))


def test_copies_form_clusters() -> None:
    assert duplicate_clusters(["a", "b", "a", "c"]) == ("a", "", "a", "")


def test_fitting_data_passes_and_seven_against_eight_is_settled() -> None:
    grey = dataset([np.repeat(noise(0, (48, 48, 1)), 3, axis=2)])
    assert check_preprocessing(card(), grey) == []
    assert preprocessing_mismatches(card(labels=EXPRESSIONS), grey) == []
    assert check_preprocessing(card(rule="vote distribution of every row"), grey) == []
    tall, narrow = dataset([np.repeat(noise(0, (48, 24, 1)), 3, axis=2)]), card()
    assert check_preprocessing(replace(narrow, input=replace(narrow.input, width=24)), tall) == []


def test_mismatches_are_refused_unless_accepted() -> None:
    grey = dataset([np.repeat(noise(0, (48, 96, 1)), 3, axis=2)], rule="argmax")
    strange = card(colour="rgb", labels=("happy", "sad"))
    with pytest.raises(DataError, match="trained under label rule 'majority', judged under 'argmax'"):
        check_preprocessing(strange, grey)
    accepted = check_preprocessing(strange, grey, accepted=True)
    assert len(accepted) == 3
    assert "the head answers happy, sad" in accepted[0]
    assert "96x48 px would be stretched to 48x48" in accepted[2]
    elsewhere = check_preprocessing(strange, replace(grey, name="another"), accepted=True)
    assert any("pictures are grey" in reason for reason in elsewhere)


def test_grey_pictures_that_a_colour_model_learnt_from_fit_it() -> None:
    """As Ad-Corre's network on FER-2013."""
    grey = dataset([np.repeat(noise(0, (48, 48, 1)), 3, axis=2)])
    assert check_preprocessing(card(colour="rgb"), grey) == []


def test_groups_and_their_gap() -> None:
    scores = made_up(600, skill=2.0)
    right = scores.predictions == scores.labels
    values = np.where(np.arange(600) < 300, "woman", "man")
    values[:300][~right[:300]] = "man"  # every mistake among the men
    found = by_group(scores, values.tolist(), attribute="gender")
    women = next(group for group in found.groups if group.value == "woman")
    assert (women.accuracy.value, women.balanced) == (1.0, 1.0)
    assert found.gap is not None
    assert (found.gap.best, found.gap.worst) == ("woman", "man")
    assert found.gap.interval.low > 0
    assert found.gap.p < 0.01
    head, rows = rows_of(found)
    assert head[0] == "gender"
    assert rows[-1][0] == "gap: woman - man"


def test_equal_groups_show_no_gap_beyond_chance() -> None:
    scores = made_up(900)
    found = by_group(scores, [("a", "b", "c")[i % 3] for i in range(900)], attribute="age")
    assert found.gap is not None
    assert found.gap.p > 0.05


def answers(right: np.ndarray) -> Scores:
    """Scores of rows that are answered rightly, or wrongly."""
    scores = made_up(len(right))
    told = np.where(right, scores.labels, (scores.labels + 1) % len(scores.classes))
    return replace(scores, probabilities=np.eye(len(scores.classes), dtype=np.float32)[told])


def test_chance_is_that_of_all_rows_alike() -> None:
    """30 of 40 and 360 of 400: how often two such groups lie so far apart where both have 390 of 440, from the exact binomials."""
    binom = pytest.importorskip("scipy.stats", reason="needs the extra eval").binom
    right = np.array([True] * 30 + [False] * 10 + [True] * 360 + [False] * 40)
    values = ["few"] * 40 + ["many"] * 400
    gap = by_group(answers(right), values, attribute="x", replicates=100_000).gap
    few, many = (binom.pmf(np.arange(n + 1), n, 390 / 440) for n in (40, 400))
    apart = np.abs(np.arange(41)[:, None] / 40 - np.arange(401) / 400) >= 0.15 - 1e-12
    assert gap is not None and gap.p == pytest.approx((few[:, None] * many * apart).sum(), rel=0.15)


def test_a_gap_between_groups_counts_subjects_not_rows() -> None:
    """60 subjects of 10 rows each, whose own accuracies vary, in two groups without a true gap."""
    random = np.random.default_rng(0)
    clusters = [f"s{i // 10}" for i in range(600)]
    values = ["a" if i < 300 else "b" for i in range(600)]
    found: dict[str, list[tuple[bool, bool]]] = {"by subject": [], "by row": []}
    for _ in range(150):
        scores = answers(np.repeat(random.beta(1.5, 1.0, 60), 10) > random.random(600))
        for name, given in (("by subject", clusters), ("by row", None)):
            gap = by_group(scores, values, attribute="x", clusters=given, replicates=400).gap
            assert gap is not None
            found[name].append((gap.p < 0.05, gap.interval.low > 0))
    alarms = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    assert (alarms["by subject"] < 0.11).all() and (alarms["by row"] > 0.15).all()


def test_groups_of_a_few_people_take_no_part_in_the_gap() -> None:
    """Each value has enough rows, but one or nine people; of one person anything is possible for others."""
    scores = made_up(240)
    values = ["one"] * 60 + ["nine"] * 90 + ["ten"] * 90
    clusters = ["p"] * 60 + [f"q{i % 9}" for i in range(90)] + [f"r{i % 10}" for i in range(90)]
    found = by_group(scores, values, attribute="age", clusters=clusters)
    assert found.gap is None
    one = next(group for group in found.groups if group.value == "one")
    assert (one.accuracy.low, one.accuracy.high) == (0.0, 1.0)
    more = by_group(scores, values, attribute="age", clusters=[name.replace("p", "") for name in clusters])
    assert more.gap is not None and {more.gap.best, more.gap.worst} == {"one", "ten"}


def test_a_gap_is_as_sure_as_the_group_of_fewer_people() -> None:
    """Ten people beside sixty, whichever group is ahead: the interval is expanded as that of ten."""
    random = np.random.default_rng(3)
    right = random.random(700) < np.repeat([0.5, 0.8], [100, 600])
    values = ["few"] * 100 + ["many"] * 600
    clusters = [f"p{i // 10}" for i in range(700)]
    for answered in (right, ~right):
        gap = by_group(answers(answered), values, attribute="x", clusters=clusters, replicates=4000).gap
        assert gap is not None
        people = [answered[:100].reshape(10, 10).mean(axis=1), answered[100:].reshape(60, 10).mean(axis=1)]
        spread = np.sqrt(sum(each.var() / len(each) for each in people))  # of the draws
        reach = gap.interval.high - gap.interval.low
        assert reach / spread == pytest.approx(
            2 * np.sqrt(10 / 9) * 2.262, rel=0.07
        )  # t of 9 degrees of freedom; of 59 2.001


def test_small_and_unknown_groups_take_no_part_in_the_gap() -> None:
    scores = made_up(100)
    values = ["few"] * 5 + [""] * 15 + ["many"] * 80
    found = by_group(scores, values, attribute="age")
    assert found.gap is None
    assert found.unknown == 15
    assert [group.rows for group in found.groups] == [5, 80]
    enough = by_group(scores, ["few"] * 30 + ["many"] * 70, attribute="age").gap
    assert enough is not None and {enough.best, enough.worst} == {"few", "many"}
    assert by_group(scores, ["few"] * 29 + ["many"] * 71, attribute="age").gap is None
    with pytest.raises(DataError, match="99 values"):
        by_group(scores, values[:99], attribute="age")


def test_identities_are_not_groups() -> None:
    found = attributes({"subject": ["s"] * 40, "gender": ["w", "m"] * 20, "age": [""] * 40})
    tables = group_tables(replace(made_up(40), groups=found))
    assert [table.attribute for table in tables] == ["gender"]


def test_groups_go_with_their_rows(tmp_path: Path) -> None:
    """Whatever they are called, through the file and when rows are put in another's order."""
    scores = replace(made_up(40), votes=made_up(40).probabilities, groups={"votes": np.array(["w", "m"] * 20)})
    scores.save(tmp_path / "scores.npz")
    again = Scores.load(tmp_path / "scores.npz")
    np.testing.assert_array_equal(again.groups["votes"], scores.groups["votes"])
    np.testing.assert_array_equal(again.votes, scores.votes)
    order = np.arange(40)[::-1]
    turned = replace(
        scores, labels=scores.labels[order], probabilities=scores.probabilities[order], ids=scores.ids[order],
        votes=scores.votes[order], groups={"votes": scores.groups["votes"][order]},
    )  # fmt: skip
    np.testing.assert_array_equal(aligned(scores, turned).groups["votes"], scores.groups["votes"])
    with pytest.raises(DataError, match="scores disagree: 39 rows of group_votes for 40"):
        replace(scores, groups={"votes": scores.groups["votes"][1:]})
    with pytest.raises(DataError, match="scores disagree: 39 rows of votes for 40"):
        replace(scores, votes=scores.votes[1:])


def test_what_was_sampled_together_is_no_group() -> None:
    groups = {
        name: [f"{name}{i % 5}" for i in range(100)] for name in ("subject", "film", "sequence", "picture", "gender")
    }
    assert list(attributes(groups)) == ["gender"]
