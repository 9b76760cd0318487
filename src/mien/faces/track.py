"""Faces followed from frame to frame by where they are, how large they are and how they move; never by who they are.

Each track predicts its box with constant velocity; the boxes found in a frame are given to the tracks by the cheapest
assignment of all at once. A track that gets nothing coasts on its prediction and is forgotten after a while.

Sources: the alpha-beta filter with the gains of a straight line fitted to all observations so far, until they reach
their floors (Brookner, "Tracking and Kalman Filtering Made Easy", 1998, section 1.2.10); the overlap cost is 1 - DIoU
(Zheng et al., "Distance-IoU Loss", AAAI 2020, eq. 7); the assignment is Kuhn's and Munkres's, by shortest augmenting
paths (Jonker and Volgenant, Computing 38, 1987).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mien.faces.detect import Box

# Floors of the filter's gains: how much of an error in place, and in velocity, is taken over at once. Lower ones
# smooth more and follow a turn later. Tried on the crossings and turns of tests/test_track.py.
ALPHA, BETA = 0.5, 0.1
MEMORY_S = 1.5  # s a track is kept without a face
REACH = 1.0  # of the face's side: a face further than this from its prediction is another one
DRIFT = 1.0  # sides that the reach grows with each second without a face
GROWTH = math.log(1.6)  # a face whose side differs by more than this from its prediction is another one
CAMERA_S = 1 / 30  # between two frames of the films that the gains were tried on
UNMATCHED = 1.6  # the cost of leaving a face and a track alone; the worst overlap cost is 2


@dataclass
class _Track:
    """One face's motion. place: centre x, y in px and log of the side. velocity: px/s of the centre; the side is taken
    to stay, as coasting on a misjudged growth would soon give any size."""

    number: int
    time_s: float  # of the last observation
    place: np.ndarray
    aspect: float  # width / height
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    observations: int = 1

    def predicted(self, time_s: float) -> np.ndarray:
        """xyxy px (4,) at that time."""
        centre = self.place[:2] + self.velocity * (time_s - self.time_s)
        side, stretch = math.exp(self.place[2]), math.sqrt(self.aspect)
        half = np.array([side * stretch, side / stretch]) / 2
        return np.concatenate([centre - half, centre + half])

    def observe(self, place: np.ndarray, aspect: float, time_s: float) -> None:
        """Correct place and velocity by what was seen."""
        self.observations += 1
        n = self.observations
        alpha = max(ALPHA, 2 * (2 * n - 1) / (n * (n + 1)))
        beta = max(BETA, 6 / (n * (n + 1)))
        elapsed = time_s - self.time_s
        expected = self.place + np.append(self.velocity * elapsed, 0.0)
        error = place - expected
        self.place = expected + min(alpha, 1.0) * error
        # Frames stamped on arrival may be 1 ms apart, where the detector's jitter of 1 px would pass for 1000 px/s. So what is
        # closer than a camera's frames counts as if it were as far apart, and only for the part of a frame that it is.
        part = min(elapsed / CAMERA_S, 1.0)
        self.velocity = self.velocity + part * min(beta, 1.0) / max(elapsed, CAMERA_S) * error[:2]
        self.aspect, self.time_s = aspect, time_s


class Tracker:
    """Gives each found box the number of its track. Numbers start at 1 and are never used twice."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._last = 0
        self.ended: list[int] = []  # the tracks that the last `update` or `clear` gave up

    def predict(self, time_s: float) -> dict[int, Box]:
        """Where each track's face should be at that time, xyxy px, by track number; coasting ones included."""
        return {track.number: _box(track.predicted(time_s)) for track in self._tracks}

    def lost(self, time_s: float) -> list[int]:
        """The tracks that were last seen before that time."""
        return [track.number for track in self._tracks if track.time_s < time_s]

    def update(self, boxes: Sequence[Box], time_s: float) -> list[int]:
        """The track number of each box (xyxy px, of one frame), in their order. Times must not decrease."""
        given = self._assign(boxes, time_s)
        numbers = []
        for index, box in enumerate(boxes):
            place, aspect = _place(box)
            track = given.get(index)
            if track is None:
                self._last += 1
                track = _Track(self._last, time_s, place, aspect)
                self._tracks.append(track)
            else:
                track.observe(place, aspect, time_s)
            numbers.append(track.number)
        self._forget(time_s)
        return numbers

    def clear(self) -> None:
        """End all tracks: the scene has changed."""
        self.ended = [track.number for track in self._tracks]
        self._tracks = []

    def _assign(self, boxes: Sequence[Box], time_s: float) -> dict[int, _Track]:
        """The known track of each box's index, where it has one."""
        if not boxes or not self._tracks:
            return {}
        predicted = np.array([track.predicted(time_s) for track in self._tracks])
        lost_s = np.array([time_s - track.time_s for track in self._tracks])
        costs = self._costs(np.array(boxes, np.float64), predicted, lost_s)
        alone = np.full((len(boxes), len(boxes)), UNMATCHED)
        chosen = assignment(np.concatenate([costs, alone], axis=1))
        return {box: self._tracks[track] for box, track in enumerate(chosen) if track < len(self._tracks)}

    def _costs(self, boxes: np.ndarray, predicted: np.ndarray, lost_s: np.ndarray) -> np.ndarray:
        """(boxes, tracks): the overlap's and the sizes' costs; beyond reach, more than leaving both alone."""
        sides, expected = _sides(boxes), _sides(predicted)
        growth = np.abs(np.log(sides[:, None] / expected))
        away = np.linalg.norm(_centres(boxes)[:, None] - _centres(predicted), axis=2) / expected
        beyond = (away > REACH + DRIFT * lost_s) | (growth > GROWTH)
        costs = 1 - distance_iou(boxes, predicted) + growth
        return np.where(beyond, 2 * UNMATCHED + 1, costs)

    def _forget(self, time_s: float) -> None:
        self.ended = [track.number for track in self._tracks if time_s - track.time_s > MEMORY_S]
        self._tracks = [track for track in self._tracks if track.number not in self.ended]


def distance_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """DIoU (n, m), -1 to 1, of boxes a (n, 4) with boxes b (m, 4), xyxy: the overlap over the union minus the squared
    distance of the centres over that of the enclosing box's corners."""
    a, b = a[:, None], b[None]
    inner = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    outer = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    shared = inner.prod(axis=2)
    union = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2) - shared
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(axis=2) / 4
    return shared / union - apart / (outer**2).sum(axis=2)


def assignment(costs: np.ndarray) -> list[int]:
    """The column of each row (n, m), n <= m, that makes the sum of the costs smallest, no column twice.

    Rows are added one by one along the shortest augmenting path under reduced costs; O(n^2 m).
    """
    rows, columns = costs.shape
    row_of = np.full(columns + 1, -1)  # the last column is where each new row starts from
    u, v = np.zeros(rows), np.zeros(columns + 1)
    for row in range(rows):
        row_of[columns] = row
        column = columns
        shortest = np.full(columns, np.inf)
        before = np.full(columns, columns)
        seen = np.zeros(columns + 1, bool)
        while row_of[column] >= 0:
            seen[column] = True
            at = row_of[column]
            reduced = costs[at] - u[at] - v[:-1]
            nearer = ~seen[:-1] & (reduced < shortest)
            shortest[nearer], before[nearer] = reduced[nearer], column
            nearest = int(np.argmin(np.where(seen[:-1], np.inf, shortest)))
            step = shortest[nearest]
            u[row_of[seen]] += step
            v[seen] -= step
            shortest[~seen[:-1]] -= step
            column = nearest
        while column != columns:
            row_of[column] = row_of[before[column]]
            column = int(before[column])
    chosen = {int(row): column for column, row in enumerate(row_of[:-1]) if row >= 0}
    return [chosen[row] for row in range(rows)]


def _place(box: Box) -> tuple[np.ndarray, float]:
    """(centre x, centre y, log side) and width / height."""
    x1, y1, x2, y2 = box
    width, height = max(x2 - x1, 1e-3), max(y2 - y1, 1e-3)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, math.log(width * height) / 2]), width / height


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _sides(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6))


def _box(edges: np.ndarray) -> Box:
    return (float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3]))
