"""Losses beside their oracles: each case builds a loss from a module and says what the slow loops say of the same data."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import Loss, Task, ad_corre, cosine, islets, label_distribution, softmax, weighted_cluster
from oracles import ad_corre as slow_ad_corre
from oracles import centres as slow_centres
from oracles import classification as slow

N, K, D, E = 9, 5, 6, 8
COUNTS = (40, 90, 10, 25, 60)
LABELS = (0, 1, 1, 3, 3, 3, 0, 1, 4)  # class 2 is absent
EMBEDDINGS = 3
TOLERANCE = 1e-8


class FixedTeacher(nn.Module):
    """A teacher that answers with the same logits whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, batch: Batch) -> NetworkOutput:
        return NetworkOutput(self.logits, self.logits)


def draw(seed: int = 0) -> SimpleNamespace:
    """One batch in float64 whose network outputs require gradients."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    votes = normal(N, K).softmax(dim=1)
    votes[2] = 0.0  # a picture without usable votes
    return SimpleNamespace(
        logits=normal(N, K).requires_grad_(),
        features=normal(N, D).requires_grad_(),
        embeddings=nn.functional.normalize(normal(N, EMBEDDINGS, E), dim=2).requires_grad_(),
        labels=torch.tensor(LABELS),
        votes=votes,
        teacher=normal(N, K),
        centres=normal(K, D),
    )


def batch_of(data: SimpleNamespace) -> Batch:
    return Batch(torch.zeros(N, 1, 4, 4, dtype=torch.float64), data.labels, data.votes, torch.arange(N))


def output_of(data: SimpleNamespace) -> NetworkOutput:
    return NetworkOutput(data.logits, data.features, data.embeddings)


@dataclass(frozen=True)
class Case:
    """module, options, settings: where the loss's options class is and what it is built with. terms: the oracle's terms
    from the data and the loss's centres. step: the oracle's centres after the step, or None where nothing is held."""

    name: str
    module: ModuleType
    options: str
    terms: Callable[[SimpleNamespace, Tensor | None], dict[str, Tensor]]
    settings: dict[str, Any] = field(default_factory=dict)
    step: Callable[[SimpleNamespace, Tensor], Tensor] | None = None

    def build(self, data: SimpleNamespace, module: ModuleType | None = None) -> Loss:
        options = getattr(module or self.module, self.options)(**self.settings)
        task = Task(COUNTS, D, teacher=FixedTeacher(data.teacher), has_votes=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the update as printed
            loss: Loss = options.build(task).double()
        if hasattr(loss, "centres"):
            with torch.no_grad():
                loss.centres.value.copy_(data.centres)
        return loss


def mismatches(case: Case, module: ModuleType | None = None) -> list[str]:
    """Where loss and oracle differ by more than 1e-8: values, gradients, and the centres after a step."""
    data = draw()
    loss = case.build(data, module)
    centres = loss.centres.value if hasattr(loss, "centres") else None
    found = loss(output_of(data), batch_of(data))
    told = case.terms(data, centres)
    if found.keys() != told.keys():
        return [f"terms {sorted(found)} instead of {sorted(told)}"]
    leaves = {"logits": data.logits, "features": data.features, "embeddings": data.embeddings}
    if centres is not None and centres.requires_grad:
        leaves["centres"] = centres
    wrong = []
    for name in told:
        if not close(found[name], told[name]):
            wrong.append(f"{name}: {found[name].item():.12g} instead of {told[name].item():.12g}")
        for leaf, tensor in leaves.items():
            if not close(gradient(found[name], tensor), gradient(told[name], tensor)):
                wrong.append(f"gradient of {name} by {leaf}")
    return wrong + _step_mismatches(case, loss, data)


def _step_mismatches(case: Case, loss: Loss, data: SimpleNamespace) -> list[str]:
    if case.step is None:
        return []
    expected = case.step(data, loss.centres.value.detach().clone())
    terms = loss(output_of(data), batch_of(data))
    torch.stack(list(terms.values())).sum().backward()
    loss.after_step(output_of(data), batch_of(data))
    return [] if close(loss.centres.value, expected) else ["centres after the step"]


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE))


def gradient(term: Tensor, leaf: Tensor) -> Tensor:
    """d term / d leaf, zeros where the term does not depend on it."""
    if not term.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(term, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def islets_case(name: str, options: str, **settings: Any) -> Case:
    """The centre family with its defaults overridden by `settings`."""
    chosen = getattr(islets, options)(**settings)

    def terms(data: SimpleNamespace, centres: Tensor) -> dict[str, Tensor]:
        found = {"centre": slow_centres.centre(data.features, data.labels, centres, reduction=chosen.reduction)}
        if chosen.pull:
            found["island"] = chosen.pull * slow_centres.pair_cosines(centres)
        if chosen.push:
            found["islets"] = chosen.push * slow_centres.pair_penalty(centres, reduction=chosen.lp_reduction)
        found = {key: chosen.weight * value for key, value in found.items()}
        if chosen.classification == "softmax":
            return {"softmax": slow.cross_entropy(data.logits, data.labels)} | found
        entropy = slow.weighted_cross_entropy(data.logits, data.labels, COUNTS, reduction="wmean")
        return {"weighted_softmax": entropy} | found

    def step(data: SimpleNamespace, centres: Tensor) -> Tensor:
        if chosen.centre_update == "paper":
            return centres - chosen.alpha * slow_centres.islets_step(
                data.features.detach(), data.labels, centres,
                pull=chosen.pull, push=chosen.push, reduction=chosen.lp_reduction,
            )  # fmt: skip
        return descend(lambda c: _clustering(terms(data, c)), centres, chosen.alpha / chosen.weight)

    return Case(name, islets, options, terms, settings, step)


def descend(function: Callable[[Tensor], Tensor], centres: Tensor, rate: float) -> Tensor:
    """One gradient step of `function` from `centres`."""
    leaf = centres.clone().requires_grad_()
    return centres - rate * torch.autograd.grad(function(leaf), leaf)[0]


def _clustering(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for key, value in terms.items() if not key.endswith("softmax")]).sum()


def cluster_case(name: str, **settings: Any) -> Case:
    """The weighted-cluster loss with its defaults overridden by `settings`."""
    chosen = weighted_cluster.WeightedCluster(**settings)

    def terms(data: SimpleNamespace, centres: Tensor) -> dict[str, Tensor]:
        cluster = slow_centres.weighted_cluster(
            data.features, data.labels, centres, COUNTS, alpha=chosen.alpha, reduction=chosen.reduction
        )
        entropy = slow.weighted_cross_entropy(data.logits, data.labels, COUNTS, reduction=chosen.reduction)
        return {"weighted_softmax": entropy, "weighted_cluster": chosen.weight * cluster}

    def step(data: SimpleNamespace, centres: Tensor) -> Tensor:
        if chosen.centre_update == "autograd":
            return descend(lambda c: _clustering(terms(data, c)), centres, chosen.gamma / chosen.weight)
        return centres - slow_centres.weighted_cluster_step(
            data.features.detach(), data.labels, centres, COUNTS,
            alpha=chosen.alpha, gamma=chosen.gamma, update=chosen.centre_update,
        )  # fmt: skip

    return Case(name, weighted_cluster, "WeightedCluster", terms, settings, step)


def ad_corre_case(name: str, **settings: Any) -> Case:
    """Ad-Corre before any history; its class weights are then all 1 + 1e-6."""
    chosen = ad_corre.AdCorre(k=EMBEDDINGS, **settings)

    def terms(data: SimpleNamespace, _: Tensor | None) -> dict[str, Tensor]:
        e, y, target = data.embeddings, data.labels, chosen.neg_target
        weights = slow_ad_corre.class_weights([], K)
        found = {
            "fd": chosen.fd and slow_ad_corre.feature_discriminator(e, y, weights, neg_target=target),
            "md": chosen.md and slow_ad_corre.mean_discriminator(e, y, K, neg_target=target),
            "ed": chosen.ed and slow_ad_corre.embedding_discriminator(e, neg_target=target),
        }
        entropy = chosen.cross_entropy * slow.cross_entropy(data.logits, y)
        factors = {"fd": chosen.fd, "md": chosen.md, "ed": chosen.ed}
        kept = {key: chosen.weight * factors[key] * value for key, value in found.items() if factors[key]}
        return {"softmax": entropy} | kept

    return Case(name, ad_corre, "AdCorre", terms, {"k": EMBEDDINGS, **settings})


CASES: tuple[Case, ...] = (
    Case(
        "softmax", softmax, "Softmax",
        lambda d, _: {"softmax": 0.7 * slow.cross_entropy(d.logits, d.labels, smoothing=0.1)},
        {"weight": 0.7, "smoothing": 0.1},
    ),
    *(
        Case(
            f"weighted-softmax {reduction}", softmax, "WeightedSoftmax",
            lambda d, _, r=reduction: {
                "weighted_softmax": slow.weighted_cross_entropy(d.logits, d.labels, COUNTS, reduction=r)
            },
            {"reduction": reduction},
        )
        for reduction in ("wmean", "mean", "sum")
    ),
    Case("cosine", cosine, "Cosine", lambda d, _: {"cosine": slow.cosine(d.logits, d.labels)}),
    Case(
        "cosine batch", cosine, "Cosine",
        lambda d, _: {"cosine": slow.cosine_of_the_batch(d.logits, d.labels)}, {"over": "batch"},
    ),
    islets_case("centre", "Centre"),
    islets_case("centre weighted", "Centre", weight=0.5, classification="weighted-softmax", reduction="sum"),
    islets_case("island", "Island"),
    islets_case("islets", "Islets"),
    islets_case("islets mean", "Islets", lp_reduction="mean", reduction="sum", alpha=0.3),
    islets_case("islets autograd", "Islets", centre_update="autograd", lp_reduction="mean"),
    islets_case("islets autograd sum", "Islets", centre_update="autograd"),
    cluster_case("weighted-cluster"),
    cluster_case("weighted-cluster capped", alpha=1e-3, gamma=500.0),
    cluster_case("weighted-cluster sum", weight=0.4, alpha=2.0, gamma=0.5, reduction="sum"),
    cluster_case("weighted-cluster mean", reduction="mean"),
    cluster_case("weighted-cluster autograd", centre_update="autograd", gamma=0.1, weight=2.0),
    cluster_case("weighted-cluster as printed", centre_update="as_printed"),
    cluster_case("weighted-cluster normalised", centre_update="normalised", gamma=0.5),
    Case(
        "label-distribution teacher", label_distribution, "LabelDistribution",
        lambda d, _: {
            "label_distribution": slow.label_distribution(d.logits, slow.teacher_distribution(d.teacher))
        },
    ),
    Case(
        "label-distribution votes", label_distribution, "LabelDistribution",
        lambda d, _: {"label_distribution": 5.0 * slow.label_distribution(d.logits, d.votes)},
        {"source": "votes", "scale": 5.0},
    ),
    ad_corre_case("ad-corre"),
    ad_corre_case("ad-corre zero target", neg_target=0.0, weight=1.0, cross_entropy=0.1),
    ad_corre_case("ad-corre fd", md=0.0, ed=0.0),
    ad_corre_case("ad-corre md", fd=0.0, ed=0.0, md=2.0),
    ad_corre_case("ad-corre ed", fd=0.0, md=0.0),
)  # fmt: skip
