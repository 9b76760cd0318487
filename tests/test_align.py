"""Alignment: the similarity against a slow solver, and crops that frame faces as the template says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mien.card import CropSpec
from mien.errors import UsageError
from mien.faces import align
from mien.faces.detect import Detection
from mien.faces.mtcnn import Mtcnn
from tiny_model import TEMPLATE, card

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

SPEC = card(colour="rgb").input
CROP = card().crop
POINTS = np.array(TEMPLATE) * 48
numbers = st.floats(-50, 50).map(lambda value: round(value, 3))


def five_dots(points: np.ndarray, size: tuple[int, int], radius: float) -> np.ndarray:
    """Grey picture with a soft white dot of `radius` px at each point (x, y)."""
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2)) for px, py in points)
    return np.repeat((40 + 200 * np.minimum(light, 1))[:, :, None].astype(np.uint8), 3, axis=2)


def centre_near(crop: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The centre (x, y) of the light within 4 px of `point`."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]] + 0.5
    near = (x - point[0]) ** 2 + (y - point[1]) ** 2 < 16
    light = np.where(near, crop[:, :, 0].astype(float) - 40, 0).clip(0)
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum()


@given(st.lists(st.tuples(numbers, numbers), min_size=5, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_similarity_is_the_least_squares_one(source: list[tuple[float, float]], random) -> None:
    """Against numpy's solver on the linear form [x -y 1 0; y x 0 1] (p, q, tx, ty) = (u, v)."""
    z = np.array(source)
    w = np.array([(random.uniform(-50, 50), random.uniform(-50, 50)) for _ in range(5)])
    rows = [row for x, y in z for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    expected, *_ = np.linalg.lstsq(np.array(rows), w.ravel(), rcond=None)
    a, b = align.similarity(z, w)
    residual = np.abs((z @ [1, 1j]) * a + b - w @ [1, 1j])
    best = np.abs((z @ [1, 1j]) * complex(*expected[:2]) + complex(*expected[2:]) - w @ [1, 1j])
    assert (residual**2).sum() <= (best**2).sum() * (1 + 1e-6) + 1e-6


def test_similarity_of_coinciding_points() -> None:
    assert align.similarity(np.ones((5, 2)), np.full((5, 2), 3.0)) == (0, 3 + 3j)


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7, 3.3, 9.0, 20.0])
@pytest.mark.parametrize("angle", [0, 20, -45, 170])
def test_points_land_on_the_template(scale: float, angle: float) -> None:
    factor = scale * np.exp(1j * np.deg2rad(angle))
    side = int(90 * scale)
    moved = (POINTS - 24) @ [1, 1j] * factor + complex(side / 2, side / 2)
    points = np.stack([moved.real, moved.imag], axis=1)
    image = five_dots(points, (side, side), radius=1.2 * scale)
    face = Detection((0, 0, side, side), 1.0, tuple(map(tuple, points)))
    (crop,) = align.cut(image, [face], crop=CROP, input=SPEC)
    assert crop.shape == (48, 48, 3) and crop.dtype == np.uint8
    for point in POINTS:
        assert np.linalg.norm(centre_near(crop, point) - point) < 0.25


def test_the_margin_widens_the_view() -> None:
    wide = CropSpec(TEMPLATE, 0.25)
    points = align.template_points(wide, (48, 48))
    np.testing.assert_allclose(points, (np.array(TEMPLATE) + 0.25) / 1.5 * 48)
    np.testing.assert_allclose(align.template_points(CROP, (48, 48)), POINTS)


def test_shrinking_is_antialiased() -> None:
    """One-pixel stripes of a 2,000 px face become even grey, not a moire."""
    image = np.zeros((2400, 2400, 3), np.uint8)
    image[:, ::2] = 255
    points = POINTS * 42 + 190
    face = Detection((0, 0, 2400, 2400), 1.0, tuple(map(tuple, points)))
    (crop,) = align.cut(image, [face], crop=CROP, input=SPEC)
    assert np.abs(crop.astype(int) - 127).max() <= 4


@pytest.mark.parametrize("angle", [0, 25, -160])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.3, 3.9, 6.5, 14.2])
def test_a_crop_is_the_mean_of_what_lies_under_each_pixel(scale: float, angle: float) -> None:
    """Against a fine grid of points on a smooth picture, whose waves are as short as the crop can show."""
    a = scale * np.exp(1j * np.deg2rad(angle))
    centre = complex(200.3, 191.6)
    y, x = np.mgrid[:400, :400] + 0.5
    length = 5 * max(scale, 1.5)

    def light(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 128 + 60 * np.sin(2 * np.pi * x / length) + 50 * np.cos(2 * np.pi * y / (1.3 * length))

    side = 12
    crop = align.warp(
        np.repeat(light(x, y).round().astype(np.uint8)[:, :, None], 3, axis=2),
        complex(a), centre - complex(a) * complex(side / 2, side / 2), size=(side, side),
    )  # fmt: skip
    fine = (np.arange(side * 16) + 0.5) / 16 - side / 2
    points = (fine[None, :] + 1j * fine[:, None]) * a + centre
    expected = light(points.real, points.imag).reshape(side, 16, side, 16).mean(axis=(1, 3))
    assert (
        np.abs(crop[:, :, 0] - expected).max() < 7
    )  # of 220: bilinear sampling and averages over blocks flatten a little


def test_the_edge_is_repeated_beyond_the_picture() -> None:
    image = np.full((48, 48, 3), 90, np.uint8)
    image[:, 24:] = 200
    face = Detection((0, 0, 48, 48), 1.0, tuple(map(tuple, POINTS - 30)))
    (crop,) = align.cut(image, [face], crop=CROP, input=SPEC)
    assert (crop == 90).all()
    face = Detection((0, 0, 48, 48), 1.0, tuple(map(tuple, POINTS + 30)))
    (crop,) = align.cut(image, [face], crop=CROP, input=SPEC)
    assert (crop == 200).all()


def test_without_landmarks_the_crop_is_the_box() -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    (same,) = align.cut(image, [Detection((0, 0, 64, 48), 1.0, None)], crop=CROP, input=SPEC)
    np.testing.assert_array_equal(same, image)
    (part,) = align.cut(image, [Detection((-10, 8.2, 24, 60), 1.0, None)], crop=CROP, input=SPEC)
    np.testing.assert_array_equal(part, image[8:, :24])
    for box in ((-50, -50, -10, -10), (10.2, 10, 10.4, 40), (70, 0, 90, 20)):
        with pytest.raises(UsageError, match="holds no pixel of the picture of 64 x 48 px"):
            align.cut(image, [Detection(box, 1.0, None)], crop=CROP, input=SPEC)


def test_a_turned_portrait_gives_nearly_the_same_crop(hopper: np.ndarray) -> None:
    detector = Mtcnn()
    crops = []
    for angle in (0, 15, 30, -30, 45):
        turned = np.asarray(Image.fromarray(hopper).rotate(angle, Image.Resampling.BICUBIC, expand=True))
        crops += align.cut(turned, detector.detect(turned)[:1], crop=CROP, input=SPEC)
    upright = crops[0].astype(float).ravel()
    for crop in crops[1:]:
        assert np.corrcoef(upright, crop.astype(float).ravel())[0, 1] > 0.85
