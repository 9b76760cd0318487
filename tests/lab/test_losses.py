"""Every loss against its slow oracle, by gradcheck, and by the assertions that the papers' equations imply."""

import math
import warnings
from collections.abc import Iterator

import pytest
import torch
from loss_cases import CASES, COUNTS, FixedTeacher, K, batch_of, draw, gradient, mismatches, output_of
from torch import Tensor
from torch.nn import functional as F

from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import LOSSES, Task
from mien.lab.losses.ad_corre import (
    AdCorre,
    embedding_discriminator,
    feature_discriminator,
    mean_discriminator,
)
from mien.lab.losses.cosine import Cosine
from mien.lab.losses.islets import Islets, centre_term, pair_cosines, pair_penalty
from mien.lab.losses.label_distribution import LabelDistribution
from mien.lab.losses.softmax import Softmax, WeightedSoftmax
from mien.lab.losses.weighted_cluster import PrintedUpdateWarning, WeightedCluster
from oracles import ad_corre as slow_ad_corre

TASK = Task(COUNTS, 6)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of a few hundred numbers, as the gradient checks', are computed four times as fast by one thread as by two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _batch(labels: Tensor, votes: Tensor | None = None, size: int = 4) -> Batch:
    n = len(labels)
    return Batch(torch.zeros(n, 1, size, size), labels, votes, torch.arange(n))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_its_slow_oracle(case) -> None:
    assert mismatches(case) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradcheck(case) -> None:
    data = draw(seed=3)
    loss = case.build(data)

    def total(logits: Tensor, features: Tensor, embeddings: Tensor) -> Tensor:
        terms = loss(NetworkOutput(logits, features, embeddings), batch_of(data))
        return torch.stack(list(terms.values())).sum()

    assert torch.autograd.gradcheck(total, (data.logits, data.features, data.embeddings))


def test_every_loss_is_fp32_under_bf16_autocast() -> None:
    data = draw()
    for case in CASES:
        loss = case.build(data).float()
        output = NetworkOutput(data.logits.bfloat16(), data.features.bfloat16(), data.embeddings.bfloat16())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = loss(output, batch_of(data))
        assert all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms.values()), case.name


def test_names_are_lower_case_words_and_build() -> None:
    for name, options in LOSSES.items():
        assert name == name.lower()
        assert options().embeddings >= 0


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (Islets, {"lp_reduction": "max"}),
        (WeightedCluster, {"centre_update": "printed"}),
        (WeightedSoftmax, {"reduction": "none"}),
        (LabelDistribution, {"source": "crowd"}),
        (AdCorre, {"k": 0}),
    ],
)
def test_a_setting_outside_the_choices_is_refused(options, settings) -> None:
    with pytest.raises(UsageError, match="expected"):
        options(**settings)


# MSCAR


def test_cosine_of_uniform_and_perfect_predictions() -> None:
    labels = torch.tensor([0, 3, 7])
    loss = Cosine().build(Task((1,) * 8, 4))
    uniform = loss(NetworkOutput(torch.zeros(3, 8), torch.zeros(3, 4)), _batch(labels))["cosine"]
    perfect = loss(NetworkOutput(50.0 * F.one_hot(labels, 8).float(), torch.zeros(3, 4)), _batch(labels))["cosine"]
    assert uniform.item() == pytest.approx(-1 / math.sqrt(8))
    assert perfect.item() == pytest.approx(-1.0)


def test_cosine_gradient_vanishes_for_confident_mistakes() -> None:
    logits = torch.zeros(1, 8, dtype=torch.float64)
    logits[0, 1] = 8.0
    logits.requires_grad_()
    term = Cosine().build(Task((1,) * 8, 4))(NetworkOutput(logits, logits), _batch(torch.tensor([0])))["cosine"]
    assert gradient(term, logits).norm().item() == pytest.approx(4.7e-4, rel=0.02)  # methods.md 4.2
    assert gradient(F.cross_entropy(logits, torch.tensor([0])), logits).norm().item() == pytest.approx(1.41, abs=0.01)


# Softmax


def test_a_class_without_rows_has_no_weight() -> None:
    with pytest.raises(UsageError, match="class 1 has no training rows"):
        WeightedSoftmax().build(Task((3, 0, 4), 2))


def test_affectnet_weights() -> None:
    counts = (74_374, 133_915, 24_959, 13_590, 5_878, 3_303, 24_382, 3_250)  # weighted-cluster paper, Table 3
    weights = WeightedSoftmax().build(Task(counts, 2)).weights
    printed = torch.tensor([0.0437, 0.0243, 0.1302, 0.2392, 0.5529, 0.9840, 0.1333, 1.0])
    assert torch.allclose(weights, printed, atol=1e-4)


# Islets


def _islets(centres: Tensor, **settings) -> torch.nn.Module:
    loss = Islets(**settings).build(Task((1,) * len(centres), centres.shape[1])).double()
    with torch.no_grad():
        loss.centres.value.copy_(centres)
    return loss


def _centres_and_batch(classes: int = 7, dim: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    centres = 0.1 * torch.randn(classes, dim, generator=g, dtype=torch.float64)
    features = torch.randn(12, dim, generator=g, dtype=torch.float64)
    return centres, features, torch.randint(0, classes, (12,), generator=g)


def test_islets_step_is_each_gradient_up_to_the_printed_constants() -> None:
    centres, features, labels = _centres_and_batch()
    leaf = centres.clone().requires_grad_()
    counts = torch.bincount(labels, minlength=7).double()
    by_centre = gradient(centre_term(features, labels, leaf, reduction="sum"), leaf)
    step = _islets(centres, pull=0.0, push=0.0).centre_step(features, labels)
    assert torch.allclose(step, by_centre / (1 + counts)[:, None], atol=1e-10)
    far = torch.zeros_like(features[:0])  # no samples: only the pair terms move the centres
    none = labels[:0]
    step = _islets(centres, pull=1.0, push=0.0).centre_step(far, none)
    assert torch.allclose(step, gradient(pair_cosines(leaf), leaf) / (2 * 6), atol=1e-10)
    step = _islets(centres, pull=0.0, push=1.0).centre_step(far, none)
    assert torch.allclose(step, gradient(pair_penalty(leaf, reduction="sum"), leaf) / 7, atol=1e-10)


def test_islets_feature_gradient_is_the_offset_from_the_centre() -> None:
    centres, features, labels = _centres_and_batch()
    leaf = features.clone().requires_grad_()
    loss = _islets(centres, weight=1.0, reduction="sum")
    term = loss(NetworkOutput(torch.zeros(12, 7).double(), leaf), _batch(labels))["centre"]
    assert torch.allclose(gradient(term, leaf), features - centres[labels], atol=1e-12)


def test_islets_penalty_underflows_quietly_and_says_so() -> None:
    far = 50.0 * torch.randn(7, 128, generator=torch.Generator().manual_seed(0))
    loss = Islets().build(Task((1,) * 7, 128))
    loss.centres.value.copy_(far)
    told = loss.diagnostics()
    assert told == {"islets_lp": 0.0, "islets_lp_gradient": 0.0, "islets_lp_underflow": 1.0}
    near = Islets().build(Task((1,) * 7, 128)).diagnostics()
    assert near["islets_lp_underflow"] == 0.0
    assert near["islets_lp"] == pytest.approx(0.184, abs=0.03)  # methods.md 1.5, centres of deviation 0.01
    assert near["islets_lp_gradient"] > 0


@pytest.mark.parametrize("update", ["paper", "autograd"])
def test_islets_survives_equal_and_zero_centres(update) -> None:
    loss = Islets(centre_update=update).build(Task((1,) * 3, 4))
    with torch.no_grad():
        loss.centres.value.zero_()
    output = NetworkOutput(torch.zeros(2, 3, requires_grad=True), torch.ones(2, 4, requires_grad=True))
    batch = _batch(torch.tensor([0, 1]))
    torch.stack(list(loss(output, batch).values())).sum().backward()
    loss.after_step(output, batch)
    assert torch.isfinite(loss.centres.value).all()
    assert loss.centres.value[:2].abs().sum() > 0


def test_centres_can_start_from_the_first_batch() -> None:
    loss = Islets(centre_init="batch-means").build(Task((1,) * 3, 2))
    before = loss.centres.value.clone()
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    loss(NetworkOutput(torch.zeros(3, 3), features), _batch(torch.tensor([0, 0, 2])))
    assert torch.equal(loss.centres.value[[0, 2]], torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    assert torch.equal(loss.centres.value[1], before[1])
    loss(NetworkOutput(torch.zeros(3, 3), 9 * features), _batch(torch.tensor([0, 0, 2])))
    assert torch.equal(loss.centres.value[0], torch.tensor([2.0, 0.0]))


# Weighted cluster


def test_weighted_cluster_feature_gradient_is_equation_7() -> None:
    data = draw()
    loss = WeightedCluster(reduction="sum").build(TASK).double()
    loss.centres.value.copy_(data.centres)
    term = loss(output_of(data), batch_of(data))["weighted_cluster"]
    c, y = data.centres, data.labels
    spread = ((c[:, None] - c[None]) ** 2).sum((1, 2))
    weights = torch.tensor([min(COUNTS) / n for n in COUNTS], dtype=torch.float64)
    expected = (weights[y] / (spread[y] + 1))[:, None] * (data.features - c[y])
    # the class weights are held in float32
    assert torch.allclose(gradient(term, data.features), expected, atol=1e-7)


@pytest.mark.parametrize(("update", "nearer"), [("paper", True), ("as_printed", False)])
def test_only_the_corrected_centre_step_approaches_the_samples(update, nearer) -> None:
    data = draw()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrintedUpdateWarning)
        loss = WeightedCluster(centre_update=update).build(TASK).double()
    loss.centres.value.copy_(data.centres)
    x, y = data.features.detach(), data.labels

    def distance() -> float:
        return float((x - loss.centres.value[y]).square().sum(1).mean())

    before = distance()
    for _ in range(5):
        loss.after_step(output_of(data), batch_of(data))
    assert (distance() < before) is nearer


def test_the_printed_update_warns_why() -> None:
    with pytest.warns(PrintedUpdateWarning, match="away from its own samples"):
        WeightedCluster(centre_update="as_printed").build(TASK)


# Label distribution


def test_a_one_hot_teacher_gives_cross_entropy_over_k() -> None:
    data = draw()
    sure = FixedTeacher(200.0 * F.one_hot(data.labels, K).double())
    loss = LabelDistribution().build(Task(COUNTS, 6, teacher=sure))
    term = loss(output_of(data), batch_of(data))["label_distribution"]
    assert term.item() == pytest.approx(F.cross_entropy(data.logits, data.labels).item() / K, abs=1e-12)


def test_rows_without_votes_get_no_gradient() -> None:
    data = draw()
    loss = LabelDistribution(source="votes").build(Task(COUNTS, 6, has_votes=True))
    found = gradient(loss(output_of(data), batch_of(data))["label_distribution"], data.logits)
    assert found[2].abs().max() == 0
    assert (found[[0, 1, 3]].abs().sum(1) > 0).all()


def test_a_batch_without_any_votes_is_zero() -> None:
    logits = torch.randn(2, K, requires_grad=True)
    loss = LabelDistribution(source="votes").build(Task(COUNTS, 6, has_votes=True))
    term = loss(NetworkOutput(logits, logits), _batch(torch.tensor([0, 1]), torch.zeros(2, K)))["label_distribution"]
    assert term.item() == 0
    assert gradient(term, logits).abs().max() == 0


def test_missing_teacher_and_votes_say_what_to_pass() -> None:
    with pytest.raises(UsageError, match="--teacher PATH"):
        LabelDistribution().build(TASK)
    with pytest.raises(UsageError, match="--data ferplus"):
        LabelDistribution(source="votes").build(TASK)
    loss = LabelDistribution(source="votes").build(Task(COUNTS, 6, has_votes=True))
    data = draw()
    with pytest.raises(UsageError, match="no votes"):
        loss(output_of(data), _batch(data.labels))


def test_a_teacher_of_other_classes_is_refused() -> None:
    data = draw()
    loss = LabelDistribution().build(Task(COUNTS, 6, teacher=FixedTeacher(torch.zeros(9, 3))))
    with pytest.raises(UsageError, match="knows 3 classes"):
        loss(output_of(data), batch_of(data))


def test_the_teacher_is_frozen_and_outside_the_state() -> None:
    teacher = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    loss = LabelDistribution().build(Task(COUNTS, 6, teacher=teacher))
    loss.train().double()
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert list(loss.parameters()) == [] and loss.state_dict() == {}
    assert teacher[0].weight.dtype == torch.float64  # it follows the loss


# Ad-Corre


def _simplex(classes: int, each: int) -> tuple[Tensor, Tensor]:
    """Embeddings (classes * each, 7, 16) whose class means correlate by -1/(K - 1), the least that all pairs can reach."""
    corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
    vectors = F.normalize(F.pad(corners, (0, 16 - classes)), dim=1)
    labels = torch.arange(classes).repeat_interleave(each)
    return vectors[labels][:, None].repeat(1, 7, 1), labels


def test_ad_corre_floors() -> None:
    embeddings, labels = _simplex(7, 10)
    weights = torch.full((7,), 0.5, dtype=torch.float64)  # omega = 1 everywhere
    assert mean_discriminator(embeddings, labels, 7, neg_target=-1).item() == pytest.approx(5 / 7, abs=1e-9)
    found = feature_discriminator(embeddings, labels, weights, neg_target=-1).item()
    assert found == pytest.approx(0.714, abs=1e-3)
    corners = _simplex(7, 1)[0][:, 0]
    assert embedding_discriminator(corners[None], neg_target=-1).item() == pytest.approx(5 / 7, abs=1e-9)


def test_ad_corre_at_a_random_start() -> None:
    embeddings = torch.randn(60, 7, 256, generator=torch.Generator().manual_seed(0))
    assert embedding_discriminator(embeddings, neg_target=-1).item() == pytest.approx(0.859, abs=0.01)


@pytest.mark.parametrize("present", [1, 2, 6])
def test_ad_corre_with_absent_classes_is_finite(present) -> None:
    embeddings = torch.randn(8, 7, 16, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(8) % present
    term = mean_discriminator(embeddings, labels, 7, neg_target=-1)
    assert torch.isfinite(term) and torch.isfinite(gradient(term, embeddings)).all()
    assert (term.item() == 0) is (present == 1)


def test_ad_corre_weights_follow_the_last_five_batches() -> None:
    loss = AdCorre(k=3).build(TASK)
    g = torch.Generator().manual_seed(0)
    history = []
    for _ in range(8):
        labels, logits = torch.randint(0, K, (9,), generator=g), torch.randn(9, K, generator=g)
        loss.after_step(NetworkOutput(logits, logits, torch.zeros(9, 3, 8)), _batch(labels))
        history.append((labels.tolist(), logits.argmax(1).tolist()))
    told = slow_ad_corre.class_weights(history[-5:], K)
    assert loss.class_weights().tolist() == pytest.approx(told, abs=1e-6)
    fresh = AdCorre(k=3).build(TASK)
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh.class_weights(), loss.class_weights())


def test_ad_corre_weights_raise_fd_for_confused_classes() -> None:
    data = draw()
    loss = AdCorre(k=3).build(TASK).double()
    before = loss(output_of(data), batch_of(data))["fd"]
    right = NetworkOutput(20.0 * F.one_hot(data.labels, K).double(), data.features, data.embeddings)
    loss.after_step(right, batch_of(data))
    after = loss(output_of(data), batch_of(data))["fd"]
    told = slow_ad_corre.feature_discriminator(
        data.embeddings,
        data.labels,
        slow_ad_corre.class_weights([(data.labels.tolist(), data.labels.tolist())], K),
        neg_target=-1,
    )
    assert after.item() == pytest.approx(0.5 * told.item(), abs=1e-7)
    assert after < 0.01 * before


def test_ad_corre_virtual_batches_join_the_last_embeddings() -> None:
    first, second = draw(0), draw(1)
    loss = AdCorre(k=3, virtual=2, history=0).build(TASK).double()
    alone = loss(output_of(first), batch_of(first))["ed"]
    loss.after_step(output_of(first), batch_of(first))
    joined = loss(output_of(second), batch_of(second))
    both = torch.cat([second.embeddings, first.embeddings])
    labels = torch.cat([second.labels, first.labels])
    told = feature_discriminator(both, labels, loss.class_weights().double(), neg_target=-1)
    assert joined["fd"].item() == pytest.approx(0.5 * told.item())
    assert joined["ed"].item() != pytest.approx(alone.item())
    loss.eval()
    single = loss(output_of(second), batch_of(second))["ed"].item()
    assert single == pytest.approx(0.5 * embedding_discriminator(second.embeddings, neg_target=-1).item())


def test_ad_corre_needs_embeddings() -> None:
    data = draw()
    with pytest.raises(UsageError, match="embeddings=7"):
        AdCorre().build(TASK)(NetworkOutput(data.logits, data.features), batch_of(data))


def test_softmax_is_torchs() -> None:
    data = draw()
    term = Softmax().build(TASK)(output_of(data), batch_of(data))["softmax"]
    assert term.item() == pytest.approx(F.cross_entropy(data.logits, data.labels).item())
