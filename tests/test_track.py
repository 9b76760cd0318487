"""The tracker on boxes alone: crossings, losses, and what must hold for any boxes."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from films import Standing, no_overlap
from mien.faces.track import MEMORY_S, Tracker, assignment, distance_iou

RATE = 30
Path = Callable[[float], tuple[float, float, float] | None]  # s -> centre x, y and side in px, None while hidden


def follow(tracker: Tracker, paths: list[Path], *, seconds: float, jitter: float, seed: int) -> list[list[int]]:
    """The numbers that each path's face got, one after the other. jitter: of every edge, px (standard deviation)."""
    random = np.random.default_rng(seed)
    given_numbers: list[list[int]] = [[] for _ in paths]
    for frame in range(round(seconds * RATE)):
        time_s = frame / RATE
        seen = [(person, place) for person, path in enumerate(paths) if (place := path(time_s)) is not None]
        random.shuffle(seen)
        boxes = []
        for _, (x, y, side) in seen:
            edges = np.array([x - side / 2, y - side * 0.6, x + side / 2, y + side * 0.6]) + random.normal(0, jitter, 4)
            boxes.append(tuple(edges.tolist()))
        for (person, _), number in zip(seen, tracker.update(boxes, time_s), strict=True):
            given_numbers[person].append(number)
    return given_numbers


def switches(numbers: Sequence[Sequence[int]]) -> int:
    """How often a person's number changed."""
    return sum(a != b for one in numbers for a, b in itertools.pairwise(one))


def crossing(time_s: float) -> tuple[float, float, float]:
    return (100 + 300 * time_s, 300, 120)


def hidden_while_crossing(time_s: float) -> tuple[float, float, float] | None:
    """Comes the other way; out of sight for 1.2 s around the moment when the two meet, at 2 s."""
    return None if 1.4 <= time_s < 2.6 else (1300 - 300 * time_s, 310, 118)


def passing(time_s: float) -> tuple[float, float, float]:
    """Comes the other way and is seen all the time, one face half below the other."""
    return (1300 - 300 * time_s, 360, 121)


def test_two_people_cross_and_one_is_hidden_for_a_while() -> None:
    for seed in range(20):
        paths: list[Path] = [crossing, hidden_while_crossing]
        assert switches(follow(Tracker(), paths, seconds=4, jitter=1.5, seed=seed)) == 0


def test_that_crossing_needs_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.faces.track._Track", Standing)
    for seed in range(20):
        paths: list[Path] = [crossing, hidden_while_crossing]
        assert switches(follow(Tracker(), paths, seconds=4, jitter=1.5, seed=seed)) > 0


@pytest.mark.parametrize("overlap", [True, False])
def test_a_crossing_in_full_sight_needs_overlap(overlap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not overlap:
        monkeypatch.setattr("mien.faces.track.distance_iou", no_overlap)
    for seed in range(20):
        paths: list[Path] = [crossing, passing]
        assert (switches(follow(Tracker(), paths, seconds=4, jitter=1.5, seed=seed)) == 0) == overlap


@pytest.mark.parametrize(
    "path",
    [
        lambda t: (400, 300, 150),
        lambda t: (640 + 500 * np.sin(2 * t), 300, 100),
        lambda t: (400, 300, 60 * np.exp(0.8 * t)),
        lambda t: (200 + 250 * t, 300, 120) if t < 1 or t > 1.6 else None,
        lambda t: (400 + 60 * (int(t * 4) % 2), 300, 120),
    ],
    ids=["still", "turning", "zoom", "lost for 0.6 s", "jumping"],
)
def test_one_person_keeps_the_number(path: Path) -> None:
    for seed in range(5):
        assert set(follow(Tracker(), [path], seconds=4, jitter=2, seed=seed)[0]) == {1}


@pytest.mark.parametrize("apart", [0.0, 0.001, 0.005, 0.02])
@pytest.mark.parametrize("frames", [2, 4, 30])
def test_frames_that_arrive_together_tear_no_still_face_apart(frames: int, apart: float) -> None:
    """As of recordings that stamp a frame when it arrives: jitter of 1.5 px within 1 ms is no speed."""
    for seed, every in itertools.product(range(3), (0.7, 1.0)):
        random, tracker, numbers = np.random.default_rng(seed), Tracker(), set()
        for time_s in (every * burst + apart * frame for burst in range(8) for frame in range(frames)):
            numbers.update(tracker.update([tuple(np.array([0, 0, 100, 120]) + random.normal(0, 1.5, 4))], time_s))
        assert numbers == {1}


def test_two_people_cross_in_pairs_of_frames() -> None:
    times = [0.1 * pair + after for pair in range(40) for after in (0, 0.002)]
    for seed in range(10):
        random, tracker = np.random.default_rng(seed), Tracker()
        found = []
        for time_s in times:
            places = np.array([crossing(time_s), passing(time_s)])
            boxes = np.concatenate([places[:, :2] - places[:, 2:] / 2, places[:, :2] + places[:, 2:] / 2], axis=1)
            found.append(tracker.update([tuple(box) for box in boxes + random.normal(0, 1.5, (2, 4))], time_s))
        assert switches(list(zip(*found, strict=True))) == 0


def test_a_face_that_is_gone_for_long_is_a_new_one() -> None:
    tracker = Tracker()
    assert tracker.update([(0, 0, 100, 100)], 0.0) == [1]
    assert tracker.update([], MEMORY_S) == [] and tracker.ended == [] and tracker.lost(MEMORY_S) == [1]
    assert tracker.update([], MEMORY_S + 0.1) == [] and tracker.ended == [1]
    assert tracker.update([(0, 0, 100, 100)], MEMORY_S + 0.2) == [2]


def test_far_or_much_larger_faces_are_others() -> None:
    for other in ((400, 0, 500, 100), (-100, -100, 200, 200)):
        tracker = Tracker()
        tracker.update([(0, 0, 100, 100)], 0.0)
        assert tracker.update([other], 0.033) == [2]


@pytest.mark.parametrize(("side", "number"), [(155, 1), (165, 2), (65, 1), (60, 2)])
def test_a_face_may_grow_or_shrink_by_a_factor_of_1_6(side: float, number: int) -> None:
    """Around the same point, where the overlap alone would still make it the same face."""
    tracker = Tracker()
    tracker.update([(0, 0, 100, 100)], 0.0)
    assert tracker.update([(50 - side / 2, 50 - side / 2, 50 + side / 2, 50 + side / 2)], 0.033) == [number]


def test_clear_ends_every_track() -> None:
    tracker = Tracker()
    tracker.update([(0, 0, 100, 100), (300, 0, 400, 100)], 0.0)
    tracker.clear()
    assert tracker.ended == [1, 2] and tracker.predict(1.0) == {}
    assert tracker.update([(0, 0, 100, 100)], 0.033) == [3]


def test_predictions_go_on_with_the_velocity_seen() -> None:
    tracker = Tracker()
    for frame in range(30):
        tracker.update([(10 * frame, 50, 10 * frame + 100, 150)], frame / 30)
    assert tracker.predict(40 / 30)[1] == pytest.approx((400, 50, 500, 150), abs=0.5)


edges = st.tuples(st.floats(-500, 2000), st.floats(-500, 2000), st.floats(1, 500), st.floats(1, 500))
boxes = edges.map(lambda e: (e[0], e[1], e[0] + e[2], e[1] + e[3]))
films = st.lists(st.tuples(st.lists(boxes, max_size=5), st.floats(0, 1)), max_size=12)


@given(films)
def test_numbers_of_any_boxes(film: list[tuple[list[tuple[float, ...]], float]]) -> None:
    """Each box gets one number, none twice in a frame, new ones count up, and an ended one never comes back."""
    tracker, time_s, known, ended = Tracker(), 0.0, 0, set()
    for found, elapsed in film:
        time_s += elapsed
        numbers = tracker.update(found, time_s)
        assert len(numbers) == len(found) == len(set(numbers))
        assert not ended & set(numbers)
        fresh = sorted(number for number in numbers if number > known)
        assert fresh == list(range(known + 1, known + 1 + len(fresh)))
        known += len(fresh)
        ended |= set(tracker.ended)
        assert set(tracker.predict(time_s)) == set(range(1, known + 1)) - ended
        assert all(np.isfinite(box).all() for box in tracker.predict(time_s + 5).values())


@given(films, st.sampled_from([0.25, 0.5, 2.0, 4.0]), st.integers(-1000, 1000))
def test_numbers_do_not_depend_on_scale_or_place(film, scale: float, shift: int) -> None:
    one, other, time_s = Tracker(), Tracker(), 0.0
    for found, elapsed in film:
        time_s += elapsed
        rounded = [tuple(round(edge) for edge in box) for box in found]  # so that scaling is exact
        solid = [(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)) for x1, y1, x2, y2 in rounded]
        moved = [tuple(scale * edge + shift for edge in box) for box in solid]
        assert one.update(solid, time_s) == other.update(moved, time_s)


@given(st.integers(1, 6), st.integers(0, 5), st.randoms(use_true_random=False))
def test_assignment_is_the_cheapest(rows: int, more: int, random) -> None:
    costs = np.array(
        [[random.choice([random.random(), random.randint(0, 3)]) for _ in range(rows + more)] for _ in range(rows)]
    )
    chosen = assignment(costs)
    assert len(set(chosen)) == rows
    assert costs[range(rows), chosen].sum() == pytest.approx(costs[linear_sum_assignment(costs)].sum())


@given(boxes, boxes)
def test_distance_iou_is_bounded_and_symmetric(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    first, second = np.array([a]), np.array([b])
    value = distance_iou(first, second)[0, 0]
    assert -1 <= value <= 1 + 1e-9
    assert value == pytest.approx(distance_iou(second, first)[0, 0])
    assert distance_iou(first, first)[0, 0] == pytest.approx(1)


def test_distance_iou_by_hand() -> None:
    """Two 2 x 2 squares that share half: IoU 2 / 6; centres 1 apart; the corners of the enclosing 3 x 2 box sqrt 13."""
    value = distance_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]]))
    assert value[0, 0] == pytest.approx(1 / 3 - 1 / 13)
