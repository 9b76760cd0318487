"""Frames in their order -> readings whose faces carry a track and smoothed probabilities.

A full detection costs far more than a look at one known place. So the detector runs every few frames, more often where
few frames a second are read; in between its O-net refines each track's predicted box, and says by its score when it no
longer sees a face there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from mien import tables
from mien.errors import UsageError
from mien.faces.detect import Box, Detection
from mien.faces.mtcnn import suppress
from mien.faces.track import Tracker
from mien.pace import SMOOTHING_S
from mien.reader import UNSURE, Face, Reader, Reading

# A full detection is due after so many frames or so many seconds, whichever comes first: a face that comes in is seen
# after a third of a second at 30 frames/s, and never more than DETECT_S and a frame later. From 24 frames/s on the frames
# decide.
DETECT_EVERY, DETECT_S = 10, 0.4
SEARCH_EVERY, SEARCH_S = 3, 0.1  # while a face is missing or there is none
ROUNDING_S = 1e-3  # of the times in a Matroska file, whole ms
# O-net on boxes that a track predicts. On the portraits of tests/test_tracking.py a face that is there scores 0.97 and
# more, the place it has left under 0.5; below SURE the detector is asked.
SURE = 0.85
SAME_FACE = 0.45  # of overlap over union: two tracks that were refined onto one face
MARGIN = 0.25  # of the box's longer side, around the part of the picture that O-net needs

# A cut: two frames whose reduced copies no longer correlate. Brightness and contrast do not matter to a correlation, so
# a flash is none. The fastest moves in tests/test_tracking.py, a face that crosses half its size between two frames and
# fills a third of the picture, stay above 0.69.
CUT = 0.5
THUMBNAIL = (18, 32)  # rows and columns of the reduced copy


@dataclass(frozen=True)
class TrackedFace(Face):
    """A face of a video.

    track: its number, the same from frame to frame. smoothed: its probabilities after causal smoothing; `expression`,
    `confidence` and `probabilities` are this frame's own. abstain_below: the reader's, 0-1.
    """

    track: int
    smoothed: dict[str, float] = field(hash=False)
    abstain_below: float = 0.0

    @property
    def smoothed_expression(self) -> str:
        """The likeliest after smoothing, or "unsure" where the reader abstains."""
        likeliest = max(self.smoothed, key=self.smoothed.__getitem__)
        return UNSURE if self.smoothed_confidence < self.abstain_below else likeliest

    @property
    def smoothed_confidence(self) -> float:
        """The smoothed probability of the likeliest expression, also of an "unsure" face, 0-1."""
        return max(self.smoothed.values())


@dataclass(frozen=True)
class FrameReading(Reading):
    """The faces of one frame. frame: its number in the video, from 0. time_s: when it is shown, s."""

    frame: int
    time_s: float

    @property
    def tracked(self) -> tuple[TrackedFace, ...]:
        """The same faces, as what they are."""
        return tuple(face for face in self.faces if isinstance(face, TrackedFace))

    def rows(self) -> list[tables.Row]:
        """The rows of a video's table."""
        return tables.frame_rows(self)


@runtime_checkable
class Refiner(Protocol):
    """A detector that can also look at places known from elsewhere, as `Mtcnn.refine` does."""

    def refine(self, image: np.ndarray, boxes: Sequence[Sequence[float]]) -> list[Detection]: ...


class Follower:
    """Reads frame after frame of one scene or film. Not for several threads: it remembers the last frames."""

    def __init__(self, reader: Reader, *, smoothing: float = SMOOTHING_S) -> None:
        """smoothing: time constant in s, 0 for none. Raises UsageError for a value out of range."""
        if not smoothing >= 0:
            raise UsageError(f"smoothing is {smoothing} s: expected at least 0 s")
        self._reader = reader
        self._smoothing = Smoothing(smoothing)
        self._tracker = Tracker()
        self._cuts = Cuts()
        self._since_detection = DETECT_EVERY  # frames
        self._detected_s = -math.inf  # of the frame of the last full detection
        self._last_s = -math.inf  # of the last frame
        self._missing = False  # whether a face that should be there was not found in the last frame
        self.ended: list[int] = []  # tracks that the last frame gave up: nothing more will come of them

    def read(self, image: np.ndarray, *, frame: int, time_s: float, source: str) -> FrameReading:
        """The reading of the next frame, RGB uint8 (H, W, 3). Times must not decrease."""
        cut = self._cuts.between(image)
        if cut:
            self._tracker.clear()
            self._since_detection = DETECT_EVERY
        ended = self._tracker.ended if cut else []
        found = self._find(image, time_s)
        numbers = self._tracker.update([one.box for one in found], time_s)
        self.ended = ended + self._tracker.ended
        self._last_s = time_s
        self._missing = not found or bool(self._tracker.lost(time_s))
        faces = [
            TrackedFace(
                **vars(face),
                track=track,
                smoothed=self._smoothing.add(track, face.probabilities, time_s),
                abstain_below=self._reader.abstain_below,
            )
            for face, track in zip(self._reader.classify(image, found), numbers, strict=True)
        ]
        self._smoothing.forget(self.ended)
        faces.sort(key=lambda face: -(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))
        height, width = image.shape[:2]
        return FrameReading(source, width, height, tuple(faces), frame, time_s)

    def _find(self, image: np.ndarray, time_s: float) -> list[Detection]:
        """The faces of this frame: by O-net where they are predicted, by the whole detector when that is due."""
        detector = self._reader.detector
        self._since_detection += 1
        if not self._due(time_s) and isinstance(detector, Refiner):
            going, coasting = self._predicted(time_s)
            followed = refine_nearby(detector, image, going)
            if all(one.score >= SURE for one in followed):
                back = [one for one in refine_nearby(detector, image, coasting) if one.score >= SURE]
                return distinct(followed + back)
        self._since_detection, self._detected_s = 0, time_s
        return detector.detect(image)

    def _due(self, time_s: float) -> bool:
        """Whether the whole detector should look at the frame of that time."""
        frames, seconds = (SEARCH_EVERY, SEARCH_S) if self._missing else (DETECT_EVERY, DETECT_S)
        return self._since_detection >= frames or time_s - self._detected_s >= seconds - ROUNDING_S

    def _predicted(self, time_s: float) -> tuple[list[Box], list[Box]]:
        """Where the faces of the last frame should be now, and where those that were lost before it should."""
        lost = self._tracker.lost(self._last_s)
        boxes = self._tracker.predict(time_s)
        going = [box for track, box in boxes.items() if track not in lost]
        return going, [boxes[track] for track in lost]


class Smoothing:
    """Causal exponential smoothing of probabilities along each track.

    After t seconds an old value has the weight exp(-t / constant), whatever the frames' spacing; rows keep summing
    to 1.
    """

    def __init__(self, constant: float) -> None:
        self._constant = constant
        self._last: dict[int, tuple[float, dict[str, float]]] = {}

    def add(self, track: int, probabilities: dict[str, float], time_s: float) -> dict[str, float]:
        """The smoothed probabilities of the track after this observation."""
        smoothed = probabilities
        if track in self._last and self._constant > 0:
            before_s, before = self._last[track]
            old = math.exp((before_s - time_s) / self._constant)
            smoothed = {name: old * before[name] + (1 - old) * value for name, value in probabilities.items()}
        self._last[track] = (time_s, smoothed)
        return dict(smoothed)

    def forget(self, tracks: Sequence[int]) -> None:
        for track in tracks:
            self._last.pop(track, None)


class Cuts:
    """Tells where a film cuts to another scene."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def between(self, image: np.ndarray) -> bool:
        """Whether there is a cut between the last frame and this one, RGB uint8 (H, W, 3)."""
        before, self._before = self._before, thumbnail(image)
        if before is None:
            return False
        return (
            before.shape != self._before.shape or float(before @ self._before) < CUT
        )  # tiny pictures have fewer blocks


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A reduced copy of the green channel as a vector of length 1 and mean 0; all zeros where there is no contrast."""
    height, width = image.shape[:2]
    rows, columns = THUMBNAIL
    green = image[:: max(1, height // (4 * rows)), :: max(1, width // (4 * columns)), 1].astype(np.float32)
    starts = [np.arange(n) * size // n for n, size in zip(THUMBNAIL, green.shape, strict=True)]
    blocks = np.add.reduceat(np.add.reduceat(green, np.unique(starts[0]), axis=0), np.unique(starts[1]), axis=1)
    centred = blocks.ravel() - blocks.mean()
    length = np.linalg.norm(centred)
    return centred / length if length > 0 else centred


def refine_nearby(detector: Refiner, image: np.ndarray, boxes: Sequence[Box]) -> list[Detection]:
    """`detector.refine` on the part of the picture around each box, which is much smaller than the picture; one
    Detection for each box that meets the picture, in px of the picture."""
    found = []
    for x1, y1, x2, y2 in boxes:
        half = max(x2 - x1, y2 - y1) * (0.5 + MARGIN)
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
        part = image[top : max(0, math.ceil(y + half)), left : max(0, math.ceil(x + half))]
        if part.size:
            (one,) = detector.refine(part, [(x1 - left, y1 - top, x2 - left, y2 - top)])
            found.append(_moved(one, left, top))
    return found


def distinct(found: Sequence[Detection]) -> list[Detection]:
    """Each face once: of detections that overlap by more than `SAME_FACE` the best is kept."""
    if not found:
        return []
    boxes, scores = np.array([one.box for one in found]), np.array([one.score for one in found])
    return [found[index] for index in suppress(boxes, scores, overlap=SAME_FACE)]


def _moved(found: Detection, left: float, top: float) -> Detection:
    x1, y1, x2, y2 = found.box
    points = None if found.landmarks is None else tuple((x + left, y + top) for x, y in found.landmarks)
    return Detection((x1 + left, y1 + top, x2 + left, y2 + top), found.score, points)
