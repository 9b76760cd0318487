"""The contract over every method: recipes that build, shapes, counts, gradients, overfitting, checkpoints, ONNX."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mien import lab
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import Task
from mien.lab.methods import NAMES, TEACHERS, Method, load
from mien.lab.methods.method import Recipe, Variant
from mien.lab.networks import Network, Shape
from mien.lab.networks.counts import count

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

TRAINED = NAMES + TEACHERS
SIZE = 48
# Trainable parameters of every method's variants (methods.md 1.3, 1.7, 2.1, 3.3, 4.1, 5.2); the rest share a network.
COUNTS = {
    "lban-il": {
        "lban-il": 19_630_279,
        "lbc": 5_696_711,
        "lbcnn": 6_941_383,
        "lban-double-dagger": 29_518_535,
        "lban-dagger": 30_763_207,
        "no-lbsl-no-attention": 13_727_047,
        "no-lbsl": 29_354_183,
        "no-attention": 9_770_311,
        "vgg19": 20_298_567,
    },
    "wcl": {"wcl": 27_092_216, "resnet50-wcl": 24_561_224},
    "resface": {
        "resface18-a": 11_156_712,
        "resface18-ab": 11_249_124,
        "resface18-ac": 11_161_169,
        "resface18-abc": 11_253_581,
        "resface50-a": 23_505_960,
        "resface50-ab": 23_664_932,
        "resface50-ac": 23_574_473,
        "resface50-abc": 23_733_445,
        "efficientface": 1_275_293,
    },
    "mscar": {"mscar": 4_303_496, "bn": 4_271_240, "se": 4_300_808, "no-se-no-bn": 4_268_552},
    # Keras-style totals of methods.md 5.2 less BatchNorm's 54,528 running statistics
    "ad-corre": {
        "k1": 21_387_823 - 54_528,
        "k3": 22_440_495 - 54_528,
        "ad-corre": 24_545_839 - 54_528,
        "k10": 26_124_847 - 54_528,
    },
    "ldg": {"ldg": 23_522_375},
}


class Teacher(nn.Module):
    """Prefers a class by each picture's brightness; any fixed function of the picture would do."""

    def forward(self, batch: Batch) -> NetworkOutput:
        level = batch.images.flatten(1).mean(dim=1, keepdim=True)
        logits = 5 * torch.cos(level * torch.arange(1, 8, device=batch.images.device))
        return NetworkOutput(logits, logits)


def shape_of(recipe: Recipe, *, size: int | None = None) -> Shape:
    return Shape(recipe.channels, 7, size or recipe.size, recipe.loss.embeddings)


def built(recipe: Recipe, *, size: int = SIZE) -> tuple[Network, nn.Module]:
    torch.manual_seed(0)
    network = recipe.network.build(shape_of(recipe, size=size))
    loss = recipe.loss.build(Task((16,) * 7, network.feature_dim, teacher=Teacher(), has_votes=True))
    return network, loss


def faces(recipe: Recipe, *, n: int = 16, size: int = SIZE) -> Batch:
    """n different noise pictures; every class is there."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 7
    votes = nn.functional.one_hot(labels, 7).float()
    coarse = torch.randn(n, recipe.channels, 6, 6, generator=g)
    images = nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return Batch(images, labels, votes, torch.arange(n))


@pytest.fixture(params=TRAINED)
def method(request: pytest.FixtureRequest) -> Method:
    return load(request.param)


def test_it_is_described(method: Method) -> None:
    assert method.title and method.citation and method.summary
    assert {"paper", "cpu"} <= set(method.recipes)
    assert list(method.deviations) == [f"D{i}" for i in range(1, len(method.deviations) + 1)]
    assert method.deviations


# Which method's deviations the D tags of a file mean; a file of methods/ means its own.
TAGGED = {
    "networks/lban.py": "lban-il",
    "networks/mscar.py": "mscar",
    "networks/resface.py": "resface",
    "networks/xception.py": "ad-corre",
    "losses/islets.py": "lban-il",
    "losses/weighted_cluster.py": "wcl",
    "losses/ad_corre.py": "ad-corre",
    "losses/cosine.py": "mscar",
} | {f"methods/{name.replace('-', '_')}.py": name for name in TRAINED}


@pytest.mark.parametrize("file", TAGGED)
def test_the_deviations_that_code_names_exist(file: str) -> None:
    code = (Path(lab.__path__[0]) / file).read_text()
    cited = set(re.findall(r"(?<![\"\w])D\d+\b(?!\")", code))
    assert cited, f"{file} names no deviation"
    assert cited <= set(load(TAGGED[file]).deviations)


def test_every_recipe_is_consistent(method: Method) -> None:
    for name, recipe in method.recipes.items():
        assert len(recipe.mean) == len(recipe.std) == recipe.channels, name
        assert recipe.size >= recipe.network.minimum_size, name
        assert recipe.resize is None or recipe.resize >= recipe.size, name
        starts = [epoch for epoch, _ in recipe.milestones]
        assert starts == sorted(starts), name
        assert all(0 < epoch < recipe.epochs for epoch in starts[:1]), name  # later ones may be there for longer runs
        assert (recipe.schedule == "steps") is bool(recipe.milestones), name
        with torch.device("meta"):
            network = recipe.network.build(shape_of(recipe))
        network.freeze(recipe.frozen)
        assert any(p.requires_grad for p in network.parameters()), name


def test_variant_parameter_counts(method: Method) -> None:
    for name, trainable in COUNTS[method.name].items():
        variant = method.variants[name]
        with torch.device("meta"):
            network = variant.network.build(_shape(variant))
        assert sum(p.numel() for p in network.parameters()) == trainable, name


def _shape(variant: Variant) -> Shape:
    return Shape(variant.channels, variant.classes, variant.size, variant.loss.embeddings)


def test_wcl_freezes_what_the_paper_freezes() -> None:
    recipe = load("wcl").recipes["paper"]
    with torch.device("meta"):
        network = recipe.network.build(Shape(3, 8, 224))
    network.freeze(recipe.frozen)
    assert sum(p.numel() for p in network.parameters() if not p.requires_grad) == 1_603_568


@pytest.mark.slow
def test_the_cpu_preset_is_affordable(method: Method) -> None:
    recipe = method.recipes["cpu"]
    shape = shape_of(recipe)
    assert count(recipe.network.build(shape), shape).macs < 160e6
    assert 10 <= recipe.epochs <= 20


def test_output_shapes(method: Method) -> None:
    recipe = method.recipes["cpu"]
    network, _ = built(recipe)
    output = network.eval()(faces(recipe, n=3).images)
    assert output.logits.shape == (3, 7)
    assert output.features.shape == (3, network.feature_dim)


def test_every_term_is_finite_and_moves_the_network_or_the_centres(method: Method) -> None:
    recipe = method.recipes["cpu"]
    network, loss = built(recipe)
    batch = faces(recipe)
    terms = loss(network.train()(batch.images), batch)
    for name, term in terms.items():
        assert torch.isfinite(term), name
        if name in ("island", "islets"):  # they move the centres only, by eq. 4
            continue
        grads = torch.autograd.grad(term, list(network.parameters()), retain_graph=True, allow_unused=True)
        assert max(g.abs().max() for g in grads if g is not None) > 0, name


def test_every_numeric_option_of_the_loss_matters(method: Method) -> None:
    recipe = method.recipes["cpu"]
    batch = faces(recipe)

    def value(options: object) -> tuple[list[float], list[float]]:
        network, loss = built(dataclasses.replace(recipe, loss=options))
        output = network.eval()(batch.images)
        first = [term.item() for term in loss(output, batch).values()]
        loss.after_step(output, batch)
        return first, [term.item() for term in loss(output, batch).values()]

    skipped = {"smoothing"}  # 0 by default, and half of 0 is 0
    usual = value(recipe.loss)
    for field in dataclasses.fields(recipe.loss):
        present = getattr(recipe.loss, field.name)
        if field.name not in skipped and isinstance(present, float):
            changed = dataclasses.replace(recipe.loss, **{field.name: 0.5 * present})
            assert value(changed) != usual, field.name


@pytest.mark.slow
def test_sixteen_faces_are_learnt_by_heart(method: Method) -> None:
    recipe = method.recipes["cpu"]
    network, loss = built(recipe)
    batch = faces(recipe)
    goal = batch.labels
    if recipe.loss == load("resface").recipes["cpu"].loss:  # it learns its teacher's answers
        goal = Teacher()(batch).logits.argmax(dim=1)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for _ in range(120):
        output = network.train()(batch.images)
        torch.stack(list(loss(output, batch).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        loss.after_step(output, batch)
        if (output.logits.argmax(dim=1) == goal).all():
            break
    assert (output.logits.argmax(dim=1) == goal).float().mean() >= 15 / 16


def test_checkpoint_round_trip(method: Method, tmp_path: Path) -> None:
    recipe = method.recipes["cpu"]
    network, loss = built(recipe)
    batch = faces(recipe)
    loss.after_step(network.train()(batch.images), batch)
    torch.save({"network": network.state_dict(), "loss": loss.state_dict()}, tmp_path / "x.pt")
    torch.manual_seed(99)
    other = recipe.network.build(shape_of(recipe, size=SIZE))
    other_loss = recipe.loss.build(Task((16,) * 7, other.feature_dim, teacher=Teacher(), has_votes=True))
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    other.load_state_dict(state["network"])
    other_loss.load_state_dict(state["loss"])
    network.eval(), other.eval(), loss.eval(), other_loss.eval()
    first, second = network(batch.images), other(batch.images)
    assert torch.equal(first.logits, second.logits)
    assert [t.item() for t in loss(first, batch).values()] == [t.item() for t in other_loss(second, batch).values()]


class _Tensors(nn.Module):
    """A network whose answer is plain tensors, as an exporter wants it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.network(images)
        return output.logits, output.features


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's exporter warns about itself
def test_onnx_agrees(method: Method, tmp_path: Path) -> None:
    import onnxruntime
    from torch.export import Dim

    recipe = method.recipes["cpu"]
    network = _Tensors(built(recipe)[0]).eval()
    program = torch.onnx.export(
        network, (faces(recipe, n=2).images,), dynamo=True, dynamic_shapes={"images": {0: Dim("n")}}, verbose=False
    )
    program.save(tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    batch = faces(recipe, n=5).images
    answers = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    with torch.no_grad():
        told = network(batch)
    for found, expected in zip(answers, told, strict=True):
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [
        (0, 1e-3), (80, 1e-3), (81, 1e-4), (120, 1e-4), (121, 1e-5), (160, 1e-5), (161, 1e-6), (180, 1e-6), (181, 5e-7)
    ],
)  # fmt: skip
def test_mscar_learning_rates(epoch: int, lr: float) -> None:
    recipe = load("mscar").recipes["paper"]
    assert recipe.lr * _factor(recipe, epoch) == pytest.approx(lr)


@pytest.mark.parametrize(("epoch", "lr"), [(0, 1e-3), (24, 1e-3), (25, 9e-4), (30, 8.1e-4), (99, 1e-3 * 0.9**15)])
def test_lban_learning_rates(epoch: int, lr: float) -> None:
    recipe = load("lban-il").recipes["paper"]
    assert recipe.lr * _factor(recipe, epoch) == pytest.approx(lr)


def test_rates_fall_on_in_runs_that_are_longer_than_the_papers() -> None:
    for name, expected in (("wcl", 0.5**20), ("lban-il", 0.9**36)):
        assert _factor(load(name).recipes["paper"], 200) == pytest.approx(expected)


def _factor(recipe: Recipe, epoch: int) -> float:
    """The factor of the last milestone at or before the epoch, as `Recipe` defines "steps"."""
    return ([1.0] + [factor for start, factor in recipe.milestones if start <= epoch])[-1]
