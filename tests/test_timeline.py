"""The timeline: what is drawn where, and that it stays as small as it began."""

import numpy as np
import pytest

from mien import timeline
from mien.draw import COLOURS, INK
from mien.timeline import COLUMNS, LEFT, NO_FACE, PLOT, TOP, Strip


def column(picture: np.ndarray, share: float) -> list[tuple[int, ...]]:
    """The colours of one column of the plot at that share of its width, from the bottom up."""
    return [tuple(pixel) for pixel in picture[TOP : TOP + PLOT, LEFT + round(share * (COLUMNS - 1))][::-1].tolist()]


def test_bands_are_stacked_by_their_probabilities() -> None:
    strip = Strip(("happy", "sad"), 0.0)
    for number in range(100):
        happy = 0.25 if number < 50 else 0.75
        strip.add(number / 30, {"happy": happy, "sad": 1 - happy})
    picture = np.asarray(timeline.draw(strip, title="track 1"))
    for share, happy in ((0.2, 0.25), (0.8, 0.75)):
        colours = column(picture, share)
        assert colours == [COLOURS["happy"]] * round(happy * PLOT) + [COLOURS["sad"]] * round((1 - happy) * PLOT)


@pytest.mark.parametrize(
    ("start_s", "seconds", "ticks"), [(0.0, 4.0, (0, 1, 2, 3, 4)), (61.5, 10.0, (62, 64, 66, 68, 70))]
)
def test_ticks_stand_at_the_videos_own_times(start_s: float, seconds: float, ticks: tuple[int, ...]) -> None:
    strip = Strip(("happy", "sad"), start_s)
    for number in range(round(seconds * 30) + 1):
        strip.add(start_s + number / 30, {"happy": 0.5, "sad": 0.5})
    picture = np.asarray(timeline.draw(strip, title=""))
    below = picture[TOP + PLOT + 4, :]
    found = np.flatnonzero((below == INK).all(axis=1))
    expected = [LEFT + (tick - start_s) / (seconds + 1 / 30) * COLUMNS for tick in ticks]
    assert found == pytest.approx(expected, abs=1)


def test_times_without_a_face_are_grey_and_slow_sampling_is_not() -> None:
    strip = Strip(("happy", "sad"), 2.0)
    for number in [*range(10), *range(20, 30)]:
        strip.add(2 + number / 5, {"happy": 1.0, "sad": 0.0})  # 5 frames/s leave five of six bins empty
    picture = np.asarray(timeline.draw(strip, title=""))
    assert set(column(picture, 0.2)) == {COLOURS["happy"]} == set(column(picture, 0.9))
    assert set(column(picture, 0.55)) == {NO_FACE}


def test_long_tracks_are_averaged_in_the_same_memory() -> None:
    """An hour at 30 frames/s against the plain mean of each bin's values."""
    random = np.random.default_rng(0)
    values = random.random(30 * 3600)
    strip = Strip(("happy", "sad"), 0.0)
    for number, value in enumerate(values):
        strip.add(number / 30, {"happy": value, "sad": 1 - value})
    means = strip.means()
    assert COLUMNS // 2 < len(means) <= COLUMNS
    per_bin = round(strip.bin_s * 30)
    expected = values[: per_bin * (len(means) - 1)].reshape(-1, per_bin).mean(axis=1)
    assert means[:-1, 0] == pytest.approx(expected, abs=0.02)
    assert means.sum(axis=1) == pytest.approx(np.ones(len(means)))


def test_one_observation_is_enough() -> None:
    strip = Strip(("happy", "sad"), 5.0)
    strip.add(5.0, {"happy": 0.5, "sad": 0.5})
    picture = timeline.draw(strip, title="track 1")
    assert picture.size == (LEFT + COLUMNS + timeline.RIGHT, TOP + PLOT + timeline.BOTTOM)
