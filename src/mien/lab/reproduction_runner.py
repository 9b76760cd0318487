"""Trains and evaluates the runs that fill the cells of a paper's table: what `mien reproduce` does.

One output folder holds runs of one set of changes and of the same rows only (`asked.json` beside the runs of a method and preset):
a table whose cells were trained under different `--set`, or judged on different faces, could not be read.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from mien import writing
from mien.errors import DataError, UsageError
from mien.lab import datasets, methods
from mien.lab.datasets import FaceDataset
from mien.lab.datasets.ferplus import JOINT
from mien.lab.evaluation.evaluate import evaluate
from mien.lab.evaluation.judge import clusters_of, hashes_of, open_model, with_clusters
from mien.lab.evaluation.paper_table import Cell
from mien.lab.evaluation.scores import Scores
from mien.lab.losses.label_distribution import LabelDistribution
from mien.lab.methods.method import Method, Recipe
from mien.lab.networks import Shape
from mien.lab.networks.counts import count
from mien.lab.paper_figures import draw_figures, figure_jobs, figures_of, section
from mien.lab.protocol import file_sha256
from mien.lab.reproduce import Job, Outcome, Plan, jobs, lay_out, run_cells, write_pages
from mien.lab.training.checkpoint import BEST_ON_TEST
from mien.lab.training.recipes import Choice, resolve
from mien.lab.training.trainer import Source, load_data, taught_by, train

SCRATCH = "scratch"
# The rows that are reported: where a test split exists it is the test split, except where papers, or we, report another.
REPORTED = {
    "fer2013": "valid",  # PublicTest; `report_on="test"` asks for PrivateTest, for those who have it
    "ferplus": "valid",
    "affectnet": "valid",  # its test set was never published
    "sfew": "valid",  # nor were these labels
}
TOGETHER = "ad-corre"  # FER-2013's protocol whose test is PublicTest and PrivateTest (Table 4)
HOLDOUT = "holdout"
LONGEST = 60  # letters of a pattern in a page's name
# How a paper divided a dataset, where it is not the dataset's default: options of `datasets.load`, "split" or "select_on".
DIVIDED: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("wcl", "affectnet"): {"protocol": "wcl", "split": "test", "select_on": "valid"},  # it draws its own sets
    ("ad-corre", "affectnet"): {"label_rule": "7-class"},  # the classes of its paper's tables
    ("mscar", "ckplus"): {"protocol": "mscar"},  # as its paper divides it
}


@dataclass(frozen=True)
class Conduct:
    """How all runs of a reproduction are made. root: where the datasets lie. settings: KEY=VALUE changes of every
    recipe, or VARIANT:KEY=VALUE of one variant's. select_on: what epochs are chosen by, "holdout" or "valid"; None for "valid"
    where the paper's own division has such rows and they are not reported, else "holdout". report_on: the reported split, None
    for the usual one. weights: start ("VGGFace2", "" for rows that name none) ->
    checkpoint. teacher: a run folder, for variants that learn from one. threads: of the CPU, None for all cores."""

    root: Path | None = None
    settings: tuple[str, ...] = ()
    select_on: str | None = None
    report_on: str | None = None
    weights: Mapping[str, Path] | None = None
    teacher: Path | None = None
    threads: int | None = None
    allow_partial: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("select_on", (None, HOLDOUT, "valid")), ("report_on", (None, "valid", "test"))):
            found = getattr(self, name)
            if found not in allowed:
                expected = ", ".join(word for word in allowed if word)
                raise UsageError(f"--{name.replace('_', '-')} {found}: expected one of {expected}")


@dataclass(frozen=True)
class TrainingRunner:
    """A `reproduce.Runner` that trains: into the job's own folder, going on where a killed run stopped."""

    conduct: Conduct
    say: Callable[[str], None] = print

    def __call__(self, job: Job, folder: Path) -> Outcome:
        """Raises DataError where the dataset, the start weights or the teacher are absent."""
        choice, source = choice_of(job, self.conduct), source_of(job, self.conduct)
        _, recipe = resolve(choice)
        data = reported_rows(job, self.conduct, recipe)
        fold = "" if job.fold is None else f" fold {job.fold}"
        rows = (load_data(source, recipe)[0], data)  # which `train` loads again: seconds, where a wrong run takes hours
        known = {f"rows of {held.name} {held.split}{fold}, {held.label_rule}": held.fingerprint for held in rows}
        _remember(folder.parents[1], {}, known)
        train(
            choice,
            source,
            folder,
            seed=job.seed,
            resume=True,
            pretrained=self._weights(job),
            teacher=self._teacher(job, recipe),
            watched=data,
            threads=self.conduct.threads,
            say=lambda line: self.say(f"{job.folder}: {line}"),
        )
        facts = {"preset": choice.preset, "variant": job.variant, "epochs": recipe.epochs}
        rule = "epoch that was best on these rows: biased"
        biased = self._scores(folder, data, recipe, facts | {"selection_rule": rule}, checkpoint=BEST_ON_TEST)
        return Outcome(self._scores(folder, data, recipe, facts, checkpoint="best.ckpt"), biased)

    def _scores(
        self, folder: Path, data: FaceDataset, recipe: Recipe, facts: Mapping[str, Any], *, checkpoint: str
    ) -> Scores:
        opened = open_model(folder, checkpoint=checkpoint)
        protocol = {**opened.facts, **facts}
        scores = evaluate(opened.model, data, views=recipe.views, protocol=protocol)
        return with_clusters(scores, clusters_of(data, hashes_of(data))[0])

    def _weights(self, job: Job) -> Path | None:
        start = start_of(job)
        known = self.conduct.weights or {}
        if start == SCRATCH:
            return None
        if start and start not in known:
            raise DataError(f"this row starts from {start} weights, which are not here: pass --pretrained {start}=FILE")
        return known.get(start)

    def _teacher(self, job: Job, recipe: Recipe) -> Path | None:
        if not _is_taught(recipe):
            return None
        if self.conduct.teacher is None:
            raise DataError(
                f"variant {job.variant} learns from a teacher, which is not here: pass --teacher RUN (train one with "
                f"`mien train ldg`), or learn from votes: --set {job.variant}:loss.source=votes"
            )
        return self.conduct.teacher


def start_of(job: Job) -> str:
    """The weights that a job starts from ("VGGFace2", "scratch"), or "" where its row does not say."""
    return job.condition.removeprefix("start ") if job.condition.startswith("start ") else ""


def _is_taught(recipe: Recipe) -> bool:
    return isinstance(recipe.loss, LabelDistribution) and recipe.loss.source == "teacher"


def _refuse_what_no_run_reads(wanted: Iterable[Job], conduct: Conduct) -> None:
    """Start weights and a teacher that were given and would be passed over."""
    starts = {start_of(job) for job in wanted} - {SCRATCH}
    for start, path in (conduct.weights or {}).items():
        if start not in starts:
            named = ", ".join(sorted(filter(None, starts)))
            ways = [f"--pretrained NAME={path} with one of {named}"] if named else []
            ways += [f"--pretrained {path} for rows that name no start"] if "" in starts else []
            found = f"no row of this reproduction starts from {start}" if start else "every row of it names its start"
            raise UsageError(
                f"--pretrained {start}{'=' * bool(start)}{path}: {found}; pass {', or '.join(ways) or 'none'}"
            )
    if conduct.teacher is not None and not any(_is_taught(resolve(choice_of(job, conduct))[1]) for job in wanted):
        raise UsageError(
            f"--teacher {conduct.teacher}: no row of this reproduction learns from a teacher; leave it out"
        )


def choice_of(job: Job, conduct: Conduct) -> Choice:
    """The job's variant under its preset, or under the preset's own recipe for the dataset or the start where the
    method has one ("paper/fer2013"), with the job's settings and then the user's. Raises UsageError for one of the user's that
    its row is about."""
    recipes = methods.load(job.method).recipes
    special = [f"{job.preset}/{word}" for word in (job.dataset, start_of(job)) if word]
    preset = next((name for name in special if name in recipes), job.preset)
    asked = settings_for(job.variant, conduct.settings)
    if job.dataset != "ferplus":  # the other datasets of a table have no such rule
        asked = tuple(setting for setting in asked if setting.partition("=")[0] != "label_rule")
    own = {setting.partition("=")[0] for setting in job.settings}
    for setting in asked:
        if setting.partition("=")[0].strip() in own:
            raise UsageError(
                f"--set {setting}: it is what the row {job.condition!r} is about; leave it out, or choose other rows by --rows"
            )
    return Choice(job.method, preset, settings=(*job.settings, *asked), variant=job.variant)


def _refuse_what_rows_differ_in(wanted: Sequence[Job], conduct: Conduct) -> None:
    """Raises UsageError where a setting for all variants would make alike what tells the rows of one dataset apart: a field of
    their networks or losses in which they differ."""
    plain = replace(conduct, settings=())
    for setting in conduct.settings:
        key = setting.partition("=")[0].strip()
        part, dot, field = key.partition(".")
        if part not in ("network", "loss") or not dot:
            continue
        found: dict[str, dict[str, str]] = {}  # dataset -> value -> variant
        for job in wanted:
            options = getattr(resolve(choice_of(job, plain))[1], part)
            if hasattr(options, field):
                found.setdefault(job.dataset, {}).setdefault(repr(getattr(options, field)), job.variant)
        for values in found.values():
            if len(values) > 1:
                told = ", ".join(f"{value} of {variant}" for value, variant in values.items())
                raise UsageError(
                    f"--set {setting}: the rows differ in it ({told}), and would no more; set it for one variant by "
                    f"--set {next(iter(values.values()))}:{setting}, or choose rows by --rows"
                )


def settings_for(variant: str, settings: Iterable[str]) -> tuple[str, ...]:
    """The settings that concern a variant: KEY=VALUE all of them, VARIANT:KEY=VALUE that one."""
    found = []
    for setting in settings:
        whose, colon, rest = setting.partition(":")
        if colon and "=" not in whose:
            found += [rest] if whose == variant else []
        else:
            found.append(setting)
    return tuple(found)


def check_settings(method: Method, settings: Iterable[str]) -> None:
    """Raises UsageError where a setting is for a variant that the method does not have."""
    for setting in settings:
        whose, colon, _ = setting.partition(":")
        if colon and "=" not in whose and whose not in method.variants:
            raise UsageError(
                f"--set {setting}: {method.name} has no variant {whose!r}; expected one of {', '.join(method.variants)}"
            )


def source_of(job: Job, conduct: Conduct) -> Source:
    """Where the job's training rows come from, divided as its paper divided them. Raises UsageError where epochs would
    be chosen on the rows that are reported."""
    options = _division(job, conduct)
    split, select_on = options["split"], options["select_on"]
    reported = {split, "valid"} if split == "test" and options.get("protocol") == TOGETHER else {split}
    if select_on in reported:
        raise UsageError(f"{job.dataset} {split} is reported, so it cannot choose the epoch: pass --select-on holdout")
    return Source(
        job.dataset, conduct.root, fold=job.fold, select_on=select_on, allow_partial=conduct.allow_partial,
        protocol=options.get("protocol"), label_rule=options.get("label_rule"),
    )  # fmt: skip


def _division(job: Job, conduct: Conduct) -> dict[str, str]:
    found = {"split": REPORTED.get(job.dataset, "test"), **DIVIDED.get((job.method, job.dataset), {})}
    if conduct.report_on is not None:
        found["split"] = conduct.report_on
    own = found.get("select_on", HOLDOUT)
    found["select_on"] = conduct.select_on or (HOLDOUT if own == found["split"] else own)
    if (job.method, job.dataset, found["split"]) == ("ad-corre", "fer2013", "test"):
        found["protocol"] = TOGETHER
    return found


def reported_rows(job: Job, conduct: Conduct, recipe: Recipe) -> FaceDataset:
    """The rows that the cell reports. FER+ is judged by the recipe's label rule, a joint one by the majority."""
    options = _division(job, conduct)
    rule = options.get("label_rule")
    if job.dataset == "ferplus" and recipe.label_rule != JOINT:
        rule = rule or recipe.label_rule
    return datasets.load(
        job.dataset, conduct.root, split=options["split"], label_rule=rule, protocol=options.get("protocol"),
        fold=job.fold, allow_partial=conduct.allow_partial,
    )  # fmt: skip


def counted(method: Method, name: str) -> dict[str, float]:
    """Parameters (all, and those that learn), MACs and Keras' total of a variant as the paper has it, for the cells that are
    counted. Raises UsageError when the method has no such variant."""
    if name not in method.variants:
        raise UsageError(f"{method.name} has no variant {name!r}: expected one of {', '.join(method.variants)}")
    variant = method.variants[name]
    shape = Shape(variant.channels, variant.classes, variant.size, variant.loss.embeddings)
    found = count(variant.network.build(shape), shape)
    return {
        "parameters": found.weights,
        "trainable": found.trainable,
        "macs": found.macs,
        "keras_total": found.keras_total,
    }


def remember(folder: Path, conduct: Conduct, wanted: Iterable[Job]) -> None:
    """Keep in `folder`/asked.json the settings, the splits that the wanted runs report and choose epochs by, and the SHA-256 of the
    teacher and of start weights once they are there; the runs add the fingerprints of their rows. Raises UsageError when the
    folder's runs were asked otherwise."""
    splits = {}
    for job in wanted:
        division = _division(job, conduct)
        splits[f"{job.dataset}: reported split"] = division["split"]
        splits[f"{job.dataset}: epochs chosen on"] = division["select_on"]
    files = {f"pretrained {start}": path for start, path in (conduct.weights or {}).items()}
    files |= {} if conduct.teacher is None else {"teacher": taught_by(conduct.teacher)}
    given = {name: file_sha256(path) for name, path in files.items() if path.is_file()}
    _remember(folder, {"settings": list(conduct.settings)}, splits | given)


def _remember(folder: Path, asked: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Refuse what differs from `folder`/asked.json, write the rest there. given: what may come later, and then stays the same.
    Raises DataError where that file is damaged."""
    path = folder / "asked.json"
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); it says what the runs beside it were asked: copy it again"
        ) from None
    now = [*asked.items(), *((name, value) for name, value in given.items() if name in before)]
    differing = [f"{key} was {before.get(key)}, now {value}" for key, value in now if before.get(key) != value]
    if before and differing:
        raise UsageError(f"{folder} holds runs of another reproduction: {'; '.join(differing)}; choose another -o")
    writing.folder(folder)
    writing.text(path, json.dumps({**before, **asked, **given}, indent=1))


@dataclass(frozen=True)
class Reproduced:
    """cells: of every printed number asked for. missing: figures that could not be drawn, in words. pages: written."""

    cells: tuple[Cell, ...]
    missing: tuple[str, ...]
    pages: tuple[Path, ...]


def reproduce(name: str, plan: Plan, out: Path, *, conduct: Conduct, say: Callable[[str], None] = print) -> Reproduced:
    """Run what is missing, lay the tables out, draw the figures, write the pages. A finished run is never made again; a
    run whose data are absent leaves its cells empty and the rest goes on. Raises UsageError, before anything is trained, for a
    method, preset, dataset, table, figure or setting that there is none of or that cannot be meant."""
    method = methods.load(name)
    if plan.preset not in method.recipes:
        raise UsageError(f"{name} has no preset {plan.preset!r}: expected one of {', '.join(method.recipes)}")
    if not method.published:
        raise UsageError(
            f"{name} is no paper's method: there is no printed number to reproduce; train it by `mien train {name}`"
        )
    if plan.data not in (None, *datasets.NAMES):
        raise UsageError(f"--data {plan.data}: unknown dataset; expected one of {', '.join(datasets.NAMES)}")
    check_settings(method, conduct.settings)
    figures_of(name, plan.figure)
    drawn_only = plan.figure is not None and plan.table is None and not _printed(method, plan)
    wanted = [] if drawn_only else jobs(method, plan)
    if plan.figure is not None:
        wanted += [job for job in figure_jobs(name, plan.figure, plan) if job not in wanted]
    for job in wanted:
        source_of(job, conduct)  # refuse what cannot be meant before anything is trained
        resolve(choice_of(job, conduct))
    _refuse_what_rows_differ_in(wanted, conduct)
    _refuse_what_no_run_reads(wanted, conduct)
    remember(out / name / plan.preset.replace("/", "-"), conduct, wanted)
    problems = run_cells(wanted, out, runner=TrainingRunner(conduct, say), say=say)
    counts = cache(lambda variant: counted(method, variant))
    cells = [] if drawn_only else lay_out(method, out, plan, problems=problems, counts=counts)
    figures = draw_figures(name, out, cells, plan, number=plan.figure) if plan.figure or not plan.table else []
    pages = write_pages(
        f"{method.title}: {plan_in_words(plan)}",
        cells,
        out,
        name=page_name(name, plan),
        intro=introduction(method, plan, conduct, wanted),
        sections={"Figures": section(figures)} if figures else {},
    )
    missing = [f"Fig. {entry.figure.number}: {entry.missing}" for entry in figures if entry.missing]
    return Reproduced(tuple(cells), tuple(missing), pages)


def _printed(method: Method, plan: Plan) -> bool:
    """Whether the figure that a plan asks for has printed numbers."""
    return any(number.table == f"Fig. {plan.figure}" for number in method.published)


def plan_in_words(plan: Plan) -> str:
    parts = [f"Table {plan.table}" if plan.table else "", f"Fig. {plan.figure}" if plan.figure else ""]
    return " and ".join(part for part in parts if part) or "every table and figure"


def page_name(method: str, plan: Plan) -> str:
    """A file name by what was asked for: the pattern of rows is told by its words and, where it has other signs or is long, by a
    hash."""
    parts = [method, plan.preset.replace("/", "-"), plan.data or ""]
    parts += [f"table{plan.table}" if plan.table else "", f"figure{plan.figure}" if plan.figure else ""]
    parts.append("" if plan.seeds == Plan.seeds else f"seeds{plan.seeds}")
    words = re.sub(r"\W+", "-", plan.rows).strip("-")[:LONGEST]
    parts += [words, "" if words == plan.rows else hashlib.sha256(plan.rows.encode()).hexdigest()[:6]]
    return "-".join(part.replace(" ", "") for part in parts if part)


def introduction(method: Method, plan: Plan, conduct: Conduct, wanted: Iterable[Job]) -> list[str]:
    """What every cell of the page has in common, in sentences."""
    epochs = {resolve(choice_of(job, conduct))[1].epochs for job in wanted}
    lines = [method.citation.rstrip(".") + ".", f"Preset {plan.preset}, {plan.seeds} seeds."]
    if plan.rows:
        lines.append(f"Only rows like {plan.rows!r}.")
    if epochs:
        lines.append(f"Every run trains {' or '.join(map(str, sorted(epochs)))} epochs.")
    chosen = {_division(job, conduct)["select_on"] for job in wanted}
    words = {HOLDOUT: "a fixed tenth of train", "valid": "valid"}
    if chosen:
        lines.append(f"Epochs are chosen on {' or '.join(words[rows] for rows in sorted(chosen))}.")
    if start := (conduct.weights or {}).get(""):
        lines.append(f"Rows that name no start begin from {start.name}.")
    elif method.starts_from:
        lines.append(
            f"The paper's networks start from {method.starts_from} weights (--pretrained FILE), these at random."
        )
    if conduct.settings:
        lines.append(f"Changed: {', '.join(conduct.settings)}.")
    if conduct.allow_partial:
        lines.append("Datasets need not have all their rows (--allow-partial).")
    if plan.data:
        lines.append(f"Measured on {plan.data}: rows can be compared with each other, not with the printed numbers.")
    return lines
