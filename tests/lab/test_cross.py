"""Any loss trains any network: two optimiser steps that stay finite, in bf16, without a class, and with one picture."""

import random
import warnings

import pytest
import torch
from network_cases import SMALL
from torch import nn

from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import LOSSES, Loss, Task
from mien.lab.networks import Network, Shape
from mien.lab.networks.norm import SingleValueBatchWarning

CLASSES = 7
OWN = ("two-heads",)  # wants a second head
SITUATIONS = ("plain", "bf16", "absent class", "one picture")
PAIRS = [(n, x, s) for n in SMALL for x in LOSSES if x not in OWN for s in SITUATIONS]


def _sample() -> list[tuple[str, str, str]]:
    """Every network, every loss and every situation at least once, drawn with a fixed seed."""
    draw = random.Random(0)
    losses = [name for name in LOSSES if name not in OWN]
    networks = [*SMALL, *draw.sample(list(SMALL), max(0, len(losses) - len(SMALL)))]
    draw.shuffle(networks)
    draw.shuffle(losses)
    return [(n, losses[i % len(losses)], SITUATIONS[i % len(SITUATIONS)]) for i, n in enumerate(networks)]


def _built(network_name: str, loss_name: str) -> tuple[Network, Loss, int]:
    options, size = SMALL[network_name]
    size = max(size, 32)
    chosen = LOSSES[loss_name]()
    network = options.build(Shape(1, CLASSES, size, embeddings=chosen.embeddings)).train()
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(size * size, CLASSES))
    task = Task((5,) * CLASSES, network.feature_dim, teacher=_Answering(teacher), has_votes=True)
    return network, chosen.build(task), size


class _Answering(nn.Module):
    """Gives a plain module's answer as a network does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch) -> NetworkOutput:
        logits = self.module(batch.images)
        return NetworkOutput(logits, logits)


def _batch(size: int, *, situation: str) -> Batch:
    n = 1 if situation == "one picture" else CLASSES
    labels = torch.arange(n) % (CLASSES - 1 if situation == "absent class" else CLASSES)
    votes = torch.full((n, CLASSES), 1 / CLASSES)
    return Batch(torch.rand(n, 1, size, size), labels, votes, torch.arange(n))


def _two_steps(network_name: str, loss_name: str, situation: str) -> None:
    torch.manual_seed(0)
    network, loss, size = _built(network_name, loss_name)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in network.parameters()]
    for _ in range(2):
        batch = _batch(size, situation=situation)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=situation == "bf16"):
            output = network(batch.images)
            terms = loss(output, batch)
        assert all(torch.isfinite(term) and term.dtype == torch.float32 for term in terms.values())
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        with torch.no_grad():
            loss.after_step(output, batch)
    assert all(torch.isfinite(value).all() for value in [*network.parameters(), *loss.state_dict().values()])
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(isinstance(value, float) for value in loss.diagnostics().values())


def _quietly(pair: tuple[str, str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingleValueBatchWarning)
        _two_steps(*pair)


@pytest.mark.parametrize("pair", _sample(), ids="-".join)
def test_a_sample_of_pairs(pair: tuple[str, str, str]) -> None:
    _quietly(pair)


@pytest.mark.soak
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_pair(pair: tuple[str, str, str]) -> None:
    _quietly(pair)


@pytest.mark.parametrize("term", ["fd", "md", "ed"])
def test_each_discriminator_reaches_the_first_layer(term: str) -> None:
    torch.manual_seed(0)
    network, loss, size = _built("xception", "ad-corre")
    batch = _batch(size, situation="plain")
    loss(network(batch.images), batch)[term].backward()
    first = next(network.parameters()).grad
    assert first is not None and first.abs().max() > 0
