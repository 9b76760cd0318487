"""Films composed from portraits through detector, tracker and model: who is found, under which number, and how often
the whole detector runs."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import films
import mien
from films import Actor
from mien import images, tables
from mien.errors import UsageError
from mien.expressions import EXPRESSIONS
from mien.faces.detect import Detection
from mien.faces.mtcnn import Mtcnn
from mien.tracking import Cuts, Follower, FrameReading, Smoothing, TrackedFace, distinct, refine_nearby

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

SIZE = (640, 360)
RATE = 15


@pytest.fixture(scope="module")
def reader(tiny_model: Path) -> mien.Reader:
    return mien.Reader(tiny_model, min_face=50)


@pytest.fixture(scope="module")
def two(hopper: np.ndarray, astronaut: np.ndarray) -> list[tuple[np.ndarray, films.Box]]:
    return [films.cast(image, face_height=110) for image in (hopper, astronaut)]


def play(follower: Follower, actors: Sequence[Actor], *, seconds: float, start_s: float = 0.0) -> list[FrameReading]:
    moments = [start_s + number / RATE for number in range(round(seconds * RATE))]
    return [
        follower.read(films.screen(actors, time_s, SIZE), frame=number, time_s=time_s, source="film")
        for number, time_s in enumerate(moments)
    ]


def numbers_of(actor: Actor, readings: list[FrameReading]) -> list[int]:
    """The track numbers of the faces that lie on the actor's, in order."""
    found = []
    for reading in readings:
        place = actor.face_at(reading.time_s)
        faces = [face for face in reading.tracked if place and films.overlap(face.box, place) > 0.4]
        best = max(faces, key=lambda face: films.overlap(face.box, place), default=None)  # type: ignore[arg-type]
        found += [best.track] if best else []
    return found


def switches(numbers: list[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(numbers))


def crossing(two: list[tuple[np.ndarray, films.Box]]) -> list[Actor]:
    """The first comes from the right and is out of sight for 1.2 s around the meeting, the second from the left."""
    first = Actor(*two[0], lambda t: None if 1.2 <= t < 2.4 else (460 - 140 * t, 90, 1.0))
    return [first, Actor(*two[1], lambda t: (10 + 130 * t, 100, 1.0))]


@pytest.mark.slow
def test_two_people_cross_and_one_is_hidden_for_a_while(reader: mien.Reader, two) -> None:
    actors = crossing(two)
    readings = play(Follower(reader), actors, seconds=3.4)
    assert [switches(numbers_of(actor, readings)) for actor in actors] == [0, 0]
    assert len(numbers_of(actors[0], readings)) > 0.8 * 2.2 * RATE
    assert len(numbers_of(actors[1], readings)) > 0.95 * 3.4 * RATE


@pytest.mark.slow
def test_that_crossing_needs_motion(reader: mien.Reader, two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.faces.track._Track", films.Standing)
    actors = crossing(two)
    readings = play(Follower(reader), actors, seconds=3.4)
    assert sum(switches(numbers_of(actor, readings)) for actor in actors) > 0


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [True, False])
def test_passing_close_needs_overlap(reader: mien.Reader, two, overlap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twins, whom their sizes do not tell apart, both in full sight."""
    actors = [
        Actor(*two[0], lambda t: (440 - 150 * t, 30, 1.0)),
        Actor(*two[0], lambda t: (10 + 150 * t, 110, 1.0)),
    ]
    if not overlap:
        monkeypatch.setattr("mien.faces.track.distance_iou", films.no_overlap)
    readings = play(Follower(reader), actors, seconds=3)
    assert any(switches(numbers_of(actor, readings)) for actor in actors) != overlap


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_half_a_minute_of_two_people_meeting_again_and_again(
    reader: mien.Reader, two, record_property: Callable[[str, object], None]
) -> None:
    """They pass each other every 5 s, the first one out of sight for 0.8 s each time, and change their size."""

    def first(t: float) -> tuple[float, float, float] | None:
        return None if 2.1 <= t % 5 < 2.9 else (230 + 220 * math.cos(math.pi * t / 5), 90, 1 + 0.1 * math.sin(t))

    actors = [Actor(*two[0], first), Actor(*two[1], lambda t: (230 - 220 * math.cos(math.pi * t / 5), 100, 0.95))]
    readings = play(Follower(reader), actors, seconds=30)
    found = [switches(numbers_of(actor, readings)) for actor in actors]
    record_property("frames", len(readings))
    record_property("meetings", 6)
    record_property("identity switches", found)
    assert found == [0, 0]
    assert len(numbers_of(actors[1], readings)) > 0.9 * len(readings)


def test_moves_and_zooms_keep_one_number(reader: mien.Reader, two) -> None:
    actor = Actor(*two[0], lambda t: (200 + 120 * math.sin(3 * t), 40, 0.8 + 0.3 * t))
    readings = play(Follower(reader), [actor], seconds=2)
    assert {face.track for reading in readings for face in reading.tracked} == {1}
    assert len(numbers_of(actor, readings)) == len(readings)


def test_a_cut_to_another_person_is_another_number(reader: mien.Reader, two) -> None:
    """The second one sits where the first one sat."""
    follower = Follower(reader)
    one, other = (Actor(*person, lambda t: (200, 60, 1.0)) for person in two)
    before = play(follower, [one], seconds=0.5)
    image = np.ascontiguousarray(films.screen([other], 0, SIZE)[:, ::-1])
    after = follower.read(image, frame=20, time_s=1.0, source="film")
    assert {face.track for reading in before for face in reading.tracked} == {1}
    assert [face.track for face in after.tracked] == [2] and follower.ended == [1]


def test_a_flash_is_no_cut() -> None:
    cuts = Cuts()
    image = films.screen([], 0, SIZE)
    assert not cuts.between(image)
    assert not cuts.between(np.clip(image.astype(int) * 2 + 40, 0, 255).astype(np.uint8))
    assert not cuts.between(image)
    assert cuts.between(np.ascontiguousarray(image[:, ::-1]))


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (17, 31), (240, 320), (1080, 1920)])
def test_cuts_take_any_size(shape: tuple[int, int]) -> None:
    cuts = Cuts()
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    assert not cuts.between(image) and (shape == (1, 1) or not cuts.between(image))


class Counting(Mtcnn):
    """Counts its full detections."""

    count = 0

    def detect(self, image: np.ndarray) -> list[Detection]:
        self.count += 1
        return super().detect(image)


def test_full_detections_are_rare_while_faces_are_seen(tiny_model: Path, two) -> None:
    detector = Counting(min_face=60)
    follower = Follower(mien.Reader(tiny_model, detector=detector))
    readings = play(follower, [Actor(*two[0], lambda t: (100 + 90 * t, 60, 1.0))], seconds=2)
    assert all(len(reading) == 1 for reading in readings) and len(readings) == 30
    assert detector.count == 5  # every 0.4 s


class Script:
    """A detector and refiner that sees one face, or none, and notes in which of the frames it looks everywhere."""

    def __init__(self, *, face: bool) -> None:
        self.frame, self.detected = 0, list[int]()
        self._found = [Detection((100.0, 100.0, 200.0, 200.0), 1.0, None)] if face else []

    def detect(self, image: np.ndarray) -> list[Detection]:
        self.detected.append(self.frame)
        return self._found

    def refine(self, image: np.ndarray, boxes: Sequence[Sequence[float]]) -> list[Detection]:
        return [Detection(tuple(box), 1.0, None) for box in boxes]


@pytest.mark.parametrize("stamps", [1e-9, 1e-3])
@pytest.mark.parametrize(
    ("rate", "while_seen", "while_missing"),
    [(60, 10, 3), (30, 10, 3), (25, 10, 3), (24, 10, 3), (15, 6, 2), (10, 4, 1), (5, 2, 1), (1, 1, 1)],
)
def test_detections_are_due_by_frames_or_by_time(
    tiny_model: Path, rate: float, while_seen: int, while_missing: int, stamps: float
) -> None:
    """Every that many frames at each frame rate. stamps: what the frames' times are rounded to, s."""
    image = films.screen([], 0, SIZE)
    for face, steps in ((True, while_seen), (False, while_missing)):
        detector = Script(face=face)
        follower = Follower(mien.Reader(tiny_model, detector=detector))
        for detector.frame in range(31):
            time_s = round(detector.frame / rate / stamps) * stamps
            follower.read(image, frame=detector.frame, time_s=time_s, source="film")
        assert detector.detected == list(range(0, 31, steps))


def test_a_face_that_comes_in_is_seen_at_one_frame_a_second(reader: mien.Reader, two) -> None:
    """Two people at the sides, the second one there from 2 s to 5 s."""
    actors = [
        Actor(*two[0], lambda t: (40, 90, 1.0)),
        Actor(*two[1], lambda t: (440, 100, 1.0) if 2 <= t < 5 else None),
    ]
    follower = Follower(reader)
    moments = range(7)
    readings = [follower.read(films.screen(actors, t, SIZE), frame=t, time_s=float(t), source="film") for t in moments]
    assert [len(reading) for reading in readings] == [1, 1, 2, 2, 2, 1, 1]


def test_a_lost_face_is_searched_for(tiny_model: Path, two) -> None:
    detector = Counting(min_face=60)
    follower = Follower(mien.Reader(tiny_model, detector=detector))
    hidden = Actor(*two[0], lambda t: None if 0.4 <= t < 0.9 else (100, 60, 1.0))
    readings = play(follower, [hidden], seconds=1.6)
    seen = [len(reading) for reading in readings]
    assert seen[:6] == [1] * 6 and 0 in seen and seen[-6:] == [1] * 6
    assert numbers_of(hidden, readings) == [1] * sum(seen)
    assert 3 <= detector.count <= 7


def test_refining_nearby_is_refining(two) -> None:
    """The part of the picture around a box gives what the whole picture gives, but for the reduction's grid."""
    detector = Mtcnn()
    image = films.screen([Actor(*two[0], lambda t: (100, 60, 1.5))], 0, SIZE)
    (found,) = detector.detect(image)
    (whole,) = detector.refine(image, [found.box])
    (part,) = refine_nearby(detector, image, [found.box])
    assert part.box == pytest.approx(whole.box, abs=2) and part.score == pytest.approx(whole.score, abs=0.02)
    assert np.abs(np.subtract(part.landmarks, whole.landmarks)).max() < 2
    assert refine_nearby(detector, image, [(-500, -500, -300, -300)]) == []


def test_two_tracks_on_one_face_are_one_face() -> None:
    faces = [Detection((0, 0, 100, 100), score, None) for score in (0.8, 0.9)] + [
        Detection((90, 0, 190, 100), 0.7, None)
    ]
    assert [one.score for one in distinct(faces)] == [0.9, 0.7]
    assert distinct([]) == []


values = st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 2)), min_size=1, max_size=20)


@given(values, st.floats(0, 3))
def test_smoothing_against_its_definition(series: list[tuple[float, float]], constant: float) -> None:
    """An exponential filter with the weights written out."""
    smoothing, time_s = Smoothing(constant), 0.0
    times, inputs = [], []
    for value, elapsed in series:
        time_s += elapsed
        times.append(time_s)
        inputs.append(value)
        result = smoothing.add(1, {"happy": value, "sad": 1 - value}, time_s)
        expected = inputs[0]
        for k in range(1, len(inputs)):
            old = math.exp(-(times[k] - times[k - 1]) / constant) if constant > 0 else 0.0
            expected = old * expected + (1 - old) * inputs[k]
        assert result["happy"] == pytest.approx(expected, abs=1e-9)
        assert sum(result.values()) == pytest.approx(1)


@pytest.mark.parametrize(("abstain_below", "answer"), [(0.6, "happy"), (np.nextafter(0.6, 1), "unsure")])
def test_the_smoothed_answer_abstains_as_the_frames_own(abstain_below: float, answer: str) -> None:
    """The frame itself says sad. The numbers of the table stay."""
    smoothed = {**dict.fromkeys(EXPRESSIONS, 0.0), "happy": 0.6, "sad": 0.4}
    face = TrackedFace((0, 0, 9, 9), None, 1.0, "sad", 1.0, {**smoothed, "sad": 1.0}, 3, smoothed, abstain_below)
    assert (face.smoothed_expression, face.smoothed_confidence) == (answer, 0.6)
    (row,) = FrameReading("film", 9, 9, (face,), 0, 0.0).rows()
    assert (row["expression"], row["smoothed_expression"], row["smoothed_confidence"]) == ("sad", answer, 0.6)
    assert (row["track"], row["s_happy"], tuple(row)) == (3, 0.6, tables.FRAME_COLUMNS)


def test_smoothing_does_not_depend_on_the_frame_rate() -> None:
    """A step from 0 to 1: after one time constant 1 - 1/e is reached, at 10 and at 1000 frames a second."""
    for rate in (10, 1000):
        smoothing = Smoothing(0.5)
        smoothing.add(1, {"happy": 0.0}, 0.0)
        for number in range(1, rate // 2 + 1):
            reached = smoothing.add(1, {"happy": 1.0}, number / rate)["happy"]
        assert reached == pytest.approx(1 - 1 / math.e)


def test_tracks_are_smoothed_apart_and_raw_ones_kept(reader: mien.Reader, two) -> None:
    actors = [Actor(*two[0], lambda t: (20 + 40 * t, 60, 1.0)), Actor(*two[1], lambda t: (420 - 40 * t, 60, 1.0))]
    raw = play(Follower(reader, smoothing=0), actors, seconds=0.8)
    soft = play(Follower(reader, smoothing=0.5), actors, seconds=0.8)
    for plain, smooth in zip(raw, soft, strict=True):
        assert [face.probabilities for face in plain] == [face.probabilities for face in smooth]
        assert all(face.smoothed == face.probabilities for face in plain.tracked)
    assert any(face.smoothed != face.probabilities for face in soft[-1].tracked)
    assert tuple(soft[-1].tracked[0].smoothed) == EXPRESSIONS


def test_the_largest_face_comes_first(tiny_model: Path) -> None:
    class Two(Script):
        def detect(self, image: np.ndarray) -> list[Detection]:
            return [Detection((10.0, 10.0, 60.0, 60.0), 1.0, None), Detection((100.0, 100.0, 200.0, 200.0), 0.9, None)]

    follower = Follower(mien.Reader(tiny_model, detector=Two(face=True)))
    for number in range(4):
        reading = follower.read(films.screen([], 0, SIZE), frame=number, time_s=number / 30, source="film")
        assert [(face.track, round(face.box[0])) for face in reading.tracked] == [(2, 100), (1, 10)]


def test_what_is_known_of_an_ended_track_is_forgotten(reader: mien.Reader, two) -> None:
    smoothing = Smoothing(0.5)
    for track in (1, 2):
        smoothing.add(track, {"happy": 0.0}, 0.0)
    smoothing.forget([1])
    assert [smoothing.add(track, {"happy": 1.0}, 0.5)["happy"] for track in (1, 2)] == [
        1.0,
        pytest.approx(1 - 1 / math.e),
    ]
    follower = Follower(reader)
    play(follower, [Actor(*two[0], lambda t: (100, 60, 1.0) if t < 0.2 else None)], seconds=2)
    assert follower._smoothing._last == {}  # or a long video would fill the memory


def test_out_of_range_options_are_refused(reader: mien.Reader) -> None:
    for smoothing in (-1, math.nan):
        with pytest.raises(UsageError, match="expected at least 0 s"):
            Follower(reader, smoothing=smoothing)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["obama.jpg", "obama_partial_face2.jpg"])
def test_bundled_model_on_a_moving_smile(shared, name: str) -> None:
    person = films.cast(images.load(shared(f"photos/{name}")), face_height=120)
    actor = Actor(*person, lambda t: (150 + 100 * math.sin(2 * t), 50, 1.0))
    readings = play(Follower(mien.Reader(min_face=60)), [actor], seconds=2)
    smiles = [face.smoothed_expression == "happy" for reading in readings for face in reading.tracked]
    assert len(smiles) == 30 and sum(smiles) >= 27


def test_pictures_of_another_size_are_another_scene() -> None:
    """Also those that are smaller than the thumbnail's blocks."""
    cuts = Cuts()
    assert [cuts.between(np.zeros((height, 40, 3), np.uint8)) for height in (40, 9, 9, 40)] == [False, True, True, True]
