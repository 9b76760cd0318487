"""Which frames of a video are read, and how strongly its probabilities are smoothed."""

import math
from dataclasses import dataclass

from mien.errors import UsageError

SMOOTHING_S = 0.3  # s: long enough to still a flickering answer, short enough to keep a quick smile


@dataclass(frozen=True)
class Pace:
    """every: each n-th frame. fps: the first frame at or after each tick of that rate, instead. smoothing: time constant
    in s, 0 for none. Raises UsageError for a value that is out of range, or for both `every` and `fps`.
    """

    every: int = 1
    fps: float | None = None
    smoothing: float = SMOOTHING_S

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"every is {self.every}: expected 1 or more, to read each n-th frame")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise UsageError(f"fps is {self.fps}: expected a finite number of frames a second above 0")
        if not 0 <= self.smoothing < math.inf:
            raise UsageError(f"smoothing is {self.smoothing} s: expected 0, for none, or a finite number above 0")
        if self.every > 1 and self.fps is not None:
            raise UsageError(f"every is {self.every} and fps is {self.fps}: choose one of the two")


ALL_FRAMES = Pace()
