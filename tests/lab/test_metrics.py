"""Metrics against worked examples, identities and scikit-learn."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scores_fixtures import made_up

from mien.errors import DataError
from mien.lab.evaluation import metrics
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.text import text_table

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra eval")

# Truth in rows: 4 of a, 3 of b, 3 of c.
COUNTS = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 2]])


def test_count_metrics_by_hand() -> None:
    assert metrics.accuracy(COUNTS) == pytest.approx(7 / 10)
    assert metrics.recalls(COUNTS) == pytest.approx([3 / 4, 2 / 3, 2 / 3])
    assert metrics.precisions(COUNTS) == pytest.approx([3 / 4, 2 / 3, 2 / 3])
    assert metrics.balanced_accuracy(COUNTS) == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    expected = (4 * 4 + 3 * 3 + 3 * 3) / 100
    assert metrics.cohen_kappa(COUNTS) == pytest.approx((0.7 - expected) / (1 - expected))
    # alpha: 20 pooled values, 8 a, 6 b, 6 c: D_e = (400 - 64 - 36 - 36) / (20 * 19)
    assert metrics.krippendorff_alpha(COUNTS) == pytest.approx(1 - 0.3 / (264 / 380))
    assert metrics.row_percentages(COUNTS)[0] == pytest.approx([75, 25, 0])


def test_precision_is_by_column_and_recall_by_row() -> None:
    counts = np.array([[8, 2, 0], [1, 3, 0], [1, 0, 5]])
    assert metrics.recalls(counts) == pytest.approx([8 / 10, 3 / 4, 5 / 6])
    assert metrics.precisions(counts) == pytest.approx([8 / 10, 3 / 5, 5 / 5])
    assert metrics.f1_scores(counts) == pytest.approx([16 / 20, 6 / 9, 10 / 11])


def test_a_confusion_is_of_the_truth_for_the_guess() -> None:
    found = {"classes": ["fear", "surprise"], "per_class": [], "confusion_percent": [[75.0, 25.0], [10.0, 90.0]]}
    assert metrics.value_of(found, "confusion/fear/surprise") == 0.25
    assert metrics.value_of(found, "confusion/surprise/fear") == 0.1


def test_alpha_of_krippendorffs_own_two_coder_example() -> None:
    """Krippendorff 2011, section A: ten units, two coders, binary, alpha = 0.095."""
    first, second = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0]), np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    assert metrics.krippendorff_alpha(metrics.confusion_counts(first, second, 2)) == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "kappa"])
def test_count_metrics_agree_with_scikit_learn(name: str) -> None:
    scores = made_up(700)
    truth, guess = scores.labels, scores.predictions
    oracles = {
        "accuracy": sklearn_metrics.accuracy_score(truth, guess),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, guess),
        "macro_f1": sklearn_metrics.f1_score(truth, guess, average="macro"),
        "kappa": sklearn_metrics.cohen_kappa_score(truth, guess),
    }
    assert summary(scores)[name] == pytest.approx(oracles[name], abs=1e-12)


def test_areas_agree_with_scikit_learn() -> None:
    scores = made_up(500)
    probabilities = scores.probabilities.astype(np.float64)
    oracle = sklearn_metrics.roc_auc_score(
        scores.labels, probabilities / probabilities.sum(1, keepdims=True), average="macro", multi_class="ovr"
    )
    found = summary(scores)
    assert found["auc"] == pytest.approx(oracle, abs=1e-6)
    one_hot = np.eye(len(scores.classes))[scores.labels]
    curves = [
        sklearn_metrics.precision_recall_curve(*columns)
        for columns in zip(one_hot.T, scores.probabilities.T, strict=True)
    ]
    assert found["auc_pr"] == pytest.approx(
        sklearn_metrics.average_precision_score(one_hot, scores.probabilities, average="macro"), abs=1e-12
    )
    trapezoid = np.mean([sklearn_metrics.auc(recall, precision) for precision, recall, _ in curves])
    assert found["auc_pr_trapezoid"] == pytest.approx(trapezoid, abs=1e-12)
    assert found["auc_pr_trapezoid"] != found["auc_pr"]


@pytest.mark.parametrize("accuracy", [0.2, 0.507, 0.9])
def test_kappa_of_a_balanced_set_is_fixed_by_its_accuracy(accuracy: float) -> None:
    """Eight classes, equally many rows: kappa = (acc - 1/8) / (7/8), the identity behind WCL's Table 5."""
    rows, hits = 1000, round(1000 * accuracy)
    counts = np.zeros((8, 8), np.int64)
    for truth in range(8):
        counts[truth, truth] = hits
        counts[truth, (truth + 1 + truth % 3) % 8] += rows - hits
    exact = hits / rows
    assert metrics.cohen_kappa(counts) == pytest.approx((exact - 0.125) / 0.875, abs=1e-12)
    assert metrics.krippendorff_alpha(counts) <= metrics.cohen_kappa(counts) + 1e-4


def test_wcl_table_5_obeys_the_identity() -> None:
    printed = {50.65: 43.60, 56.37: 50.14, 60.70: 55.09, 59.45: 53.66}  # accuracy: kappa, WCL Table 5, models 1 3 10 20
    for accuracy, kappa in printed.items():
        assert kappa == pytest.approx((accuracy - 12.5) / 0.875, abs=0.011)


def test_absent_classes_are_left_out_of_means_and_named() -> None:
    scores = made_up(300)
    kept = scores.labels != 5
    without = Scores(scores.labels[kept], scores.probabilities[kept], scores.classes, scores.ids[kept], scores.protocol)
    found = summary(without)
    assert found["absent_classes"] == ["disgust"]
    assert found["per_class"][5]["recall"] is None
    assert found["per_class"][5]["auc"] is None
    assert found["confusion_percent"][5] == [None] * 7
    present = [row["recall"] for row in found["per_class"] if row["recall"] is not None]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(present))
    assert "no rows of: disgust" in text_table(found)
    json.dumps(found, allow_nan=False)


def test_a_set_with_one_class_has_no_auc_but_still_a_summary() -> None:
    scores = made_up(60)
    one = replace(scores, labels=np.zeros(60, np.int64))
    found = summary(one)
    assert found["auc"] is None
    assert found["balanced_accuracy"] == found["accuracy"]


def test_probability_metrics_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], np.float32)
    labels = np.array([0, 1, 1])
    scores = Scores(labels, probabilities, ("happy", "sad"), np.array(["a", "b", "c"]), made_up(1).protocol)
    found = summary(scores)
    assert found["nll"] == pytest.approx(-(np.log(0.8) + np.log(0.4) + np.log(0.7)) / 3, abs=1e-6)
    assert found["brier"] == pytest.approx((0.04 + 0.04 + 0.36 + 0.36 + 0.09 + 0.09) / 3, abs=1e-6)
    assert found["ece"] == pytest.approx((0.2 + 0.6 + 0.3) / 3, abs=1e-6)  # three bins with one row each
    for row in found["per_class"]:  # three bins with one row each
        assert row["ece"] == pytest.approx((0.2 + 0.6 + 0.3) / 3, abs=1e-6)
        assert row["ece_if_calibrated"] == pytest.approx(np.sqrt(2 / np.pi * np.array([0.16, 0.24, 0.21])).sum() / 3)
    assert found["classwise_ece"] == pytest.approx((0.2 + 0.6 + 0.3) / 3, abs=1e-6)
    assert found["classwise_ece_if_calibrated"] == pytest.approx(found["per_class"][0]["ece_if_calibrated"])
    assert found["coverage_at_risk"]["0.1"] == pytest.approx(2 / 3)


def test_binary_mean_of_two_classes_is_the_multi_class_value() -> None:
    counts = np.array([[30, 10], [5, 55]])
    assert metrics.binary_mean(counts, metrics.cohen_kappa) == pytest.approx(float(metrics.cohen_kappa(counts)))


def test_binary_mean_leaves_out_a_class_without_rows_that_is_guessed_all_the_same() -> None:
    guessed = np.array([[30, 8, 2], [5, 50, 5], [0, 0, 0]])
    each = [metrics.cohen_kappa(metrics.one_vs_rest(guessed)[index]) for index in range(3)]
    assert np.isfinite(each).all()
    assert metrics.binary_mean(guessed, metrics.cohen_kappa) == pytest.approx(np.mean(each[:2]))


def test_votes_give_divergence_and_a_human_ceiling() -> None:
    scores = made_up(2, classes=("happy", "sad"))
    votes = np.array([[1.0, 0.0], [0.4, 0.6]], np.float32)
    scores = replace(
        scores,
        labels=np.array([0, 1]),
        probabilities=np.array([[0.5, 0.5], [0.4, 0.6]], np.float32),
        votes=votes,
    )
    found = summary(scores)["votes"]
    assert found["kl"] == pytest.approx(np.log(2) / 2, abs=1e-6)
    assert [(row["from"], row["n"]) for row in found["agreement"]] == [(0.6, 1), (1.0, 1)]
    assert found["agreement"][0]["human"] == pytest.approx(0.6)
    assert found["agreement"][0]["model"] == pytest.approx(0.6)


def test_a_share_at_the_edge_of_a_bin_is_in_the_upper_one() -> None:
    """Also 0.7, which float32 keeps a little below."""
    scores = replace(made_up(1, classes=("happy", "sad")), votes=np.array([[0.7, 0.3]], np.float32))
    (row,) = summary(scores)["votes"]["agreement"]
    assert float(scores.votes[0, 0]) < 0.7 == row["from"]


def test_votes_without_a_majority_are_a_bin_of_their_own() -> None:
    scores = made_up(1, classes=("happy", "sad", "fear"))
    (row,) = summary(replace(scores, votes=np.array([[0.4, 0.3, 0.3]], np.float32)))["votes"]["agreement"]
    assert (row["from"], row["to"], row["n"]) == (0.0, 0.5, 1)


def test_rows_without_votes_are_left_out() -> None:
    scores = replace(made_up(5), votes=np.zeros((5, 7), np.float32))
    assert summary(scores)["votes"] == {"kl": None, "rows": 0, "agreement": []}


def test_impossible_scores_are_refused() -> None:
    scores = made_up(10)
    with pytest.raises(DataError, match="labels run from 0 to 7"):
        summary(replace(scores, labels=np.array([0, 7] * 5)))
    with pytest.raises(DataError, match="no rows"):
        summary(Scores(scores.labels[:0], scores.probabilities[:0], scores.classes, scores.ids[:0], scores.protocol))
    with pytest.raises(DataError, match="row00003"):
        broken = scores.probabilities.copy()
        broken[3] *= 0.3  # farther from 1 than the next
        broken[5] *= 1.5
        summary(replace(scores, probabilities=broken))


def test_the_text_holds_every_class_and_the_counts() -> None:
    found = summary(made_up(400))
    text = text_table(found, intervals={"accuracy": (0.5, 0.6)})
    assert "[50.00, 60.00]" in text
    means, one = [f"{100 * found[name]:.2f}" for name in ("ece", "classwise_ece")], found["per_class"][3]
    assert all(any(line.endswith(mean) for line in text.splitlines() if "ECE" in line) for mean in means)
    assert any(
        line.endswith(f"{100 * one['ece']:.2f}{100 * one['ece_if_calibrated']:>15.2f}") for line in text.splitlines()
    )
    for name, row in zip(found["classes"], found["confusion"], strict=True):
        assert any(line.split() == [name, *map(str, row)] for line in text.splitlines())


def test_judging_imports_without_torch_and_without_the_optional_extras() -> None:
    """In a process where none of them can be imported."""
    blocked = ("torch", "sklearn", "scipy", "matplotlib", "captum", "pandas")
    code = (
        "import sys, importlib, pkgutil\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import mien.lab.evaluation as judging\n"
        "for found in pkgutil.iter_modules(judging.__path__): importlib.import_module(f'{judging.__name__}.{found.name}')\n"
        "import mien.lab.reproduce, mien.lab.paper_figures\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_million_rows_take_well_under_a_minute() -> None:
    from time import process_time

    from mien.lab.evaluation.intervals import intervals

    scores = made_up(1_000_000)
    start = process_time()
    summary(scores)
    intervals(scores)
    assert process_time() - start < 45
