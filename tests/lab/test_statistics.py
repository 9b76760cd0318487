"""Intervals and tests: worked examples, oracles that loop, and coverage by simulation."""

import math
from dataclasses import replace
from math import comb
from statistics import NormalDist

import numpy as np
import pytest
from scores_fixtures import made_up

from mien.errors import DataError, UsageError
from mien.lab.evaluation import metrics
from mien.lab.evaluation.delong import auc_difference, auc_interval, component_variance
from mien.lab.evaluation.intervals import ONE_ROW, RANGES, intervals
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.paired import (
    aligned,
    detectable_rows,
    holm,
    mcnemar,
    paired_difference,
    seed_difference,
)
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import (
    cluster_codes,
    mean_interval,
    percentile_interval,
    replicate_counts,
    seed_summary,
    share_interval,
    shared,
    standard_error,
    student_quantile,
)

pytest.importorskip("scipy", reason="needs the extra eval")


def test_every_interval_holds_its_value_and_agrees_with_the_summary() -> None:
    scores = made_up(500)
    printed = summary(scores)
    found = intervals(scores)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "alpha", "auc", "ece", "brier", "nll"):
        assert found[name].value == pytest.approx(printed[name], abs=1e-6)
        assert found[name].low <= found[name].value <= found[name].high
    assert found["recall/happy"].value == pytest.approx(printed["per_class"][1]["recall"])
    assert found["macro_f1"] == intervals(scores)["macro_f1"]
    assert found["macro_f1"] != intervals(scores, seed=1)["macro_f1"]


def test_clusters_that_no_two_rows_share_change_nothing() -> None:
    scores = made_up(60)
    assert intervals(scores, clusters=[""] * 60) == intervals(scores)


def test_one_row_says_nothing_of_the_mean_loss() -> None:
    scores = made_up(40)
    one = replace(scores, labels=scores.labels[:1], probabilities=scores.probabilities[:1], ids=scores.ids[:1])
    found = intervals(one)
    for name in ("brier", "nll"):
        assert (found[name].low, found[name].high, found[name].how) == (*RANGES[name], ONE_ROW)


def test_counts_of_resamples_match_resampling_the_rows() -> None:
    """The multinomial has the mean and the variance of drawing rows one by one."""
    cells = np.array([0] * 30 + [1] * 10 + [2] * 60)
    drawn = replicate_counts(cells, 3, replicates=4000)
    generator = np.random.default_rng(3)
    slow = np.array([np.bincount(generator.choice(cells, 100), minlength=3) for _ in range(4000)])
    assert (drawn.sum(axis=1) == 100).all()
    assert drawn.mean(axis=0) == pytest.approx(slow.mean(axis=0), abs=0.4)
    assert drawn.std(axis=0) == pytest.approx(slow.std(axis=0), abs=0.2)


def test_strata_keep_their_size() -> None:
    cells = np.array([0, 1, 1, 2, 3, 3])  # cells 0, 1 belong to class 0 and 2, 3 to class 1
    drawn = replicate_counts(cells, 4, strata=np.array([0, 0, 0, 1, 1, 1]), replicates=50)
    assert (drawn[:, :2].sum(axis=1) == 3).all()
    assert (drawn[:, 2:].sum(axis=1) == 3).all()


def test_clusters_are_drawn_whole() -> None:
    cells = np.array([0, 0, 1, 1, 2, 2])
    drawn = replicate_counts(cells, 3, clusters=["a", "a", "b", "b", "c", "c"], replicates=200)
    assert (drawn % 2 == 0).all()
    assert (drawn.sum(axis=1) == 6).all()


def test_drawing_clusters_one_by_one_has_the_same_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    cells, clusters = generator.integers(0, 4, 900), [f"s{i // 9}" for i in range(900)]
    profiles = replicate_counts(cells, 4, clusters=clusters, replicates=1500)
    monkeypatch.setattr("mien.lab.evaluation.statistics.PROFILES", 0)
    single = replicate_counts(cells, 4, clusters=clusters, replicates=1500)
    assert profiles.mean(axis=0) == pytest.approx(single.mean(axis=0), abs=2)
    assert profiles.std(axis=0) == pytest.approx(single.std(axis=0), rel=0.1)


def test_the_interval_by_few_clusters_is_expanded() -> None:
    """Draws spread evenly over [0, 1], whose quantiles are the levels themselves: Phi(-sqrt(10 / 9) * 2.2622) for ten clusters."""
    draws, clusters = np.linspace(0, 1, 100_001), [str(i % 10) for i in range(40)]
    found = percentile_interval(0.5, draws, clusters=clusters, how="")
    assert (found.low, found.high) == pytest.approx((0.00855, 0.99145), abs=2e-5)
    plain = percentile_interval(0.5, draws, how="")
    assert (plain.low, plain.high) == pytest.approx((0.025, 0.975), abs=2e-5)


def test_copies_in_clusters_widen_the_interval() -> None:
    """Every row four times: as free rows the interval is half as wide as it should be, by cluster it is right."""
    once = made_up(300)
    rows = np.repeat(np.arange(300), 4)
    ids = np.array([f"{once.ids[i]}#{k}" for k, i in enumerate(rows)])
    copied = Scores(once.labels[rows], once.probabilities[rows], once.classes, ids, once.protocol)
    clusters = once.ids[rows]

    def width(name: str, scores: Scores, groups: np.ndarray | None = None) -> float:
        found = intervals(scores, clusters=groups)[name]
        return found.high - found.low

    for name in ("accuracy", "nll", "auc"):
        honest = width(name, once)
        assert width(name, copied) == pytest.approx(honest / 2, rel=0.15)
        assert width(name, copied, clusters) == pytest.approx(honest, rel=0.15)


def test_an_empty_cluster_name_is_a_cluster_of_its_own() -> None:
    codes = cluster_codes(np.array(["", "x", "", "x"]))
    assert codes[1] == codes[3]
    assert len(set(codes.tolist())) == 3


def test_strata_and_clusters_together_are_refused() -> None:
    with pytest.raises(UsageError, match="not both"):
        replicate_counts(np.array([0]), 1, strata=np.array([0]), clusters=["a"])


def coverage(simulations: int, seed: int = 0) -> tuple[float, float]:
    """How often the 95 % intervals of accuracy and macro F1 hold the truth of the population of the rows."""
    generator = np.random.default_rng(seed)
    rates = np.array([[0.8, 0.15, 0.05], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
    sizes = np.array([200, 150, 80])
    truth = rates * sizes[:, None]
    hits = np.zeros(2)
    for trial in range(simulations):
        counts = np.array([generator.multinomial(n, p) for n, p in zip(sizes, rates, strict=True)])
        labels, guesses = (np.repeat(side, counts.ravel()) for side in np.indices((3, 3)).reshape(2, 9))
        drawn = replicate_counts(labels * 3 + guesses, 9, strata=labels, replicates=1000, seed=trial).reshape(-1, 3, 3)
        for index, metric in enumerate((metrics.accuracy, metrics.macro_f1)):
            found = percentile_interval(float(metric(counts)), metric(drawn), how="bootstrap")
            hits[index] += found.low <= metric(truth) <= found.high
    return float(hits[0] / simulations), float(hits[1] / simulations)


def test_bootstrap_coverage_is_near_its_level() -> None:
    for found in coverage(300):
        assert 0.95 - 4 * (0.95 * 0.05 / 300) ** 0.5 <= found <= 0.95 + 4 * (0.95 * 0.05 / 300) ** 0.5


@pytest.mark.soak
def test_bootstrap_coverage_at_full_counts() -> None:
    for found in coverage(5000, seed=1):
        assert found == pytest.approx(0.95, abs=0.013)


def test_mean_interval_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    found = mean_interval(values)
    assert found.high - found.value == pytest.approx(1.959964 * values.std(ddof=1) / 20)


def test_the_interval_of_a_share_is_wilsons() -> None:
    from scipy.stats import binomtest

    for hits, n in ((0, 5), (29, 30), (30, 30), (57, 100)):
        right = np.array([1.0] * hits + [0.0] * (n - hits))
        found, expected = share_interval(right), binomtest(hits, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high))
    once = np.array([1.0] * 57 + [0.0] * 43)
    four, clusters = np.repeat(once, 4), np.repeat(np.arange(100), 4).astype(str)
    wide, alone = share_interval(four, clusters), share_interval(once)
    assert (wide.low, wide.high) == (
        pytest.approx(alone.low, abs=3e-3),
        pytest.approx(alone.high, abs=3e-3),
    )  # t_99 for z
    assert share_interval(once, [""] * 100) == alone == share_interval(once, [f"s{row}" for row in range(100)])
    assert not shared(None) and not shared(["", ""]) and not shared(["a", "b", ""]) and shared(["a", "", "a"])


def delong_by_loops(labels: np.ndarray, column: np.ndarray) -> tuple[float, float]:
    """DeLong 1988 for two classes, written as its double sums."""
    high, low = column[labels == 1], column[labels == 0]
    wins = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in low] for x in high])
    return float(wins.mean()), float(wins.mean(1).var(ddof=1) / len(high) + wins.mean(0).var(ddof=1) / len(low))


def test_auc_variance_is_delongs_for_two_classes() -> None:
    generator = np.random.default_rng(5)
    labels = np.array([0] * 40 + [1] * 25)
    column = np.round(generator.normal(size=65) + labels, 1)  # rounded: ties occur
    column = (column - column.min() + 0.1) / 10
    area, variance = delong_by_loops(labels, column)
    found = auc_interval(labels, np.stack([1 - column, column], axis=1))
    assert found.value == pytest.approx(area)
    assert found.high - found.value == pytest.approx(1.959964 * variance**0.5, rel=1e-6)


def test_auc_variance_by_cluster_is_that_of_slow_loops() -> None:
    generator = np.random.default_rng(2)
    labels, components = np.arange(60) % 3, generator.normal(size=60)
    clusters = [f"person {i // 6}" for i in range(60)]
    sums = dict.fromkeys(clusters, 0.0)
    for row, name in enumerate(clusters):
        alike = [components[i] for i in range(60) if labels[i] == labels[row]]
        sums[name] += components[row] - sum(alike) / len(alike)
    expected = 10 / 9 * sum(value**2 for value in sums.values())
    assert component_variance(components, labels, clusters) == pytest.approx(expected)


def test_auc_interval_agrees_with_a_bootstrap_of_rows() -> None:
    scores = made_up(300, skill=1.0)
    found = auc_interval(scores.labels, scores.probabilities)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(150):
        rows = np.concatenate(
            [generator.choice(np.flatnonzero(scores.labels == c), (scores.labels == c).sum()) for c in range(7)]
        )
        draws.append(auc_interval(scores.labels[rows], scores.probabilities[rows]).value)
    assert (found.high - found.low) / 3.92 == pytest.approx(np.std(draws), rel=0.25)


def test_auc_difference_of_a_model_with_itself_is_nothing() -> None:
    scores = made_up(200)
    found, p = auc_difference(scores.labels, scores.probabilities, scores.probabilities)
    assert (found.value, found.low, found.high, p) == (0.0, 0.0, 0.0, 1.0)
    near = made_up(200, seed=9, skill=1.7)
    found, p = auc_difference(scores.labels, scores.probabilities, near.probabilities)
    assert 0.02 < p < 0.5
    assert p == pytest.approx(2 * NormalDist().cdf(-abs(found.value) / ((found.high - found.low) / (2 * 1.959964))))
    better = made_up(200, seed=3, skill=4.0)
    found, p = auc_difference(scores.labels, scores.probabilities, better.probabilities)
    assert found.low > 0
    assert p < 1e-4


@pytest.mark.parametrize(("less", "more"), [(0, 0), (1, 9), (12, 5), (7, 7), (183, 139)])
def test_mcnemar_is_the_binomial_by_hand(less: int, more: int) -> None:
    first = np.array([True] * less + [False] * more + [True, False])
    second = np.array([False] * less + [True] * more + [True, False])
    found = mcnemar(first, second)
    total = less + more
    by_hand = min(1.0, 2 * sum(comb(total, k) for k in range(min(less, more) + 1)) / 2**total)
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, less, more, 1)
    assert found.p == pytest.approx(by_hand, rel=1e-9)


def test_paired_bootstrap_sees_a_real_difference_and_not_a_missing_one() -> None:
    weak, strong, twin = made_up(800), made_up(800, seed=2, skill=2.5), made_up(800, seed=4)
    found = paired_difference(weak, strong)
    assert found.value == pytest.approx(summary(strong)["accuracy"] - summary(weak)["accuracy"])
    assert found.low > 0
    missing = paired_difference(weak, twin)
    assert missing.low < 0 < missing.high


@pytest.mark.parametrize("count", [None, 10])
def test_the_paired_bootstrap_is_as_wide_as_the_rows_differences(count: int | None) -> None:
    """Normal, and of few clusters, where its draws spread too little, as Student's t has it."""
    first, second = made_up(800), made_up(800, seed=5, skill=1.65)
    clusters = None if count is None else np.array(groups_of(800, count))
    found = paired_difference(first, second, clusters=clusters)
    differences = (second.predictions == first.labels) - (first.predictions == first.labels).astype(np.float64)
    reach = NormalDist().inv_cdf(0.975) if count is None else student_quantile(0.975, count - 1)
    assert (found.high - found.low) / 2 == pytest.approx(reach * standard_error(differences, clusters), rel=0.1)


def test_rows_are_aligned_by_id_and_other_rows_refused() -> None:
    first, second = made_up(50), made_up(50, seed=2)
    order = np.random.default_rng(0).permutation(50)
    shuffled = Scores(
        second.labels[order], second.probabilities[order], second.classes, second.ids[order], second.protocol
    )
    assert np.array_equal(aligned(first, shuffled).probabilities, second.probabilities)
    with pytest.raises(DataError, match="not the same rows: 10 only in the first"):
        aligned(first, made_up(40))
    relabelled = Scores((second.labels + 1) % 7, second.probabilities, second.classes, second.ids, second.protocol)
    with pytest.raises(DataError, match="50 rows have other labels, first row00000"):
        aligned(first, relabelled)
    some = np.where(np.arange(50) < 7, second.labels, relabelled.labels)
    with pytest.raises(DataError, match="43 rows have other labels, first row00007"):
        aligned(first, replace(second, labels=some))
    wrong = Scores(
        np.where(np.arange(50) == 3, 9, second.labels), second.probabilities, first.classes, first.ids, first.protocol
    )
    for pair in ((first, wrong), (wrong, first)):
        with pytest.raises(DataError, match="labels run from 0 to 9"):
            aligned(*pair)
    twice = first.ids.copy()
    twice[7] = twice[8]
    same = Scores(first.labels, first.probabilities, first.classes, twice, first.protocol)
    assert aligned(same, same) is same
    turned = Scores(first.labels[::-1], first.probabilities[::-1], first.classes, twice[::-1], first.protocol)
    with pytest.raises(DataError, match="two of them are called row00008"):
        aligned(same, turned)
    numbers = Scores(first.labels, first.probabilities, first.classes, np.arange(50), first.protocol)
    words = Scores(first.labels, first.probabilities, first.classes, np.arange(50).astype(str), first.protocol)
    assert aligned(numbers, words) is words


def test_a_mean_of_what_is_not_negative_has_no_negative_bound() -> None:
    scores = made_up(30, skill=50.0)
    probabilities = scores.probabilities.copy()
    probabilities[0] = np.roll(probabilities[0], 1)
    found = intervals(replace(scores, probabilities=probabilities))
    assert found["brier"].low == found["nll"].low == 0.0 and found["brier"].high <= 2.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_detectable_difference_is_detected_at_its_power() -> None:
    """Simulated: with psi = 0.1 on 1000 rows, McNemar sees the stated difference about 80 % of the time."""
    discordant, rows = 0.1, 1000
    smallest = detectable_rows(rows, discordant)
    generator = np.random.default_rng(0)
    less, more = (discordant - smallest) / 2, (discordant + smallest) / 2
    seen = 0
    for b, c, _ in generator.multinomial(rows, [less, more, 1 - discordant], size=800):
        seen += mcnemar(np.array([True] * b + [False] * c), np.array([False] * b + [True] * c)).p < 0.05
    assert seen / 800 == pytest.approx(0.77, abs=0.06)  # the exact test is a little conservative


@pytest.mark.parametrize(("rows", "differing"), [(30, 0), (30, 2), (147, 3), (480, 5)])
def test_where_too_few_rows_differ_nothing_could_be_seen(rows: int, differing: int) -> None:
    """Even if all of them spoke for one model: the exact test needs six rows of six."""
    assert detectable_rows(rows, differing / rows) is None
    assert detectable_rows(rows, 20 / rows) is not None


def test_six_rows_are_the_fewest_that_can_differ() -> None:
    assert detectable_rows(5, 1.0) is None and detectable_rows(6, 1.0) is not None


def groups_of(rows: int, count: int) -> list[str]:
    return [f"s{row * count // rows}" for row in range(rows)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_clusters_raise_few_false_alarms(count: int) -> None:
    """Two models of one skill, whose subjects differ in how well either reads them; without Student's t DeLong's test calls
    one better in 11 to 30 % of the cases."""
    random = np.random.default_rng(count)
    rows, alarms, held = 60, 0, 0
    labels = np.tile([0, 1, 2], rows // 3)
    clusters = np.array(groups_of(rows, count))
    for _ in range(150):
        sides = []
        for _ in range(2):
            skill = random.normal(1.0, 0.7, count).repeat(rows // count)
            logits = random.normal(size=(rows, 3))
            logits[np.arange(rows), labels] += skill
            sides.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
        span, p = auc_difference(labels, sides[0], sides[1], clusters=clusters)
        alarms += p < 0.05
        held += span.low <= 0 <= span.high
    assert alarms <= 18 and held >= 132  # of 150; 5 % are 7.5


def test_means_of_few_clusters_hold_their_level() -> None:
    random = np.random.default_rng(0)
    clusters = np.array(groups_of(40, 4))
    hits = np.zeros(4)
    for trial in range(200):
        values = (random.normal(0.0, 1.0, 4).repeat(10) + random.normal(size=40)) / 4
        right = (random.random(40) < random.beta(6, 3, 4).repeat(10)).astype(float)
        draws = replicate_counts(right.astype(np.int64), 2, clusters=clusters, replicates=400, seed=trial)[:, 1] / 40
        for place, (span, truth) in enumerate(
            (
                (mean_interval(values, clusters=clusters), 0.0),
                (share_interval(right, clusters), 2 / 3),
                (percentile_interval(right.mean(), draws, clusters=clusters, how=""), 2 / 3),
                (percentile_interval(right.mean(), draws, how=""), 2 / 3),
            )
        ):
            hits[place] += span.low <= truth <= span.high
    assert (hits[:2] / 200 > 0.9).all(), hits
    assert hits[2] / 200 > 0.8 and hits[2] > hits[3], (
        hits
    )  # four clusters, redrawn, stay within themselves: expanded, but not enough


def test_one_cluster_says_nothing_of_others() -> None:
    scores, other = made_up(60), made_up(60, seed=3, skill=3.0)
    one = np.array(["a"] * 60)
    found = intervals(scores, clusters=one)
    of_rows = intervals(scores)
    assert set(found) == set(of_rows)
    for name, span in found.items():
        low, high = RANGES.get(name, (0.0, 1.0))
        assert (span.low, span.high) == (low, high) and low <= span.value <= high, name
        assert span.value == pytest.approx(of_rows[name].value)
    assert auc_interval(scores.labels, scores.probabilities, clusters=one).high == 1.0
    span, p = auc_difference(scores.labels, scores.probabilities, other.probabilities, clusters=one)
    assert (span.low, span.high, p) == (-1.0, 1.0, 1.0) and span.value > 0
    difference = paired_difference(scores, other, clusters=one)
    assert (difference.low, difference.high) == (-1.0, 1.0)
    assert difference.value == pytest.approx(paired_difference(scores, other).value)


def test_shares_have_wilsons_intervals_also_where_all_rows_are_right() -> None:
    scores = made_up(41)
    perfect = Scores(
        scores.labels, np.eye(7, dtype=np.float32)[scores.labels], scores.classes, scores.ids, scores.protocol
    )
    found = intervals(perfect)
    assert found["accuracy"] == share_interval(np.ones(41)) and found["accuracy"].low < 0.95
    happy = scores.labels == 1
    right = (scores.predictions == scores.labels)[happy].astype(float)
    assert intervals(scores)["recall/happy"] == share_interval(right)


def test_seeds() -> None:
    found = seed_summary([70.0, 71.0, 72.0])
    assert (found.mean, found.sd) == (71.0, 1.0)
    assert found.high == pytest.approx(71 + 4.302653 / 3**0.5, abs=1e-4)  # t_{.975, 2} = 4.302653
    assert seed_summary([70.0]).sd is None
    with pytest.raises(DataError, match="no runs"):
        seed_summary([])


def test_seed_difference_is_welchs() -> None:
    first, second = [70.0, 71.0, 72.0], [73.0, 75.0, 77.0]
    found = seed_difference(first, second)
    from scipy.stats import ttest_ind

    assert found.interval.value == 4.0
    theirs = ttest_ind(second, first, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue)
    span = theirs.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == (pytest.approx(span.low), pytest.approx(span.high))
    alike = seed_difference([0.0, 1.0, 2.0], [5.0, 6.0, 7.0])
    # standard deviation 1 and three runs a side: a noncentral t of 4 degrees of freedom is beyond t_{.975, 4} four times of five
    noncentral = alike.detectable / (2 / 3) ** 0.5
    random = np.random.default_rng(0)
    t = (noncentral + random.normal(size=200_000)) / np.sqrt(random.chisquare(4, 200_000) / 4)
    assert (t > 2.776445).mean() == pytest.approx(0.8, abs=0.005)
    with pytest.raises(UsageError, match="at least 2"):
        seed_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize("share", [145 / 147, 0.1])
@pytest.mark.parametrize("runs", [2, 3])
def test_runs_that_are_all_alike_prove_nothing(share: float, runs: int) -> None:
    """Also where the mean of equal numbers is off by a rounding."""
    found = seed_difference([share] * runs, [share + 1 / 147] * runs)
    assert (found.p, found.interval.low, found.interval.high) == (1.0, -math.inf, math.inf)
    assert found.interval.value == pytest.approx(1 / 147) and found.detectable == math.inf
    assert seed_difference([share] * runs, [share] * runs).interval.high == 0


def test_of_rows_that_are_all_right_each_cluster_counts_once() -> None:
    people = [str(row // 30) for row in range(360)]
    found, twelve = share_interval(np.ones(360), people), share_interval(np.ones(12))
    assert found.high == 1 and 0.6 < found.low < twelve.low
