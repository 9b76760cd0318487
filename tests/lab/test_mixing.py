"""Two pictures in one, against what the papers' formulas say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rank_cases import CLASSES, COUNTS
from torch import Tensor, nn

from mien.card import InputSpec
from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import Task, TwoHeads
from mien.lab.losses.softmax import Softmax
from mien.lab.methods import load
from mien.lab.methods.method import Augment
from mien.lab.networks.mien_small import MienSmall
from mien.lab.networks.network import Shape
from mien.lab.training import mixing, runs
from mien.lab.training import teacher as teaching
from mien.lab.training.mixing import Mix
from mien.lab.training.module import Training

ROWS, SIDE = 6, 16


def pictures() -> Tensor:
    return torch.rand(ROWS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def drawn(options: Augment, steps: int = 4000) -> list[Mix | None]:
    return [mixing.draw(options, size=48, seed=3, epoch=1, step=step) for step in range(steps)]


def test_a_blend_is_the_weighted_mean_with_the_next_row() -> None:
    faces = pictures()
    mixed = Mix(0.7).pictures(faces)
    for row in range(ROWS):
        assert torch.allclose(mixed[row], 0.7 * faces[row] + 0.3 * faces[(row + 1) % ROWS])


def test_a_box_shows_the_next_row_and_nothing_else_changes() -> None:
    faces = pictures()
    kept = faces.clone()
    mixed = Mix(0.9, (2, 7, 3, 12)).pictures(faces)
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[2:7, 3:12] = True
    for row in range(ROWS):
        assert torch.equal(mixed[row, 0][inside], faces[(row + 1) % ROWS, 0][inside])
        assert torch.equal(mixed[row, 0][~inside], faces[row, 0][~inside])
    assert torch.equal(faces, kept)  # the rows given stay as they are


def test_the_shares_are_those_of_the_papers() -> None:
    """Beta(1, 1) folded at 0.5 is uniform on 0.5 to 1; a box's share is the area that it leaves."""
    found = drawn(Augment(mixup=0.25, cutmix=0.5))
    blends = [mix for mix in found if mix is not None and mix.box is None]
    boxes = [mix for mix in found if mix is not None and mix.box is not None]
    assert len(blends) / len(found) == pytest.approx(0.25, abs=0.03)
    assert len(boxes) / len(found) == pytest.approx(0.5, abs=0.03)
    shares = [mix.share for mix in blends]
    assert (min(shares), max(shares)) == pytest.approx((0.5, 1), abs=0.01)
    assert np.mean(shares) == pytest.approx(0.75, abs=0.02)
    for mix in boxes:
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 48 and 0 <= left <= right <= 48
        assert mix.share == pytest.approx(1 - (bottom - top) * (right - left) / 48**2)
        assert mix.share > 0.49  # whole pixels may take a little more than half
    narrow = [mix.share for mix in drawn(Augment(mixup=1.0, mix_alpha=50)) if mix is not None]
    assert np.mean(narrow) < 0.56  # a Beta of a large a is near one half


def test_a_draw_depends_on_seed_epoch_and_step_alone() -> None:
    options = Augment(mixup=1.0)
    first = mixing.draw(options, size=48, seed=1, epoch=2, step=3)
    assert mixing.draw(options, size=48, seed=1, epoch=2, step=3) == first
    others = [
        mixing.draw(options, size=48, **{"seed": 1, "epoch": 2, "step": 3, key: 9}) for key in ("seed", "epoch", "step")
    ]
    assert first not in others
    begun = mixing.draw(options, size=48, seed=1, epoch=2, step=0)
    order = np.random.default_rng([1, 2])  # what the epoch's order is drawn from
    order.random()
    share = order.beta(1, 1)
    assert begun is not None and begun.share != pytest.approx(max(share, 1 - share))
    assert mixing.draw(Augment(), size=48, seed=1, epoch=2, step=3) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mixup": -0.1}, r"augment\.mixup=-0\.1: expected a probability"),
        ({"mixup": 0.6, "cutmix": 0.6}, r"augment\.cutmix=0\.6: expected 1 at most together with augment\.mixup"),
        ({"cutmix": 0.5, "mix_alpha": 0.0}, r"augment\.mix_alpha=0\.0: expected a number above 0"),
    ],
)
def test_impossible_options_are_named(options: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Augment(**options)


class Teacher(nn.Module):
    """A network that keeps what it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, images: Tensor) -> NetworkOutput:
        self.asked.append(images)
        logits = images.flatten(1)[:, :CLASSES]
        return NetworkOutput(logits, logits, heads={"fer2013": logits[:, :7]})


def module(options: Augment, loss: Softmax | TwoHeads, teacher: nn.Module | None = None) -> Training:
    torch.manual_seed(0)
    small = MienSmall(widths=(4, 8), depths=(1, 2), dropout=0.0)
    recipe = replace(
        load("mien-small").recipes["cpu"], network=small, loss=loss, size=SIDE, sizes=(), augment=options, ema=0.0
    )
    network = small.build(Shape(1, CLASSES, SIDE, 0))
    task = Task(COUNTS, network.feature_dim, teacher=teacher, has_votes=True)
    spec = runs.spec_of(recipe)
    return Training(recipe, network, loss.build(task), spec=spec, seed=5, steps=1, validation=("valid",))


def batch() -> Batch:
    labels = torch.arange(ROWS) % CLASSES
    votes = F.one_hot(labels, CLASSES).float()
    return Batch(pictures(), labels, votes, torch.arange(ROWS))


@pytest.mark.parametrize("options", [Augment(mixup=1.0), Augment(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_a_step_weighs_both_labels_by_their_shares(options: Augment) -> None:
    training = module(options, Softmax())
    faces = batch()
    mix = mixing.draw(options, size=SIDE, seed=5, epoch=0, step=2)
    assert mix is not None
    total = training.training_step(faces, 2)
    logits = training.network(mix.pictures(training.prepared(faces).images)).logits
    each = -F.log_softmax(logits, dim=1)
    expected = 0.0
    for row in range(ROWS):
        own, partner = int(faces.labels[row]), int(faces.labels[(row + 1) % ROWS])
        expected += (mix.share * each[row, own].item() + (1 - mix.share) * each[row, partner].item()) / ROWS
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_a_teacher_sees_the_mixed_pictures_once_a_step(flip: bool) -> None:
    teacher, spec = Teacher(), InputSpec(SIDE, SIDE, "grey", (0.0,), (1.0,))
    loss = TwoHeads(teacher_weight=0.5, teacher_flip=flip)
    training = module(Augment(mixup=1.0), loss, teaching.Teacher(teacher, spec, spec))
    for step in range(2):
        training.training_step(batch(), step)
    assert len(teacher.asked) == 2
    plain = training.prepared(batch()).images
    for step, seen in enumerate(teacher.asked):
        mix = mixing.draw(Augment(mixup=1.0), size=SIDE, seed=5, epoch=0, step=step)
        assert mix is not None
        mixed = mix.pictures(plain)
        views = [seen[::2], seen[1::2].flip(-1)] if flip else [seen]  # picture and mirror image stand side by side
        assert all(torch.allclose(view, mixed, atol=1e-6) for view in views)


def test_answers_by_row_are_weighed_like_labels() -> None:
    """Each row of a mixed batch learns its own row's answer and its partner's, by their shares."""
    told = np.random.default_rng(1).dirichlet(np.ones(CLASSES), 2 * ROWS).astype(np.float32)
    seconds = np.random.default_rng(2).dirichlet(np.ones(7), 2 * ROWS).astype(np.float32)
    answers = teaching.RowAnswers({"noise": told, "fer2013": seconds}, "noise")
    options = Augment(cutmix=1.0)
    training = module(options, TwoHeads(votes_weight=0.0, labels_weight=0.0, teacher_weight=1.0), answers)
    faces = replace(batch(), ids=torch.arange(ROWS) + 3)
    mix = mixing.draw(options, size=SIDE, seed=5, epoch=0, step=0)
    assert mix is not None
    total = training.training_step(faces, 0)
    output = training.network(mix.pictures(training.prepared(faces).images))
    assert output.heads is not None
    expected = 0.0
    for logits, targets in ((output.logits, told), (output.heads["fer2013"], seconds)):
        each = -F.log_softmax(logits, dim=1).detach().numpy()
        for row in range(ROWS):
            own, partner = targets[row + 3], targets[(row + 1) % ROWS + 3]
            expected += float(each[row] @ (mix.share * own + (1 - mix.share) * partner)) / ROWS
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_pictures_are_turned_in_float32_also_where_the_network_computes_in_bfloat16() -> None:
    """Coordinates of eight bits would be off by up to a pixel."""
    training = module(Augment(rotate=20.0, scale=(0.8, 1.2)), Softmax())
    plain = training.prepared(batch()).images
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(training.prepared(batch()).images, plain)


def test_the_probability_rule_draws_each_rows_label_from_its_votes_anew() -> None:
    training = module(Augment(), Softmax())
    rows = 4000
    votes = torch.tensor([0.5, 0.0, 0.3, 0.0, 0.0, 0.0, 0.2]).expand(rows, CLASSES)
    given = Batch(torch.zeros(rows, 1, SIDE, SIDE), torch.zeros(rows, dtype=torch.int64), votes, torch.arange(rows))
    assert torch.equal(training.prepared(given).labels, given.labels)  # every other rule
    training.redraw_labels = True
    drawn = training.prepared(given).labels
    assert torch.bincount(drawn, minlength=CLASSES) / rows == pytest.approx(votes[0].numpy(), abs=0.03)
    assert torch.equal(training.prepared(given).labels, drawn)  # in one epoch the same
    some = Batch(given.images[7:9], given.labels[7:9], votes[7:9], given.ids[7:9])
    assert torch.equal(training.prepared(some).labels, drawn[7:9])  # in any batch
    training.seed += 1
    assert 0.3 < (training.prepared(given).labels == drawn).float().mean() < 0.46  # 0.5^2 + 0.3^2 + 0.2^2
