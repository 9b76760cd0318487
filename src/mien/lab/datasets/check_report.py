"""What `mien data check` says and writes: lines for people, tables and a histogram for the record."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mien.lab.datasets.check import Report, View
from mien.lab.datasets.dataset import IDENTITIES


def summary(report: Report) -> str:
    """The report as text, a line per finding; what was found and what is official side by side."""
    lines = [f"{report.name} in {report.root}" if report.root else report.name]
    for view in report.views:
        lines.append(_split_line(report, view))
    if report.rows:
        lines += [_sizes_line(report), *_duplicate_lines(report), *_identity_lines(report)]
    lines += [f"WRONG {p.kind} {p.split} {p.row}: {p.message}".replace(" :", ":") for p in report.problems[:20]]
    if len(report.problems) > 20:
        lines.append(f"... and {len(report.problems) - 20:,} more problems: -o DIR lists them all in problems.csv")
    return "\n".join([*lines, _verdict(report)])


def _verdict(report: Report) -> str:
    if report.fails:
        return "wrong: see above"
    exact = sum(map(report.conflicting, report.duplicates.exact))
    near = sum(report.conflicting((pair.first, pair.second)) for pair in report.duplicates.near)
    if exact or near:
        return (
            f"counts and files are right; labels conflict in {exact:,} groups of exact duplicates and {near:,} near or "
            "mirrored pairs: -o DIR lists them"
        )
    return "counts, files and labels are right"


def _sizes_line(report: Report) -> str:
    sizes = sorted(report.sizes.items(), key=lambda item: -item[1])
    told = ", ".join(f"{width}x{height} ({count:,})" for (width, height), count in sizes[:3])
    return f"sizes: {told}" + (f" and {len(sizes) - 3:,} more" if len(sizes) > 3 else "")


def _split_line(report: Report, view: View) -> str:
    if view.split in report.absent:
        return f"{view.split}: absent: {report.absent[view.split]}"
    if view.split not in report.splits:
        return f"{view.split}: cannot be loaded"
    data = report.splits[view.split]
    counts = ", ".join(f"{name} {count:,}" for name, count in zip(data.classes, data.class_counts, strict=True))
    official = "" if view.official is None or view.official.rows is None else f" of {view.official.rows:,}"
    note = f"; {data.note}" if data.note else ""
    return f"{view.split}: {len(data):,}{official} rows ({counts}), fingerprint {data.fingerprint}{note}"


def _duplicate_lines(report: Report) -> list[str]:
    lines = []
    exact = report.duplicates.exact
    extra = sum(len(group) - 1 for group in exact)
    conflicts = sum(map(report.conflicting, exact))
    lines.append(f"exact duplicates: {extra:,} repeats in {len(exact):,} groups, {conflicts:,} with conflicting labels")
    names = list(report.splits)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            lines.append(_between(report, first, second))
    for kind in ("near", "mirrored"):
        pairs = [(pair.first, pair.second) for pair in report.duplicates.near if pair.kind == kind]
        across, conflicts = sum(map(report.across, pairs)), sum(map(report.conflicting, pairs))
        lines.append(
            f"{kind} duplicates: {len(pairs):,} pairs, {across:,} across splits, {conflicts:,} with conflicting labels"
        )
    return lines


def _between(report: Report, first: str, second: str) -> str:
    """Exact duplicates that two splits share: how many of the second's rows are in the first."""
    groups = [
        group
        for group in report.duplicates.exact
        if {first, second} <= {report.rows[position][0] for position in group}
    ]
    shared = [[p for p in group if report.rows[p][0] in (first, second)] for group in groups]
    rows = sum(report.rows[p][0] == second for group in shared for p in group)
    conflicts = sum(map(report.conflicting, shared))
    return (
        f"  {rows:,} {second} rows are in {first}, too: {len(groups):,} groups, {conflicts:,} with conflicting labels"
    )


def _identity_lines(report: Report) -> list[str]:
    """Of subjects, films, sequences and pictures that stand in more than one split."""
    lines = []
    for name in IDENTITIES:
        splits = [set(data.groups.get(name, ())) - {""} for data in report.splits.values()]
        known = Counter(value for values in splits for value in values)
        shared = sum(count > 1 for count in known.values())
        if shared:
            lines.append(f"{name}s: {shared:,} of {len(known):,} are in more than one split")
    return lines


def write(report: Report, out: Path) -> list[Path]:
    """Write counts.csv, sizes.csv, problems.csv, duplicates.csv, near_duplicates.csv and labels.png into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[object]]]] = {
        "counts": (("split", "class", "found", "official", "agrees"), _count_rows(report)),
        "sizes": (("width", "height", "pictures"), sorted((*size, count) for size, count in report.sizes.items())),
        "problems": (
            ("kind", "split", "row", "message"),
            [(p.kind, p.split, p.row, p.message) for p in report.problems],
        ),
        "duplicates": (("group", "split", "row", "label", "across_splits", "conflict"), _exact_rows(report)),
        "near_duplicates": (
            (
                "kind", "split_1", "row_1", "label_1", "split_2", "row_2", "label_2", "bits", "correlation",
                "across_splits", "conflict",
            ),
            _near_rows(report),
        ),
    }  # fmt: skip
    for name, (header, rows) in tables.items():
        with (out / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    _histogram(report, out / "labels.png")
    return [*(out / f"{name}.csv" for name in tables), out / "labels.png"]


def _count_rows(report: Report) -> Iterable[tuple[object, ...]]:
    for view in report.views:
        if view.split not in report.splits:
            yield view.split, "all", 0, "", "absent" if view.split in report.absent else "no"
            continue
        data, official = report.splits[view.split], view.official
        found = [("all", len(data)), *zip(data.classes, data.class_counts, strict=True)]
        printed = {} if official is None else {"all": official.rows, **(official.counts or {})}
        for name, count in found:
            expected = printed.get(name)
            agrees = "" if official is None or expected is None else "yes" if official.agrees(count, expected) else "no"
            yield view.split, name, count, "" if expected is None else expected, agrees


def _named(report: Report, position: int) -> tuple[str, str, str]:
    """(split, row id, label) of a picture."""
    split, row = report.rows[position]
    return split, report.splits[split].ids[row], report.label(position)


def _exact_rows(report: Report) -> Iterable[tuple[object, ...]]:
    for number, group in enumerate(report.duplicates.exact, start=1):
        across, conflict = int(report.across(group)), int(report.conflicting(group))
        for position in group:
            yield number, *_named(report, position), across, conflict


def _near_rows(report: Report) -> Iterable[tuple[object, ...]]:
    for pair in report.duplicates.near:
        both = (pair.first, pair.second)
        named = (*_named(report, pair.first), *_named(report, pair.second))
        yield pair.kind, *named, pair.bits, pair.correlation, int(report.across(both)), int(report.conflicting(both))


def _histogram(report: Report, path: Path) -> None:
    """Rows per class, one bar per split."""
    from matplotlib.figure import Figure

    classes = list(dict.fromkeys(name for data in report.splits.values() for name in data.classes))
    figure = Figure(figsize=(max(6.0, len(classes)), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(report.splits), 1)
    for number, (split, data) in enumerate(report.splits.items()):
        places = [classes.index(name) + (number - (len(report.splits) - 1) / 2) * width for name in data.classes]
        bars = axes.bar(places, data.class_counts, width, label=f"{split} ({len(data):,})")
        axes.bar_label(bars, fontsize=6, rotation=90 if len(report.splits) > 1 else 0, padding=2)
    axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 8 else 0)
    axes.set_ylabel("rows")
    axes.set_title(f"{report.name}: labels")
    axes.margins(y=0.15)
    if report.splits:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
