"""Videos composed from pictures that the tests have at hand; nothing of them outlives a test's folder."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from mien.faces import track

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Actor:
    """One person of a film. picture: RGB uint8, cut around the head. face: its face in it, xyxy px. at: time in s ->
    (left, top, scale) of the picture on the screen, None while it is away. In front of those named before it."""

    picture: np.ndarray
    face: Box
    at: Callable[[float], tuple[float, float, float] | None]

    def face_at(self, time_s: float) -> Box | None:
        """Where the face is on the screen, xyxy px."""
        place = self.at(time_s)
        if place is None:
            return None
        left, top, scale = place
        x1, y1, x2, y2 = self.face
        return (left + x1 * scale, top + y1 * scale, left + x2 * scale, top + y2 * scale)


def screen(actors: Sequence[Actor], time_s: float, size: tuple[int, int]) -> np.ndarray:
    """One frame, RGB uint8, of `size` (width, height): the actors on a background with some structure."""
    y, x = np.mgrid[: size[1], : size[0]]
    background = np.stack([60 + 80 * y / size[1], 70 + 60 * x / size[0], 90 + 30 * np.sin(x / 40)], axis=2)
    picture = Image.fromarray(background.astype(np.uint8))
    for actor in actors:
        place = actor.at(time_s)
        if place is not None:
            left, top, scale = place
            side = (round(actor.picture.shape[1] * scale), round(actor.picture.shape[0] * scale))
            picture.paste(
                Image.fromarray(actor.picture).resize(side, Image.Resampling.BILINEAR), (round(left), round(top))
            )
    return np.asarray(picture)


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    times: Iterable[float] | None = None,
    rate: int = 30,
    sound_s: float = 0.0,
    sound: str = "aac",
    codec: str = "libx264",
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames, RGB uint8, as a video; `times` in s instead of a constant rate; a 440 Hz tone of `sound_s` in the
    codec `sound`; aspect: of a pixel, width / height."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = clock = Fraction(1, 90_000 if codec == "libx264" else rate)
        stream.options = {"preset": "ultrafast", "crf": "16", "g": "30"} if codec == "libx264" else {}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        tone = container.add_stream(sound, rate=44_100, layout="mono") if sound_s else None
        moments = iter(times) if times is not None else (number / rate for number in range(10**9))
        for image, time_s in zip(frames, moments, strict=False):
            if not stream.codec_context.is_open:
                stream.width, stream.height = image.shape[1], image.shape[0]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            wave = np.sin(np.arange(round(sound_s * 44_100)) * 2 * np.pi * 440 / 44_100).astype(np.float32)
            whole = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            whole.sample_rate, whole.pts = 44_100, 0
            for part in av.AudioResampler(tone.codec_context.format, "mono", 44_100).resample(whole):
                container.mux(tone.encode(part))
            container.mux(tone.encode(None))
    return path


def write_stamped(path: Path, frames: Sequence[np.ndarray], times_ms: Sequence[int]) -> Path:
    """The frames as a camera's Motion JPEG, each with its time, also where two have the same."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.pix_fmt, stream.width, stream.height = "yuvj420p", frames[0].shape[1], frames[0].shape[0]
        stream.time_base = Fraction(1, 1000)
        for image, time_ms in zip(frames, times_ms, strict=True):
            jpeg = io.BytesIO()
            Image.fromarray(image).save(jpeg, "JPEG")
            packet = av.Packet(jpeg.getvalue())
            packet.pts = packet.dts = time_ms
            packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, stream, True
            container.mux(packet)
    return path


def write_held(path: Path, source: Path, *, seconds: float) -> Path:
    """A copy of a video whose last frame is shown for so long."""
    with av.open(str(source)) as film, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(film.streams.video[0])
        packets = [packet for packet in film.demux(video=0) if packet.dts is not None]
        packets[-1].duration = round(seconds / packets[-1].time_base)
        for packet in packets:
            packet.stream = stream
            container.mux(packet)
    return path


def cast(image: np.ndarray, *, face_height: float) -> tuple[np.ndarray, Box]:
    """The part of a portrait around its face, scaled so that the face is `face_height` px high, and the face's box."""
    from mien.faces.mtcnn import Mtcnn

    (found, *_) = Mtcnn(min_face=80).detect(image)
    x1, y1, x2, y2 = found.box
    side, scale = y2 - y1, face_height / (y2 - y1)
    left, top = max(0, round(x1 - 0.35 * side)), max(0, round(y1 - 0.35 * side))
    part = Image.fromarray(image[top : round(y2 + 0.25 * side), left : round(x2 + 0.35 * side)])
    part = part.resize((round(part.width * scale), round(part.height * scale)), Image.Resampling.LANCZOS)
    return np.asarray(part), tuple(
        (edge - start) * scale for edge, start in zip(found.box, (left, top) * 2, strict=True)
    )


class Standing(track._Track):
    """A track that takes its face to stand still."""

    def observe(self, place: np.ndarray, aspect: float, time_s: float) -> None:
        super().observe(place, aspect, time_s)
        self.velocity = np.zeros(2)


def no_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In the place of `track.distance_iou`: all boxes overlap alike."""
    return np.ones((len(a), len(b)))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
