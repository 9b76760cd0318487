"""A camera, or a video in its place, read live: the faces of the present moment as bars in the terminal."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mien.errors import VideoError
from mien.pace import SMOOTHING_S
from mien.reader import Reader
from mien.tracking import Follower, FrameReading, TrackedFace
from mien.video import Video

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

BAR = 30  # characters
REFRESH = 10  # times a second that the terminal is drawn; more is not seen


def open_camera(camera: str) -> Video:
    """The camera of that number, or the file of that name. Raises VideoError saying what was tried."""
    if not camera.isdecimal():
        if not os.path.exists(camera):  # noqa: PTH110 as Path makes . of nothing
            raise VideoError(
                f"camera {camera!r}: no such file; expected a camera's number, from 0 on, or a video file: name one with --camera"
            )
        return Video(camera)
    format, name = device(int(camera), sys.platform)
    try:
        return Video(name, format=format, options={"framerate": "30"} if format == "avfoundation" else {})
    except VideoError as error:
        raise VideoError(
            f"camera {camera}: {error}; check that it is plugged in and that this program may use it, or name another "
            "with --camera"
        ) from None


def device(number: int, platform: str) -> tuple[str, str]:
    """libavformat's input format and the camera's name on this platform (a value of `sys.platform`)."""
    if platform == "darwin":
        return "avfoundation", str(number)
    if platform == "win32":
        return "vfwcap", str(number)  # DirectShow knows cameras only by name
    return "v4l2", f"/dev/video{number}"


def watch(
    source: Video, reader: Reader, *, smoothing: float = SMOOTHING_S, clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[FrameReading, float]]:
    """Each frame's reading and the frames per second that were read lately, until the source ends."""
    follower = Follower(reader, smoothing=smoothing)
    before, pace = clock(), 0.0
    for frame in source.frames():
        reading = follower.read(frame.image, frame=frame.number, time_s=frame.time_s, source=source.path)
        now = clock()
        pace = now - before if not pace else 0.9 * pace + 0.1 * (now - before)
        before = now
        yield reading, 1 / max(pace, 1e-9)


def show(source: Video, reader: Reader, *, smoothing: float = SMOOTHING_S) -> int:
    """Draw the bars in the terminal until the source ends or Ctrl-C; the number of frames read.

    Where standard output is no terminal, one line for each change of expression is printed instead.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    frames, last = 0, ""
    live = Live(console=console, refresh_per_second=REFRESH, auto_refresh=console.is_terminal, transient=True)
    with contextlib.suppress(KeyboardInterrupt), live:  # Ctrl-C is how one stops watching
        for reading, pace in watch(source, reader, smoothing=smoothing):
            frames += 1
            if console.is_terminal:
                live.update(panel(reading, pace))
            elif last != (last := line(reading)):
                print(f"{reading.time_s:.2f} s: {last}", flush=True)
    return frames


def line(reading: FrameReading) -> str:
    """The expressions of all faces in one line, the longest known first."""
    return ", ".join(f"face {face.track} {face.smoothed_expression}" for face in by_track(reading)) or "no face"


def by_track(reading: FrameReading) -> list[TrackedFace]:
    """The faces in an order that does not change with their sizes."""
    return sorted(reading.tracked, key=lambda face: face.track)


def panel(reading: FrameReading, pace: float) -> "Group":
    """What the terminal shows: a block of bars for each face, the longest known first."""
    from rich.console import Group
    from rich.text import Text

    head = Text(f"{reading.width} x {reading.height} px  {pace:.0f} frames/s  Ctrl-C stops", style="dim")
    blocks = [_bars(face.track, face.smoothed) for face in by_track(reading)]
    return Group(head, *(blocks or [Text("no face")]))


def _bars(track: int, probabilities: dict[str, float]) -> "Text":
    from rich.text import Text

    from mien.draw import COLOURS, INK

    text = Text(f"\nface {track}\n", style="bold")
    for name, value in probabilities.items():
        filled = round(value * BAR)
        text.append(f"{name:>9} ", style="default")
        colour = "rgb({},{},{})".format(*COLOURS.get(name, INK))  # rich takes the nearest that the terminal has
        text.append("█" * filled, style=colour)
        text.append("·" * (BAR - filled), style="dim")
        text.append(f" {value:4.0%}\n", style="default")
    return text
