"""The timeline: what is drawn where, and that it stays as small as it began."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien import timeline
from mien.clips import Summaries
from mien.draw import COLOURS, INK
from mien.timeline import COLUMNS, LEFT, NO_FACE, PLOT, TOP, Strip
from mien.tracking import FrameReading, TrackedFace


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
    for number in range(30):  # 5 frames/s leave five of six bins empty
        if 10 <= number < 20:
            strip.absent(2 + number / 5)
        else:
            strip.add(2 + number / 5, {"happy": 1.0, "sad": 0.0})
    picture = np.asarray(timeline.draw(strip, title=""))
    for share, colour in ((0.2, COLOURS["happy"]), (0.33, COLOURS["happy"]), (0.35, NO_FACE), (0.67, NO_FACE)):
        assert set(column(picture, share)) == {colour}
    assert set(column(picture, 0.7)) == {COLOURS["happy"]} == set(column(picture, 1.0))


def test_a_frame_that_is_held_long_is_no_absence() -> None:
    """As in a recording of a screen, whose frames come when something moves; and absences outlast merged bins."""
    strip = Strip(("happy", "sad"), 0.0)
    for number in range(40):
        strip.add(number / 25, {"happy": 1.0, "sad": 0.0})
    strip.add(6.0, {"happy": 0.0, "sad": 1.0})
    strip.absent(8.0)
    strip.absent(9.0)
    strip.add(400.0, {"happy": 1.0, "sad": 0.0})
    strip.add(401.0, {"happy": 1.0, "sad": 0.0})
    strip.absent(402.0)  # and is never seen again
    happy = strip.means()[:, 0]
    for time_s, expected in ((0.0, 1.0), (5.0, 1.0), (7.0, 0.0), (10.0, np.nan), (398.0, np.nan), (401.0, 1.0)):
        assert happy[int(time_s / strip.bin_s)] == pytest.approx(expected, nan_ok=True)
    assert len(happy) == int(401 / strip.bin_s) + 1


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


def test_a_video_tells_held_frames_from_frames_without_the_face(tmp_path: Path) -> None:
    summaries = Summaries(("happy", "sad"), tmp_path)
    answer = {"happy": 1.0, "sad": 0.0}
    face = TrackedFace((0.0, 0.0, 9.0, 9.0), None, 1.0, "happy", 1.0, answer, 1, answer)
    for number, (time_s, faces) in enumerate([(0.0, (face,)), (4.0, (face,)), (5.0, ()), (6.0, ()), (10.0, (face,))]):
        summaries.add(FrameReading("clip.mp4", 9, 9, faces, number, time_s))
    (row,) = summaries.finish("clip.mp4")
    assert row["frames"] == 3
    picture = np.asarray(Image.open(tmp_path / "timeline-1.png"))
    for share, colour in ((0.2, COLOURS["happy"]), (0.48, COLOURS["happy"]), (0.52, NO_FACE), (0.97, NO_FACE)):
        assert set(column(picture, share)) == {colour}
