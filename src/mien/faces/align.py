"""Faces cut out of a picture as a model's card says: a 5-point least-squares similarity onto the card's template.

Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991; in the plane a
similarity without reflection is one complex factor and one complex shift, which makes the least squares one line each.
Where a crop reaches beyond the picture, the picture's edge pixels are repeated: a constant border would draw a line
across the face that no training crop has.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mien.card import CropSpec, InputSpec
from mien.errors import UsageError
from mien.faces.detect import Detection


def cut(image: np.ndarray, faces: Sequence[Detection], *, crop: CropSpec, input: InputSpec) -> list[np.ndarray]:
    """The crops of `faces` from the RGB uint8 picture (H, W, 3): RGB uint8 (input.height, input.width, 3) each.

    A face without landmarks is its box at the picture's own resolution: the whole picture for the `whole` detector.
    """
    size = (input.width, input.height)
    return [_upright(image, face) if face.landmarks is None else _aligned(image, face, crop, size) for face in faces]


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    """The factor a and shift b that minimise sum |a z + b - w|^2 over points z of `source` and w of `target`, both (n,
    2).

    A point (x, y) is x + iy; |a| is the scale, arg(a) the rotation. Sources that coincide give a = 0 and their mean.
    """
    z, w = source @ [1, 1j], target @ [1, 1j]
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    a = np.vdot(centred, w - w.mean()) / spread if spread > 0 else 0j
    return complex(a), complex(w.mean() - a * z.mean())


def template_points(crop: CropSpec, size: tuple[int, int]) -> np.ndarray:
    """The card's template in px (5, 2) of a crop of `size` (width, height), its margin applied on every side."""
    fractions = (np.array(crop.template) + crop.margin) / (1 + 2 * crop.margin)
    return fractions * size


def _aligned(image: np.ndarray, face: Detection, crop: CropSpec, size: tuple[int, int]) -> np.ndarray:
    a, b = similarity(template_points(crop, size), np.array(face.landmarks))
    return warp(image, a, b, size=size)


def _upright(image: np.ndarray, face: Detection) -> np.ndarray:
    """The box as it is, cut at the picture's edge; `InputSpec.prepare` resizes it as it does in training.

    Raises UsageError where no pixel is in the box.
    """
    x1, y1, x2, y2 = (round(edge) for edge in face.box)
    part = image[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if not part.size:
        height, width = image.shape[:2]
        raise UsageError(
            f"the detector's box {face.box} holds no pixel of the picture of {width} x {height} px; expected x1, y1, x2, y2 in px"
        )
    return part


def warp(image: np.ndarray, a: complex, b: complex, *, size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 (H, W, 3) seen through the similarity z -> a z + b from px of the crop to px of the picture.

    size: (width, height) of the crop. Antialiased: the part of the picture is first averaged over whole pixel blocks,
    then sampled `oversampling` times finer than asked, so that no source pixel is stepped over, and averaged down.
    """
    region, left, top = _region(image, a, b, size)
    block = max(1, math.floor(abs(a) / 2))
    oversampling = max(1, math.ceil(abs(a) / block))
    step = a / (block * oversampling)
    shift = (b - complex(left, top)) / block
    fine = (size[0] * oversampling, size[1] * oversampling)
    matrix = (step.real, -step.imag, shift.real, step.imag, step.real, shift.imag)
    source = Image.fromarray(region)
    source = source.reduce(block) if block > 1 else source
    crop = source.transform(fine, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(crop.reduce(oversampling) if oversampling > 1 else crop)


def _region(image: np.ndarray, a: complex, b: complex, size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """The part of the picture under the crop and a border, edge pixels repeated outside; and its left and top in px."""
    corners = np.array([a * complex(x, y) + b for x in (0, size[0]) for y in (0, size[1])])
    border = math.ceil(abs(a)) + 2  # bilinear sampling and block averaging look this far beyond the corners
    left, right = math.floor(corners.real.min()) - border, math.ceil(corners.real.max()) + border
    top, bottom = math.floor(corners.imag.min()) - border, math.ceil(corners.imag.max()) + border
    height, width = image.shape[:2]
    rows = np.clip(np.arange(top, bottom), 0, height - 1)
    columns = np.clip(np.arange(left, right), 0, width - 1)
    return image[rows[:, None], columns], left, top
