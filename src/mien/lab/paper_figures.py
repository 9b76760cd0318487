"""Every figure of the five papers: what draws it here, and those that a reproduction's Scores files can draw. No
torch."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.evaluation import figures
from mien.lab.evaluation.metrics import confusion_counts
from mien.lab.evaluation.paper_table import Cell
from mien.lab.evaluation.report import Picture, pictures
from mien.lab.evaluation.scores import SCORES, Scores
from mien.lab.reproduce import FEATURES, Job, Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_COLUMNS = ("train_loss", "valid_loss", "selection")  # of metrics.csv; selection: accuracy that chooses the epoch
SEED = 0  # of the runs that figures show: every reproduction has it


@dataclass(frozen=True)
class PaperFigure:
    """One figure of a paper. kind: a key of DRAWN, or one of NEEDS, which says what it takes. dataset, variants,
    condition, fold: the runs that it shows, in the words of Job."""

    method: str
    number: str
    kind: str
    title: str
    dataset: str = ""
    variants: tuple[str, ...] = ()
    condition: str = ""
    fold: int | None = None


NEEDS = {  # kinds that Scores files cannot draw: what does
    "explanation": "a drawing that explains the method: nothing to measure",
    "samples": "pictures of the dataset: its licence decides whether they may be shown, so it is not drawn",
    "histogram": "figures.class_histogram of the training split's class counts: needs the data, no run",
    "attention": "`mien evaluate RUN --report FILE.html --faces`: needs the network and pictures that may be shown",
    "mistakes": "`mien evaluate RUN --report FILE.html --faces`: needs pictures that may be shown",
}


def _confusions(method: str, number: str, variant: str, *datasets: str, fold: int | None = None) -> list[PaperFigure]:
    return [
        PaperFigure(method, number, "confusion", f"confusion matrix, {name}", name, (variant,), fold=fold)
        for name in datasets
    ]


_FOUR_LOSSES = ("softmax", "centre", "island", "lban-il")
_WCL_LOSSES = ("softmax", "centre", "w-softmax", "centre-w", "wcl")

PAPER_FIGURES: tuple[PaperFigure, ...] = (
    PaperFigure("lban-il", "1", "explanation", "toy features under four losses"),
    PaperFigure("lban-il", "2", "explanation", "the network"),
    PaperFigure("lban-il", "3", "samples", "sample pictures"),
    *_confusions("lban-il", "4", "lban-il", "rafdb", "sfew", "fer2013"),
    *_confusions("lban-il", "4", "lban-il", "expw", fold=5),
    PaperFigure("lban-il", "5", "tsne", "t-SNE of the 128 features", "rafdb", _FOUR_LOSSES),
    PaperFigure("lban-il", "6", "attention", "LBAB-1: input, T, M and (1 + M) T", "rafdb", ("lban-il",)),
    PaperFigure("wcl", "1", "explanation", "the framework"),
    PaperFigure("wcl", "2", "samples", "sample pictures"),
    PaperFigure("wcl", "3", "histogram", "classes of the training set", "affectnet"),
    PaperFigure("wcl", "4", "samples", "sample pictures of VGGFace2"),
    PaperFigure("wcl", "5", "curves", "learning curves by loss", "affectnet", _WCL_LOSSES, "start VGGFace2"),
    *(
        PaperFigure("wcl", "6", "confusion", f"confusion matrix, {variant}", "affectnet", (variant,), f"start {start}")
        for variant, start in (
            ("softmax", "VGGFace2"),  # model 6; the text's "model 1" is a slip, its recalls are model 6's
            ("wcl", "VGGFace2"),
            ("resnet50-softmax", "ImageNet"),
            ("resnet50-wcl", "ImageNet"),
        )
    ),
    *(PaperFigure("resface", number, "explanation", "the architecture") for number in "1234"),
    *_confusions("resface", "ours", "resface18-abc", "rafdb", "ferplus"),  # the paper shows none
    PaperFigure("resface", "ours", "attention", "maps of the modulator", "rafdb", ("resface18-abc",)),
    *(PaperFigure("mscar", number, "explanation", "the network") for number in "1234"),
    PaperFigure("mscar", "5", "samples", "sample pictures"),
    PaperFigure("mscar", "6", "curves", "accuracy and loss over 200 epochs", "ferplus", ("mscar",)),
    *_confusions("mscar", "7", "mscar", "ckplus"),
    *_confusions("mscar", "8", "mscar", "ferplus"),
    *(PaperFigure("ad-corre", number, "explanation", "the loss") for number in "123"),
    *_confusions("ad-corre", "4", "ad-corre", "affectnet", "rafdb", "fer2013"),
    PaperFigure("ad-corre", "5", "tsne", "t-SNE of the embeddings", "affectnet", ("ce", "ad-corre")),
    PaperFigure("ad-corre", "6", "sweep", "accuracy over lambda", "affectnet", ("ad-corre",)),
    PaperFigure("ad-corre", "7", "mistakes", "correct and misclassified rows", "affectnet", ("ad-corre",)),
)


@dataclass(frozen=True)
class Drawn:
    """A figure's entry: the pictures that could be drawn, and in words what is missing ("" when nothing is)."""

    figure: PaperFigure
    pictures: tuple[Picture, ...]
    missing: str


def draw_figures(
    method: str, out: Path, cells: Sequence[Cell], plan: Plan, *, number: str | None = None
) -> list[Drawn]:
    """Every figure of a method's paper, or the one called `number`, from the runs of SEED below `out`. cells: of
    `lay_out`, for figures that are curves of printed numbers. plan: its preset and data say which runs."""
    return [_drawn(figure, out, cells, plan) for figure in figures_of(method, number)]


def figures_of(method: str, number: str | None) -> list[PaperFigure]:
    """Every figure of a method's paper, or those called `number`. Raises UsageError where there is none."""
    wanted = [figure for figure in PAPER_FIGURES if figure.method == method and number in (None, figure.number)]
    if not wanted:
        there = ", ".join(dict.fromkeys(figure.number for figure in PAPER_FIGURES if figure.method == method))
        raise UsageError(f"{method} has no figure {number!r}: there are {there or 'none'}")
    return wanted


def _drawn(figure: PaperFigure, out: Path, cells: Sequence[Cell], plan: Plan) -> Drawn:
    if figure.kind in NEEDS:
        return Drawn(figure, (), NEEDS[figure.kind])
    try:
        if figure.kind == "sweep":
            return Drawn(figure, (Picture(figures.to_bytes(_sweep(figure, cells), "svg"), _caption(figure)),), "")
        return _drawn_from_runs(figure, out, plan)
    except DataError as error:
        return Drawn(figure, (), str(error))


def figure_jobs(method: str, number: str, plan: Plan) -> list[Job]:
    """The runs that the figure called `number` shows, each once; [] for one that no run draws."""
    figures = [figure for figure in PAPER_FIGURES if (figure.method, figure.number) == (method, number)]
    drawable = [figure for figure in figures if figure.kind in DRAWN]
    return list(dict.fromkeys(job for figure in drawable for job in _jobs(figure, plan)))


def _jobs(figure: PaperFigure, plan: Plan) -> list[Job]:
    dataset = plan.data or figure.dataset
    fold = figure.fold if dataset == figure.dataset else None  # the paper's folds are of its own dataset
    return [
        Job(figure.method, variant, dataset, plan.preset, SEED, fold, figure.condition) for variant in figure.variants
    ]


def _drawn_from_runs(figure: PaperFigure, out: Path, plan: Plan) -> Drawn:
    jobs = _jobs(figure, plan)
    there = [job for job in jobs if (out / job.folder / SCORES).is_file()]
    missing = "" if len(there) == len(jobs) else "not run: " + ", ".join(j.folder for j in jobs if j not in there)
    drawings = DRAWN[figure.kind](out, there) if there else []
    shown = [Picture(figures.to_bytes(drawing, "svg"), f"{_caption(figure)}: {name}") for name, drawing in drawings]
    return Drawn(figure, tuple(shown), missing)


def _caption(figure: PaperFigure) -> str:
    return f"{'Ours' if figure.number == 'ours' else f'Fig. {figure.number}'}, {figure.title}"


def _confusion(out: Path, jobs: Sequence[Job]) -> list[tuple[str, "Figure"]]:
    found = []
    for job in jobs:
        scores = Scores.load(out / job.folder / SCORES)
        counts = confusion_counts(scores.labels, scores.predictions, len(scores.classes))
        found.append((job.folder, figures.confusion(counts, scores.classes)))
    return found


def _tsne(out: Path, jobs: Sequence[Job]) -> list[tuple[str, "Figure"]]:
    found = []
    for job in jobs:
        scores, path = Scores.load(out / job.folder / SCORES), out / job.folder / FEATURES
        if not path.is_file():
            raise DataError(f"no {job.folder}/{FEATURES}: delete {SCORES} beside it and run again")
        with np.load(path) as held:
            positions, rows = figures.embedding(held["features"], seed=job.seed)
        found.append((job.folder, figures.scatter(positions, scores.labels[rows], scores.classes, title=job.variant)))
    return found


def _curves(out: Path, jobs: Sequence[Job]) -> list[tuple[str, "Figure"]]:
    runs = {}
    for job in jobs:
        held = sorted((out / job.folder).rglob("metrics.csv"))
        if not held:
            raise DataError(f"{job.folder}: no metrics.csv beside the scores; train it again to get its curves")
        runs[job.variant] = figures.read_curves(held[0])
    columns = [name for name in CURVE_COLUMNS if any(name in curves for curves in runs.values())]
    return [(", ".join(job.folder for job in jobs), figures.learning_curves(runs, columns))]


DRAWN: dict[str, Callable[[Path, Sequence[Job]], list[tuple[str, "Figure"]]]] = {
    "confusion": _confusion,
    "tsne": _tsne,
    "curves": _curves,
}


_ROW = re.compile(r"\D*([\d.]+)(.*)")  # of a sweep's table: "lambda 0.5", "lambda 0.5, by eq. 12"


def _sweep(figure: PaperFigure, cells: Sequence[Cell]) -> "Figure":
    """Printed and measured numbers of the table that bears the figure's name, over the number in their rows; what follows it, as
    in "lambda 0.5, by eq. 12", is a reading with a line of its own."""
    held = [cell for cell in cells if cell.published.table == f"Fig. {figure.number}"]
    if not held:
        raise DataError(f"no printed numbers of Fig. {figure.number}: lay the table out without --table")
    lines: dict[str, dict[float, Cell]] = {}  # reading -> value -> cell
    for cell in held:
        value, reading = _ROW.fullmatch(cell.published.row).groups()  # type: ignore[union-attr]
        lines.setdefault(reading, {})[float(value)] = cell
    values = sorted({value for line in lines.values() for value in line})
    printed = {value: cell.published.value for line in lines.values() for value, cell in line.items()}
    series: dict[str, Sequence[float | None]] = {"printed": [printed[value] for value in values]}
    bars: dict[str, Sequence[tuple[float, float] | None]] = {}
    for reading, line in lines.items():
        found = [None if (one := line.get(value)) is None else one.measured for value in values]
        if any(found):
            series[f"measured here{reading}"] = [None if it is None else it.mean for it in found]
            bars[f"measured here{reading}"] = [
                None if it is None or it.low is None or it.high is None else (it.low, it.high) for it in found
            ]
    return figures.sweep(values, series, xlabel="λ", ylabel="accuracy, %", bars=bars)


def section(drawn: Sequence[Drawn]) -> str:
    """The entries as HTML for `reproduce.write_pages(sections={"Figures": ...})`."""
    entries = "".join(
        f"<li>{escape(_caption(entry.figure))}: {escape(entry.missing or 'drawn below')}</li>" for entry in drawn
    )
    return f"<ul>{entries}</ul>" + pictures([picture for entry in drawn for picture in entry.pictures])
