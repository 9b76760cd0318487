"""Sharpness-aware minimisation against the paper's formula."""

import csv
from pathlib import Path

import pytest
import small_fer
import torch
from test_mixing import batch, module
from torch import Tensor, nn
from torch.func import functional_call

from mien.errors import UsageError
from mien.lab.losses.softmax import Softmax
from mien.lab.methods.method import Augment
from mien.lab.training import launch, mixing
from mien.lab.training import trainer as training_runs
from mien.lab.training.module import Training, build_optimiser
from mien.lab.training.recipes import Choice, apply_settings
from mien.lab.training.sharpness import Uphill
from mien.lab.training.trainer import Source, train

RHO = 0.3


def sharp(options: Augment | None = None) -> Training:
    training = module(options or Augment(), Softmax())
    training.uphill = Uphill(training.network, RHO)
    return training


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def test_it_climbs_by_rho_along_the_gradient_and_comes_back_to_the_bit() -> None:
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, -2.0]]))
    uphill = Uphill(network, RHO)
    uphill.climb((network.weight**2).sum())  # gradient (2, -4): direction (1, -2) / sqrt 5
    assert torch.allclose(network.weight, torch.tensor([[1.0, -2.0]]) * (1 + RHO / 5**0.5))
    uphill.back()
    assert torch.equal(network.weight, torch.tensor([[1.0, -2.0]]))
    uphill.climb((network.weight * 0).sum())
    assert torch.equal(network.weight, torch.tensor([[1.0, -2.0]]))


@pytest.mark.parametrize("options", [Augment(), Augment(cutmix=1.0)], ids=["plain", "mixed"])
def test_a_step_has_the_gradient_of_the_place_uphill(options: Augment) -> None:
    training, faces = sharp(options), batch()
    network = training.network
    before = weights_of(network)
    prepared = training.prepared(faces)
    mix = mixing.draw(options, size=faces.images.shape[-1], seed=5, epoch=0, step=0)
    pictures = prepared.images if mix is None else mix.pictures(prepared.images)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        logits = functional_call(network, weights, (pictures,)).logits
        found = -logits.log_softmax(dim=1)[torch.arange(len(logits)), faces.labels].mean()
        if mix is None:
            return found
        other = -logits.log_softmax(dim=1)[torch.arange(len(logits)), faces.labels.roll(-1)].mean()
        return mix.share * found + (1 - mix.share) * other

    start = {name: value.clone().requires_grad_() for name, value in before.items()}
    plain = torch.autograd.grad(loss(start), list(start.values()), allow_unused=True)
    norm = sum(g.square().sum() for g in plain if g is not None) ** 0.5
    above = {
        name: (value if g is None else value + RHO * g / norm).detach().requires_grad_()
        for (name, value), g in zip(before.items(), plain, strict=True)
    }
    uphill = loss(above)
    expected = dict(zip(above, torch.autograd.grad(uphill, list(above.values()), allow_unused=True), strict=True))
    assert uphill.item() > loss(start).item()

    total = training.training_step(faces, 0)
    total.backward()
    training.on_before_optimizer_step(build_optimiser(training.recipe, network))
    assert total.item() == pytest.approx(uphill.item(), rel=1e-5)
    assert training._steps[-1][1]["loss"].item() == pytest.approx(loss(start).item(), rel=1e-5)  # on record: here
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        if expected[name] is not None:
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-3, atol=1e-6), name


def test_statistics_move_once_a_step() -> None:
    sharper, plain = sharp(), module(Augment(), Softmax())
    plain.training_step(batch(), 0)
    sharper.training_step(batch(), 0)
    sharper.on_before_optimizer_step(build_optimiser(sharper.recipe, sharper.network))
    ours = dict(sharper.network.named_buffers())
    for name, value in plain.network.named_buffers():
        assert torch.equal(ours[name], value), name
    assert all(m.track_running_stats for m in sharper.network.modules() if isinstance(m, nn.BatchNorm2d))


def test_bfloat16_sees_the_weights_that_it_climbed_to() -> None:
    """Autocast keeps its casts of the weights."""
    training = sharp()
    with torch.autocast("cpu", torch.bfloat16):
        total = training.training_step(batch(), 0)
    assert total.item() > training._steps[-1][1]["loss"].item() + 0.05


def test_the_way_up_is_found_in_the_precision_of_the_loss() -> None:
    """A loss turns autocast off for itself; the gradient is asked for where it is on."""

    def climbed(bfloat16: bool) -> Tensor:
        network = nn.Linear(16, 8, bias=False)
        with torch.no_grad():
            network.weight.copy_(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            with torch.autocast("cpu", enabled=False):
                loss = (network.weight @ network.weight.T).square().sum()
            Uphill(network, RHO).climb(loss)
        return network.weight.detach()

    assert torch.equal(climbed(True), climbed(False))


def test_a_radius_below_zero_is_refused() -> None:
    recipe = module(Augment(), Softmax()).recipe
    with pytest.raises(UsageError, match=r"sam_rho=-0\.1: expected 0 or more"):
        apply_settings(recipe, ["sam_rho=-0.1"])


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "inside", lambda: True)
    with pytest.raises(UsageError, match=r"sam_rho=0\.1: .*in one process, asked for are 2"):
        training_runs._train(
            Choice("mscar", "cpu", settings=("sam_rho=0.1",)), Source("fer2013", tmp_path), tmp_path / "run", seed=0,
            resume=False, pretrained=None, teacher=None, out_of_fold=False, watched=None, threads=1, say=print,
            layout=launch.Layout(2, 1), place=None, held=None,  # type: ignore[arg-type]
        )  # fmt: skip


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    root = small_fer.write(tmp_path / "data")

    def trained(name: str, *settings: str, resume: bool = False) -> list[list[str]]:
        choice = Choice("mscar", "cpu", settings=("network.width=0.0625", "batch=16", "lr=0.01", "epochs=2", *settings))
        source = Source("fer2013", root, allow_partial=True)
        run = train(choice, source, tmp_path / name, threads=1, resume=resume, say=lambda line: None)
        with (run / "metrics.csv").open() as file:
            return list(csv.reader(file))

    step = Training.training_step

    def dying(self: Training, faces: object, index: int) -> Tensor:
        if self.current_epoch == 1 and index == 3:
            raise KeyboardInterrupt
        return step(self, faces, index)  # type: ignore[arg-type]

    whole = trained("whole", "sam_rho=0.1")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "training_step", dying)
        trained("killed", "sam_rho=0.1")
    assert trained("killed", "sam_rho=0.1", resume=True) == whole
    assert trained("plain") != whole
