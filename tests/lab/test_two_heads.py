"""The bundled model's loss against slow loops in float64 written from its description."""

import math

import pytest
import torch
from torch import Tensor

from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import Task
from mien.lab.losses.two_heads import TwoHeads

COUNTS = (50, 72, 48, 32, 41, 4, 40, 0)  # FER-2013's Training in small; contempt is no class of it


def batch() -> tuple[NetworkOutput, Batch]:
    torch.manual_seed(3)
    rows = 9
    votes = torch.rand(rows, 8, dtype=torch.float64)
    votes /= votes.sum(dim=1, keepdim=True)
    votes[2] = 0.0  # no usable votes
    logits, second = (torch.randn(rows, k, dtype=torch.float64, requires_grad=True) for k in (8, 7))
    labels = torch.tensor([0, 1, 5, 3, 4, 5, 6, 1, 2])
    faces = Batch(torch.zeros(rows, 1, 2, 2), labels, votes, torch.arange(rows))
    return NetworkOutput(logits, logits, heads={"fer2013": second}), faces


def slow(output: NetworkOutput, faces: Batch, options: TwoHeads) -> dict[str, Tensor]:
    def log_softmax(row: Tensor) -> list[Tensor]:
        total = sum(torch.exp(value) for value in row)
        return [torch.log(torch.exp(value) / total) for value in row]

    assert faces.votes is not None and output.heads is not None
    soft, voted, hard, counted = torch.zeros(()), 0, torch.zeros(()), 0.0
    for i, label in enumerate(faces.labels.tolist()):
        if any(faces.votes[i]):
            voted += 1
            for share, value in zip(faces.votes[i], log_softmax(output.logits[i]), strict=True):
                soft = soft - share * value
        weight = math.pow(COUNTS[label], -options.balance)
        counted += weight
        values = log_softmax(output.heads["fer2013"][i])
        for c, value in enumerate(values):
            target = (1 - options.smoothing) * (c == label) + options.smoothing / len(values)
            hard = hard - weight * target * value
    return {"votes": options.votes_weight * soft / voted, "labels": options.labels_weight * hard / counted}


@pytest.mark.parametrize("balance", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_values_and_gradients_are_those_of_the_slow_loops(balance: float, smoothing: float) -> None:
    options = TwoHeads(votes_weight=0.7, labels_weight=1.3, smoothing=smoothing, balance=balance)
    loss = options.build(Task(COUNTS, 16, has_votes=True)).double()
    output, faces = batch()
    assert output.heads is not None
    leaves = [output.logits, output.heads["fer2013"]]
    found, expected = loss(output, faces), slow(output, faces, options)
    assert found.keys() == expected.keys()
    for name in found:
        assert torch.allclose(found[name], expected[name], rtol=1e-6, atol=0)  # the weights are float32
        taken = torch.autograd.grad(found[name], leaves, allow_unused=True, retain_graph=True)
        wanted = torch.autograd.grad(expected[name], leaves, allow_unused=True, retain_graph=True)
        for mine, theirs in zip(taken, wanted, strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.allclose(mine, theirs, rtol=1e-5, atol=1e-8)


def test_balance_moves_weight_to_rare_classes_only() -> None:
    output, faces = batch()
    equal, tilted = (TwoHeads(balance=b).build(Task(COUNTS, 16, has_votes=True))(output, faces) for b in (0.0, 1.0))
    assert torch.equal(equal["votes"], tilted["votes"])
    assert not torch.allclose(equal["labels"], tilted["labels"])


def test_without_votes_it_says_what_to_pass() -> None:
    with pytest.raises(UsageError, match="label_rule=joint"):
        TwoHeads().build(Task(COUNTS, 16))


def test_a_negative_balance_is_refused() -> None:
    with pytest.raises(UsageError, match="balance -1: expected 0"):
        TwoHeads(balance=-1)
