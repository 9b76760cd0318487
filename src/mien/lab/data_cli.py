"""`mien data`: which datasets there are, whether a copy is what its owner ships, and how to prepare it."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.job_cli import progress_bar
from mien.lab.cli import Fold, Partial, Protocol, Rule

if TYPE_CHECKING:
    from mien.lab.datasets import FaceDataset

app = typer.Typer(no_args_is_help=True, help="Datasets: list, check, align, pack.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A dataset; `mien data list` names them.")]
Root = Annotated[Path | None, typer.Option("--root", help="Where the dataset lies, as its owner ships it.")]

Splits = Annotated[list[str] | None, typer.Option("--split", help="Which splits; default: all that are there.")]


@app.command("list")
def list_() -> None:
    """The datasets, what they are, and the options that each has."""
    from mien.lab.datasets import NAMES, OPTIONS, about

    for name in NAMES:
        options = " ".join(f"--{option.replace('_', '-')}" for option in sorted(OPTIONS[name]))
        print(f"{name:15} {about(name)}" + (f" [{options}]" if options else ""))


@app.command("check")
def check(
    name: Name,
    root: Root = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the tables and the histogram.")] = None,
) -> None:
    """Compare a dataset with its official counts, read every picture, find duplicates.

    Exit status 1 when something is wrong.
    """
    from mien.lab.datasets.check import check as run
    from mien.lab.datasets.check_report import summary, write
    from mien.lab.evaluation.eval_needed import FIGURES, needs_eval

    if out is not None:
        with needs_eval("figures"):
            import_module(FIGURES)
    with progress_bar("pictures") as progress:
        report = run(name, root, progress=progress)
    print(summary(report))
    if out is not None:
        for path in write(report, out):
            print(path)
    if report.fails:
        raise typer.Exit(1)


@app.command("pack")
def pack(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the shards into.")],
    root: Root = None,
    split: Splits = None,
    label_rule: Rule = None,
    protocol: Protocol = None,
    fold: Fold = None,
    size: Annotated[int | None, typer.Option("--size", help="Resize both edges to this many px.")] = None,
    jpeg: Annotated[int | None, typer.Option("--jpeg", help="JPEG quality 1-95; default: lossless PNG.")] = None,
    allow_partial: Partial = False,
) -> None:
    """Write a dataset as tar shards with an index; `--data NAME --root OUT` reads them in place of the dataset."""
    from mien.lab.datasets.pack import Encoding
    from mien.lab.datasets.pack import pack as write

    options = {"label_rule": label_rule, "protocol": protocol, "fold": fold, "allow_partial": allow_partial}
    splits = _present(name, root, split, options)
    with progress_bar("pictures") as progress:
        write(splits, out, encoding=Encoding(size, jpeg), protocol=protocol, fold=fold, progress=progress)
    print(f"{out}: " + ", ".join(f"{data.split} {len(data):,}" for data in splits))


@app.command("align")
def align(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the faces and manifest.csv.")],
    root: Root = None,
    split: Splits = None,
    label_rule: Rule = None,
    protocol: Protocol = None,
    size: Annotated[int, typer.Option("--size", help="Side of the faces, px.")] = 100,
    margin: Annotated[float, typer.Option("--margin", help="Context around the face, fraction of its side.")] = 0.0,
    workers: Annotated[int, typer.Option("--workers", help="Processes.")] = 2,
    allow_partial: Partial = False,
) -> None:
    """Cut every face upright with MTCNN and five points; started again, it goes on where it stopped."""
    from mien.lab.datasets.align_dataset import align as run

    options = {"label_rule": label_rule, "protocol": protocol, "fold": None, "allow_partial": allow_partial}
    splits = _present(name, root, split, options)
    with progress_bar("pictures") as progress:
        counts = run(splits, out, root=root, side=size, margin=margin, workers=workers, progress=progress)
    print(f"{out}: " + ", ".join(f"{status} {count:,}" for status, count in sorted(counts.items())))


def _present(
    name: str, root: Path | None, wanted: Sequence[str] | None, options: dict[str, Any]
) -> "list[FaceDataset]":
    """The splits that are there; one that was asked for by name has to be. options: of `datasets.load`."""
    from mien.lab import datasets
    from mien.lab.datasets.dataset import AbsentSplitError

    whole = datasets.splits(name, root, options["protocol"]) if options["fold"] is None else ("train", "test")
    found, absent = [], []
    for split in wanted or whole:
        try:
            found.append(datasets.load(name, root, split=split, **options))
        except AbsentSplitError as error:
            absent.append(error)
    if absent and (wanted or not found):
        raise absent[0]
    return found
