"""Randomness that depends on its key alone, and what each field of `Augment` does to a picture."""

import numpy as np
import pytest
import torch

from mien.lab.methods.method import Augment
from mien.lab.training import randomness
from mien.lab.training.augment import augment


def test_randomness_depends_on_its_key_alone() -> None:
    ids = np.arange(1000)
    u = randomness.uniform(3, 5, ids, draws=4)
    assert np.array_equal(u[[7, 2]], randomness.uniform(3, 5, ids[[7, 2]], draws=4))  # not on the batch
    for other in (
        randomness.uniform(4, 5, ids, draws=4),
        randomness.uniform(3, 6, ids, draws=4),
        randomness.uniform(3, 5, ids, draws=4, stream=1),
    ):
        assert abs(np.corrcoef(u.ravel(), other.ravel())[0, 1]) < 0.06
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.02
    assert abs(randomness.normal(0, 0, ids, draws=20).std() - 1) < 0.03


def test_without_augmentation_pictures_pass_through() -> None:
    pictures = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    same = augment(pictures, np.arange(4), Augment(), size=48, window=1.0, seed=0, epoch=0)
    assert torch.allclose(same, pictures, atol=1e-5)


def test_flip_is_a_mirror_image() -> None:
    pictures = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    mirrored = augment(pictures, np.arange(2), Augment(flip=1.0), size=9, window=1.0, seed=0, epoch=0)
    assert torch.allclose(mirrored, pictures.flip(3), atol=1e-5)


def test_a_random_window_is_cut_inside_the_picture() -> None:
    """A 40 px window of a 48 px ramp: its first pixel lies between 0 and 8 and its slope is kept."""
    ramp = (torch.arange(48.0) / 100).expand(32, 1, 48, 48).contiguous()
    cut = augment(ramp, np.arange(32), Augment(), size=40, window=40 / 48, seed=0, epoch=0)
    starts = cut[:, 0, 20, 0] * 100
    assert starts.min() >= -0.01
    assert starts.max() <= 8.01
    assert starts.std() > 1.5
    assert torch.allclose(cut[:, 0, 20, 1:] - cut[:, 0, 20, :-1], torch.tensor(0.01), atol=1e-4)


def test_a_share_of_a_random_window_is_cut_from_the_whole_picture() -> None:
    """80 of 100 px, and of the window four fifths of the area: the part begins anywhere that it fits."""
    ramp = (torch.arange(100.0) / 100).expand(400, 1, 100, 100)
    for area, part in ((1.0, 80.0), (0.8, 80 * 0.8**0.5)):
        for axis in (3, 2):
            laid = ramp if axis == 3 else ramp.transpose(2, 3)
            cut = augment(
                laid.contiguous(), np.arange(400), Augment(area=(area, area)), size=80, window=0.8, seed=0, epoch=0
            )
            middle = cut[:, 0, 40] if axis == 3 else cut[:, 0, :, 40]
            begins, ends = middle[:, 0] * 100, middle[:, -1] * 100
            assert ((ends - begins) / 79 * 80 - part).abs().max() < 0.1
            assert 0 <= begins.min() < 2 and 97 - part < begins.max() <= 100 - part
            assert ends.max() <= 99.01


def test_a_part_that_is_no_square_begins_anywhere_that_it_fits() -> None:
    ramp = (torch.arange(100.0) / 100).expand(400, 1, 100, 100)
    options = Augment(area=(0.5, 0.5), aspect=(1.5, 1.5))
    for axis, part in ((3, 80 * (0.5 * 1.5) ** 0.5), (2, 80 * (0.5 / 1.5) ** 0.5)):
        laid = ramp if axis == 3 else ramp.transpose(2, 3)
        cut = augment(laid.contiguous(), np.arange(400), options, size=80, window=0.8, seed=0, epoch=0)
        begins = (cut[:, 0, 40] if axis == 3 else cut[:, 0, :, 40])[:, 0] * 100
        assert 0 <= begins.min() < 2 and 97 - part < begins.max() <= 100 - part


@pytest.mark.parametrize(
    "options",
    [
        Augment(rotate=30), Augment(scale=(0.5, 0.6)), Augment(scale=(0.5, 1.5), independent_axes=True),
        Augment(shift=0.2), Augment(area=(0.2, 0.4), aspect=(0.75, 1.33)), Augment(shear=20), Augment(brightness=0.4),
        Augment(contrast=0.5), Augment(cutout=1.0), Augment(blur=1.0), Augment(noise=1.0),
    ],
    ids=lambda options: next(name for name in Augment.__dataclass_fields__ if getattr(options, name) != getattr(Augment(), name)),
)  # fmt: skip
def test_every_augmentation_changes_the_picture_and_repeats_itself(options: Augment) -> None:
    pictures = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = np.arange(6)

    def augmented(rows: list[int], epoch: int) -> torch.Tensor:
        return augment(pictures[rows], ids[rows], options, size=32, window=1.0, seed=0, epoch=epoch)

    whole = augmented([0, 1, 2, 3, 4, 5], 0)
    assert not torch.allclose(whole, pictures, atol=1e-3)
    assert torch.equal(whole[[4, 1]], augmented([4, 1], 0))  # the same on any rank, in any batch
    assert not torch.equal(whole, augmented([0, 1, 2, 3, 4, 5], 1))
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_a_shift_moves_a_random_resized_crop_too() -> None:
    """Of a 100 px ramp a quarter of the area: its middle lies between 25 and 75 px, and 10 px further out when shifted."""
    ramp = (torch.arange(100.0) / 100).expand(200, 1, 100, 100).contiguous()

    def middles(shift: float) -> torch.Tensor:
        options = Augment(area=(0.25, 0.25), shift=shift)
        cut = augment(ramp, np.arange(200), options, size=51, window=1.0, seed=0, epoch=0)
        return cut[:, 0, 25, 25] * 100

    assert 24 < middles(0.0).min() < 27 and 72 < middles(0.0).max() < 75
    assert 14 < middles(0.1).min() < 18 and 81 < middles(0.1).max() < 85


def test_a_random_resized_crop_that_does_not_fit_is_drawn_anew() -> None:
    """As torchvision's RandomResizedCrop: never less than the least area, and sides as 3 to 4 at most, unless all is kept."""
    options = Augment(area=(0.8, 1.0), aspect=(3 / 4, 4 / 3))
    x, y = np.abs(np.linalg.inv(warps(options))[:, [0, 1], [0, 1]]).T
    area, aspect = x * y, x / y
    assert 0.795 < area.min() < 0.81 and 0.99 < area.max() < 1.005 and area.mean() == pytest.approx(0.867, abs=0.005)
    assert 3 / 4 - 0.01 < aspect.min() < 0.82 and 1.22 < aspect.max() < 4 / 3 + 0.01


SIDE = 41
ROWS = 3000


def warps(options: Augment, *, size: int = SIDE, window: float = 1.0) -> np.ndarray:
    """(N, 2, 2): what is done to directions, source to output, of N pictures; read off two ramps, which any affine warp leaves
    ramps."""
    x = torch.arange(SIDE, dtype=torch.float32) / (2 * SIDE) + 0.25
    ramps = torch.stack([x[None].expand(SIDE, SIDE), x[:, None].expand(SIDE, SIDE)])
    found = augment(
        ramps.expand(ROWS, 2, SIDE, SIDE), np.arange(ROWS), options, size=size, window=window, seed=1, epoch=0
    )
    middle = size // 2
    along_x = found[:, :, middle, middle + 1] - found[:, :, middle, middle - 1]
    along_y = found[:, :, middle + 1, middle] - found[:, :, middle - 1, middle]
    return np.linalg.inv(torch.stack([along_x, along_y], dim=2).double().numpy() * SIDE)


def spans(values: np.ndarray, low: float, high: float) -> None:
    """The values are spread evenly from low to high."""
    reach = high - low
    assert low - 0.01 * reach < values.min() < low + 0.02 * reach
    assert high - 0.02 * reach < values.max() < high + 0.01 * reach
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * reach)
    assert values.std() == pytest.approx(reach / 12**0.5, rel=0.05)


def test_angles_are_degrees_to_either_side() -> None:
    turned = warps(Augment(rotate=20))
    assert np.linalg.det(turned) == pytest.approx(np.ones(ROWS), abs=1e-3)
    spans(np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0])), -20, 20)
    sheared = warps(Augment(shear=40))
    assert sheared[:, 0, 0] == pytest.approx(np.ones(ROWS), abs=1e-3)
    assert sheared[:, 1] == pytest.approx(np.tile([0.0, 1.0], (ROWS, 1)), abs=1e-3)
    spans(np.degrees(np.arctan(sheared[:, 0, 1])), -40, 40)


def test_a_turn_and_a_shear_together_keep_areas() -> None:
    both = warps(Augment(rotate=20, shear=30))
    assert np.linalg.det(both) == pytest.approx(np.ones(ROWS), abs=2e-3)


def test_a_window_is_turned_as_a_whole_picture_is() -> None:
    turned = warps(Augment(rotate=20), size=61, window=0.8)
    zoom = 61 / (0.8 * SIDE)
    assert np.linalg.det(turned) == pytest.approx(np.full(ROWS, zoom**2), rel=1e-3)
    assert turned[:, 0, 0] == pytest.approx(turned[:, 1, 1], abs=1e-3)
    spans(np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0])), -20, 20)


def test_a_scale_is_a_zoom_of_both_axes_or_of_each() -> None:
    both = warps(Augment(scale=(0.8, 1.3)))
    assert both[:, 0, 0] == pytest.approx(both[:, 1, 1], abs=1e-3)
    spans(both[:, 0, 0], 0.8, 1.3)
    each = warps(Augment(scale=(0.8, 1.3), independent_axes=True))
    spans(each[:, 1, 1], 0.8, 1.3)
    assert abs(np.corrcoef(each[:, 0, 0], each[:, 1, 1])[0, 1]) < 0.06


def test_a_flip_comes_as_often_as_it_says() -> None:
    assert (warps(Augment(flip=0.3))[:, 0, 0] < 0).mean() == pytest.approx(0.3, abs=0.03)


def test_a_cutout_is_a_grey_square_of_a_share_of_the_side() -> None:
    black = torch.zeros(1, 1, 100, 100).expand(ROWS, -1, -1, -1)
    options = Augment(cutout=0.6, cutout_size=(0.2, 0.45))
    found = augment(black, np.arange(ROWS), options, size=100, window=1.0, seed=0, epoch=0)[:, 0]
    cut = found > 0
    assert (found[cut] == 0.5).all() and (found[~cut] == 0).all()
    rows, columns = cut.any(dim=2).sum(dim=1).numpy(), cut.any(dim=1).sum(dim=1).numpy()
    assert (rows > 0).mean() == pytest.approx(0.6, abs=0.03)
    assert (cut.sum(dim=(1, 2)).numpy() == rows * columns).all()  # it is a rectangle
    at_the_edge = cut[:, [0, -1]].any(dim=(1, 2)) | cut[:, :, [0, -1]].any(dim=(1, 2))
    inside = (rows > 0) & ~at_the_edge.numpy()
    assert np.abs(rows - columns)[inside].max() <= 1  # it is a square
    assert rows[inside].min() in (20, 21) and rows[inside].max() in (44, 45)


def test_light_stays_within_its_strengths() -> None:
    grey = torch.full((ROWS, 1, 8, 8), 0.5)
    lit = augment(grey, np.arange(ROWS), Augment(brightness=0.2), size=8, window=1.0, seed=0, epoch=0)
    spans(lit[:, 0, 4, 4].numpy(), 0.3, 0.7)
    halves = torch.cat([torch.full((ROWS, 1, 8, 4), 0.4), torch.full((ROWS, 1, 8, 4), 0.6)], dim=3)
    harder = augment(halves, np.arange(ROWS), Augment(contrast=0.3), size=8, window=1.0, seed=0, epoch=0)
    spans((harder[:, 0, 4, 7] - harder[:, 0, 4, 0]).numpy() / 0.2, 0.7, 1.3)


def test_noise_and_blur_come_as_often_and_as_strong_as_they_say() -> None:
    grey = torch.full((ROWS, 1, 24, 24), 0.5)
    noisy = augment(grey, np.arange(ROWS), Augment(noise=0.4), size=24, window=1.0, seed=0, epoch=0)
    strengths = noisy.std(dim=(1, 2, 3)).numpy()
    chosen = strengths > 1e-4
    assert chosen.mean() == pytest.approx(0.4, abs=0.03)
    assert strengths[chosen].min() == pytest.approx(0.01, abs=0.001)
    assert strengths[chosen].max() == pytest.approx(0.08, abs=0.005)
    assert noisy.mean().item() == pytest.approx(0.5, abs=0.001)
    dot = torch.zeros(ROWS, 1, 17, 17)
    dot[:, :, 8, 8] = 1
    blurred = augment(dot, np.arange(ROWS), Augment(blur=0.4), size=17, window=1.0, seed=0, epoch=0)[:, 0]
    beside = (blurred[:, 8, 9] / blurred[:, 8, 8]).numpy()  # exp(-1 / (2 sigma^2)) of a Gaussian
    chosen = beside > 0
    assert chosen.mean() == pytest.approx(0.4, abs=0.03)
    spans((-1 / (2 * np.log(beside[chosen]))) ** 0.5, 0.4, 1.6)
    assert torch.allclose(blurred.sum(dim=(1, 2)), torch.ones(ROWS), atol=1e-3)
