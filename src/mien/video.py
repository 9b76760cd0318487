"""Videos: frames with their exact times in, annotated H.264 with the sound out. Needs PyAV, the extra `video`.

Everything is in displayed pixels: square ones, upright, as a player shows the frames.
"""

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien import writing
from mien.errors import UsageError, VideoError
from mien.images import MAX_PIXELS, RAISED
from mien.pace import ALL_FRAMES, SMOOTHING_S, Pace

if TYPE_CHECKING:
    from PIL import Image

    from mien.reader import Reader
    from mien.tracking import Follower, FrameReading

EARLY_S = 0.5  # a video that ends this much before its header says was cut off
RESTART_S = 0.5  # a clock that goes back by more than that has started again: recordings that were joined
TICK = Fraction(1, 90_000)  # s: MPEG's clock, in which every common frame rate is a whole number
SMPTE170M, LIMITED, BT709 = 6, 1, 1  # H.273: a matrix (BT.601's), a range, and primaries or a transfer
H264_SIDE = 16_384  # px: x264's MAX_RESOLUTION (encoder/encoder.c)
COPIED = frozenset(("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"))  # sound that an MP4 may carry; else Matroska

DAMAGED_SOUND = "its sound is damaged, and the annotated video lacks that part of it"


@dataclass(frozen=True)
class Frame:
    """number: counted from 0 over all frames that decode. time_s: when it is shown, s, the container's own time; where that
    starts again, as in joined recordings, it goes on from there. image: RGB uint8 (H, W, 3) as a player shows it: upright, and
    as wide as the pixels' aspect ratio asks for."""

    number: int
    time_s: float
    image: np.ndarray


class Video:
    """One video, read once from its beginning. A frame is in memory only while it is looked at.

    After `frames` has ended, `problems` says where the video is damaged, in words with times; it is empty for a sound
    one. A camera is a video, too, that ends when it is closed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: str | None = None,
        options: dict[str, str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """format, options: libavformat's input format and its options, for cameras. max_pixels: of a displayed frame;
        larger ones are refused. Raises VideoError naming the path and the reason."""
        av = _av()
        self.path = str(path)
        if format is None and not os.path.isfile(path):  # noqa: PTH113 - os.path does not raise on a NUL byte
            raise VideoError(f"{path}: no such file" if not os.path.exists(path) else f"{path}: not a regular file")  # noqa: PTH110
        try:
            name = self.path if format else _file(path)
            self._container = av.open(name, format=format, options=options or {}, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{path}: cannot be opened as a video ({_reason(error)})") from None
        self._stream = self._container.streams.best("video")  # not the picture of a cover
        if self._stream is None:
            self.close()
            raise VideoError(f"{path}: it has no pictures, only sound or data")
        self.problems: list[str] = []
        self._time_s = self._end_s = -np.inf  # when the last frame is shown, and until when
        self._others_end_s = -np.inf  # when what is no picture ends
        self._damaged: list[float] = []  # s, where something did not decode
        self._max_pixels = max_pixels
        self._check()
        self._stream.thread_type = "AUTO"

    @property
    def duration_s(self) -> float | None:
        """Until when the pictures last, as the header promises, s from the container's time 0; None where it says nothing."""
        stream, total = self._stream, self._container.duration
        if stream.duration and stream.time_base:
            return self._start_s + float(stream.duration * stream.time_base)
        # FFmpeg's Matroska counts it from 0, and other containers from their start.
        start = 0 if "matroska" in self._container.format.name else max(self._container.start_time or 0, 0)
        return None if total is None else (start + total) / 1e6

    @property
    def _start_s(self) -> float:
        """When the first picture is shown, as the header says, s."""
        return float((self._stream.start_time or 0) * (self._stream.time_base or 0))

    @property
    def rate(self) -> Fraction:
        """Frames per second on average, as the header says; 25 where it says nothing."""
        return self._stream.average_rate or self._stream.guessed_rate or Fraction(25)

    @property
    def expected_frames(self) -> int | None:
        """The number of frames the header promises, None where it says nothing."""
        end_s = self.duration_s
        if self._stream.frames or end_s is None:
            return self._stream.frames or None
        return max(0, round((end_s - self._start_s) * self.rate)) or None

    def frames(self, pace: Pace = ALL_FRAMES) -> Iterator[Frame]:
        """All frames that decode, or those that `pace` picks."""
        tick = -np.inf  # s, before which no frame is wanted
        for number, (frame, time_s) in enumerate(self._decoded()):
            if number % pace.every or time_s < tick - 1e-6:
                continue
            if self._pixels(frame) > self._max_pixels:  # in a stream whose frames change their size
                self.problems.append(f"from {time_s:.2f} s on it has {self._too_large(self._pixels(frame))}")
                return
            if pace.fps is not None:
                tick = time_s if tick == -np.inf else tick
                tick += (1 + np.floor((time_s - tick) * pace.fps + 1e-6)) / pace.fps
            shown = frame.to_ndarray(format="rgb24", width=self._shown_width(frame.width), height=frame.height)
            yield Frame(number, time_s, _upright(shown, _display_matrix(frame)))

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self) -> None:
        """Refuse what cannot be decoded or is too large, and close it."""
        codec = self._stream.codec_context
        if codec is None or self._pixels(codec) > self._max_pixels:
            self.close()
            reason = self._too_large(self._pixels(codec)) if codec else "its codec is unknown; convert it to H.264"
            raise VideoError(f"{self.path}: {reason}")

    def _pixels(self, stored: Any) -> int:
        """Of a frame as it is shown; stored: it, or its codec."""
        return self._shown_width(stored.width) * int(stored.height)

    def _too_large(self, pixels: int) -> str:
        size = f"{pixels / 1e6:.1f} megapixels a frame, the limit is {self._max_pixels / 1e6:.1f}"
        return f"{size}; reduce the video or raise {RAISED}"

    def _shown_width(self, width: int) -> int:
        """Of a stored frame's width, px: what makes its pixels square (ITU-T H.264, sample aspect ratio)."""
        return max(1, round(width * (self._stream.sample_aspect_ratio or 1)))

    def _decoded(self) -> Iterator[tuple[Any, float]]:
        """Every frame that decodes, and its time, which never decreases."""
        step = float(1 / self.rate)
        clock = Clock()
        for frame in self._raw_frames():
            before = self._time_s
            if frame.pts is None or frame.time_base is None:
                self._time_s = max(before, -step) + step
            else:
                self._time_s = max(before, clock.read(float(frame.pts * frame.time_base), goes_on_at=before + step))
            held = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step
            self._end_s = self._time_s + held
            if frame.is_corrupt:
                self._damaged.append(self._time_s)
            yield frame, self._time_s
        if self._damaged:
            first = max(self._damaged[0], 0.0)
            self.problems.append(f"{len(self._damaged)} places cannot be decoded properly, the first at {first:.2f} s")
        self._note_early_end()

    def _raw_frames(self) -> Iterator[Any]:
        """What the decoder gives, past every packet that it cannot decode."""
        av = _av()
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self.problems.append(f"the file breaks off ({_reason(error)})")
                return
            if packet.stream.index != self._stream.index:
                self._others_end_s = max(self._others_end_s, _end(packet))
                continue
            try:
                yield from packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self._damaged.append(self._time_s)

    def _note_early_end(self) -> None:
        promised, end_s = self.duration_s, self._end_s
        if not self._stream.duration:  # what is promised is the whole file's length, which its sound may keep
            end_s = max(end_s, self._others_end_s)
        if self._time_s == -np.inf:
            self.problems.append("no frame of it can be decoded")
        elif promised is not None and end_s < promised - EARLY_S:
            self.problems.append(f"it ends at {self._time_s:.2f} s of the {promised:.2f} s that its header promises")


def read_video(
    path: str | Path,
    *,
    reader: "Reader | None" = None,
    every: int = 1,
    fps: float | None = None,
    smoothing: float = SMOOTHING_S,
) -> Iterator["FrameReading"]:
    """A reading for each frame, as they are asked for, its faces tracked; memory does not grow with the video.

    reader: None is a `Reader` with the bundled model. every, fps, smoothing: as in `mien.pace.Pace`. A damaged video
    gives all frames that decode, and then a UserWarning that says where it is damaged. Raises VideoError for what is no
    video, UsageError for an option out of range and for what is no path.
    """
    from mien.reader import Reader
    from mien.tracking import Follower

    if not isinstance(path, str | os.PathLike):  # `mien.read` takes bytes and open files, too
        raise UsageError(f"a video is read from a path, not from {type(path).__name__}: write it to a file first")
    pace = Pace(every, fps, smoothing)
    reader = reader or Reader()
    video = Video(path, max_pixels=reader.max_pixels)
    return _readings(video, Follower(reader, smoothing=smoothing), pace)


def _readings(video: Video, follower: "Follower", pace: Pace) -> Iterator["FrameReading"]:
    with video:
        for frame in video.frames(pace):
            yield follower.read(frame.image, frame=frame.number, time_s=frame.time_s, source=video.path)
    for problem in video.problems:
        warnings.warn(f"{video.path}: {problem}", stacklevel=2)


class AnnotatedVideo:
    """Writes pictures at their own times as H.264, with the sound of the source copied as it is.

    problems: in words, what of the source the copy lacks.
    """

    def __init__(self, folder: Path, source: Video) -> None:
        """Writes annotated.mp4 into the folder, or annotated.mkv where MP4 cannot carry the sound's codec; sound that
        neither can carry is left out. Raises UsageError where a folder has that name."""
        self._sound = Sound(_file(source.path))
        self.problems: list[str] = []
        suffix = self._sound.suffix
        if suffix is None:
            lost = f"its sound ({self._sound.codec}) cannot be copied"
            self.problems.append(f"{lost}: neither MP4 nor Matroska carries it, so the annotated video is silent")
            self._sound.leave_out()
        self.path = folder / f"annotated.{suffix or 'mp4'}"
        if self.path.is_dir():
            self._sound.close()
            raise UsageError(
                f"{self.path} is a folder, but the annotated video goes there; choose another folder for -o"
            )
        with self._naming():
            self._container = _av().open(_file(self.path), "w")
        self._pictures = self._container.add_stream("libx264", rate=source.rate)
        self._pictures.pix_fmt = "yuv420p"
        self._pictures.codec_context.time_base = TICK
        colours = self._pictures.codec_context  # said, as players take HD for BT.709 where nothing is said
        colours.colorspace, colours.color_range = SMPTE170M, LIMITED  # what `VideoFrame.from_image` becomes
        colours.color_primaries = colours.color_trc = BT709
        self._pictures.options = {"preset": "veryfast", "crf": "20"}
        self._copy = self._sound.add_to(self._container)
        self._started = False
        self._pts = -np.inf  # of the last picture, ticks

    def write(self, picture: "Image.Image", time_s: float) -> None:
        """The next picture, shown from that time on, or a tick after the last one, as H.264's times must rise. All are
        written in the first one's size, which is reduced where x264 takes none so large."""
        if not self._started:
            self._started = True
            scale = min(1.0, H264_SIDE / max(picture.size))
            self._pictures.width, self._pictures.height = (_even(side * scale) for side in picture.size)
        size = (self._pictures.width, self._pictures.height)
        if picture.size != size:
            cut = size == (_even(picture.width), _even(picture.height))
            picture = picture.crop((0, 0, *size)) if cut else picture.resize(size)
        frame = _av().VideoFrame.from_image(picture)
        self._pts = max(round(time_s / TICK), self._pts + 1)
        frame.pts, frame.time_base = self._pts, TICK
        for packet in self._sound.until(time_s):
            self._mux_sound(packet)
        for packet in self._pictures.encode(frame):
            self._mux(packet)

    def close(self) -> None:
        """Finish the file; without a single picture there is none."""
        if self._started:
            for packet in self._pictures.encode(None):
                self._mux(packet)
            for packet in self._sound.until(np.inf):
                self._mux_sound(packet)
        self._sound.close()
        with self._naming():
            self._container.close()
        if not self._started:
            self.path.unlink(missing_ok=True)

    def _naming(self) -> contextlib.AbstractContextManager[None]:
        """libavformat's errors tell the file as a URL; the full disk's, say, is to tell it as a path."""
        return writing.named(self.path, instead_of=Path(_file(self.path)))

    def _mux_sound(self, packet: Any) -> None:
        packet.stream = self._copy
        self._mux(packet)

    def _mux(self, packet: Any) -> None:
        """Write a packet. Where the source's sound is damaged libavformat refuses it, then or with a picture after it, and
        it is left out."""
        error = _av().error
        try:
            with self._naming():
                self._container.mux(packet)
        except (error.InvalidDataError, error.ArgumentError, error.PatchWelcomeError):
            if DAMAGED_SOUND not in self.problems:
                self.problems.append(DAMAGED_SOUND)


class Clock:
    """A stream's times, s, going on where they start again."""

    def __init__(self) -> None:
        self.ahead = 0.0  # of what the stream tells
        self._last = -np.inf

    def read(self, told: float, *, goes_on_at: float) -> float:
        """What the stream tells, or where it has started again, that time."""
        if self.ahead and abs(told - goes_on_at) < RESTART_S:
            self.ahead = 0.0  # it had not: a single time was wrong
        elif told + self.ahead < self._last - RESTART_S:
            self.ahead = goes_on_at - told
        self._last = told + self.ahead
        return self._last


class Sound:
    """The sound of a video, packet by packet. codec: its name, None where there is no sound."""

    def __init__(self, path: str) -> None:
        self._container = _av().open(path, metadata_errors="replace")
        stream = self._container.streams.best("audio")
        self._stream = stream if stream is not None and stream.codec_context is not None else None
        codec = self._stream.codec_context.codec if self._stream else None
        self.codec: str | None = codec.canonical_name if codec else None  # not the decoder's, as mp3float
        self._packets = self._read() if self._stream else iter(())
        self._next: Any = None

    @property
    def suffix(self) -> str | None:
        """Of the file that can carry it: "mp4", also where there is no sound, else "mkv", else None."""
        if self._stream is None or (self.codec in COPIED and _carries("mp4", self._stream)):
            return "mp4"
        return "mkv" if _carries("matroska", self._stream) else None

    def leave_out(self) -> None:
        """From now on there is no sound."""
        self._stream, self._packets = None, iter(())

    def add_to(self, container: Any) -> Any:
        """The stream of another container that the packets go into."""
        return container.add_stream_from_template(self._stream) if self._stream else None

    def until(self, time_s: float) -> Iterator[Any]:
        """The packets that start before that time and were not given yet."""
        while True:
            self._next = self._next or next(self._packets, None)
            if self._next is None or float(self._next.pts * self._next.time_base) > time_s:
                return
            packet, self._next = self._next, None
            yield packet

    def close(self) -> None:
        self._container.close()

    def _read(self) -> Iterator[Any]:
        """Whole packets only; where the file breaks off, so does the sound."""
        clock, end = Clock(), -np.inf
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and packet.dts is not None and not packet.is_corrupt:
                    clock.read(float(packet.pts * packet.time_base), goes_on_at=end)
                    ahead = round(clock.ahead / packet.time_base)
                    packet.pts, packet.dts = packet.pts + ahead, packet.dts + ahead
                    end = _end(packet)
                    yield packet
        except _av().error.FFmpegError:
            return


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise UsageError('videos and cameras need the extra video; run `pip install "mien[video]"`') from None
    return av


def _even(side: float) -> int:
    """As H.264 wants sides, px: a last odd row or column is cut off."""
    return max(2, int(side) // 2 * 2)


def _file(path: str | Path) -> str:
    """The path as libavformat takes it: "12:30.mp4" alone would be of a protocol called 12."""
    return f"file:{path}"


def _carries(format: str, sound: Any) -> bool:
    """Whether a file of libavformat's format can begin with that stream. It also depends on the sampling rate, say, so
    it is tried, in memory."""
    av = _av()
    trial = av.open(io.BytesIO(), "w", format=format)
    try:
        trial.add_stream_from_template(sound)
        trial.start_encoding()
        trial.close()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _end(packet: Any) -> float:
    """When it ends, s; -inf where that is not known."""
    return -np.inf if packet.pts is None else float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _display_matrix(frame: Any) -> np.ndarray | None:
    """[[a, b], [c, d]]: a player shows what the frame has at x, y at a x + c y, b x + d y, but for where it begins. None where
    the frame has none."""
    try:
        beside = frame.side_data
    except ValueError:
        # PyAV 18 knows fewer kinds than its FFmpeg gives: not EXIF (Motion JPEG), nor views (spatial videos)
        turn = math.radians(frame.rotation)  # all that it tells then: not whether the frame is mirrored
        return np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    for data in beside:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)[:2, :2].astype(np.float64)
            return matrix / max(1.0, float(np.abs(matrix).max()))
    return None


def _upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """The frame as its display matrix asks for: turned by right angles, mirrored, or both; others are left alone."""
    if matrix is None:
        return image
    signs = np.rint(matrix)
    swapped = signs[0, 0] == 0  # across and down change places
    wanted = np.eye(2)[::-1] if swapped else np.eye(2)
    if not (np.allclose(matrix, signs, atol=1e-3) and np.array_equal(np.abs(signs), wanted)):
        return image
    if swapped:
        image = image.swapaxes(0, 1)
    across, down = signs.sum(axis=0)  # of each, its only entry
    return np.ascontiguousarray(image[:: int(down), :: int(across)])


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
