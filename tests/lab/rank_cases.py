"""Training steps that one process and a pair of ranks both take, and what the pair does with each exchange taken out.

Each case is five steps of `Training` in float64 on tiny networks: its own augmentation, BatchNorm, dropout, optimiser, averaged
weights and loss state. `pair` is what a rank runs: every case, then every mutant.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mien.errors import UsageError
from mien.lab import ranks
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.datasets import FaceDataset
from mien.lab.losses import Task, taught
from mien.lab.losses.ad_corre import AdCorre
from mien.lab.losses.centres import Centres
from mien.lab.losses.cosine import Cosine
from mien.lab.losses.inputs import Inputs
from mien.lab.losses.islets import Centre, Island, Islets
from mien.lab.losses.label_distribution import LabelDistribution
from mien.lab.losses.softmax import Softmax, WeightedSoftmax
from mien.lab.losses.two_heads import TwoHeads
from mien.lab.losses.weighted_cluster import WeightedCluster
from mien.lab.methods import load
from mien.lab.methods.method import Augment, Recipe
from mien.lab.networks import Shape
from mien.lab.networks.lban import Lban
from mien.lab.networks.mien_small import MienSmall
from mien.lab.networks.mscar import Mscar
from mien.lab.networks.resface import ResFace
from mien.lab.networks.resnet import ResNet18, SeResNet50
from mien.lab.networks.xception import Xception
from mien.lab.training import distributed, feed, launch, mixing, runs
from mien.lab.training import module as stepping
from mien.lab.training.module import Training, build_optimiser
from mien.lab.training.teacher import Several

CLASSES, ROWS, BATCH, STEPS, RANKS = 7, 40, 8, 5, 2
JUDGED = 13  # rows of the validation set: one more on the first rank than on the second
TOLERANCE = 1e-7  # relative, float64: what five steps make of a sum in another order
COUNTS = (9, 4, 12, 3, 5, 6, 1)

Found = dict[str, Tensor]


class Teacher(nn.Module):
    """Prefers a class by each picture's brightness, by which row it is, and by which teacher this is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, batch: Batch) -> NetworkOutput:
        level = batch.images.flatten(1).mean(dim=1, keepdim=True) + batch.ids[:, None] / 7 + self.number
        logits = 5 * torch.cos(level * torch.arange(1, CLASSES + 1))
        return NetworkOutput(logits, logits, heads={"fer2013": logits.flip(1)})


class Doubled(Training):
    """`Training` in float64, which keeps what it would log."""

    def prepared(self, batch: Batch) -> Batch:
        made = super().prepared(batch)
        votes = None if made.votes is None else made.votes.double()
        return replace(made, images=made.images.double(), votes=votes)

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        super().validation_step(replace(batch, images=batch.images.double()), index, dataloader_idx)

    def log(self, name: str, value: Any, **options: Any) -> None:
        self.logged: dict[str, float] = {**getattr(self, "logged", {}), name: value}


class Step(nn.Module):
    """What DistributedDataParallel wraps; Lightning has it call `training_step` in the same way."""

    def __init__(self, module: Training) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch, index: int) -> Tensor:
        return self.module.training_step(batch, index)


# Cases: every method's own loss on its own network, and every loss with the options that change what is exchanged


def _method(name: str, network: Any, **changes: Any) -> Recipe:
    return replace(load(name).recipes["cpu"], network=network, batch=BATCH, epochs=2, precision="float32", **changes)


def _loss(loss: Any, **changes: Any) -> Recipe:
    small = MienSmall(widths=(4, 8), depths=(1, 2))
    augment = Augment(flip=0.5, rotate=20, noise=0.5, cutout=0.5)
    recipe = replace(load("mien-small").recipes["cpu"], network=small, loss=loss, size=12, sizes=(), augment=augment)
    return replace(replace(recipe, batch=BATCH, epochs=2, precision="float32", ema=0.0, lr=0.05), **changes)


CASES: dict[str, Recipe] = {
    "method lban-il": _method("lban-il", Lban(width=0.1)),
    "method wcl": _method("wcl", SeResNet50(width=0.07), size=32, frozen=load("wcl").recipes["paper"].frozen),
    "method resface": _method("resface", ResFace(width=0.07), size=24),
    "method mscar": _method("mscar", Mscar(width=0.07), size=16),
    "method ad-corre": _method("ad-corre", Xception(width=0.03), size=24),
    "method mien-small": _method("mien-small", MienSmall(widths=(4, 8), depths=(1, 2)), size=16, sizes=((0.0, 12), (0.5, 16))),
    "method ldg": _method("ldg", ResNet18(width=0.1, head=0), size=32, lr=0.01),
    "softmax": _loss(Softmax(smoothing=0.1)),
    "softmax no dropout": _loss(Softmax(), network=MienSmall(widths=(4, 8), depths=(1, 2), dropout=0.0), optimiser="adam", lr=1e-3),
    "softmax resnet18": _loss(Softmax(), network=ResNet18(width=0.1, stem="small")),
    "weighted-softmax": _loss(WeightedSoftmax()),
    "weighted-softmax sum": _loss(WeightedSoftmax(reduction="sum"), lr=0.01),
    "cosine": _loss(Cosine()),
    "cosine batch": _loss(Cosine(over="batch")),
    "centre": _loss(Centre()),
    "island": _loss(Island(classification="weighted-softmax")),
    "islets": _loss(Islets(lp_reduction="mean")),
    "islets batch-means": _loss(Islets(centre_init="batch-means", lp_reduction="mean")),
    "islets autograd": _loss(Islets(centre_update="autograd", lp_reduction="mean")),
    "weighted-cluster": _loss(WeightedCluster()),
    "weighted-cluster autograd": _loss(WeightedCluster(centre_update="autograd", gamma=0.1)),
    "weighted-cluster normalised": _loss(WeightedCluster(centre_update="normalised", gamma=0.5, reduction="mean")),
    "label-distribution teacher": _loss(LabelDistribution()),
    "label-distribution votes": _loss(LabelDistribution(source="votes")),
    "ad-corre": _loss(AdCorre(k=3)),
    "ad-corre virtual": _loss(AdCorre(k=3, virtual=3, history=2)),
    "two-heads": _loss(TwoHeads(balance=0.5), ema=0.9),
    "two-heads taught": _loss(TwoHeads(teacher_weight=0.5)),
    "two-heads taught by both views": _loss(TwoHeads(teacher_weight=0.5, teacher_flip=True)),
    "mixed pictures": _loss(TwoHeads(balance=0.5, teacher_weight=0.5), augment=Augment(mixup=0.5, cutmix=0.5)),
}  # fmt: skip


def faces(rows: int, *, split: str) -> FaceDataset:
    """Noise pictures of uneven classes; every third row has no usable votes."""
    random = np.random.default_rng(rows)
    pixels = random.integers(0, 256, (rows, 24, 24, 3), dtype=np.uint8)
    labels = random.choice(CLASSES, rows, p=np.array(COUNTS) / sum(COUNTS)).astype(np.int64)
    votes = random.dirichlet(np.ones(CLASSES), rows).astype(np.float32)
    votes[::3] = 0
    classes = tuple(f"class{i}" for i in range(CLASSES))
    names = tuple(f"{split}{i}" for i in range(rows))
    return FaceDataset("noise", split, "drawn", classes, labels, names, lambda i: pixels[i], "0" * 16, votes=votes)


def build(recipe: Recipe) -> Doubled:
    torch.manual_seed(3)
    network = recipe.network.build(Shape(recipe.channels, CLASSES, recipe.size, recipe.loss.embeddings))
    teacher = Several([Teacher(number) for number in range(3)])  # which does not divide a rank's part of a batch
    loss = recipe.loss.build(Task(COUNTS, network.feature_dim, teacher=teacher, has_votes=True))
    options: dict[str, Any] = {"spec": runs.spec_of(recipe), "seed": 5, "steps": STEPS, "validation": ("noise",)}
    module = Doubled(recipe, network, loss, **options).double()
    module.redraw_labels = recipe.loss == CASES["weighted-softmax"].loss
    return module


def take(recipe: Recipe) -> Found:
    """Five steps: the running sums of every loss term, the first step's gradients, then weights, centres and the like."""
    module, found = build(recipe).train(), {}
    step: nn.Module = Step(module)
    if ranks.count() > 1:
        distributed.convert(module.network)
        step = DistributedDataParallel(step, **distributed.DDP_OPTIONS)
    optimiser = build_optimiser(recipe, module.network)
    loader = feed.training_loader(faces(ROWS, split="train"), runs.spec_of(recipe, recipe.resize), batch=BATCH, seed=5)
    module.on_train_epoch_start()
    for index, batch in enumerate(loader):
        loss = step(batch, index)
        optimiser.zero_grad()
        loss.backward()
        if index == 0:
            found |= {f"gradient {n}": p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        optimiser.step()
        module.on_train_batch_end(None, batch, index)
        found |= {f"term {name} after step {index}": torch.tensor(value) for name, value in module._totals().items()}
    return found | {f"state {name}": value.clone() for name, value in module.state_dict().items()}


def judge(recipe: Recipe) -> Found:
    """What is logged of a validation set whose rows do not divide by the ranks."""
    module = build(recipe).eval()
    module.on_validation_epoch_start()
    for index, batch in enumerate(feed.ordered_loader(faces(JUDGED, split="valid"), runs.spec_of(recipe), batch=4)):
        module.validation_step(batch, index)
    module.on_validation_epoch_end()
    return {name: torch.tensor(value) for name, value in module.logged.items()}


def difference(expected: Found, found: Found) -> float:
    """The largest relative difference over all tensors; infinite where names differ or a number is not finite."""
    if expected.keys() != found.keys():
        return float("inf")
    worst = 0.0
    for name, value in expected.items():
        a, b = value.double(), found[name].double()
        if a.shape != b.shape:
            return float("inf")
        gap = ((a - b).abs().max() / (a.abs().max() + 1e-3)).item() if a.numel() else 0.0
        worst = max(worst, gap if gap == gap else float("inf"))
    return worst


# Mutants: one exchange taken out


@dataclass(frozen=True)
class Mutant:
    """cases: which must notice, each. patch: a context in which the exchange does not happen."""

    cases: tuple[str, ...]
    patch: Callable[[], Any]


def _repeated(rows: Tensor) -> Tensor:
    """This rank's rows where every rank's should stand."""
    return torch.cat([rows] * ranks.count())


_over_ranks = distributed.over_ranks


def _without(field: str) -> Callable[[], Any]:
    """`over_ranks` that does not gather one field of the output or the batch."""

    def mutated(output: NetworkOutput, batch: Batch) -> tuple[NetworkOutput, Batch]:
        whole, everyone = _over_ranks(output, batch)
        if field == "heads":
            return replace(whole, heads={name: _repeated(x) for name, x in (output.heads or {}).items()}), everyone
        if hasattr(output, field):
            return replace(whole, **{field: _repeated(getattr(output, field))}), everyone
        return whole, replace(everyone, **{field: _repeated(getattr(batch, field))})

    return lambda: mock.patch.object(distributed, "over_ranks", mutated)


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """Plain data parallelism: each rank's loss on its own rows."""
    with (
        mock.patch.object(distributed, "over_ranks", lambda output, batch: (output, batch)),
        _exchanging(taught, gathered=lambda rows: rows)(),
    ):
        yield


class _UnscaledGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        return ranks._all_rows(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[ranks.own() * ctx.rows :][: ctx.rows]


class _NoGradientGather(_UnscaledGather):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient[: ctx.rows])


@contextlib.contextmanager
def _own_state() -> Iterator[None]:
    """Loss state updated from this rank's rows alone."""

    def after(self: Training, outputs: Any, batch: Batch, index: int) -> None:
        output, whole = self._last
        part = slice(ranks.own() * len(batch.labels), (ranks.own() + 1) * len(batch.labels))
        cut = {n: None if (x := getattr(output, n)) is None else x[part] for n in ("logits", "features", "embeddings")}
        self.loss.after_step(NetworkOutput(**cut), replace(whole, labels=whole.labels[part]))

    with mock.patch.object(Training, "on_train_batch_end", after):
        yield


@contextlib.contextmanager
def _own_start() -> Iterator[None]:
    """Centres that start at the means of this rank's rows."""
    start = Centres.start

    def own(self: Centres, data: Inputs) -> None:
        n = len(data.labels) // ranks.count()
        part = slice(ranks.own() * n, (ranks.own() + 1) * n)
        start(self, replace(data, features=data.features[part], labels=data.labels[part]))

    with mock.patch.object(Centres, "start", own):
        yield


def _patched(holder: Any, name: str, value: Any) -> Callable[[], Any]:
    return lambda: mock.patch.object(holder, name, value)


def _exchanging(module: ModuleType, **changes: Any) -> Callable[[], Any]:
    """`module`'s view of `ranks` with some functions replaced; other modules keep theirs."""
    usual = {name: getattr(ranks, name) for name in ("count", "own", "gathered", "summed")}
    return lambda: mock.patch.object(module, "ranks", SimpleNamespace(**{**usual, **changes}))


ROW_MEANS = (
    "softmax",
    "cosine",
    "label-distribution teacher",
)  # for these the mean of the ranks' losses is the whole's
BATCH_WIDE = tuple(n for n in CASES if n.split()[0] not in ("method", "softmax") and n not in ROW_MEANS)

MUTANTS: dict[str, Mutant] = {
    "logits stay with their rank": Mutant(("softmax", "cosine", "two-heads"), _without("logits")),
    "features stay with their rank": Mutant(
        ("centre", "islets batch-means", "islets autograd", "weighted-cluster"), _without("features")
    ),
    "embeddings stay with their rank": Mutant(("ad-corre", "ad-corre virtual"), _without("embeddings")),
    "second heads stay with their rank": Mutant(("two-heads",), _without("heads")),
    "labels stay with their rank": Mutant(("softmax", "weighted-softmax", "centre", "ad-corre"), _without("labels")),
    "votes stay with their rank": Mutant(("label-distribution votes", "two-heads"), _without("votes")),
    "a teacher's answers stay with their rank": Mutant(
        ("label-distribution teacher", "two-heads taught"), _exchanging(taught, gathered=_repeated)
    ),
    "pictures are mixed with their rank's": Mutant(("mixed pictures",), _exchanging(mixing, gathered=_repeated)),
    "nothing is gathered": Mutant(BATCH_WIDE, _plain),
    "the gather passes no gradient": Mutant(("softmax",), _patched(ranks, "_Gathered", _NoGradientGather)),
    "the gather's gradient is not scaled": Mutant(("softmax",), _patched(ranks, "_Gathered", _UnscaledGather)),
    "loss state follows own rows": Mutant(
        ("centre", "weighted-cluster", "weighted-cluster normalised", "ad-corre", "ad-corre virtual"), _own_state
    ),
    "centres start from own rows": Mutant(("islets batch-means",), _own_start),
    "batch norm takes own statistics": Mutant(
        ("softmax", "method resface"),
        _patched(
            distributed, "statistics", lambda x: torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)[::-1]
        ),
    ),
    "batch norm sends no gradients": Mutant(
        ("softmax", "method resface"), _exchanging(distributed, summed=lambda values: ranks.count() * values)
    ),
    "dropout draws for own rows": Mutant(
        ("softmax",), _patched(distributed.GlobalDropout, "forward", lambda self, x: nn.functional.dropout(x, self.p))
    ),
    "every rank takes the same rows": Mutant(("softmax",), _exchanging(feed, own=lambda: 0)),
}
JUDGING = _exchanging(stepping, summed=lambda values: values)  # each rank's accuracy over its own rows


def pair(folder: Path) -> None:
    """One of two ranks. Its results as `folder`/RANK.pt: "alone", "together", "mutants", "plain", "judged", "judged alone"."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    found: dict[str, Any] = {"alone": {name: take(CASES[name]) for name in list(CASES)[rank::RANKS]}}
    found["judged alone"] = judge(CASES["two-heads"])
    found["decided alone"] = decisions()
    with launch.joined(launch.Layout(RANKS), wait=300):
        found["together"] = {name: take(recipe) for name, recipe in CASES.items()}
        found["mutants"] = {name: _mutated(mutant, found["together"]) for name, mutant in MUTANTS.items()}
        found["plain"] = _mutated(Mutant(ROW_MEANS, _plain), found["together"], only=("gradient", "state"))
        found["judged"] = judge(CASES["two-heads"])
        found["decided"] = decisions()
        with JUDGING():
            found["judged apart"] = judge(CASES["two-heads"])
    torch.save(found, folder / f"{rank}.pt")


def decisions() -> tuple[list[int], str]:
    """What every rank told, and the error that rank 0 alone came upon."""
    told = ranks.told_by_all(7)

    def refuse() -> None:
        raise UsageError(f"refused by rank {ranks.own()}")

    try:
        ranks.decided(refuse)
    except UsageError as error:
        return told, str(error)
    return told, ""


def _mutated(mutant: Mutant, usual: dict[str, Found], *, only: tuple[str, ...] = ("",)) -> dict[str, float]:
    """By how much each case comes out differently from the pair's usual result."""
    with mutant.patch():
        made = {name: take(CASES[name]) for name in mutant.cases}

    def chosen(found: Found) -> Found:
        return {name: value for name, value in found.items() if name.startswith(only)}

    return {name: difference(chosen(usual[name]), chosen(found)) for name, found in made.items()}
