"""Figures: they draw what they are given, at a column's width, the same bytes each time."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scores_fixtures import made_up

from mien.errors import DataError, UsageError
from mien.expressions import BASIC
from mien.lab.evaluation import figures
from mien.lab.evaluation.calibration import reliability, risk_coverage
from mien.lab.evaluation.metrics import confusion_counts

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

pytest.importorskip("matplotlib", reason="needs the extra eval")

SCORES = made_up(200)
COUNTS = confusion_counts(SCORES.labels, SCORES.predictions, 7)
CURVES = {"softmax": {"train_loss": [(0.0, 2.0), (1.0, 1.0)]}, "island": {"train_loss": [(0.0, 2.1), (1.0, 0.9)]}}


TABLE, CURVE = reliability(SCORES.labels, SCORES.probabilities), risk_coverage(SCORES.labels, SCORES.probabilities)
DRAWINGS: dict[str, Callable[[], Any]] = {
    "confusion": lambda: figures.confusion(COUNTS, BASIC),
    "histogram": lambda: figures.class_histogram(COUNTS.sum(axis=1), BASIC),
    "curves": lambda: figures.learning_curves(CURVES, ["train_loss"]),
    "reliability": lambda: figures.reliability_diagram({"model": TABLE}),
    "risk": lambda: figures.risk_coverage_curve({"model": CURVE}),
    "sweep": lambda: figures.sweep([0.01, 0.5], {"printed": [49.33, 63.36]}, xlabel="λ", ylabel="accuracy, %"),
    "scatter": lambda: figures.scatter(SCORES.probabilities[:, :2], SCORES.labels, BASIC),
    "grid": lambda: figures.grid([figures.Panel(np.zeros((8, 8, 3), np.uint8), "sad as fear")] * 6),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_fits_a_column_and_is_the_same_twice(name: str) -> None:
    figure = DRAWINGS[name]()
    picture = Image.open(io.BytesIO(figures.to_bytes(figure, "png", dpi=100)))
    assert picture.width == 350
    pixels = np.asarray(picture.convert("L"))
    assert pixels.std() > 5  # something is drawn
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).mean() > 0.98  # nothing is cut off
    assert figures.to_bytes(figure, "svg") == figures.to_bytes(DRAWINGS[name](), "svg")


def texts(figure: Any) -> str:
    return figures.to_bytes(figure, "svg").decode()


def test_the_confusion_matrix_shows_row_percentages_and_leaves_absent_classes_empty() -> None:
    counts = np.array([[3, 1], [0, 0]])
    figure = figures.confusion(counts, ("happy", "sad"))
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ["75", "25", "", ""]
    assert ">happy (4)<" in texts(figure)


def test_lines_are_told_apart_without_colour() -> None:
    figure = figures.learning_curves(CURVES, ["train_loss"])
    first, second = figure.axes[0].lines
    assert first.get_marker() != second.get_marker()
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_ydata().tolist() == [2.0, 1.0]


def test_text_is_legible_at_column_width() -> None:
    for name, draw in DRAWINGS.items():
        for axes in draw().axes:
            sizes = [label.get_fontsize() for label in (axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels())]
            assert min(sizes) >= 7, name


def test_nothing_global_is_left_behind() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    DRAWINGS["confusion"]()
    assert dict(mpl.rcParams) == before


def test_metrics_csv_is_read_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,train_loss,valid_accuracy\n0,2.0,\n1,1.5,0.4\n", encoding="utf-8")
    curves = figures.read_curves(path)
    assert curves == {"train_loss": [(0.0, 2.0), (1.0, 1.5)], "valid_accuracy": [(1.0, 0.4)]}
    path.write_text("step,loss\n0,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="epoch"):
        figures.read_curves(path)
    for row in ("0,abc", "abc,1.0", ",1.0"):
        path.write_text(f"epoch,train_loss\n{row}\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"metrics\.csv: (epoch|train_loss) '(abc)?': expected a number"):
            figures.read_curves(path)
    path.write_bytes(b"epoch,train_loss\n0,\xff\n")
    with pytest.raises(DataError, match="cannot be read"):
        figures.read_curves(path)
    with pytest.raises(DataError, match="no run has a column speed"):
        figures.learning_curves(CURVES, ["speed"])


def test_unmeasured_values_leave_a_gap_in_a_sweep() -> None:
    figure = figures.sweep([0.1, 0.5, 1], {"measured": [50.0, None, 52.0]}, xlabel="λ", ylabel="accuracy, %")
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0, 2]


def test_a_figure_is_png_or_svg() -> None:
    figure = figures.confusion(COUNTS, BASIC)
    assert figures.to_bytes(figure, "png").startswith(b"\x89PNG") and b"<svg" in figures.to_bytes(figure, "svg")
    with pytest.raises(UsageError, match="png or svg"):
        figures.to_bytes(figure, "bmp")


def test_t_sne_keeps_clusters_together() -> None:
    pytest.importorskip("sklearn", reason="needs the extra eval")
    labels = np.arange(90) % 3
    features = np.eye(3)[labels] * 20 + np.random.default_rng(0).normal(size=(90, 3))
    positions, rows = figures.embedding(features, rows=60)
    assert positions.shape == (60, 2)
    centres = np.array([positions[labels[rows] == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(positions[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == labels[rows]).mean() > 0.95
    with pytest.raises(DataError, match="too few"):
        figures.embedding(features[:5])


def test_the_surest_mistakes_come_first() -> None:
    rows = figures.most_confident_mistakes(SCORES.labels, SCORES.probabilities, count=5)
    assert (SCORES.predictions[rows] != SCORES.labels[rows]).all()
    sureness = SCORES.probabilities.max(axis=1)[rows]
    assert (np.diff(sureness) <= 0).all()
    assert sureness[0] == SCORES.probabilities.max(axis=1)[SCORES.predictions != SCORES.labels].max()
    with pytest.raises(DataError, match="no pictures"):
        figures.grid([])
