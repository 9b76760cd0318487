"""Grad-CAM against its formula by hand, and the overlay."""

from typing import Any

import numpy as np
import pytest
import scores_fixtures

from mien.errors import DataError, UsageError

torch = pytest.importorskip("torch", reason="needs the extra lab")
pytest.importorskip("captum", reason="needs the extra lab")

from mien.lab.batch import NetworkOutput  # noqa: E402
from mien.lab.evaluation.attention import (  # noqa: E402
    attention_figure,
    grad_cam,
    last_map,
    overlay,
    own_maps,
)
from mien.lab.evaluation.gallery import right_of_each_class  # noqa: E402
from mien.lab.networks import NETWORKS, Shape  # noqa: E402


class Tiny(torch.nn.Module):
    """One convolution, a squared mean and a linear layer; one spatial map and one channel gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)
        self.gate = torch.nn.Conv2d(3, 3, 1)
        self.head = torch.nn.Linear(3, 4)

    def forward(self, images: Any, attention: bool = False) -> NetworkOutput:
        values = self.conv(images)
        features = (values**2).mean(dim=(2, 3))
        gate = torch.sigmoid(self.gate(features[..., None, None]))
        seen = {"where": torch.sigmoid(values), "which": gate} if attention else None
        return NetworkOutput(self.head(features * gate[..., 0, 0]), features, attention=seen)


def test_grad_cam_is_its_formula() -> None:
    network, images = Tiny().train(), torch.randn(2, 1, 6, 6)
    found = grad_cam(network, images, targets=[1, 3])
    assert network.training  # left as it was
    for row, target in enumerate((1, 3)):
        values = network.conv(images[row : row + 1]).detach().requires_grad_()
        features = (values**2).mean(dim=(2, 3))
        gate = torch.sigmoid(network.gate(features[..., None, None]))[..., 0, 0]
        network.head(features * gate)[0, target].backward()
        weights = values.grad.mean(dim=(2, 3), keepdim=True)  # Eq. 1
        by_hand = torch.relu((weights * values).sum(dim=1))[0].detach().numpy()  # Eq. 2
        assert by_hand.max() > 0
        np.testing.assert_allclose(found[row], by_hand / by_hand.max(), atol=1e-5)


def test_the_predicted_class_is_the_default_target_and_frozen_stages_do_not_matter() -> None:
    network, images = Tiny(), torch.randn(2, 1, 6, 6)
    predicted = network(images).logits.argmax(dim=1).tolist()
    expected = grad_cam(network, images, targets=predicted)
    network.requires_grad_(False)
    np.testing.assert_array_equal(grad_cam(network, images), expected)


def test_the_layer_is_the_last_with_a_map() -> None:
    network = Tiny()
    assert last_map(network, torch.randn(1, 1, 6, 6)) is network.conv
    with pytest.raises(UsageError, match="no convolution"):
        last_map(network, torch.randn(1, 1, 1, 1))


def test_own_maps_leave_channel_gates_out() -> None:
    maps = own_maps(Tiny(), torch.randn(2, 1, 6, 6))
    assert {name: values.shape for name, values in maps.items()} == {"where": (2, 6, 6)}


def test_the_overlay_tints_only_where_the_map_is_high() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    weights = np.zeros((8, 8))
    weights[:, 4:] = 1.0
    tinted = overlay(image, weights)
    assert (tinted[:, :4] == 100).all()
    assert (tinted[:, 4:] != 100).any()
    with pytest.raises(DataError, match="expected 0 to 1"):
        overlay(image, weights * 2)


def test_the_figure_has_a_panel_per_map() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    figure = attention_figure(
        [image, image], {"Grad-CAM": np.random.default_rng(0).random((2, 4, 4))}, captions=["a", "b"]
    )
    assert [axes.get_title() for axes in figure.axes] == ["a", "Grad-CAM", "b", "Grad-CAM"]


@pytest.mark.slow
def test_every_method_s_network_can_be_looked_into() -> None:
    from mien.lab import methods
    from mien.lab.networks import Shape

    for name in methods.NAMES:
        recipe = methods.load(name).recipes["cpu"]
        network = recipe.network.build(Shape(recipe.channels, 7, recipe.size, recipe.loss.embeddings))
        images = torch.randn(2, recipe.channels, recipe.size, recipe.size)
        maps = grad_cam(network, images)
        assert maps.shape[0] == 2, name
        assert min(maps.shape[1:]) >= 2, name
        assert np.isfinite(maps).all(), name


@pytest.mark.parametrize("name", ["lban", "mscar", "resnet18", "mien-small"])
def test_grad_cam_looks_at_what_is_pooled(name: str) -> None:
    """And not at the shortcut or the mask that runs last in a block: the head's answer hangs on these maps alone."""
    network = NETWORKS[name]().build(Shape(1, 7, 48)).eval()
    images = torch.randn(2, 1, 48, 48)
    with last_map(network, images).register_forward_hook(lambda _, given, maps: torch.zeros_like(maps)):
        held = network(images).logits
    assert torch.allclose(held[0], held[1]) and not torch.allclose(*network(images).logits)


def test_where_the_network_looks_is_shown_for_a_right_row_of_each_class() -> None:
    scores = scores_fixtures.made_up(40, skill=2.0)
    rows = right_of_each_class(scores)
    right = scores.predictions == scores.labels
    assert right[rows].all() and list(scores.labels[rows]) == sorted(set(scores.labels[right]))
    assert all(not right[:row][scores.labels[:row] == scores.labels[row]].any() for row in rows)  # the first of each
