"""Temperature, reliability bins and what abstaining buys."""

from dataclasses import replace

import numpy as np
import pytest
from scores_fixtures import made_up

from mien.errors import DataError, UsageError
from mien.lab.evaluation.calibration import (
    apply_temperature,
    bin_of,
    calibration_error,
    classwise_errors,
    classwise_if_calibrated,
    coverage_at_risk,
    error_if_calibrated,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    risk_coverage,
)


def honest(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities themselves, so that those are calibrated."""
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(5, 0.5), size=rows)
    labels = (generator.random((rows, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return np.minimum(labels, 4), probabilities


def test_a_temperature_that_was_applied_is_found_and_undone() -> None:
    labels, probabilities = honest(20_000)
    for temperature in (0.5, 2.0):
        bent = apply_temperature(probabilities, temperature)
        found = fit_temperature(labels, bent)
        assert found == pytest.approx(1 / temperature, rel=0.05)
        assert calibration_error(reliability(labels, apply_temperature(bent, found))) < 0.01
        assert calibration_error(reliability(labels, bent)) > 0.05


@pytest.mark.parametrize("rows", [300, 3589])
def test_what_a_calibrated_model_shows_is_what_samples_of_it_show(rows: int) -> None:
    _, probabilities = honest(rows)
    generator = np.random.default_rng(1)
    steps = probabilities.cumsum(axis=1)[:, :-1]
    drawn = [(generator.random((rows, 1)) > steps).sum(axis=1) for _ in range(300)]
    shown = np.mean([calibration_error(reliability(labels, probabilities)) for labels in drawn])
    assert error_if_calibrated(probabilities) == pytest.approx(shown, rel=0.04)
    assert error_if_calibrated(np.eye(5)) == 0
    columns = np.mean([classwise_errors(labels, probabilities) for labels in drawn], axis=0)
    assert classwise_if_calibrated(probabilities) == pytest.approx(columns, rel=0.08)
    assert classwise_if_calibrated(np.eye(5)) == pytest.approx(np.zeros(5))


def test_each_column_s_error_is_that_of_a_plain_loop() -> None:
    """Of a model that is too sure, with probabilities on the bins' edges, and a class without rows."""
    labels, probabilities = honest(400)
    answered = apply_temperature(probabilities, 0.5).astype(np.float32)
    answered[:4] = np.eye(5)[:4]
    answered[4] = np.full(5, 0.2)  # the edge of bins 2 and 3
    labels[labels == 3] = 0
    wanted = []
    for column in range(5):
        held: dict[int, list[tuple[bool, float]]] = {}
        for label, row in zip(labels, answered, strict=True):
            p = float(row[column])
            place = next(m for m in range(15) if p * 15 <= m + 1)
            held.setdefault(place, []).append((label == column, p))
        gaps = [
            len(rows) * abs(np.mean([y for y, _ in rows]) - np.mean([p for _, p in rows])) for rows in held.values()
        ]
        wanted.append(sum(gaps) / 400)
    found = classwise_errors(labels, answered)
    assert found == pytest.approx(wanted)
    assert found[3] == pytest.approx(answered[:, 3].mean(dtype=np.float64))  # never the answer: all of it is too much
    assert found.mean() > 2 * classwise_if_calibrated(answered).mean()


def test_the_fit_is_the_best_on_a_fine_grid() -> None:
    scores = made_up(400)
    best = fit_temperature(scores.labels, scores.probabilities)
    costs = [
        negative_log_likelihood(scores.labels, apply_temperature(scores.probabilities, t))
        for t in np.geomspace(0.2, 5, 200)
    ]
    assert negative_log_likelihood(scores.labels, apply_temperature(scores.probabilities, best)) <= min(costs) + 1e-7


def test_temperature_one_changes_nothing_and_no_prediction_ever_changes() -> None:
    scores = made_up(100)
    assert apply_temperature(scores.probabilities, 1.0) == pytest.approx(scores.probabilities, abs=1e-6)
    assert np.array_equal(apply_temperature(scores.probabilities, 3.0).argmax(axis=1), scores.predictions)


def test_impossible_temperatures_are_refused() -> None:
    scores = made_up(100)
    with pytest.raises(UsageError, match="above 0"):
        apply_temperature(scores.probabilities, 0.0)
    with pytest.raises(DataError, match="edge"):
        fit_temperature(scores.predictions, scores.probabilities)


def test_a_class_that_the_model_does_not_know_has_no_say() -> None:
    """A calibrated reader of seven of eight classes needs no temperature, however small a zero counts."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 7)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > random.random((4000, 1))).argmax(axis=1)
    labels[:20] = 7
    eight = np.hstack([probabilities, np.zeros((4000, 1))])
    assert fit_temperature(labels, eight) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(labels, eight) == pytest.approx(fit_temperature(labels[20:], probabilities[20:]))
    assert fit_temperature(labels, np.stack([eight, eight])) == pytest.approx(fit_temperature(labels, eight))


def test_bins_are_open_below_and_closed_above() -> None:
    assert bin_of(np.array([0.0, 0.2, 0.2001, 1.0])).tolist() == [0, 2, 3, 14]


def test_reliability_counts_every_row_once() -> None:
    scores = made_up(300)
    table = reliability(scores.labels, scores.probabilities)
    assert table.counts.sum() == 300
    mean = np.nansum(table.accuracy * table.counts) / 300
    assert mean == pytest.approx((scores.predictions == scores.labels).mean())
    assert np.isnan(table.accuracy[table.counts == 0]).all()


def test_risk_coverage_by_hand_with_ties() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])
    curve = risk_coverage(np.array([0, 0, 1, 1]), probabilities)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.6]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 2 / 3 + 1 / 2) / 4)
    assert coverage_at_risk(curve, 0.4) == 0.75
    assert coverage_at_risk(curve, 0.5) == 1.0  # at most
    assert coverage_at_risk(replace(curve, risk=np.ones(3)), 0.5) == 0.0
    assert risk_coverage(np.array([1, 0]), probabilities[:2]).area == pytest.approx((1 + 1 / 2) / 2)


def test_the_last_point_answers_everything() -> None:
    scores = made_up(250)
    curve = risk_coverage(scores.labels, scores.probabilities)
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == pytest.approx((scores.predictions != scores.labels).mean())
