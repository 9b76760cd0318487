"""A paper's tables, cell by cell: what it printed beside what was measured here. No torch.

`run_cells` trains what is missing through a function it is given; `lay_out` only reads the Scores files that lie in the
output folder, so a table can be made again anywhere, and deleting a file empties its cell. A cell is finished when its
scores.npz exists: it is renamed into place, so a killed run leaves none.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien import writing
from mien.errors import DataError, MienError, UsageError
from mien.lab.evaluation.intervals import intervals
from mien.lab.evaluation.metrics import summary, value_of
from mien.lab.evaluation.paper_table import Cell, Measured, html_body, to_csv, to_markdown
from mien.lab.evaluation.report import page
from mien.lab.evaluation.scores import SCORES, Scores
from mien.lab.evaluation.statistics import Interval, seed_summary

if TYPE_CHECKING:  # the methods import torch; a layout must not
    from mien.lab.methods.method import Method, Published

PROTOCOL = ("dataset", "split", "label_rule", "selection_rule", "views")  # the same of every run of a cell
BIASED = "best_on_test.npz"  # scores of the epoch that was best on the reported rows, where a runner keeps them
FEATURES = "features.npz"  # the features of the rows of SCORES, for t-SNE: apart, being a hundred times as large
COUNTED = {
    "M": 1e6,
    "MFLOPs": 1e6,
    "count": 1.0,
}  # units of numbers that are counted from the network, and their divisor
SCALE = {"%": 100.0, "fraction": 1.0}


@dataclass(frozen=True)
class Condition:
    """Rows of a table that share a variant with others but not the recipe. method, table, row: regular expressions,
    matched in full. name, settings: templates for the row's first group; settings are in the words of `--set`."""

    method: str
    table: str
    row: str
    name: str
    settings: tuple[str, ...] = ()


CONDITIONS = (
    Condition("mscar", "Table 2", r"(0\.0*1)", "lr {}", ("lr={}", "schedule=constant")),
    Condition("ad-corre", r"Fig\. 6", r"lambda ([\d.]+)", "lambda {}", ("loss.cross_entropy={}", "loss.weight=1.0")),
    Condition("ad-corre", r"Fig\. 6", r"lambda ([\d.]+), by eq\. 12", "lambda {} by eq. 12", ("loss.weight={}",)),
    Condition("wcl", ".*", r"\d+: (scratch|VGGFace2|ImageNet), .+", "start {}"),
)


@dataclass(frozen=True)
class Job:
    """One training run that fills cells. fold: 1-based, of the paper's cross-validation, or None. condition: what sets
    the row apart from the variant's other rows ("lr 0.01", "start VGGFace2"), or "". settings: key=value changes of the
    recipe."""

    method: str
    variant: str
    dataset: str
    preset: str
    seed: int
    fold: int | None = None
    condition: str = ""
    settings: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where the run lies below the output folder: every field that tells two runs apart is in it."""
        parts = [self.variant, self.dataset, self.condition, "" if self.fold is None else f"fold{self.fold}"]
        name = "--".join(re.sub(r"[^\w.]+", "-", part) for part in parts if part)
        return f"{self.method}/{self.preset.replace('/', '-')}/{name}/seed{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a run gives back. scores: of the epoch chosen without the reported rows. biased: of the epoch that was best
    on them, or None."""

    scores: Scores
    biased: Scores | None = None


Runner = Callable[[Job, Path], Outcome]  # trains and evaluates; the folder is its own, for checkpoints and resuming


@dataclass(frozen=True)
class Plan:
    """What to reproduce. preset, seeds (0 to seeds - 1): of every run. table, figure: a number of the paper ("6"), or
    None for all. rows: a regular expression that a row's name must contain. data: measure on this dataset instead of
    the paper's; then rows can be compared with each other, but not with the printed numbers."""

    preset: str = "paper"
    seeds: int = 3
    table: str | None = None
    figure: str | None = None
    rows: str = ""
    data: str | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.rows)
        except re.error as error:
            raise UsageError(
                f"--rows {self.rows!r}: not a regular expression ({error}); write \\ before a sign that stands for itself"
            ) from None


def selected(published: Iterable["Published"], plan: Plan) -> list["Published"]:
    """The printed numbers that a plan asks for. Raises UsageError naming the tables and figures, or the rows, there are."""
    numbers = list(published)
    wanted = [("Table", plan.table), ("Fig.", plan.figure)]
    asked = [f"{kind} {number}" for kind, number in wanted if number is not None]
    if plan.table is not None and asked[0] not in {number.table for number in numbers}:
        asked = asked[:1]  # refused, whatever figure is asked for beside it
    held = [number for number in numbers if not asked or number.table in asked]
    if not held:
        there = ", ".join(dict.fromkeys(number.table for number in numbers))
        raise UsageError(f"no printed numbers in {' or '.join(asked)}: there are {there}")
    found = [number for number in held if re.search(plan.rows, number.row)]
    if not found:
        rows = "; ".join(dict.fromkeys(number.row for number in held))
        raise UsageError(f"--rows {plan.rows!r}: like no row of {' or '.join(asked) or 'the paper'}; there are {rows}")
    return found


def jobs_of(method: "Method", number: "Published", plan: Plan, *, seed: int) -> list[Job]:
    """The runs whose mean measures a printed number with one seed: one, or one per fold for a mean over folds; [] for
    quotations, for counted numbers, and where no variant of ours stands for the row."""
    if number.quoted or number.unit in COUNTED or not number.variant or not number.dataset or not number.metric:
        return []
    condition, settings = _condition(method.name, number)
    dataset = plan.data or number.dataset
    job = Job(method.name, number.variant, dataset, plan.preset, seed, None, condition, settings)
    if dataset != number.dataset:
        return [job]  # the paper's folds are of its own dataset
    folds: list[int | None] = [*_folds(number, method.published)] or [_fold(number)]
    return [replace(job, fold=fold) for fold in folds]


def _condition(method: str, number: "Published") -> tuple[str, tuple[str, ...]]:
    for condition in CONDITIONS:
        row = re.fullmatch(condition.row, number.row)
        if row and condition.method == method and re.fullmatch(condition.table, number.table):
            return condition.name.format(row[1]), tuple(setting.format(row[1]) for setting in condition.settings)
    return "", ()


def _fold(number: "Published") -> int | None:
    """The fold that a column like "ExpW fold 5" names."""
    found = re.search(r"\bfold (\d+)\b", number.column)
    return int(found[1]) if found else None


def _folds(number: "Published", published: Iterable["Published"]) -> list[int]:
    """The folds that a column called "... mean" is the mean of: those of the same row."""
    if not number.column.endswith(" mean"):
        return []
    peers = [other for other in published if (other.table, other.row) == (number.table, number.row)]
    return sorted({fold for other in peers if (fold := _fold(other)) is not None})


def jobs(method: "Method", plan: Plan) -> list[Job]:
    """Every run that a plan needs, each once: for one number all its seeds, then the next number's."""
    numbers = selected(method.published, plan)
    runs = [jobs_of(method, number, plan, seed=seed) for number in numbers for seed in range(plan.seeds)]
    return list(dict.fromkeys(job for group in runs for job in group))


def run_cells(
    wanted: Iterable[Job], out: Path, *, runner: Runner, say: Callable[[str], None] = lambda line: None
) -> dict[Job, str]:
    """Run every job whose scores are not there yet, one after the other. Returns why the others are empty: a job that
    raises a MienError (data absent, say) is reported, and the rest still runs. A finished job is never run twice."""
    problems: dict[Job, str] = {}
    for job in wanted:
        folder = out / job.folder
        if (folder / SCORES).is_file():
            say(f"{job.folder}: finished before")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outcome = runner(job, folder)
        except MienError as error:
            problems[job] = f"no data: {error}" if isinstance(error, DataError) else f"failed: {error}"
            say(f"{job.folder}: {problems[job]}")
            continue
        if outcome.biased is not None:
            _store(outcome.biased, folder / BIASED)
        if outcome.scores.features is not None:
            np.savez_compressed(folder / FEATURES, features=outcome.scores.features.astype(np.float32))
        _store(outcome.scores, folder / SCORES)
        say(f"{job.folder}: measured")
    return problems


def _store(scores: Scores, path: Path) -> None:
    """Without the features."""
    replace(scores, features=None).save(path)


def lay_out(
    method: "Method",
    out: Path,
    plan: Plan,
    *,
    problems: Mapping[Job, str] | None = None,
    counts: Callable[[str], Mapping[str, float]] | None = None,
) -> list[Cell]:
    """One Cell per printed number, from the Scores files that are in `out`. problems: what `run_cells` returned.
    counts: a variant's name -> {"parameters": ..., "trainable": ..., ...} of the paper's network, for the
    counted cells."""
    cells, cache = [], dict[Path, _Judged]()
    for number in selected(method.published, plan):
        if number.quoted:
            cells.append(Cell(number, status=f"quoted from {number.quoted}"))
        elif number.unit in COUNTED:
            cells.append(_counted(number, counts))
        else:
            wanted = [jobs_of(method, number, plan, seed=seed) for seed in range(plan.seeds)]
            cells.append(_measured_cell(number, wanted, out, problems or {}, cache))
    return cells


def _counted(number: "Published", counts: Callable[[str], Mapping[str, float]] | None) -> Cell:
    if not number.variant or counts is None:
        return Cell(number, status="not counted" if number.variant else "no variant of ours stands for this row")
    counted = counts(number.variant)
    found = counted.get(number.metric)
    if found is None:
        return Cell(number, status=f"not counted: no {number.metric} for {number.variant}")
    value = found / COUNTED[number.unit]
    how = "counted from the network"
    if number.metric in ("parameters", "trainable"):  # papers count either: both are told
        how += f": {counted['trainable']:,.0f} that learn, {counted['parameters']:,.0f} in all"
    return Cell(number, Measured((value,), value, None, None, how, (), "", None), "counted")


@dataclass(frozen=True)
class _Judged:
    """One Scores file, read and judged once. digest: SHA-256 of the file. spans: its intervals, filled when first
    asked."""

    scores: Scores
    metrics: Mapping[str, Any]
    digest: str
    spans: dict[str, Interval] = field(default_factory=dict)


def _judged(path: Path, cache: dict[Path, _Judged]) -> _Judged | None:
    if path not in cache and path.is_file():
        try:
            scores = Scores.load(path)
        except DataError as error:
            raise DataError(f"{error}; deleted, it is made anew by the same command") from None
        cache[path] = _Judged(scores, summary(scores), hashlib.sha256(path.read_bytes()).hexdigest())
    return cache.get(path)


def _measured_cell(
    number: "Published",
    wanted: Sequence[Sequence[Job]],
    out: Path,
    problems: Mapping[Job, str],
    cache: dict[Path, _Judged],
) -> Cell:
    """wanted: for each seed the runs whose mean is the cell: one, or one per fold. A seed counts when all its runs are
    there."""
    if not wanted or not wanted[0]:
        return Cell(number, status="no variant of ours stands for this row")
    complete = [side for side in wanted if all((out / job.folder / SCORES).is_file() for job in side)]
    if not complete:
        reasons = [problems[job] for side in wanted for job in side if job in problems]
        return Cell(number, status=reasons[0] if reasons else "not run")
    scale = SCALE[number.unit]
    values, files, protocols = [], [], []
    rows: set[tuple[str, ...]] = set()  # of each seed, the fingerprint of each fold's
    for side in complete:
        judged = [(job, _judged(out / job.folder / SCORES, cache)) for job in side]
        told = [held.scores.protocol for _, held in judged if held is not None]
        protocols += told
        rows.add(tuple(protocol["data_fingerprint"] for protocol in told))
        files += [(f"{job.folder}/{SCORES}", held.digest) for job, held in judged if held is not None]
        values.append(_mean([value_of(held.metrics, number.metric) for _, held in judged if held is not None]))
    differing = [name for name in PROTOCOL if len({str(protocol[name]) for protocol in protocols}) > 1]
    differing += ["their rows"] if len(rows) > 1 else []
    if differing:
        return Cell(
            number, status=f"no mean: its runs differ in {', '.join(differing)}; make them anew in another folder"
        )
    known = [scale * value for value in values if value is not None]
    if not known:
        return Cell(number, status=f"{number.metric} is undefined in these scores")
    first = _judged(out / complete[0][0].folder / SCORES, cache)
    if first is None:
        raise DataError(f"{files[0][0]} vanished while the table was made: run it again")
    low, high, how = _interval(number, known, first if len(complete[0]) == 1 else None, scale)
    biased = _biased(number, complete, out, cache, scale)
    mean = sum(known) / len(known)
    protocol = _protocol(first.scores.protocol, complete[0][0])
    dataset = complete[0][0].dataset
    status = "measured" if dataset == number.dataset else f"measured on {dataset}, the paper's is {number.dataset}"
    return Cell(number, Measured(tuple(known), mean, low, high, how, tuple(files), protocol, biased), status)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) and known else None


def _interval(
    number: "Published", values: Sequence[float], only: _Judged | None, scale: float
) -> tuple[float | None, float | None, str]:
    """Over seeds where there are two or more, else over the rows of the only run."""
    if len(values) > 1:
        found = seed_summary(values)
        return found.low, found.high, f"t interval over {found.runs} seeds"
    if only is not None and not only.spans:
        only.spans.update(intervals(only.scores, clusters=only.scores.clusters))
    interval = None if only is None else only.spans.get(number.metric)
    if interval is None:
        why = "run, no interval for this metric" if only else "seed, no interval for a mean over folds"
        return None, None, f"one {why}"
    return scale * interval.low, scale * interval.high, f"one run, over rows: {interval.how}"


def _biased(
    number: "Published", complete: Sequence[Sequence[Job]], out: Path, cache: dict[Path, _Judged], scale: float
) -> float | None:
    """Mean of the epochs that were best on the reported rows, where every run kept one."""
    held = [_judged(out / job.folder / BIASED, cache) for side in complete for job in side]
    value = _mean([None if judged is None else value_of(judged.metrics, number.metric) for judged in held])
    return None if value is None else scale * value


def _protocol(protocol: Mapping[str, Any], job: Job) -> str:
    words = [f"{name.replace('_', ' ')} {protocol[name]}" for name in PROTOCOL]
    if job.fold is None and protocol.get("note"):  # how its rows were divided; a fold's would not be the mean's
        words.append(f"rows: {protocol['note']}")
    return "; ".join([f"preset {job.preset}", *words, *([job.condition] if job.condition else [])])


def write_pages(
    title: str,
    cells: Sequence[Cell],
    out: Path,
    *,
    name: str,
    intro: Sequence[str] = (),
    sections: Mapping[str, str] | None = None,
) -> tuple[Path, Path, Path]:
    """name.md, name.csv and name.html in `out`. intro: sentences that state the budget and what differs from the paper. sections:
    more HTML by heading (figures)."""
    lead = " ".join(intro)
    texts = {
        "md": to_markdown(title, cells, intro=intro),
        "csv": to_csv(cells),
        "html": page(title, {**html_body(cells), **(sections or {})}, lead=lead),
    }
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        writing.text(out / f"{name}.{suffix}", text)
    return out / f"{name}.md", out / f"{name}.csv", out / f"{name}.html"
