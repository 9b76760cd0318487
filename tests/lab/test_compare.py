"""The side-by-side table and its paired tests."""

import csv
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scores_fixtures import made_up

from mien.errors import DataError, UsageError
from mien.expressions import EXPRESSIONS
from mien.lab.evaluation.compare import CLUSTERED, compare, model_table, pair_table, to_csv, to_markdown, to_text
from mien.lab.evaluation.delong import auc_difference, auc_interval
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.paired import clustered_p, detectable_clusters, detectable_rows, mcnemar
from mien.lab.evaluation.scores import Scores

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

pytest.importorskip("sklearn", reason="needs the extra eval")


def test_a_better_model_is_told_from_an_equal_one() -> None:
    scores = {"weak": made_up(900), "strong": made_up(900, seed=1, skill=2.5), "twin": made_up(900, seed=2)}
    found = compare(scores, facts={"strong": {"parameters": 2_500_000, "ms_per_face": 1.5}})
    verdicts = {(test.first, test.second): test.verdict for test in found.tests}
    assert verdicts == {
        ("weak", "strong"): "strong is better",
        ("weak", "twin"): "no difference beyond noise",
        ("strong", "twin"): "strong is better",
    }
    assert all(test.adjusted >= test.mcnemar.p for test in found.tests)
    for test in found.tests:
        disagree = test.mcnemar.only_first + test.mcnemar.only_second
        assert test.detectable == detectable_rows(900, disagree / 900)
        assert (abs(test.difference.value) > test.detectable) == (test.verdict != "no difference beyond noise")
    head, rows = model_table(found)
    assert head[-2:] == ("parameters, M", "ms a face")
    assert [row[-2] for row in rows] == ["", "2.5", ""]
    wanted = [f"{100 * summary(held)['classwise_ece']:.2f}" for held in scores.values()]
    assert [row[head.index("classwise ECE, %")] for row in rows] == wanted


def test_rows_are_drawn_by_the_clusters_that_the_scores_hold() -> None:
    """Every row four times: without clusters the intervals are half as wide as they should be."""

    def four_times(scores: Scores, clusters: np.ndarray | None) -> Scores:
        rows = np.repeat(np.arange(300), 4)
        ids = np.array([f"{scores.ids[i]}#{k}" for k, i in enumerate(rows)])
        return replace(
            scores,
            labels=scores.labels[rows],
            probabilities=scores.probabilities[rows],
            ids=ids,
            clusters=None if clusters is None else clusters[rows],
        )

    once = made_up(300), made_up(300, seed=1, skill=2.0)
    for clusters, factor in ((None, 0.5), (once[0].ids, 1.0)):
        honest = compare(dict(zip("ab", once, strict=True)))
        found = compare({"a": four_times(once[0], None), "b": four_times(once[1], clusters)})
        for wide, narrow in (
            (honest.models[0].spans["accuracy"], found.models[0].spans["accuracy"]),
            (honest.tests[0].difference, found.tests[0].difference),
            (honest.tests[0].auc[0], found.tests[0].auc[0]),
        ):
            assert narrow.high - narrow.low == pytest.approx(factor * (wide.high - wide.low), rel=0.15)


def test_a_verdict_over_clusters_is_the_bootstraps() -> None:
    """b is right wherever a is wrong on ten subjects of sixteen, and the other way round on six: many rows, few subjects."""
    subjects = np.repeat(np.arange(16), 60)
    a = replace(made_up(960), clusters=subjects.astype(str))
    right, wrong = np.eye(len(a.classes))[a.labels], np.eye(len(a.classes))[(a.labels + 1) % len(a.classes)]
    better = (subjects < 10)[:, None]
    soft = [0.5 * np.where(side, right, wrong) + 0.5 / len(a.classes) for side in (~better, better)]
    one, other = (replace(a, probabilities=rows.astype(np.float32)) for rows in soft)
    found = compare({"a": one, "b": other})
    (test,) = found.tests
    assert test.mcnemar.p < 1e-6 and test.difference.low < 0 < test.difference.high
    assert test.adjusted > 0.05 and test.verdict == "no difference beyond noise"
    assert test.detectable > abs(test.difference.value)
    assert any("by cluster" in note for note in found.notes)
    rows_alone = {name: replace(held, clusters=None) for name, held in (("a", one), ("b", other))}
    assert compare(rows_alone).tests[0].verdict == "b is better"


def test_many_models_are_told_apart() -> None:
    """Names of which none occurs twice are no clusters; and p by cluster is as small as the difference asks for."""
    scores = {f"m{i}": made_up(400, seed=i, skill=0.3 * i) for i in range(12)}
    for clusters in (np.full(400, ""), np.array([f"pair{i // 2}" for i in range(400)])):
        found = compare({name: replace(held, clusters=clusters) for name, held in scores.items()})
        (far,) = (test for test in found.tests if (test.first, test.second) == ("m0", "m11"))
        assert far.adjusted < 1e-6 and far.verdict == "m11 is better"
        assert (CLUSTERED in found.notes) == (clusters[0] != "")


def test_p_by_cluster_holds_its_level_where_rows_share_clusters() -> None:
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 10).astype(str)
    found, naive = [], []
    for _ in range(300):
        first, second = (np.repeat(random.random(60), 10) > random.random(600) for _ in range(2))
        found.append(clustered_p(first, second, clusters))
        naive.append(mcnemar(first, second).p)
    assert np.mean(np.array(found) < 0.05) < 0.085
    assert np.mean(np.array(naive) < 0.05) > 0.15
    assert clustered_p(first, first, clusters) == 1.0
    assert clustered_p(first, second, np.full(600, "all")) == 1.0


def test_p_by_cluster_is_the_share_of_all_signs_that_go_as_far() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        clusters = random.choice(list("abcdefghi"), 40)
        first, second = random.random(40) > 0.5, random.random(40) > 0.4
        nets = np.array([(second.astype(int) - first)[clusters == name].sum() for name in np.unique(clusters)])
        sums = np.array([np.dot(signs, nets) for signs in itertools.product((-1, 1), repeat=len(nets))])
        assert clustered_p(first, second, clusters) == pytest.approx(np.mean(np.abs(sums) >= abs(nets.sum())))
        alone = np.full(40, "")
        assert clustered_p(first, second, alone) == pytest.approx(mcnemar(first, second).p)
    assert clustered_p(np.zeros(4, bool), np.ones(4, bool), list("aabb")) == 0.5


def test_a_pair_of_copies_is_no_evidence() -> None:
    """Four rows on which two models differ say as much with two copies elsewhere as without."""
    right = np.arange(600) >= 60
    better = right.copy()
    better[:4] = True
    copies = np.full(600, "", dtype="U4")
    copies[500:502] = "twin"
    assert clustered_p(right, better, copies) == pytest.approx(mcnemar(right, better).p) == 0.125
    assert detectable_clusters(right, better, copies) is None and detectable_rows(600, 4 / 600) is None


def test_what_could_be_seen_by_cluster_is_seen_four_times_in_five() -> None:
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 30).astype(str)

    def pair(shift: float) -> tuple[np.ndarray, np.ndarray]:
        base, moved = (np.repeat(random.normal(0, deviation, 20), 30) for deviation in (0.6, 0.3))
        first, second = random.normal(0, 1, (2, 600))
        return base + first > 0, base + moved + shift + second > 0

    told = [detectable_clusters(*pair(0.0), clusters) for _ in range(100)]
    assert None not in told
    size = np.mean([value for value in told if value is not None])
    shifts = np.linspace(0, 0.6, 13)
    means = [np.mean([np.subtract(*map(np.mean, pair(shift)[::-1])) for _ in range(200)]) for shift in shifts]
    needed = float(np.interp(size, means, shifts))
    assert 0.7 < np.mean([clustered_p(*pair(needed), clusters) < 0.05 for _ in range(200)]) < 0.9
    assert detectable_clusters(*pair(0.3), np.repeat(np.arange(9), 67)[:600].astype(str)) is None


def test_areas_of_which_nothing_is_known() -> None:
    labels = np.repeat([0, 1], 5)
    worst = np.eye(2)[1 - labels]
    span, p = auc_difference(labels, worst, worst[:, ::-1])
    assert (span.value, span.low, span.high, p) == (1.0, -1.0, 1.0, 1.0)
    labels = np.array([1, *[0] * 40])
    random = np.random.default_rng(0).random((2, 41, 2))
    span, p = auc_difference(labels, *random)
    assert (span.low, span.high, p) == (-1.0, 1.0, 1.0)
    span = auc_interval(labels, random[0])
    assert (span.low, span.high) == (0.0, 1.0) and 0 < span.value < 1
    labels[1] = 1  # of two rows something is known
    span, p = auc_difference(labels, *random)
    assert -1.0 < span.low < span.value < span.high < 1.0 and 0 < p < 1
    assert auc_interval(labels, random[0]).how == "DeLong"


def test_areas_are_compared_in_pairs() -> None:
    weak, strong = made_up(600), made_up(600, seed=1, skill=2.5)
    (test,) = compare({"weak": weak, "strong": strong}).tests
    assert test.auc == auc_difference(weak.labels, weak.probabilities, strong.probabilities)
    assert test.auc[0].low > 0 and test.auc[1] < 1e-6
    alone = replace(weak, labels=np.zeros(600, np.int64))
    with pytest.raises(DataError, match=r"a: auc is undefined"):
        compare({"a": alone, "b": replace(strong, labels=np.zeros(600, np.int64))})


def test_what_could_be_seen_stands_before_the_verdict() -> None:
    found = compare({"a": made_up(300), "b": made_up(300, seed=1)})
    head, _ = pair_table(found)
    assert head.index("could be seen alone, points") < head.index("difference, points") < head.index("verdict")
    text = to_text(found)
    assert text.index("could be seen") < text.index("no difference beyond noise")
    assert to_markdown(found).count("| b - a |") == 1


def test_the_csv_reads_back_at_full_precision() -> None:
    found = compare({"a": made_up(300), "b": made_up(300, seed=1)}, facts={"a": {"macs": 123456.0}})
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    values = {(row["model"], row["quantity"]): float(row["value"]) for row in rows}
    assert values["a", "accuracy"] == found.models[0].spans["accuracy"].value
    assert values["a", "macs"] == 123456.0
    assert values["b", "accuracy difference"] == found.tests[0].difference.value
    assert values["b", "AUC difference"] == found.tests[0].auc[0].value


def test_rows_are_matched_by_id_and_differing_protocols_are_noted() -> None:
    first, second = made_up(200), made_up(200, seed=1, views="tencrop")
    order = np.random.default_rng(0).permutation(200)
    shuffled = replace(
        second, labels=second.labels[order], probabilities=second.probabilities[order], ids=second.ids[order]
    )
    found = compare({"a": first, "b": shuffled})
    assert found.tests == compare({"a": first, "b": second}).tests
    assert any("views differs" in note for note in found.notes)
    other = replace(second, protocol={**second.protocol, "data_fingerprint": "another"})
    found = compare({"a": first, "b": other})
    assert "data_fingerprint" not in found.protocol and "dataset" in found.protocol
    assert "tencrop" in to_text(found)


def test_other_rows_and_a_single_model_are_refused() -> None:
    with pytest.raises(DataError, match="a and b: not the same rows"):
        compare({"a": made_up(100), "b": made_up(90)})
    with pytest.raises(DataError, match=r"a and b: other classes: .*contempt"):
        compare({"a": made_up(100, classes=EXPRESSIONS), "b": made_up(100)})
    with pytest.raises(UsageError, match="at least two"):
        compare({"a": made_up(100)})
