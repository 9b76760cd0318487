"""Figures at the width of a paper's column, as PNG or SVG. matplotlib's objects only, no global state. No torch.

Colours are Okabe and Ito's (2008) for lines and cividis (Nuñez, Anderton and Renslow 2018) for maps: both can be told
apart with every common colour vision deficiency. Lines differ in dash and marker as well, so that a grey print reads
too.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.evaluation.calibration import Reliability, RiskCoverage
from mien.lab.evaluation.eval_needed import needs_eval
from mien.lab.evaluation.metrics import row_percentages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 3.5  # inches: one column of a two-column paper
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
MARKERS = "osD^vP*X"
STYLE: Any = {  # rcParams; matplotlib types their keys as one long literal
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.6, "lines.linewidth": 1.2, "svg.fonttype": "none", "svg.hashsalt": "mien",
}  # fmt: skip
FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Panel:
    """One picture of a grid. image: RGB or grey uint8 (H, W, 3) or (H, W). caption: the line above it."""

    image: np.ndarray
    caption: str


def _figure(height: float, draw: Callable[["Figure"], None]) -> "Figure":
    """A figure of WIDTH x `height` inches, drawn in our style."""
    with needs_eval("figures"):
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.draw_without_rendering()  # the layout is settled while our style holds
        figure.set_layout_engine("none")  # so that PNG and SVG, at any resolution, share it
    return figure


def to_bytes(figure: "Figure", form: str = "png", *, dpi: int = 300) -> bytes:
    """The figure as PNG or SVG, the same bytes each time. Raises UsageError for another format."""
    if form not in FORMATS:
        raise UsageError(f"figure format {form!r}: expected {' or '.join(FORMATS)}")
    import matplotlib as mpl

    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=form, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def confusion(counts: np.ndarray, classes: Sequence[str]) -> "Figure":
    """Confusion matrix (C, C) as row percentages, the truth downwards. A class without rows stays empty."""
    percent = row_percentages(np.asarray(counts))

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.set_facecolor("#DDDDDD")  # a class without rows
        axes.imshow(np.ma.masked_invalid(percent), cmap="cividis", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(percent):
            text = "" if np.isnan(value) else f"{value:.0f}"
            colour = "white" if np.nan_to_num(value) < 55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(
            range(len(classes)), [f"{n} ({int(k)})" for n, k in zip(classes, counts.sum(axis=1), strict=True)]
        )
        axes.set(xlabel="predicted, % of the row", ylabel="truth (rows)")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    return _figure(3.3, draw)


def class_histogram(counts: Sequence[int], classes: Sequence[str]) -> "Figure":
    """Rows per class as horizontal bars, with their numbers."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        bars = axes.barh(range(len(classes)), list(counts), color=COLOURS[0], height=0.7)
        axes.bar_label(bars, [f"{n:,}" for n in counts], padding=2, fontsize=7)
        axes.set_yticks(range(len(classes)), classes)
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.set(xlabel="rows", xticks=[])

    return _figure(0.6 + 0.22 * len(classes), draw)


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """metrics.csv of a run -> column -> [(epoch, value)], empty cells left out. Raises DataError for a file that
    cannot be read, without an epoch column, and for a cell that is no number."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); pass the metrics.csv of a run folder") from None
    if not rows or "epoch" not in rows[0]:
        raise DataError(f"{path}: no rows with an epoch column; pass the metrics.csv of a run folder")
    names = [name for name in rows[0] if name != "epoch"]

    def number(row: Mapping[str, str], name: str) -> float:
        try:
            return float(row[name])
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: {name} {row[name]!r}: expected a number, as the metrics.csv of a run holds"
            ) from None

    return {name: [(number(row, "epoch"), number(row, name)) for row in rows if row[name]] for name in names}


def learning_curves(
    runs: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], columns: Sequence[str]
) -> "Figure":
    """One panel per column of metrics.csv, one line per run (name -> `read_curves`). Raises DataError for a column that no run
    has."""
    missing = [column for column in columns if not any(column in curves for curves in runs.values())]
    if missing:
        there = ", ".join(sorted({name for curves in runs.values() for name in curves}))
        raise DataError(f"no run has a column {', '.join(missing)}: there are {there}")

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
        for axes, column in zip(panels, columns, strict=True):
            for index, (name, curves) in enumerate(runs.items()):
                points = np.array(curves.get(column, ())).reshape(-1, 2)
                axes.plot(points[:, 0], points[:, 1], **_line(index), markevery=max(1, len(points) // 8), label=name)
            axes.set(ylabel=column.replace("_", " "))
        panels[-1].set(xlabel="epoch")
        if len(runs) > 1:
            panels[0].legend(ncols=min(3, len(runs)))

    return _figure(0.6 + 1.4 * len(columns), draw)


def _line(index: int) -> dict[str, Any]:
    """Colour, dash and marker of the line number `index`."""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    return {"color": colour, "linestyle": dash, "marker": MARKERS[index % len(MARKERS)], "markersize": 3}


def reliability_diagram(tables: Mapping[str, Reliability]) -> "Figure":
    """Accuracy against confidence, name -> bins ("before", "after" a temperature), over the counts of the first."""

    def draw(figure: "Figure") -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot([0, 1], [0, 1], color="#777777", linewidth=0.8, linestyle=":", label="perfect")
        for index, (name, table) in enumerate(tables.items()):
            held = table.counts > 0
            top.plot(table.confidence[held], table.accuracy[held], **_line(index), label=name)
        table = next(iter(tables.values()))
        bottom.bar(
            table.edges[:-1], table.counts, np.diff(table.edges), align="edge", color="#BBBBBB", edgecolor="white"
        )
        top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        bottom.set(xlabel="confidence (top probability)", ylabel="rows")
        top.legend(loc="lower right")

    return _figure(3.4, draw)


def risk_coverage_curve(curves: Mapping[str, RiskCoverage]) -> "Figure":
    """Error rate among the rows answered, against the fraction answered."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for index, (name, curve) in enumerate(curves.items()):
            style = {**_line(index), "marker": ""}
            axes.plot(100 * curve.coverage, 100 * curve.risk, **style, label=f"{name} (area {curve.area:.3f})")
        axes.set(xlabel="rows answered, %", ylabel="errors among them, %", xlim=(0, 100))
        axes.set_ylim(bottom=0)
        axes.legend()

    return _figure(2.4, draw)


def sweep(
    values: Sequence[float], series: Mapping[str, Sequence[float | None]], *, xlabel: str, ylabel: str,
    bars: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
) -> "Figure":  # fmt: skip
    """A metric over a hyper-parameter on equal steps (the paper's lambda curve): name -> one number a value, None where
    it was not measured; bars: name -> (low, high) intervals."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for index, (name, numbers) in enumerate(series.items()):
            there = [(step, number) for step, number in enumerate(numbers) if number is not None]
            axes.plot(*np.array(there).reshape(-1, 2).T, **_line(index), label=name)
            for step, span in enumerate((bars or {}).get(name, ())):
                if span is not None:
                    axes.plot([step, step], span, color=COLOURS[index % len(COLOURS)], linewidth=0.8)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.margins(x=0.08, y=0.15)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend()

    return _figure(2.3, draw)


def embedding(features: np.ndarray, *, seed: int = 0, rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE (van der Maaten and Hinton 2008; scikit-learn's) of at most `rows` rows of features (N, D), drawn without
    replacement. Returns (M, 2) positions and the (M,) row numbers they belong to. Raises DataError for fewer than 10 rows,
    UsageError without scikit-learn."""
    with needs_eval("t-SNE figures"):
        from sklearn.manifold import TSNE
    if len(features) < 10:
        raise DataError(f"{len(features)} rows are too few for a t-SNE: give at least 10")
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(len(features), min(rows, len(features)), replace=False))
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return model.fit_transform(features[chosen].astype(np.float64)), chosen


def scatter(positions: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, title: str = "") -> "Figure":
    """Positions (M, 2) coloured by class (M,), with a legend below."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for index, name in enumerate(classes):
            rows = labels == index
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            across, up = positions[rows].T
            axes.scatter(across, up, s=7, c=colour, marker=marker, linewidths=0, alpha=0.8, label=name)
        axes.set(xticks=[], yticks=[], title=title)
        axes.spines[:].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=1.8)

    return _figure(3.4, draw)


def grid(panels: Sequence[Panel], *, columns: int = 5) -> "Figure":
    """Small pictures with a caption each: correct rows, most confident mistakes, attention maps. The caller brings the
    pictures and answers for showing them. Raises DataError without panels."""
    if not panels:
        raise DataError("no pictures for a grid: give at least one panel")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)

    def draw(figure: "Figure") -> None:
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in cells:
            axes.set_axis_off()
        for axes, panel in zip(cells, panels, strict=False):
            axes.imshow(panel.image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(panel.caption, fontsize=6, pad=2)

    side = WIDTH / columns
    lines = max(panel.caption.count("\n") + 1 for panel in panels)
    return _figure(rows * (side + 0.11 * lines), draw)


def most_confident_mistakes(labels: np.ndarray, probabilities: np.ndarray, *, count: int = 10) -> np.ndarray:
    """Row numbers of the wrong rows, surest first, at most `count`."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]
