"""Augmentation of a whole batch: one affine warp, then light (kornia). See `Augment` for what each field means.

Every number drawn is a function of (seed, epoch, sample id): `randomness`.
"""

import math

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import warp_affine
from torch import Tensor

from mien.lab.methods.method import Augment
from mien.lab.training.randomness import normal, uniform

_GEOMETRY, _LIGHT, _NOISE = 0, 1, 2  # streams of randomness; noise takes the next one, too
_CROP = 4
_TRIES = 10  # crops drawn before the whole picture is kept, as in torchvision's RandomResizedCrop
_BLUR_SIGMA = (0.4, 1.6)  # px at the network's input
_NOISE_STD = (0.01, 0.08)  # on the 0-1 scale


def augment(
    pictures: Tensor, ids: np.ndarray, options: Augment, *, size: int, window: float, seed: int, epoch: int
) -> Tensor:
    """(N, C, S, S) float32 in 0-1 -> (N, C, size, size) float32 in 0-1.

    window: side of the random crop as a fraction of S; 1 takes the whole picture. ids: (N,) int64.
    """
    u = uniform(seed, epoch, ids, draws=9, stream=_GEOMETRY)  # the third and fourth are free
    matrix = _affine(u, _kept(ids, options, seed, epoch), options, side=pictures.shape[-1], size=size, window=window)
    warped = warp_affine(
        pictures,
        _on(pictures.device, matrix),
        (size, size),
        mode="bilinear",
        padding_mode=options.fill,
        align_corners=True,
    )
    warped = _light(warped, uniform(seed, epoch, ids, draws=9, stream=_LIGHT), options)
    return _noise(warped, ids, options, seed, epoch).clamp(0, 1)


def _on(device: torch.device, values: np.ndarray) -> Tensor:
    """The values there, without a wait for what an accelerator has still to do."""
    held = torch.from_numpy(values)
    return held.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else held.to(device)


def _spread(u: np.ndarray, extent: float | np.ndarray) -> np.ndarray:
    """[0, 1) -> [-extent, extent)."""
    return (2 * u - 1) * extent


def _between(u: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return limits[0] + u * (limits[1] - limits[0])


def _kept(ids: np.ndarray, options: Augment, seed: int, epoch: int) -> np.ndarray:
    """(N, 2) width and height of the random resized crops, as fractions of the window: of `_TRIES` draws of area and aspect the
    first that fits, else all of it."""
    if options.area is None:
        return np.ones((len(ids), 2))
    u = uniform(seed, epoch, ids, draws=2 * _TRIES, stream=_CROP).astype(np.float64)
    side = np.sqrt(_between(u[:, :_TRIES], options.area))
    ratio = np.exp(_between(u[:, _TRIES:], (math.log(options.aspect[0]), math.log(options.aspect[1]))) / 2)
    sides = np.stack([side * ratio, side / ratio], axis=-1)
    sides = np.concatenate([sides, np.ones((len(ids), 1, 2))], axis=1)
    return sides[np.arange(len(ids)), (sides <= 1).all(axis=-1).argmax(axis=1)]


def _affine(u: np.ndarray, kept: np.ndarray, options: Augment, *, side: int, size: int, window: float) -> np.ndarray:
    """(N, 2, 3) float32: source pixels -> output pixels. Zoom, shear, rotation and mirror about a point that moves. kept: (N, 2)
    width and height of what is taken of the window."""
    zoom_x = _between(u[:, 0], options.scale)
    zoom_y = _between(u[:, 1], options.scale) if options.independent_axes else zoom_x.copy()
    width, height = kept.T
    zoom_x, zoom_y = zoom_x / width, zoom_y / height
    slack_x, slack_y = (1 - width * window) / 2, (1 - height * window) / 2  # how far off the middle may lie
    centre_x = 0.5 + _spread(u[:, 4], slack_x + options.shift)
    centre_y = 0.5 + _spread(u[:, 5], slack_y + options.shift)
    angle = np.radians(_spread(u[:, 6], options.rotate))
    shear = np.tan(np.radians(_spread(u[:, 7], options.shear)))
    mirror = np.where(u[:, 8] < options.flip, -1.0, 1.0)
    scale = size / (side * window)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    a, b = mirror * zoom_x * cos, zoom_y * (shear * cos - sin)
    c, d = mirror * zoom_x * sin, zoom_y * (shear * sin + cos)
    x, y = centre_x * side - 0.5, centre_y * side - 0.5  # pixel centres lie at integer coordinates
    middle = (size - 1) / 2
    matrix = np.stack([a, b, middle - a * x - b * y, c, d, middle - c * x - d * y], axis=1)
    return matrix.reshape(-1, 2, 3).astype(np.float32)


def _light(pictures: Tensor, u: np.ndarray, options: Augment) -> Tensor:
    """Contrast about the picture's mean, brightness, one grey square, blur."""
    column = _on(pictures.device, u)[:, :, None, None, None]
    if options.contrast:
        mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
        pictures = mean + (pictures - mean) * (1 + (2 * column[:, 0] - 1) * options.contrast)
    if options.brightness:
        pictures = pictures + (2 * column[:, 1] - 1) * options.brightness
    if options.cutout:
        pictures = _cutout(pictures, u[:, 2:6], options)
    if options.blur:
        chosen = np.flatnonzero(u[:, 6] < options.blur)
        if len(chosen):
            sigma = _on(pictures.device, _between(u[chosen, 7], _BLUR_SIGMA).astype(np.float32))[:, None]
            rows = _on(pictures.device, chosen)
            pictures = pictures.index_copy(0, rows, gaussian_blur2d(pictures[rows], (9, 9), sigma.expand(-1, 2)))
    return pictures


def _cutout(pictures: Tensor, u: np.ndarray, options: Augment) -> Tensor:
    """One mid-grey square per chosen picture (DeVries and Taylor, 2017, arXiv:1708.04552)."""
    size = pictures.shape[-1]
    half = _between(u[:, 1], options.cutout_size) / 2
    grid = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    near = [_on(pictures.device, np.abs(grid[None] - u[:, k, None]) < half[:, None]) for k in (2, 3)]
    inside = near[0][:, None, :, None] & near[1][:, None, None, :]
    chosen = _on(pictures.device, u[:, 0] < options.cutout)[:, None, None, None]
    return pictures.masked_fill(inside & chosen, 0.5)


def _noise(pictures: Tensor, ids: np.ndarray, options: Augment, seed: int, epoch: int) -> Tensor:
    """Gaussian noise of a random strength on the chosen pictures."""
    if not options.noise:
        return pictures
    u = uniform(seed, epoch, ids, draws=2, stream=_NOISE)
    chosen = np.flatnonzero(u[:, 0] < options.noise)
    if not len(chosen):
        return pictures
    strength = _between(u[chosen, 1], _NOISE_STD).astype(np.float32)
    noise = normal(seed, epoch, ids[chosen], draws=pictures[0].numel(), stream=_NOISE + 1)
    rows = _on(pictures.device, chosen)
    added = _on(pictures.device, noise * strength[:, None]).reshape(-1, *pictures.shape[1:])
    return pictures.index_add(0, rows, added.to(pictures))
