"""Where a network looks: its own attention maps, and layer Grad-CAM for all. The one part of judging that needs the
network.

torch and captum are imported inside the functions, so that the package imports without them.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import DataError, UsageError
from mien.lab.evaluation.figures import Panel, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from mien.lab.networks import Network

SMALLEST_MAP = 2  # a layer of 1 x 1 says nothing about where
STRENGTH = 0.55  # of the tint where a map is highest


def own_maps(network: "Network", images: "Tensor") -> dict[str, np.ndarray]:
    """The network's spatial attention maps averaged over their channels: name -> (N, h, w) float32. images: (N, C,
    size, size), normalised. Channel gates (1 x 1) are left out; a network without spatial attention gives {}."""
    import torch

    was_training = network.training
    network.eval()
    with torch.no_grad():
        held = network(images, attention=True).attention or {}
    network.train(was_training)
    return {
        name: values.mean(dim=1).float().cpu().numpy()
        for name, values in held.items()
        if min(values.shape[-2:]) >= SMALLEST_MAP
    }


def last_map(network: "Network", images: "Tensor") -> "nn.Module":
    """The network's own layer `maps`; else what ends last of its parts that hold a convolution and give maps of several channels,
    at least SMALLEST_MAP a side: a stage's last block, Grad-CAM's usual layer, and not a shortcut inside it that may run last.
    Raises UsageError where there is none."""
    import torch
    from torch import nn

    if isinstance(own := getattr(network, "maps", None), nn.Module):
        return own
    ended: list[nn.Module] = []

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        maps = isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[1] > 1
        if maps and min(output.shape[-2:]) >= SMALLEST_MAP:
            ended.append(module)

    with ExitStack() as hooks, torch.no_grad():
        for module in network.modules():
            if any(isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in module.modules()):
                hooks.callback(module.register_forward_hook(keep).remove)
        network(images[:1])
    if not ended:
        raise UsageError(
            f"{type(network).__name__} has no convolution with a map of {SMALLEST_MAP}x{SMALLEST_MAP} or more"
        )
    return ended[-1]


def grad_cam(network: "Network", images: "Tensor", *, targets: Sequence[int] | None = None) -> np.ndarray:
    """Layer Grad-CAM (Selvaraju et al. 2017, Eqs. 1-2; captum's): ReLU of the last map's channels weighted with the
    mean gradient of the target's logit. Returns (N, h, w) float32 in [0, 1], each map divided by its maximum (a map
    without positive evidence stays 0). images: (N, C, size, size), normalised. targets: classes, or None for the
    predicted ones. Raises UsageError without captum, and as `last_map` does."""
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise UsageError("Grad-CAM needs captum, which is not installed: pip install 'mien[lab]'") from None
    import torch

    was_training = network.training
    network.eval()
    layer = last_map(network, images)
    images = images.detach().clone().requires_grad_()  # frozen stages still pass gradients on
    if targets is None:
        with torch.no_grad():
            targets = network(images).logits.argmax(dim=1).tolist()
    cam = LayerGradCam(lambda batch: network(batch).logits, layer)
    found = cam.attribute(images, target=list(targets), relu_attributions=True)
    network.train(was_training)
    maps = found[:, 0].detach().float().cpu().numpy()
    peaks = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0)


def overlay(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The picture, RGB uint8 (H, W, 3), greyed and tinted in cividis where `weights` (h, w) in [0, 1] are high. Raises DataError
    for weights beyond."""
    from matplotlib import colormaps
    from PIL import Image

    if weights.min() < 0 or weights.max() > 1:
        raise DataError(
            f"weights run from {weights.min():.3g} to {weights.max():.3g}, expected 0 to 1: divide by the maximum"
        )
    height, width = image.shape[:2]
    small = Image.fromarray(weights.astype(np.float32))
    large = np.clip(np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)), 0, 1)
    colours = colormaps["cividis"](large)[..., :3] * 255
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    mixed = grey * (1 - STRENGTH * large[..., None]) + colours * STRENGTH * large[..., None]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def attention_figure(
    images: Sequence[np.ndarray], maps: Mapping[str, np.ndarray], *, captions: Sequence[str]
) -> "Figure":
    """A row per picture: the picture, then each map over it. images: N RGB uint8 (H, W, 3); maps: name -> (N, h, w),
    scaled here to each map's own range; captions: N. The caller answers for showing the pictures."""
    panels = []
    for row, (image, caption) in enumerate(zip(images, captions, strict=True)):
        panels.append(Panel(image, caption))
        panels += [Panel(overlay(image, _scaled(held[row])), name) for name, held in maps.items()]
    return grid(panels, columns=1 + len(maps))


def _scaled(values: np.ndarray) -> np.ndarray:
    """To 0-1 by the map's own range; a constant map becomes 0."""
    spread = float(values.max() - values.min())
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
