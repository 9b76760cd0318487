"""`mien pool`: the evaluations of a cross-validation's folds as one, every row answered by a network that has not learnt it.
No torch."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.datasets.dataset import fingerprint
from mien.lab.evaluation import compare_files, leaks, report
from mien.lab.evaluation import metrics as measured
from mien.lab.evaluation.eval_needed import check_installed
from mien.lab.evaluation.groups import group_tables
from mien.lab.evaluation.intervals import intervals
from mien.lab.evaluation.judge import notes_of, printed, tables_of_groups, write
from mien.lab.evaluation.scores import SCORES, Scores
from mien.lab.protocol import command_line, commit

SAME = ("dataset", "split", "label_rule", "views", "head", "method", "selection_rule")
_FOLD = re.compile(r"\bfold (\d+) of (\d+)\b")  # in a dataset's note


def pool(folders: Sequence[Path], out: Path, *, page: Path | None = None) -> dict[str, Any]:
    """Join what `judge` wrote into the folders, write scores.npz and metrics.json into `out` (and the report to `page`), and
    return what metrics.json holds: as of `judge`, and "parts", the figures of each folder alone.

    Raises DataError where two parts share a row, or differ in what SAME lists or in their classes, or a fold is missing or
    there twice; UsageError for fewer than two folders, and for a `page` that is no HTML file.
    """
    check_installed(figures=page is not None)
    if page is not None:
        report.check_name(page)
    if len(folders) < 2:
        raise UsageError(f"{len(folders)} evaluation: expected those of two or more folds")
    if any(compare_files.scores_file(folder).resolve() == (out / SCORES).resolve() for folder in folders):
        raise UsageError(f"-o {out} holds one of the folds, which would be overwritten: name another folder")
    parts, _ = compare_files.load(folders)
    scores = joined(parts)
    spans = intervals(scores, clusters=scores.clusters)
    beside = [compare_files.metrics_beside(compare_files.scores_file(folder)) for folder in folders]
    found = {
        **measured.summary(scores),
        "intervals": {name: asdict(span) for name, span in spans.items()},
        "clusters": "none" if scores.clusters is None else _names([part.get("clusters") for part in beside]),
        "groups": [asdict(table) for table in group_tables(scores)],
        "leaks": _leaks(scores, [part.get("leaks", {}) for part in beside]),
        "mismatches": list(dict.fromkeys(mismatch for part in beside for mismatch in part.get("mismatches", ()))),
        "model": {},
        "parts": [_figures(name, part) for name, part in parts.items()],
        "protocol": dict(scores.protocol),
    }
    write(out, scores, found)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        notes = [*notes_of(found), spread(found["parts"])]
        tables = {**tables_of_groups(found), **_table(found)}
        report.write_report(page, report.report(scores, notes=notes, clusters=scores.clusters, tables=tables))
    return found


def joined(parts: Mapping[str, Scores]) -> Scores:
    """The rows of all parts, by id. Where the parts' protocols differ, the list of what each says. Raises DataError as
    `pool` does."""
    (leader, first), *others = parts.items()
    for name, part in others:
        if part.classes != first.classes:
            raise DataError(f"{name}: classes {', '.join(part.classes)}; {leader} has {', '.join(first.classes)}")
        for field in SAME:
            if part.protocol.get(field) != first.protocol.get(field):
                told, wanted = part.protocol.get(field), first.protocol.get(field)
                raise DataError(f"{name}: {field} {told}; {leader} has {wanted}: pool folds of one cross-validation")
    _refuse_shared_rows(parts)
    folds = _folds(parts)
    held = list(parts.values())
    ids = np.concatenate([part.ids for part in held])
    order = np.argsort(ids, kind="stable")
    labels = np.concatenate([part.labels for part in held])[order]
    protocol = {
        **{field: _said([part.protocol.get(field) for part in held]) for field in first.protocol},
        "data_fingerprint": fingerprint([str(name) for name in ids[order]], labels),
        "note": f"pooled: {folds}",
        "command": command_line(),
        "commit": commit(),
    }
    unknown = [np.full(len(part.ids), "") for part in held]
    clusters = None
    if any(part.clusters is not None for part in held):
        named = [none if part.clusters is None else part.clusters for part, none in zip(held, unknown, strict=True)]
        clusters = np.concatenate(named)[order]
    attributes = dict.fromkeys(name for part in held for name in part.groups)
    groups = {
        name: np.concatenate([part.groups.get(name, none) for part, none in zip(held, unknown, strict=True)])[order]
        for name in attributes
    }
    votes = [part.votes for part in held if part.votes is not None]
    return Scores(
        labels,
        np.concatenate([part.probabilities for part in held])[order],
        first.classes,
        ids[order],
        protocol,
        votes=np.concatenate(votes)[order] if len(votes) == len(held) else None,
        clusters=clusters,
        groups=groups,
    )


def spread(parts: Sequence[Mapping[str, Any]]) -> str:
    """The accuracy of each part and their mean, which papers print, in a sentence."""
    values = 100 * np.array([part["accuracy"] for part in parts])
    each = ", ".join(f"{part['name']} {value:.2f}" for part, value in zip(parts, values, strict=True))
    return (
        f"Accuracy of each part: {each}; their mean {values.mean():.2f}, standard deviation {values.std(ddof=1):.2f}."
    )


def as_text(found: Mapping[str, Any]) -> str:
    """The table of a `pool` result, as `mien evaluate` prints one, with the parts below."""
    return f"{printed(found)}\n{spread(found['parts'])}"


def _refuse_shared_rows(parts: Mapping[str, Scores]) -> None:
    owner: dict[str, str] = {}
    for name, part in parts.items():
        for row in part.ids:
            if str(row) in owner:
                raise DataError(f"row {row} is in {owner[str(row)]} and in {name}: expected each row in one part")
            owner[str(row)] = name


def _folds(parts: Mapping[str, Scores]) -> str:
    """What the parts are, for the note. Raises DataError where they are folds, and one is missing, or of another number."""
    notes = [_FOLD.search(str(part.protocol.get("note", ""))) for part in parts.values()]
    known = [(int(note[1]), int(note[2])) for note in notes if note]
    if not known:
        return f"{len(parts)} parts"
    of = known[0][1]
    if sorted(known) != [(fold, of) for fold in range(1, of + 1)] or len(known) < len(notes):
        told = ", ".join(f"{note[1]} of {note[2]}" if note else "none" for note in notes)
        raise DataError(f"the parts are the folds {told}: expected each of 1 to {of} once")
    return f"folds 1 to {of}"


def _said(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else values


def _names(told: Sequence[str | None]) -> str:
    """What the parts' rows are drawn together by."""
    return ", ".join(sorted({name for name in told if name not in (None, "none")})) or "those of the parts"


def _leaks(scores: Scores, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the rows that each part found in what its own network learnt."""
    unknown = sum(not part.get("checked") for part in told)
    if unknown:
        return {"checked": False, "sentence": f"Leaks were not looked for in {unknown} of {len(told)} parts."}
    ids = [name for part in told for name in part["ids"]]
    shared = sum((Counter(part.get("shared", {})) for part in told), Counter[str]())
    return leaks.as_facts(leaks.leak_report(scores, np.isin(scores.ids, ids)), shared)


def _figures(name: str, part: Scores) -> dict[str, Any]:
    found = measured.summary(part)
    return {"name": name, **{figure: found[figure] for figure in ("n", "accuracy", "balanced_accuracy", "macro_f1")}}


def _table(found: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]]:
    head = ("part", "rows", "accuracy", "balanced accuracy", "macro F1")
    rows = [
        (
            part["name"],
            f"{part['n']:,}",
            *(f"{100 * part[name]:.2f}" for name in ("accuracy", "balanced_accuracy", "macro_f1")),
        )
        for part in found["parts"]
    ]
    return {"Parts": (head, rows)}
