"""`train`: data, recipe and seed in, a run folder out. Killed at any moment, `resume=True` goes on from the last epoch."""

import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from mien import images, writing
from mien.card import InputSpec
from mien.classifier import Classifier
from mien.cores import cores
from mien.errors import DataError, UsageError
from mien.lab import datasets, ranks
from mien.lab.datasets import FaceDataset, shards
from mien.lab.datasets.ferplus import JOINT
from mien.lab.losses import Task
from mien.lab.losses.taught import Taught
from mien.lab.losses.two_heads import TwoHeads
from mien.lab.methods.method import Recipe
from mien.lab.networks.counts import count
from mien.lab.networks.network import Network, Shape, check_size
from mien.lab.networks.pretrained import Transfer, load_pretrained
from mien.lab.protocol import command_line, commit, file_sha256, versions
from mien.lab.training import distributed, launch, runs
from mien.lab.training.checkpoint import AtomicCheckpoints, KeepRun, SaveEpoch
from mien.lab.training.feed import ordered_loader, sample_loader, training_loader
from mien.lab.training.module import REPORTED, Training
from mien.lab.training.notes import notes_of
from mien.lab.training.parts import Part, holdout_ids, identity, may_know
from mien.lab.training.recipes import Choice, completed, describe, resolve
from mien.lab.training.teacher import load_teachers
from mien.lab.training.times import KeepTimes

TOLD = 4  # differences that the refusal of a resume names
LONGEST = 100  # characters of a difference that is told with both values
MEASURED = 2048  # training rows on which the norms of an exported file are measured
_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
_EXPECTED = (  # warnings of Lightning and torch that say nothing new
    ".*does not have many workers.*",
    ".*module.s. in eval mode at the start of training.*",  # the average
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*recommended to use `self.log.*sync_dist=True.*",  # what is logged is equal on all ranks
)


@dataclass(frozen=True)
class Source:
    """Where the data come from. select_on: "valid", or "holdout" (a fixed tenth of the training split: `parts`).
    leave_out: the part of the training rows (without the holdout) that is not learnt from, so that the run can answer them."""

    name: str
    root: Path | None
    protocol: str | None = None
    fold: int | None = None
    label_rule: str | None = None
    select_on: str = "valid"
    allow_partial: bool = False
    leave_out: Part | None = None

    def load(self, split: str, *, name: str | None = None, label_rule: str | None = None) -> FaceDataset:
        return datasets.load(
            name or self.name, self.root, split=split, label_rule=label_rule if name else label_rule or self.label_rule,
            protocol=self.protocol, fold=self.fold, allow_partial=self.allow_partial,
        )  # fmt: skip


def train(
    choice: Choice,
    source: Source,
    folder: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    pretrained: Path | None = None,
    teacher: Path | Sequence[Path] | None = None,
    out_of_fold: bool = False,
    watched: FaceDataset | None = None,
    threads: int | None = None,
    devices: int | None = None,
    nodes: int | None = None,
    rank_wait: float = launch.WAIT,
    say: Callable[[str], None] = print,
) -> Path:
    """Train and return the run folder. Raises UsageError or DataError before anything is written when the call is wrong.

    resume: go on from `folder`/last.ckpt where there is one; its run.json must say the same recipe, data and seed.
    pretrained: a checkpoint to start from (.safetensors, .pth, or .onnx of ours); its classifier is taken along where a run's
    checkpoint or a file of ours answers the same classes. teacher: a run folder whose network gives
    the targets, an .onnx of ours, or the .npz of `mien cross-fit`; of several, each answers its share of every batch.
    out_of_fold: they are runs that left parts out, and each answers about its part only.
    watched: rows that are reported later. They choose nothing; the epoch that is best on them is kept as
    best_on_test.ckpt, to show how much choosing by them would flatter.
    devices, nodes: processes per machine and machines (`launch`); default: one, or what torchrun or SLURM started. The run is
    the same run with any number of them, and may be resumed with another. rank_wait: s without an answer from another
    process until one gives up. With several devices all arguments must be picklable.
    """
    layout = launch.layout(devices, nodes)
    options: dict[str, Any] = {
        "seed": seed, "resume": resume, "pretrained": pretrained, "teacher": teacher, "out_of_fold": out_of_fold,
        "watched": watched, "threads": threads,
    }  # fmt: skip
    if layout.size > 1 and not launch.inside():
        options["threads"] = threads or max(1, cores() // layout.devices)
        everywhere = {**options, "devices": layout.devices, "nodes": layout.nodes, "rank_wait": rank_wait, "say": say}
        launch.spawn(train, (choice, source, folder), everywhere, layout)
        return folder
    with launch.joined(layout, wait=rank_wait) as place, ExitStack() as held:
        say = say if ranks.own() == 0 else _silent
        _train(choice, source, folder, **options, say=say, layout=layout, place=place, held=held)
    return folder


def _silent(line: str) -> None:
    """What the ranks other than 0 print."""


def _train(
    choice: Choice,
    source: Source,
    folder: Path,
    *,
    seed: int,
    resume: bool,
    pretrained: Path | None,
    teacher: Path | Sequence[Path] | None,
    out_of_fold: bool,
    watched: FaceDataset | None,
    threads: int | None,
    say: Callable[[str], None],
    layout: launch.Layout,
    place: ClusterEnvironment | None,
    held: ExitStack,
) -> None:
    """`train` as one rank of `layout`. Rank 0 alone writes the folder, which it keeps others out of until `held` is closed, and
    decides what is resumed."""
    method, recipe = resolve(choice)
    if recipe.sam_rho and layout.size > 1:
        raise UsageError(
            f"sam_rho={recipe.sam_rho}: sharpness-aware minimisation runs in one process, asked for are {layout.size}; train "
            "on one device, or --set sam_rho=0"
        )
    teachers = (teacher,) if isinstance(teacher, Path) else tuple(teacher or ())
    _refuse_an_unread_rule(choice, source)
    if (
        isinstance(recipe.loss, TwoHeads)
        and recipe.loss.teacher_flip
        and {path.suffix for path in teachers} == {".npz"}
    ):
        raise UsageError(
            f"--set loss.teacher_flip=True: the answers in {teachers[0]} are the mean over both views as they are; leave it out"
        )
    data, validation = load_data(source, recipe)
    run = _facts(choice, source, recipe, data, validation, seed) | _origins(pretrained, teachers, out_of_fold)
    _same_everywhere(run)
    absent = not folder.exists()
    last = ranks.decided(lambda: _resumable(folder, run, recipe, resume, held))
    if recipe.frozen and pretrained is None and last is None:
        others = [name for name, other in method.recipes.items() if not other.frozen]
        raise UsageError(
            f"this recipe does not train {', '.join(recipe.frozen)}, which without start weights are random: pass --pretrained "
            f"FILE, or train them, too, by --set 'frozen=()' or as --preset {' or '.join(others)} does"
        )
    _quiet(threads)
    frozen = load_teachers(teachers, data=data, spec=runs.spec_of(recipe), out_of_fold=out_of_fold)
    module, facts = _build(recipe, data, validation, seed, run, frozen)
    files = [] if pretrained is None else [pretrained]
    files += [] if out_of_fold else map(taught_by, teachers)  # which are known to have learnt none but these rows
    facts["notes"] = notes_of(data, recipe, source.select_on, files)
    if method.starts_from and choice.network is None and pretrained is None:
        facts["notes"].append(
            f"the paper's network starts from {method.starts_from} weights (--pretrained FILE), this one at random"
        )
    for note in facts["notes"]:
        say(f"note: {note}")
    if watched is not None:
        module.validation += (REPORTED,)
    spec = runs.spec_of(recipe, recipe.resize)
    judged = [*validation.values(), *([] if watched is None else [watched])]
    loaders = [ordered_loader(held, spec) for held in judged]
    feed = training_loader(data, spec, batch=recipe.batch, seed=seed)
    if pretrained is not None and last is None:
        same = _classes_of(pretrained) == list(data.classes)
        pictures = _pictures_for_norms(module, data, spec)
        transfer = load_pretrained(module.network, pretrained, pictures, head=same)
        say(transfer.text())
        _refuse_a_random_stage(transfer, recipe, pretrained)
        module.restart_average()
    if layout.size > 1:
        distributed.convert(module.network)
        facts["ranks"] = {"devices": layout.devices, "nodes": layout.nodes}
    if last is None and ranks.own() == 0:
        if absent:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(writing.held(folder))
            _refuse_a_run_in(folder)
        runs.write(folder, facts)
        runs.keep_crops(folder, next(iter(validation.values())), spec)
    keep = KeepRun(folder, patience=recipe.early_stop, say=say)
    times = KeepTimes(folder, min(recipe.batch, len(data)))
    trainer = _lightning(recipe, folder, [keep, times, SaveEpoch(keep)], layout, place)
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        try:
            trainer.fit(module, feed, loaders, ckpt_path=None if last is None else str(last), weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    keep.tell_best()


def _pictures_for_norms(module: Training, data: FaceDataset, spec: InputSpec) -> Iterator[Tensor]:
    """Augmented and normalised training pictures, read when the first is asked for."""
    for batch in sample_loader(data, spec, rows=MEASURED):
        yield module.prepared(batch).images


def _refuse_an_unread_rule(choice: Choice, source: Source) -> None:
    """A preset's label rule is FER+'s and means nothing elsewhere; one that was set must not be passed over."""
    asked = [setting for setting in choice.settings if setting.partition("=")[0].strip() == "label_rule"]
    if asked and source.name != "ferplus":
        others = [name for name, options in datasets.OPTIONS.items() if "label_rule" in options and name != "ferplus"]
        raise UsageError(
            f"--set {asked[-1]}: only ferplus reads a recipe's label rule, the data are {source.name}; leave it out"
            + (", or pass --label-rule RULE" if source.name in others else "")
        )


def load_data(source: Source, recipe: Recipe) -> tuple[FaceDataset, dict[str, FaceDataset]]:
    """The training rows, and the validation sets by name. Training by rule "joint" validates both heads, each by its own
    default rule; every other rule validates on its own dataset."""
    data, validation = load_all(source, recipe)
    if source.leave_out is None:
        return data, validation
    return data.subset(np.setdiff1d(np.arange(len(data)), source.leave_out.rows(data))), validation


def load_all(source: Source, recipe: Recipe) -> tuple[FaceDataset, dict[str, FaceDataset]]:
    """The same with the part that is left out. Raises UsageError for a `select_on` that is none and for the joint rule of a packed
    or aligned copy, and DataError for what `datasets.load` cannot read or where too few rows are left to hold a tenth out."""
    if source.select_on not in ("valid", "holdout"):
        raise UsageError(f"select on {source.select_on!r}: expected valid or holdout")
    rule = source.label_rule or (recipe.label_rule if source.name == "ferplus" else None)
    made = source.root is not None and ((source.root / datasets.ALIGNED).is_file() or shards.is_packed(source.root))
    if rule == JOINT and made:
        raise UsageError(
            f"{source.root}: label rule {JOINT} takes FER-2013's labels and FER+'s, and a packed or aligned copy has one; "
            "pass --root the original files, or --label-rule majority with another --loss"
        )
    data = source.load("train", label_rule=rule)
    names = {"fer2013": None, "ferplus": "majority"} if rule == JOINT else {source.name: rule}
    split = "valid" if source.select_on == "valid" else "train"
    sets = {name: source.load(split, name=name, label_rule=label_rule) for name, label_rule in names.items()}
    if source.select_on == "valid":
        return data, sets
    held = set(holdout_ids(data))
    if not held:
        alone = f"rows of one {whole}" if (whole := identity(data)) else "rows"
        raise DataError(
            f"{data.name} train: {len(data)} {alone} are too few to hold a tenth of them out; give more pictures, or a split valid"
        )
    kept = np.array([i for i, row in enumerate(data.ids) if row not in held])
    chosen = {
        n: s.subset(np.array([i for i, row in enumerate(s.ids) if row in held]), split="holdout")
        for n, s in sets.items()
    }
    return data.subset(kept), chosen


def _facts(
    choice: Choice, source: Source, recipe: Recipe, data: FaceDataset, validation: Mapping[str, FaceDataset], seed: int
) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    whole = identity(data)
    tenth = (
        "a fixed stratified 10 % of train"
        if whole is None
        else f"a fixed 10 % of train, no {whole} divided, one at least"
    )
    rows = {"valid": "the valid split", "holdout": tenth}[source.select_on]
    return {
        "choice": runs.facts_of_choice(choice),
        "recipe": describe(recipe),
        "data": {
            "name": source.name,
            "protocol": source.protocol,
            "fold": source.fold,
            "fingerprint": data.fingerprint,
            **({"left_out": str(source.leave_out)} if source.leave_out else {}),
        },
        "rows": len(data),
        "label_rule": data.label_rule,
        "classes": list(data.classes),
        "class_counts": list(data.class_counts),
        "selection_rule": f"epoch with the highest accuracy on {rows} (mean over the heads)",
        "seed": seed,
        "validation": {
            name: {"rows": len(s), "fingerprint": s.fingerprint, "split": s.split} for name, s in validation.items()
        },
        **({} if data.votes is None else {"votes_sha256": hashlib.sha256(data.votes.tobytes()).hexdigest()}),
    }


def _origins(pretrained: Path | None, teachers: Sequence[Path], out_of_fold: bool) -> dict[str, Any]:
    """The hashes of what a run starts from, so that a resumed run cannot start from something else; and whether teachers are
    asked out of fold."""
    started = [] if pretrained is None else [pretrained]
    files = {"pretrained": started, "teacher": [taught_by(teacher) for teacher in teachers]}
    for name, path in [(name, path) for name, paths in files.items() for path in paths]:
        if not path.is_file():
            raise UsageError(
                f"--{name} {path}: no such file; pass "
                + (
                    "a checkpoint"
                    if name == "pretrained"
                    else "a run folder, an .onnx file of mien, or the .npz of `mien cross-fit`"
                )
            )
    origins = {
        name: [{"file": path.name, "sha256": file_sha256(path), **_left_out(path)} for path in paths]
        for name, paths in files.items()
    }
    if out_of_fold:  # no such key otherwise: earlier runs go on
        origins["teacher"] = [{**of, "asked": "out of fold"} for of in origins["teacher"]]
    return {name: of[0] if len(of) == 1 else of or None for name, of in origins.items()}


def _classes_of(checkpoint: Path) -> list[str] | None:
    """What the main head of a run's checkpoint or of a file of mien answers; None of others, whose order of classes nobody says."""
    if checkpoint.suffix == ".onnx":
        return list(Classifier(checkpoint).card.head().labels)
    facts = runs.facts_beside(checkpoint)
    return None if facts is None else list(facts["classes"])


def _left_out(checkpoint: Path) -> dict[str, str]:
    """The part of the training rows that a run's checkpoint has not learnt from, nor what went before it, and the fingerprint of
    the others, where it left one out. Of another file nothing is known, wherever it lies."""
    facts = runs.facts_beside(checkpoint)
    if facts is None:
        return {}
    data = facts["data"]
    if "left_out" not in data or may_know(facts):
        return {}
    return {"left_out": data["left_out"], "fingerprint": data["fingerprint"]}


def taught_by(teacher: Path) -> Path:
    """The file of a teacher that is a run folder or a file."""
    return teacher if teacher.suffix in (".onnx", ".npz") else teacher / "best.ckpt"


def _resumable(folder: Path, run: dict[str, Any], recipe: Recipe, resume: bool, held: ExitStack) -> Path | None:
    """The checkpoint to go on from, or None for a new run. A folder that holds another run is never overwritten, and one that is
    there is kept from others until `held` is closed."""
    if folder.exists():
        held.enter_context(writing.held(writing.folder(folder)))
    last = folder / "last.ckpt"
    if not (folder / "run.json").is_file():
        return None
    if not resume:
        _refuse_a_run_in(folder)
    before = runs.read(folder)
    before["recipe"] = completed(before.get("recipe"), recipe)
    before.setdefault("votes_sha256", run.get("votes_sha256"))  # earlier runs did not say
    differing = [key for key in run if _as_json(before.get(key)) != _as_json(run[key])]
    if differing:
        told = _differences({key: before.get(key) for key in differing}, {key: run[key] for key in differing})
        more = f", and {len(told) - TOLD} more" if len(told) > TOLD else ""
        raise UsageError(
            f"{folder} holds another run: {', '.join(told[:TOLD])}{more}; choose another -o, or repeat its command"
        )
    if not last.is_file():
        return None
    best = folder / "best.ckpt"
    if not best.is_file():
        raise UsageError(f"{best} is gone: copy it, too, or delete {last} to begin again")
    runs.read_checkpoint(last, advice=f"copy {best} over it to go on from the best epoch, or delete it to begin again")
    return last


def _refuse_a_run_in(folder: Path) -> None:
    if (folder / "run.json").is_file():
        raise UsageError(f"{folder} already holds a run; add --resume to go on with it, or choose another -o")


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs, as "recipe.lr was 0.1, now 0.2": by field where both have fields, and of long values only that they do."""
    if _as_json(before) == _as_json(now):
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        fields = {**before, **now}
        return [
            line for key in fields for line in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    told = f"{name} was {_as_json(before)}, now {_as_json(now)}"
    return [told if len(told) <= LONGEST else f"{name} differs"]


def _same_everywhere(run: dict[str, Any]) -> None:
    """Refuse to train where ranks read other data or were asked for something else."""
    for rank, told in enumerate(ranks.told_by_all(run)):
        differing = [key for key in run if told.get(key) != run[key]]
        if differing:
            raise UsageError(
                f"rank {rank} is about to train something else than rank {ranks.own()}: {', '.join(differing)} differ; give "
                "every machine the same files and the same command"
            )


def _as_json(value: Any) -> Any:
    """Tuples as lists, as they come back from run.json."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value


def _quiet(threads: int | None) -> None:
    if threads:
        torch.set_num_threads(threads)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _build(
    recipe: Recipe,
    data: FaceDataset,
    validation: dict[str, FaceDataset],
    seed: int,
    run: dict[str, Any],
    teacher: nn.Module | None,
) -> tuple[Training, dict[str, Any]]:
    """The module from a seeded random start, and the whole of run.json."""
    if len(data) < 2:
        raise DataError(f"{data.name} {data.split}: {len(data)} rows are not enough to train on")
    torch.manual_seed(seed)
    shape = runs.shape_of(run, recipe)
    for _, side in recipe.sizes:
        check_size(type(recipe.network).__name__, side, recipe.network.minimum_size)
    network = recipe.network.build(shape)
    _refuse_what_does_not_fit(network, recipe, shape, joint=data.label_rule == JOINT)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = Task(data.class_counts, network.feature_dim, teacher=teacher, has_votes=data.votes is not None)
    loss = recipe.loss.build(task)
    if teacher is not None and not (isinstance(loss, Taught) and loss.asks):
        raise UsageError(
            f"--teacher: the loss {type(recipe.loss).__name__} asks no teacher as it is set; leave --teacher out, or choose "
            "one that does: --loss label-distribution, or --set loss.teacher_weight=0.5 where the loss is two-heads"
        )
    steps = max(1, len(data) // recipe.batch)
    module = Training(
        recipe, network, loss, spec=runs.spec_of(recipe), seed=seed, steps=steps, validation=tuple(validation)
    )
    module.redraw_labels, module.joint = data.label_rule == "probability", data.label_rule == JOINT
    counts = count(network, shape)
    facts = {
        **run,
        "command": command_line(),
        "commit": commit(),
        "started": runs.started(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "macs": counts.macs,
        "parameters": {"trainable": counts.trainable, "fixed": counts.fixed},
    }
    return module, facts


def _refuse_a_random_stage(transfer: Transfer, recipe: Recipe, path: Path) -> None:
    """Raises UsageError where the start weights leave a part of a frozen stage at random."""
    random = [name for name in transfer.missing if name.partition(".")[0] in recipe.frozen]
    if random:
        raise UsageError(
            f"{path}: it lacks {len(random)} tensors of stages that this recipe does not train, as {random[0]}, which would stay "
            "random: pass a checkpoint of the same network, choose --network to fit it, or train them by --set 'frozen=()'"
        )


def _refuse_what_does_not_fit(network: Network, recipe: Recipe, shape: Shape, *, joint: bool) -> None:
    """Ask the network about an empty picture of every side that it will see. Raises UsageError where it cannot answer, or lacks
    the head that both label sets need."""
    name = type(recipe.network).__name__
    for side in {recipe.size, *(side for _, side in recipe.sizes)}:
        try:
            with torch.no_grad():
                output = network.eval()(torch.zeros(2, shape.channels, side, side))
        except RuntimeError as error:  # a head over flattened maps has weights for one size
            reason = images.reason(error)
            raise UsageError(
                f"the network {name} of size={recipe.size} cannot see pictures of {side} px ({reason}): --set 'sizes=()'"
            ) from None
    network.train()
    if joint and "fer2013" not in (output.heads or {}):
        raise UsageError(
            f"label rule {JOINT}: the network {name} has no second head for FER-2013's labels; choose --network mien-small, or "
            "another --label-rule, as majority"
        )
    if joint and not isinstance(recipe.loss, TwoHeads):
        raise UsageError(
            f"label rule {JOINT}: the loss {type(recipe.loss).__name__} trains one head, and FER-2013's would stay random; choose "
            "--loss two-heads, or another --label-rule, as majority"
        )


def _lightning(
    recipe: Recipe, folder: Path, callbacks: list[pl.Callback], layout: launch.Layout, place: ClusterEnvironment | None
) -> pl.Trainer:
    bar = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("CI") is None
    several: dict[str, Any] = {"accelerator": "auto", "devices": 1}
    if place is not None:
        several = {
            "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
            "devices": layout.devices,
            "num_nodes": layout.nodes,
            "strategy": DDPStrategy(**distributed.DDP_OPTIONS),
            "use_distributed_sampler": False,  # `feed` gives each rank its rows
        }
    return pl.Trainer(
        max_epochs=recipe.epochs,
        **several,
        precision=_PRECISIONS[recipe.precision],  # type: ignore[arg-type]
        gradient_clip_val=recipe.clip or None,
        callbacks=[*([TQDMProgressBar()] if bar else []), *callbacks],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        plugins=[AtomicCheckpoints(), *([] if place is None else [place])],
        enable_progress_bar=bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
