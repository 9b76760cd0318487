"""The lab's commands. They print; what they print is computed elsewhere. Importing this module imports no torch."""

import json as jsonlib
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.errors import UsageError
from mien.lab.torch_needed import needs_torch
from mien.terminal import stopped

Data = Annotated[str, typer.Option("--data", metavar="NAME", help="The dataset: see `mien data list`.")]
Root = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="Where the dataset lies, as its owner ships it.")
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The folder to write.")]
Rule = Annotated[
    str | None,
    typer.Option("--label-rule", metavar="RULE", help="How FER+ votes become labels; which classes (AffectNet, CK+)."),
]
Protocol = Annotated[str | None, typer.Option("--protocol", metavar="NAME", help="A paper's split, e.g. ad-corre.")]
Fold = Annotated[int | None, typer.Option("--fold", help="Which fold, from 1, where the dataset has folds.")]
Partial = Annotated[bool, typer.Option("--allow-partial", help="Go on although counts are not the official ones.")]


def register(app: typer.Typer) -> None:
    """Add the lab's commands to `app`."""
    from mien.lab.data_cli import app as data
    from mien.lab.results_cli import compare, pool, reproduce

    app.command("train")(train)
    app.command("export")(export)
    app.command("average")(average)
    app.command("cross-fit")(cross_fit)
    app.command("evaluate")(evaluate)
    app.command("compare")(compare)
    app.command("pool")(pool)
    app.command("reproduce")(reproduce)
    app.add_typer(_methods, name="methods")
    app.add_typer(data, name="data")


def train(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See `mien methods`.")],
    data: Data,
    out: Out,
    root: Root = None,
    preset: Annotated[
        str, typer.Option(help="The method's recipe: paper, cpu for two cores, or another that `mien methods` names.")
    ] = "paper",
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="A row of the paper's tables: see `mien methods show METHOD`.")
    ] = None,
    network: Annotated[str | None, typer.Option(metavar="NAME", help="Another network than the method's own.")] = None,
    loss: Annotated[str | None, typer.Option(metavar="NAME", help="Another loss than the method's own.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace one field.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    select_on: Annotated[
        str, typer.Option(metavar="SPLIT", help="valid, or holdout: a fixed tenth of train.")
    ] = "valid",
    leave_out: Annotated[
        str | None, typer.Option(metavar="K/N", help="Do not learn from part K of N equal parts of train, as 1/3.")
    ] = None,
    label_rule: Rule = None,
    protocol: Protocol = None,
    fold: Fold = None,
    allow_partial: Partial = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last complete checkpoint.")] = False,
    pretrained: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights to start from: a checkpoint, or an .onnx of mien.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="What gives target distributions: a trained run, an .onnx of mien, or a .npz of cross-fit. Several share "
            "every batch's pictures out among them.",
        ),
    ] = None,
    out_of_fold: Annotated[
        bool,
        typer.Option("--out-of-fold", help="Teachers answer only about the part that they left out (--leave-out)."),
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores.")] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes per machine, one for each GPU; default: 1, or torchrun's."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, metavar="M", help="Machines: start them by torchrun or srun.")
    ] = None,
    rank_wait: Annotated[
        float, typer.Option(min=1, metavar="S", help="Give up when another process does not answer for so long.")
    ] = 600.0,
) -> None:
    """Train a method on a dataset into a run folder. It can be killed at any moment and gone on with by --resume."""
    with needs_torch():
        from mien.lab.training import trainer
        from mien.lab.training.parts import Part
        from mien.lab.training.recipes import Choice

        import_module("tensorboard")  # which Lightning would miss later
    choice = Choice(method, preset, network, loss, tuple(settings or ()), variant)
    left_out = None if leave_out is None else Part.parse(leave_out)
    source = trainer.Source(data, root, protocol, fold, label_rule, select_on, allow_partial, left_out)
    with stopped(f"the same command with --resume goes on in {out}"):
        trainer.train(
            choice,
            source,
            out,
            seed=seed,
            resume=resume,
            pretrained=pretrained,
            teacher=teacher,
            out_of_fold=out_of_fold,
            threads=threads,
            devices=devices,
            nodes=nodes,
            rank_wait=rank_wait,
            say=typer.echo,
        )


def export(
    chosen: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders written by `mien train`; several answer with their mean."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.onnx")],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="The runs' data: fit temperatures on their validation rows."),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Every network sees the picture and its mirror image, and the mean answers.")
    ] = False,
    split: Annotated[
        bool, typer.Option("--split", help="Of several runs: 1, 3, ... see the picture, 2, 4, ... its mirror image.")
    ] = False,
    average: Annotated[
        str, typer.Option(help="What the mean is of: probabilities, as `mien evaluate`, or logits.")
    ] = "probabilities",
    weights: Annotated[
        str, typer.Option(metavar="TYPE", help="float32; float16, half the file; int8, a quarter (needs --root).")
    ] = "float32",
    uncalibrated: Annotated[
        bool, typer.Option("--uncalibrated", help="Leave all temperatures at 1, also with --root.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of the file, in its card; default: that none is stated.")
    ] = None,
) -> None:
    """Write a run's best network, or several runs' together, as one ONNX file with its card, checked against torch on real
    faces."""
    with needs_torch():
        from mien.lab.training import export as exporting
        from mien.lab.training.forms import Form

        import_module("onnxscript")  # which torch's exporter would miss later
    if flip and split:
        raise UsageError(
            "--flip and --split: a file has one of them; --flip shows each network both views, --split one"
        )
    if average != "probabilities" and not flip and len(chosen) < 2:
        raise UsageError(f"--average {average}: one network with one view has no mean; leave it out, or add --flip")
    form = Form("flip" if flip else "split" if split else "single", average, weights)
    rows = None if root is None else exporting.validation_rows(chosen[0], root)
    faces = exporting.training_rows(chosen[0], root) if weights == "int8" else None
    told = exporting.LICENCE if licence is None else licence
    given: dict[str, float] | None = {} if uncalibrated else None
    path = exporting.export(chosen, out, rows=rows, form=form, faces=faces, temperatures=given, licence=told)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    for line in exporting.described(path):
        typer.echo(line)


def average(
    chosen: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs that grew from one: by --pretrained, say.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="The run folder to write.")],
) -> None:
    """Write the mean of several runs' weights as one run, which answers for the price of one network (a model soup)."""
    with needs_torch():
        from mien.lab.training import soup
    typer.echo(str(soup.average(chosen, out, lambda line: typer.echo(line, err=True))))


def cross_fit(
    chosen: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="One run for each part: `mien train ... --leave-out 1/3`, 2/3, 3/3."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.npz")],
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The runs' data.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", metavar="FILE.csv", help="Also list the rows, those whose label is least believed first."
        ),
    ] = None,
) -> None:
    """Ask every run about the training rows that it left out. The answers teach: `mien train ... --teacher FILE.npz`. They also
    tell doubtful labels from sure ones, since no answer comes from a network that learnt its row's label."""
    with needs_torch():
        from mien.lab.training import cross_fit as crossing
    crossing.check_names(out, table)
    found, rows = crossing.cross_fit(chosen, root)
    found.save(out)
    typer.echo(f"{out}: {crossing.summary(found, rows)}")
    if table is not None:
        crossing.write_table(found, rows, table)
        typer.echo(str(table))


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE.onnx|ANSWERS.csv",
            help="ANSWERS: another tool's, a row an id, a column a class (p_happy).",
        ),
    ],
    data: Data,
    out: Out,
    root: Root = None,
    split: Annotated[str, typer.Option(help="train, valid, test, or all where nothing divides the rows.")] = "valid",
    views: Annotated[
        str | None, typer.Option(help="single, flip or tencrop; default: what a run's recipe says, of a file single.")
    ] = None,
    average: Annotated[
        str, typer.Option(help="What the mean of several views is of: probabilities or logits.")
    ] = "probabilities",
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another head than the one named like the data.")
    ] = None,
    label_rule: Rule = None,
    protocol: Protocol = None,
    fold: Fold = None,
    allow_partial: Partial = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Also write one page with figures.")
    ] = None,
    faces: Annotated[
        bool, typer.Option("--faces", help="Show faces in the report: right, mistaken, and where a run looks.")
    ] = False,
    accept_mismatch: Annotated[
        bool, typer.Option("--accept-mismatch", help="Go on although the data are not what the model was made for.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead of the table.")] = False,
) -> None:
    """Score a model on a split: writes scores.npz and metrics.json, and prints them. An ONNX file needs no torch.

    Intervals are at 95 %. Rows that also stand in the training split are counted, and judged with and without.
    """
    from mien.lab import datasets
    from mien.lab.evaluation import judge
    from mien.lab.evaluation.scores import METRICS, SCORES

    if faces and report is None:
        raise UsageError("--faces shows pictures in the report: pass --report FILE.html, too")
    options: dict[str, Any] = {
        "label_rule": label_rule, "protocol": protocol, "fold": fold, "allow_partial": allow_partial,
    }  # fmt: skip
    held = datasets.load(data, root, split=split, **options)
    with needs_torch():
        metrics = judge.judge(
            model,
            held,
            out,
            views=views,
            average=average,
            head=head,
            training=judge.training_rows(model, data, root, **options),
            accept_mismatch=accept_mismatch,
            page=report,
            faces=faces,
        )
    typer.echo(jsonlib.dumps(metrics, indent=1) if json else judge.printed(metrics))
    if not json:
        written = [out / SCORES, out / METRICS, *([report] if report else [])]
        typer.echo(f"\nwritten: {', '.join(map(str, written))}")


_methods = typer.Typer(invoke_without_command=True, help="List the methods, or show one beside its paper.")


@_methods.callback()
def _list_methods(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    with needs_torch():
        from mien.lab.methods import listing
    for line in listing.overview():
        typer.echo(line)


@_methods.command("show")
def _show_method(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """One method: its paper, variants with parameters and MACs, recipe, deviations and published results."""
    with needs_torch():
        from mien.lab.methods import listing
    facts: dict[str, Any] = listing.facts(name)
    typer.echo(jsonlib.dumps(facts, indent=1) if json else "\n".join(listing.page(facts)))
