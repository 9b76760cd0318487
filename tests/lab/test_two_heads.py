"""The bundled model's loss against slow loops in float64 written from its description."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

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


class Teacher(nn.Module):
    """Answers two rows of logits per picture, whatever it sees."""

    def forward(self, batch: Batch) -> NetworkOutput:
        torch.manual_seed(4)
        first, second = torch.randn(len(batch.ids), 8), torch.randn(len(batch.ids), 7)
        return NetworkOutput(first, first, heads={"fer2013": second})


def test_a_teacher_adds_the_cross_entropy_to_its_answers() -> None:
    output, faces = batch()
    alone = TwoHeads().build(Task(COUNTS, 16, has_votes=True))(output, faces)
    loss = TwoHeads(teacher_weight=0.6).build(Task(COUNTS, 16, teacher=Teacher(), has_votes=True))
    taught = loss(output, faces)
    assert {name: taught[name] for name in alone} == alone and list(taught)[len(alone) :] == ["teacher"]
    told, rows = Teacher()(faces), len(faces.labels)
    assert output.heads is not None and told.heads is not None
    expected = 0.0
    for theirs, ours in ((told.logits, output.logits), (told.heads["fer2013"], output.heads["fer2013"])):
        for i in range(rows):
            wanted, found = theirs[i].double().exp(), ours[i].detach().exp()
            for c in range(len(wanted)):
                expected -= float(wanted[c] / wanted.sum() * torch.log(found[c] / found.sum())) / rows
    assert taught["teacher"].item() == pytest.approx(0.6 * expected, rel=1e-6)
    leaves = [output.logits, output.heads["fer2013"]]
    for gradient, ours, theirs in zip(
        torch.autograd.grad(taught["teacher"], leaves), leaves, (told.logits, told.heads["fer2013"]), strict=True
    ):
        assert torch.allclose(gradient, 0.6 / rows * (ours.softmax(1) - theirs.double().softmax(1)), atol=1e-7)
    assert not list(loss.parameters()) and not loss.state_dict()


class Looking(nn.Module):
    """Answers by what it sees, and keeps what it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Batch] = []

    def forward(self, batch: Batch) -> NetworkOutput:
        self.asked.append(batch)
        column = batch.images.flatten(1)
        return NetworkOutput(column[:, :8], column, heads={"fer2013": column[:, 8:15]})


def test_a_teacher_may_be_asked_about_the_mirror_image_too() -> None:
    output, faces = batch()
    faces = replace(faces, images=torch.randn(len(faces.labels), 1, 4, 4, dtype=torch.float64))
    teacher = Looking()
    options = TwoHeads(votes_weight=0.0, labels_weight=0.0, teacher_weight=1.0, teacher_flip=True)
    found = options.build(Task(COUNTS, 16, teacher=teacher, has_votes=True))(output, faces)["teacher"]
    assert output.heads is not None
    views = [faces.images.flatten(1), faces.images.flip(3).flatten(1)]
    expected = 0.0
    for ours, part in ((output.logits, slice(0, 8)), (output.heads["fer2013"], slice(8, 15))):
        target = sum(view[:, part].softmax(dim=1) for view in views) / 2
        expected -= float((target * ours.detach().log_softmax(dim=1)).sum(dim=1).mean())
    assert found.item() == pytest.approx(expected, rel=1e-9)
    (asked,) = teacher.asked
    assert torch.equal(asked.ids, faces.ids.repeat_interleave(2))
    assert torch.equal(asked.labels, faces.labels.repeat_interleave(2))


def test_a_teacher_that_is_absent_or_has_one_head_is_named() -> None:
    with pytest.raises(UsageError, match="teacher_weight=-1: expected 0 or more"):
        TwoHeads(teacher_weight=-1)
    with pytest.raises(UsageError, match=r"pass --teacher RUN, or --teacher FILE\.onnx"):
        TwoHeads(teacher_weight=1).build(Task(COUNTS, 16, has_votes=True))
    with pytest.raises(UsageError, match="set teacher_weight above 0, too"):
        TwoHeads(teacher_flip=True).build(Task(COUNTS, 16, teacher=Teacher(), has_votes=True))

    class OneHead(nn.Module):
        def forward(self, batch: Batch) -> NetworkOutput:
            return NetworkOutput(torch.zeros(len(batch.ids), 8), torch.zeros(len(batch.ids), 8))

    loss = TwoHeads(teacher_weight=1).build(Task(COUNTS, 16, teacher=OneHead(), has_votes=True))
    with pytest.raises(UsageError, match="the teacher has no head 'fer2013'"):
        loss(*batch())


def test_balance_moves_weight_to_rare_classes_only() -> None:
    output, faces = batch()
    equal, tilted = (TwoHeads(balance=b).build(Task(COUNTS, 16, has_votes=True))(output, faces) for b in (0.0, 1.0))
    assert torch.equal(equal["votes"], tilted["votes"])
    assert not torch.allclose(equal["labels"], tilted["labels"])


def test_without_votes_it_says_what_to_pass() -> None:
    with pytest.raises(UsageError, match="--label-rule joint"):
        TwoHeads().build(Task(COUNTS, 16))
    with pytest.raises(
        UsageError, match=r"FER-2013's 7 classes, the labels are of more; train on --data ferplus by --label-rule joint"
    ):
        TwoHeads().build(Task((5,) * 8, 16, has_votes=True))


def test_a_head_that_nothing_trains_is_refused() -> None:
    task = Task(COUNTS, 4, teacher=Teacher(), has_votes=True)
    for name, options in (("votes", TwoHeads(votes_weight=0.0)), ("labels", TwoHeads(labels_weight=0.0))):
        with pytest.raises(
            UsageError, match=f"with {name}_weight=0 and no teacher nothing trains that head; set {name}"
        ):
            options.build(task)
        replace(options, teacher_weight=0.5).build(task)


def test_a_negative_balance_is_refused() -> None:
    with pytest.raises(UsageError, match="balance=-1: expected 0 or more"):
        TwoHeads(balance=-1)
