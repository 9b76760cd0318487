"""`mien compare`, `mien pool` and `mien reproduce`: results beside each other, together, and beside a paper's."""

from pathlib import Path
from typing import Annotated

import typer

from mien.errors import UsageError
from mien.lab.torch_needed import needs_torch
from mien.terminal import stopped


def compare(
    scores: Annotated[list[Path], typer.Argument(metavar="A B...", help="scores.npz files, or folders that hold one.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Also write comparison.md, .csv and .html.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Models on the same rows side by side: metrics with intervals, costs, and every pair tested."""
    from mien.lab.evaluation import compare_files
    from mien.lab.evaluation.compare import compare, to_text

    held, facts = compare_files.load(scores)
    found = compare(held, facts=facts, seed=seed)
    typer.echo(to_text(found))
    if out is not None:
        typer.echo(f"\nwritten: {', '.join(map(str, compare_files.write(found, out)))}")


def pool(
    folds: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="What `mien evaluate` wrote of each fold's run, on its fold.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The folder to write.")],
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Also write one page with figures.")
    ] = None,
) -> None:
    """The folds of a cross-validation as one evaluation: every row once, answered by the run that has not learnt it.

    Writes scores.npz and metrics.json, which `mien compare` takes, and prints them. Needs no data.
    """
    from mien.lab.evaluation import pooling
    from mien.lab.evaluation.scores import METRICS, SCORES

    found = pooling.pool(folds, out, page=report)
    typer.echo(pooling.as_text(found))
    written = [out / SCORES, out / METRICS, *([report] if report else [])]
    typer.echo(f"\nwritten: {', '.join(map(str, written))}")


def reproduce(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See `mien methods`.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Runs and pages; go on by the same command.")],
    table: Annotated[str | None, typer.Option(metavar="N", help="One table of the paper.")] = None,
    figure: Annotated[str | None, typer.Option(metavar="N", help="One figure of the paper.")] = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="Where the datasets lie.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME", help="Measure on this dataset instead of the paper's.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Of every run: paper, cpu for two cores, or another that `mien methods` names.")
    ] = "paper",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, with seeds from 0.")] = 3,
    rows: Annotated[str, typer.Option(metavar="REGEX", help="Only the rows whose names match.")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[VARIANT:]KEY=VALUE", help="Change every recipe, or one variant's."),
    ] = None,
    select_on: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="What chooses the epoch: holdout or valid; default: holdout, but valid for wcl on AffectNet, whose paper draws "
            "such rows.",
        ),
    ] = None,
    report_on: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="The reported split; default: test; valid of FER-2013, FER+, SFEW and, but for wcl, AffectNet.",
        ),
    ] = None,
    pretrained: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="Start weights that rows ask for by name; without NAME, of the rows that name none.",
        ),
    ] = None,
    teacher: Annotated[Path | None, typer.Option(metavar="RUN", help="For rows that learn from a teacher.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores.")] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Go on although counts are not the official ones.")
    ] = False,
) -> None:
    """A paper's tables, cell by cell: published, measured here, difference, interval, protocol.

    A finished run is never made again; a cell whose data are absent says so. Deleting a run's scores.npz empties its cells.
    """
    with needs_torch():
        from mien.lab import reproduction_runner as running
    from mien.lab.reproduce import Plan

    conduct = running.Conduct(
        root, tuple(settings or ()), select_on, report_on, _weights(pretrained or []), teacher, threads, allow_partial
    )
    plan = Plan(preset, seeds, table, figure, rows, data)
    with stopped(f"the same command goes on in {out}"):
        found = running.reproduce(method, plan, out, conduct=conduct, say=typer.echo)
    typer.echo("\n" + found.pages[0].read_text(encoding="utf-8"))
    for line in found.missing:
        typer.echo(line)
    typer.echo(f"written: {', '.join(map(str, found.pages))}")


def _weights(given: list[str]) -> dict[str, Path]:
    """NAME=FILE words as a mapping; a FILE alone is of the name ""."""
    pairs = [word.partition("=") if "=" in word else ("", "", word) for word in given]
    wrong = [word for word, (name, found, file) in zip(given, pairs, strict=True) if not file or (found and not name)]
    if wrong:
        raise UsageError(f"--pretrained {wrong[0]!r}: expected NAME=FILE, e.g. VGGFace2=senet50.safetensors, or FILE")
    return {name: Path(file) for name, _, file in pairs}
