"""`mien evaluate`: a run folder, an ONNX file or a table of answers and a split in; scores.npz, metrics.json and a report out."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mien import writing
from mien.classifier import Classifier
from mien.errors import MienError, UsageError
from mien.lab import datasets
from mien.lab.datasets.dataset import IDENTITIES, FaceDataset
from mien.lab.evaluation import answers, leaks, report
from mien.lab.evaluation import metrics as measured
from mien.lab.evaluation.eval_needed import check_installed
from mien.lab.evaluation.evaluate import AVERAGES, Model, check_views, evaluate, head_for
from mien.lab.evaluation.figures import learning_curves, read_curves, to_bytes
from mien.lab.evaluation.groups import attributes, group_tables, rows_of, table_of
from mien.lab.evaluation.intervals import intervals
from mien.lab.evaluation.scores import METRICS, SCORES, Scores
from mien.lab.evaluation.statistics import LEVEL_WORDS, shared
from mien.lab.evaluation.text import aligned_columns, text_table
from mien.lab.protocol import command_line, commit

TIMED = 50  # single faces; their median is the time of one


@dataclass(frozen=True)
class Training:
    """The training split that leaks are looked for in, or why there is none (`absent`, words that end a sentence)."""

    data: FaceDataset | None = None
    absent: str = "no training split was given"


@dataclass(frozen=True)
class Opened:
    """A model ready to be judged. facts: its part of the protocol. costs: what is known of bytes, parameters (all, those that
    learn, and Keras' total) and macs. run: the folder of a run, or None. views: as its recipe tests."""

    model: Model
    facts: Mapping[str, Any]
    costs: Mapping[str, float]
    run: Path | None = None
    views: str = "single"


def judge(
    model: Path,
    data: FaceDataset,
    out: Path,
    *,
    views: str | None = None,
    average: str = "probabilities",
    head: str | None = None,
    training: Training = Training(),
    accept_mismatch: bool = False,
    page: Path | None = None,
    faces: bool = False,
) -> dict[str, Any]:
    """Evaluate, write scores.npz and metrics.json into `out` (and the report to `page`), and return what metrics.json
    holds: the summary, its intervals, the accuracy of groups, leaks, mismatches, the model's costs and the protocol.

    model: a run folder, an ONNX file, or another tool's answers as `answers.read` takes them, which have no costs, and no views,
    heads or input to choose. views: None for those of the run's recipe, of a file the single one. training: where to look for
    leaks. faces: show some in the report. Raises DataError when the data are not what the model was made for, unless
    `accept_mismatch`; UsageError for a `page` that is no HTML file, and for options that a table of answers does not have.
    """
    check_installed(figures=page is not None)
    if page is not None:
        report.check_name(page)
    opened, mismatches = None, []
    if answers.is_table(model):
        if views is not None or head is not None or average != AVERAGES[0] or accept_mismatch:
            raise UsageError(
                f"{model}: a table of answers has no views, heads or input to choose; leave out --views, --average, --head and "
                "--accept-mismatch"
            )
        scores = answers.read(model, data)
    else:
        opened = open_model(model)
        check_views(views or opened.views, average)  # before a folder is made
        card = opened.model.card
        mismatches = leaks.check_preprocessing(
            card, data, head=head_for(card, data.name, head), accepted=accept_mismatch
        )  # before the work
        writing.folder(out)
        scores = evaluate(
            opened.model,
            data,
            views=views or opened.views,
            average=average,
            head=head,
            protocol=dict(opened.facts),
        )
    hashes = hashes_of(data)
    clusters, by = clusters_of(data, hashes)
    scores = replace(with_clusters(scores, clusters), groups=attributes(data.groups))
    spans = intervals(scores, clusters=clusters)
    found = {
        **measured.summary(scores),
        "intervals": {name: asdict(span) for name, span in spans.items()},
        "clusters": by,
        "groups": [asdict(table) for table in group_tables(scores)],
        "leaks": leaks_of(scores, data, hashes, training),
        "mismatches": mismatches,
        "model": {} if opened is None else costs_of(opened, data),
        "protocol": dict(scores.protocol),
    }
    write(out, scores, found)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        shown = [] if not faces else faces_of(opened, scores, data)
        run = None if opened is None else opened.run
        report.write_report(page, html(scores, found, clusters=clusters, run=run, faces=shown))
    return found


def write(out: Path, scores: Scores, found: Mapping[str, Any]) -> None:
    """scores.npz and metrics.json into the folder."""
    writing.folder(out)
    scores.save(out / SCORES)
    writing.text(out / METRICS, json.dumps(found, indent=1, sort_keys=True))


def costs_of(opened: Opened, data: FaceDataset) -> dict[str, float]:
    """What is known of the model, and its time for a face on one thread."""
    with nullcontext() if opened.run is None else _one_torch_thread():
        return {**opened.costs, "ms_per_face": ms_per_face(opened.model, data)}


def faces_of(opened: Opened | None, scores: Scores, data: FaceDataset) -> list[report.Picture]:
    """Grids of faces, and for a run (not for a file, which has no gradients) where its network looks."""
    from mien.lab.evaluation import gallery

    looks = [] if opened is None or opened.run is None else gallery.looks(opened.model, scores, data)  # type: ignore[arg-type]
    return [*gallery.grids(scores, data), *looks]


def open_model(path: Path, *, checkpoint: str = "best.ckpt") -> Opened:
    """The model of a run folder (of its `checkpoint`) or an ONNX file. Only a run folder needs torch. Raises UsageError for a file
    of another kind, DataError for a folder that is no run's, ModelError for a file that is no model of mien's."""
    facts: dict[str, Any] = {"command": command_line(), "commit": commit()}
    if path.is_dir():
        from mien.lab.networks.counts import statistics
        from mien.lab.training.export import TrainedRun

        run = TrainedRun(path, checkpoint=checkpoint)
        counts = run.facts["parameters"]
        weights = sum(counts.values())
        costs = {
            "parameters": weights,
            "trainable": counts["trainable"],
            "keras_total": weights + statistics(run.module.network),
            "macs": run.facts["macs"],
        }
        facts |= {"selection_rule": run.facts["selection_rule"], "seed": run.facts["seed"]}
        return Opened(run, facts, costs, path, run.recipe.views)
    if path.suffix != ".onnx":
        raise UsageError(
            f"{path}: expected a run folder written by `mien train`, an .onnx file written by `mien export`, or a .csv of answers"
        )
    model = Classifier(path, threads=1)
    facts |= {"selection_rule": "as stated by whoever made the file", "seed": model.card.seed}
    return Opened(model, facts, {"bytes": path.stat().st_size})


def training_rows(model: Path, name: str, root: Path | None, **options: Any) -> Training:
    """Where to look for leaks into rows of the dataset `name`, loaded with `options` (those of `datasets.load`): what a run was
    trained on, where that is of this dataset (its label rule, fold or protocol may be others), else `training_split`. What a file
    was trained on cannot be loaded."""
    if model.is_dir():
        from mien.lab.training import export, runs

        if runs.read(model)["data"]["name"] != name:
            return training_split(name, root, **options)
        return _hashable(lambda: export.training_rows(model, root), "the run's training split")
    found = training_split(name, root, **options)
    divided = any(options.get(key) is not None for key in ("protocol", "fold"))
    if found.data is None or answers.is_table(model) or not divided:
        return found
    told = " ".join(head.trained_on for head in Classifier(model).card.heads.values())
    if f"{name} " in told and found.data.fingerprint not in told:
        return Training(absent=f"the file was trained on other rows ({told}) than this division's training split")
    return found


def training_split(name: str, root: Path | None, **options: Any) -> Training:
    """The training split of the same dataset and options, or the reason why leaks cannot be looked for. options: those
    of `datasets.load`."""
    return _hashable(lambda: datasets.load(name, root, split="train", **options), "the training split")


def _hashable(loaded: Callable[[], FaceDataset], what: str) -> Training:
    try:
        data = loaded()
    except MienError as error:
        return Training(absent=f"{what} cannot be loaded ({error})")
    if len(data) > leaks.HASHED_ROWS:
        return Training(absent=f"{what} has {len(data):,} rows, over {leaks.HASHED_ROWS:,}")
    return Training(data)


def hashes_of(data: FaceDataset) -> tuple[str, ...] | None:
    """Hashes of the pictures where there are few enough to hash, else None."""
    return leaks.pixel_hashes(data) if len(data) <= leaks.HASHED_ROWS else None


def with_clusters(scores: Scores, clusters: Sequence[str] | None) -> Scores:
    """The same scores with the names that their intervals draw rows by."""
    return scores if clusters is None else replace(scores, clusters=np.asarray(clusters))


def clusters_of(data: FaceDataset, hashes: Sequence[str] | None) -> tuple[Sequence[str] | None, str]:
    """What the bootstrap draws together, and its name: the first of IDENTITIES that the dataset knows, else exact copies where
    the pictures were hashed; nothing where no two rows are of one."""
    known = [(data.groups[name], name) for name in IDENTITIES if any(data.groups.get(name, ()))]
    if not known and hashes is not None:
        known = [(leaks.duplicate_clusters(hashes), "exact copies")]
    return known[0] if known and shared(known[0][0]) else (None, "none")


def leaks_of(scores: Scores, data: FaceDataset, hashes: Sequence[str] | None, training: Training) -> dict[str, Any]:
    """Accuracy with and without the rows that also stand in the training split, and the rows of its subjects; "sentence" says
    it, or why it is not known ("checked" is then False)."""
    if training.data is None:
        return {"checked": False, "sentence": f"Leaks were not looked for: {training.absent}."}
    if scores.protocol["data_fingerprint"] == training.data.fingerprint:
        return {"checked": False, "sentence": "These rows are the training split itself."}
    if hashes is None:
        return {"checked": False, "sentence": f"Leaks were not looked for: over {leaks.HASHED_ROWS:,} rows."}
    leaked = leaks.leaking(leaks.pixel_hashes(training.data), hashes)
    return leaks.as_facts(leaks.leak_report(scores, leaked), leaks.shared_identities(training.data, data))


def ms_per_face(model: Model, data: FaceDataset) -> float:
    """Median time of one prepared face through the model, batch 1, ms. The caller sees to one thread."""
    batch = model.card.input.prepare([data.read(0)])
    model.run(batch)  # the first call also sets up
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        model.run(batch)
        times.append(time.perf_counter() - start)
    return round(1000 * median(times), 4)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def html(
    scores: Scores,
    found: Mapping[str, Any],
    *,
    clusters: Sequence[str] | None = None,
    run: Path | None = None,
    faces: Sequence[report.Picture] = (),
) -> str:
    """The report of a `judge` result. run: the run folder, for its facts and learning curves. faces: more figures."""
    known = [(name, f"{value:,}") for name, value in sorted(found["model"].items())]
    costs = {"Cost": (("quantity", "value"), known)} if known else {}
    facts = None if run is None else json.loads((run / "run.json").read_text(encoding="utf-8"))
    curves = (
        [] if run is None or not (run / "metrics.csv").is_file() else _curves(run / "metrics.csv")
    )  # a soup has none
    return report.report(
        scores,
        run=facts,
        extra=[*curves, *faces],
        notes=notes_of(found),
        clusters=clusters,
        tables={**tables_of_groups(found), **costs},
    )


def notes_of(found: Mapping[str, Any]) -> list[str]:
    """What the reader of a `judge` result's report must know first, in sentences."""
    return [*(f"Accepted although {mismatch}." for mismatch in found["mismatches"]), found["leaks"]["sentence"]]


def tables_of_groups(found: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Heading -> head and rows of each table of a `judge` result's groups, for a report."""
    return {f"By {table['attribute']}": rows_of(table_of(table)) for table in found["groups"]}


def _curves(path: Path) -> list[report.Picture]:
    """Learning curves of a run: its training loss and what it was selected on."""
    curves = read_curves(path)
    columns = [name for name in ("train_loss", "selection") if name in curves]
    figure = learning_curves({"this run": curves}, columns)
    return [
        report.Picture(to_bytes(figure, "svg"), "Learning curves; selection is the accuracy that epochs are chosen by.")
    ]


def printed(found: Mapping[str, Any]) -> str:
    """The table of a `judge` result, headed by its protocol, with leaks and mismatches below."""
    protocol = found["protocol"]
    lines = [f"{protocol['dataset']} {protocol['split']}, label rule {protocol['label_rule']}, head {protocol['head']}"]
    lines.append(f"views: {protocol['views']}; selected by: {protocol['selection_rule']}; seed {protocol['seed']}")
    lines += [f"note: {protocol['note']}"] if protocol.get("note") else []
    spans = {name: (span["low"], span["high"]) for name, span in found["intervals"].items()}
    notes = [f"accepted although {mismatch}" for mismatch in found["mismatches"]]
    notes.append(f"[low, high]: {LEVEL_WORDS} intervals, ECE's an upper bound; drawn together: {found['clusters']}")
    notes.append(found["leaks"]["sentence"])
    if "ms_per_face" in found["model"]:
        notes.append(f"{found['model']['ms_per_face']:.2f} ms a face on one thread, one at a time")
    groups = [line for table in tables_of_groups(found).values() for line in (aligned_columns(*table), "")]
    return "\n".join([*lines, "", text_table(found, intervals=spans), "", *groups, *notes])
