"""Videos: which frames at which times, damage, sound, and what `mien read` writes of one."""

import csv
import io
import itertools
import json
import os
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from PIL import Image

import films
import mien
from films import Actor
from mien import cli, clips, images, tables
from mien.errors import UsageError, VideoError
from mien.faces.detect import Detection
from mien.pace import Pace
from mien.tracking import Follower, FrameReading
from mien.video import AnnotatedVideo, Clock, Video

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

SIZE = (320, 240)


def numbered(count: int) -> list[np.ndarray]:
    """Frames that say their number in their brightness, and in a bar that is 10 px wider each time."""
    frames = []
    for number in range(count):
        image = np.full((SIZE[1], SIZE[0], 3), 40, np.uint8)
        image[:60, : 10 + 10 * (number % 30)] = 200
        frames.append(image)
    return frames


def number_of(image: np.ndarray) -> int:
    """What `numbered` wrote, modulo 30."""
    return round(float((image[20:40].mean(axis=(0, 2)) > 120).sum()) / 10) - 1


@pytest.fixture
def portrait(hopper: np.ndarray) -> Actor:
    return Actor(*films.cast(hopper, face_height=110), lambda t: (60 + 40 * t, 30, 1.0))


@pytest.fixture
def clip(tmp_path: Path, portrait: Actor) -> Path:
    """Two thirds of a second of a moving portrait, with sound."""
    frames = (films.screen([portrait], number / 15, SIZE) for number in range(10))
    return films.write(tmp_path / "clip.mp4", frames, rate=15, sound_s=2 / 3)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tiny_model: Path):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            cli.main([*map(str, arguments), "--model", str(tiny_model), "--min-face", "60"])
        printed = capsys.readouterr()
        return int(exit.value.code or 0), printed.out, printed.err

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi"])
def test_every_frame_at_its_time(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = films.write(tmp_path / f"v.{suffix}", numbered(20), rate=25, codec=codec)
    with Video(path) as video:
        frames = list(video.frames())
        assert [number_of(frame.image) for frame in frames] == list(range(20))
        assert [frame.number for frame in frames] == list(range(20))
        start = frames[0].time_s
        times = [frame.time_s - start for frame in frames]
        assert times == pytest.approx([number / 25 for number in range(20)], abs=0.001)  # Matroska counts whole ms
        assert video.problems == []


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 0.04, 0.5, 0.51, 0.9, 2.0, 2.03]
    path = films.write(tmp_path / "v.mp4", numbered(7), times=times)
    with Video(path) as video:
        assert [frame.time_s for frame in video.frames()] == pytest.approx(times, abs=1e-4)
    with Video(path) as video:
        assert [frame.number for frame in video.frames(Pace(fps=2))] == [0, 2, 5]
    with Video(path) as video:
        assert [frame.number for frame in video.frames(Pace(every=3))] == [0, 3, 6]


def test_joined_recordings_keep_their_clock(run, tmp_path: Path) -> None:
    """Two transport streams as `cat` joins them: the second's times, and its sound's, begin anew. Every frame is read at its own
    time, and the copy has all pictures and all sound."""
    path = films.write(tmp_path / "v.ts", numbered(20), rate=10, sound_s=2.0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(path.read_bytes() * 2)
    with Video(joined) as video:
        frames = list(video.frames())
        assert [number_of(frame.image) for frame in frames] == [*range(20), *range(20)] and video.problems == []
    times = np.array([frame.time_s for frame in frames])
    assert times - times[0] == pytest.approx(np.arange(40) / 10, abs=0.01)
    with Video(joined) as video:
        assert [frame.number for frame in video.frames(Pace(fps=2))] == list(range(0, 40, 5))
    status, _, errors = run("read", joined, "-o", tmp_path / "out")
    assert (status, errors) == (0, "")
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as copy:
        assert sum(1 for _ in copy.decode(video=0)) == 40
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as copy:
        assert sum(frame.samples for frame in copy.decode(audio=0)) / 44_100 == pytest.approx(4.0, abs=0.2)


def test_a_single_wrong_time_moves_no_other() -> None:
    clock = Clock()
    told = [0.0, 1.0, 2.0, 0.3, 4.0, 5.0]
    found, before = [], 0.0
    for time_s in told:
        before = max(before, clock.read(time_s, goes_on_at=before + 1.0))
        found.append(before)
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_no_frame_is_lost_where_the_sound_comes_first(tmp_path: Path) -> None:
    """Those, too, that the decoder holds back until the end."""
    plain, path = films.write(tmp_path / "v.mp4", numbered(10), sound_s=0.3), tmp_path / "turned.mp4"
    with av.open(str(plain)) as film, av.open(str(path), "w") as container:
        copies = {
            stream.index: container.add_stream_from_template(stream)
            for stream in (film.streams.audio[0], film.streams.video[0])
        }
        for packet in film.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    with Video(path) as video:
        assert [number_of(frame.image) for frame in video.frames()] == list(range(10)) and video.problems == []


def test_a_cover_is_not_the_film(tmp_path: Path) -> None:
    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=25)]
        for stream, size, format in zip(streams, ((64, 64), (128, 96)), ("yuvj420p", "yuv420p"), strict=True):
            stream.width, stream.height = size
            stream.pix_fmt = format
        for stream, count in zip(streams, (1, 5), strict=True):
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(np.zeros((stream.height, stream.width, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with Video(path) as video:
        assert [frame.image.shape for frame in video.frames()] == [(96, 128, 3)] * 5


def test_fps_does_not_drift(tmp_path: Path) -> None:
    path = films.write(tmp_path / "v.mp4", numbered(90), rate=30)
    with Video(path) as video:
        assert [frame.number for frame in video.frames(Pace(fps=7.5))] == list(range(0, 90, 4))
    with Video(path) as video:
        assert len(list(video.frames(Pace(fps=60)))) == 90


@pytest.mark.parametrize(
    ("every", "fps", "smoothing", "told"),
    [
        (0, None, 0, "every is 0: expected 1"),
        (2, 3.0, 0, "every is 2 and fps is 3.0: choose one"),
        (1, 0.0, 0, "fps is 0.0: expected a finite number of frames a second above 0"),
        (1, float("inf"), 0, "fps is inf"),
        (1, float("nan"), 0, "fps is nan"),
        (1, None, -1, "smoothing is -1 s: expected 0"),
        (1, None, float("inf"), "smoothing is inf s"),
        (1, None, float("nan"), "smoothing is nan s"),
    ],
)
def test_paces_that_mean_nothing(every: int, fps: float | None, smoothing: float, told: str) -> None:
    with pytest.raises(UsageError, match=f"^{told}"):
        Pace(every, fps, smoothing)


def with_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """A video whose header has a player show what is stored at x, y at a x + c y, b x + d y (ISO 14496-12, tkhd)."""
    films.write(path, numbered(2))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    entries = [round(a * 65536), round(b * 65536), 0, round(c * 65536), round(d * 65536), 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(entry.to_bytes(4, "big", signed=True) for entry in entries)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), np.s_[:20, :5]),
        ((0, 1, -1, 0), np.s_[:5, -20:]),  # turned by a right angle clockwise
        ((-1, 0, 0, -1), np.s_[-20:, -5:]),
        ((0, -1, 1, 0), np.s_[-5:, :20]),
        ((-1, 0, 0, 1), np.s_[:20, -5:]),  # mirrored
        ((1, 0, 0, -1), np.s_[-20:, :5]),
        ((0, 1, 1, 0), np.s_[:5, :20]),
        ((0, -1, -1, 0), np.s_[-5:, -20:]),
        ((0.5, 0, 0, 0.5), np.s_[:20, :5]),  # a scale is none of ours
        ((0.7071, 0.7071, -0.7071, 0.7071), np.s_[:20, :5]),  # nor is another angle
    ],
)
def test_the_display_matrix_makes_the_picture_upright(
    tmp_path: Path, matrix: tuple[float, float, float, float], corner: tuple[slice, slice]
) -> None:
    """The bright corner, 20 high and 5 wide at the stored picture's top left, lies where a player shows it."""
    with Video(with_matrix(tmp_path / "v.mp4", *matrix)) as video:
        image = next(video.frames()).image
    assert image.shape[:2] == (SIZE if matrix[0] == 0 else SIZE[::-1])
    assert image[corner].mean() > 150 and image.mean() < 80


def test_damage_in_the_middle_costs_only_what_is_damaged(tmp_path: Path) -> None:
    path = films.write(tmp_path / "v.mkv", numbered(120), rate=30)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    with Video(path) as video:
        times = [frame.time_s for frame in video.frames()]
    assert len(times) >= 60 and times[0] == 0 and times[-1] > 3.9
    assert all(a <= b for a, b in itertools.pairwise(times))
    assert len(video.problems) == 1 and "cannot be decoded properly, the first at" in video.problems[0]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_truncated_video_gives_all_there_is_and_says_where_it_ends(tmp_path: Path, suffix: str) -> None:
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = films.write(tmp_path / f"v.{suffix}", numbered(150), rate=30, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with Video(path) as video:
        frames = list(video.frames())
    assert 50 <= len(frames) <= 120
    assert [number_of(frame.image) for frame in frames[:40]] == [number % 30 for number in range(40)]
    assert any(f"it ends at {frames[-1].time_s:.2f} s of the 5.00 s" in problem for problem in video.problems)


def test_a_truncated_video_with_sound_is_reported_by_the_files_length(tmp_path: Path) -> None:
    """Matroska promises no length of the pictures, only one of the file."""
    whole = films.write(tmp_path / "whole.mp4", numbered(150), rate=30, sound_s=5)
    path = tmp_path / "v.mkv"
    with av.open(str(whole)) as film, av.open(str(path), "w") as container:
        copies = {stream.index: container.add_stream_from_template(stream) for stream in film.streams}
        packets = [packet for packet in film.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = copies[packet.stream_index]
            container.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with Video(path) as video:
        frames = list(video.frames())
    assert len(frames) < 130
    assert any(f"it ends at {frames[-1].time_s:.2f} s of the 5.0" in problem for problem in video.problems)


def test_sound_that_goes_on_after_the_pictures_is_no_damage(tmp_path: Path) -> None:
    for suffix in ("mkv", "mp4"):
        path = films.write(tmp_path / f"v.{suffix}", numbered(15), rate=25, sound_s=2.6)
        with Video(path) as video:
            assert len(list(video.frames())) == 15 and video.problems == []


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "ts", "flv"])
def test_a_video_that_starts_late_is_no_damage(tmp_path: Path, suffix: str) -> None:
    """As a part of a longer recording that keeps its times. What it promises is until when, not how long."""
    times, codec = [10 + number / 25 for number in range(20)], "libvpx" if suffix == "webm" else "libx264"
    path = films.write(tmp_path / f"v.{suffix}", numbered(20), times=times, rate=25, codec=codec)
    with Video(path) as video:
        assert video.duration_s == pytest.approx(10.8) and video.expected_frames == 20
        assert len(list(video.frames())) == 20 and video.problems == []


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_a_truncated_video_that_starts_late_is_damaged(tmp_path: Path, suffix: str) -> None:
    times = [10 + number / 30 for number in range(150)]
    path = films.write(tmp_path / f"v.{suffix}", numbered(150), times=times)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with Video(path) as video:
        frames = list(video.frames())
    assert any(f"it ends at {frames[-1].time_s:.2f} s of the 15.0" in problem for problem in video.problems)


def test_a_last_frame_that_is_held_is_no_damage(tmp_path: Path) -> None:
    path = films.write_held(tmp_path / "held.mp4", films.write(tmp_path / "v.mp4", numbered(15), rate=25), seconds=2)
    with Video(path) as video:
        assert len(list(video.frames())) == 15
        assert video.duration_s == pytest.approx(2.56) and video.problems == []


@pytest.mark.parametrize("aspect", [Fraction(16, 9), Fraction(1, 2), Fraction(1)])
def test_frames_are_as_wide_as_they_are_displayed(tmp_path: Path, aspect: Fraction) -> None:
    """Half of each stored picture is white: half of the displayed one is, too."""
    image = np.full((240, 240, 3), 40, np.uint8)
    image[:, :120] = 220
    path = films.write(tmp_path / "v.mp4", [image] * 2, aspect=aspect)
    width = round(240 * aspect)
    with Video(path, max_pixels=240 * width) as video:
        shown = next(video.frames()).image
    assert shown.shape == (240, width, 3)
    assert (shown[120, :, 0] > 128).sum() == pytest.approx(width / 2, abs=1)
    with pytest.raises(VideoError, match="megapixels a frame"):
        Video(path, max_pixels=240 * width - 1)


def test_boxes_and_the_copy_are_in_displayed_pixels(run, tmp_path: Path, portrait: Actor) -> None:
    """The portrait is squeezed to half its width, as some cameras store it, and shown as it was."""
    shown = films.screen([portrait], 0, SIZE)
    stored = np.asarray(Image.fromarray(shown).resize((SIZE[0] // 2, SIZE[1])))
    path = films.write(tmp_path / "v.mp4", [stored] * 3, rate=15, aspect=Fraction(2))
    assert run("read", path, "-o", tmp_path / "out")[0] == 0
    row = rows(tmp_path / "out" / "faces.csv")[0]
    x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
    assert films.overlap((x, y, x + width, y + height), portrait.face_at(0)) > 0.7
    with Video(tmp_path / "out" / "annotated.mp4") as copy:
        height, width = next(copy.frames()).image.shape[:2]
    assert width / height == SIZE[0] / SIZE[1]


@pytest.mark.slow
def test_no_mutant_hangs_or_escapes(tmp_path: Path) -> None:
    """Bytes changed at random: frames and problems, or a VideoError; never anything else."""
    original = films.write(tmp_path / "v.mp4", numbered(12)).read_bytes()
    random, opened = np.random.default_rng(0), 0
    for _ in range(60):
        data = bytearray(original)
        for place in random.integers(0, len(data), random.integers(1, 30)):
            data[place] = random.integers(0, 256)
        path = tmp_path / "mutant.mp4"
        path.write_bytes(data[: random.integers(len(data) // 2, len(data) + 1)])
        try:
            with Video(path) as video:
                times = [frame.time_s for frame in video.frames()]
            assert times == sorted(times)
            opened += 1
        except VideoError as error:
            assert str(path) in str(error)
    assert opened > 5


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "text.mp4").write_text("no video")
    for path, words in (
        (sound, "no pictures"),
        (tmp_path / "text.mp4", "cannot be opened"),
        (tmp_path / "absent.mp4", "no such file"),
        (tmp_path, "not a regular file"),
    ):
        with pytest.raises(VideoError, match=words):
            Video(path)
    with pytest.raises(VideoError, match="megapixels a frame"):
        Video(films.write(tmp_path / "v.mp4", numbered(2)), max_pixels=100)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UsageError, match=r"mien\[video\]"):
        Video(tmp_path / "v.mp4")


def test_read_video_is_a_generator_of_tracked_readings(clip: Path, tiny_model: Path) -> None:
    reader = mien.Reader(tiny_model, min_face=60)
    readings = mien.read_video(clip, reader=reader)
    first = next(readings)
    assert (first.source, first.frame, first.time_s, first.width, first.height) == (str(clip), 0, 0.0, *SIZE)
    rest = list(readings)
    assert [reading.frame for reading in rest] == list(range(1, 10))
    assert {face.track for reading in [first, *rest] for face in reading} == {1}
    assert [reading.frame for reading in mien.read_video(clip, reader=reader, every=4)] == [0, 4, 8]
    with pytest.raises(UsageError, match="choose one"):
        mien.read_video(clip, reader=reader, every=2, fps=3)


@pytest.mark.parametrize("source", [b"a video's bytes", io.BytesIO(), 0])
def test_read_video_takes_paths_only(source: Any) -> None:
    with pytest.raises(UsageError, match=f"from a path, not from {type(source).__name__}: write it to a file"):
        mien.read_video(source)


def test_read_video_keeps_the_readers_limit(clip: Path, tiny_model: Path) -> None:
    with pytest.raises(VideoError, match="megapixels a frame"):
        mien.read_video(clip, reader=mien.Reader(tiny_model, max_pixels=SIZE[0] * SIZE[1] - 1))


def test_read_video_warns_of_damage(clip: Path, tiny_model: Path) -> None:
    broken = films.write(clip.with_name("b.mkv"), numbered(90), rate=30)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(list(mien.read_video(broken, reader=mien.Reader(tiny_model, detector="whole")))) > 20
    assert any("it ends at" in str(one.message) for one in caught)


def test_read_writes_tables_timelines_and_the_copy(run, clip: Path, tmp_path: Path) -> None:
    status, printed, errors = run("read", clip, "-o", tmp_path / "out")
    assert (status, errors) == (0, "") and "10 frames" in printed
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["annotated.mp4", "faces.csv", "timeline-1.png", "tracks.csv"]
    table = rows(out / "faces.csv")
    assert tuple(table[0]) == tables.FRAME_COLUMNS
    assert [row["frame"] for row in table] == [str(number) for number in range(10)]
    assert [float(row["time_s"]) for row in table] == pytest.approx([number / 15 for number in range(10)], abs=1e-4)
    assert {row["track"] for row in table} == {"1"}
    for prefix in ("p_", "s_"):
        assert sum(float(table[5][prefix + name]) for name in mien.EXPRESSIONS) == pytest.approx(1, abs=1e-4)
    (track,) = rows(out / "tracks.csv")
    assert (track["track"], track["frames"], float(track["first_s"])) == ("1", "10", 0.0)
    assert float(track["last_s"]) == pytest.approx(0.6, abs=1e-4) and 0 < float(track["share"]) <= 1
    assert sum(float(track[f"mean_{name}"]) for name in mien.EXPRESSIONS) == pytest.approx(1, abs=1e-4)
    dominant = [row["smoothed_expression"] for row in table]
    assert track["expression"] == max(set(dominant), key=dominant.count)


def test_the_copy_keeps_times_and_sound_and_shows_boxes(run, clip: Path, tmp_path: Path) -> None:
    run("read", clip, "-o", tmp_path / "out")
    copy = tmp_path / "out" / "annotated.mp4"
    with av.open(str(copy)) as one, av.open(str(clip)) as other:
        assert one.streams.video[0].codec_context.name == "h264"
        sounds = [[bytes(packet) for packet in source.demux(audio=0) if packet.size] for source in (one, other)]
        assert sounds[0] == sounds[1] and len(sounds[0]) > 20
    with Video(copy) as one, Video(clip) as other:
        pairs = list(zip(one.frames(), other.frames(), strict=True))
    assert [a.time_s for a, _ in pairs] == pytest.approx([b.time_s for _, b in pairs], abs=1e-3)
    factor = pairs[0][0].image.shape[0] / SIZE[1]  # small pictures are enlarged
    row = rows(tmp_path / "out" / "faces.csv")[5]
    x, y, width, height = (factor * float(row[name]) for name in ("x", "y", "width", "height"))
    original = np.asarray(Image.fromarray(pairs[5][1].image).resize(pairs[5][0].image.shape[1::-1]), int)
    changed = np.abs(np.asarray(pairs[5][0].image, int) - original).sum(axis=2)
    edge = changed[round(y) - 2 : round(y) + 5, round(x + 0.3 * width) : round(x + 0.7 * width)]
    inside = changed[round(y + 0.4 * height) : round(y + 0.6 * height), round(x + 0.4 * width) : round(x + 0.6 * width)]
    assert edge.mean() > 3 * inside.mean()


@pytest.mark.parametrize("size", [(320, 240), (1280, 720)])
def test_the_copy_has_the_colours_of_the_source(size: tuple[int, int], tmp_path: Path) -> None:
    """Of HD, too, which players, and mien, take for another matrix where the file does not say."""
    brick = np.full((size[1], size[0], 3), (196, 105, 62), np.uint8)
    path = films.write(tmp_path / "brick.mp4", [brick] * 2)
    with Video(path) as source:
        copy = AnnotatedVideo(tmp_path, source)
        for number in range(2):
            copy.write(Image.fromarray(brick), number / 30)
        copy.close()
    with Video(copy.path) as copied:
        shown = next(copied.frames()).image
    assert shown[9, 9] == pytest.approx((196, 105, 62), abs=3)
    with av.open(str(copy.path)) as container:
        told = container.streams.video[0].codec_context
        assert (told.colorspace, told.color_range, told.color_primaries, told.color_trc) == (6, 1, 1, 1)


def test_sound_that_mp4_cannot_carry_goes_into_matroska(run, tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        pictures, sound = (
            container.add_stream("mpeg4", rate=15),
            container.add_stream("pcm_s16le", rate=8000, layout="mono"),
        )
        pictures.pix_fmt, pictures.width, pictures.height = "yuv420p", *SIZE
        for image in numbered(6):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 3200), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    status, _, errors = run("read", path, "-o", tmp_path / "out")
    assert (status, errors) == (0, "")
    with av.open(str(tmp_path / "out" / "annotated.mkv")) as copy:
        assert copy.streams.audio[0].codec_context.name == "pcm_s16le"


@pytest.mark.parametrize(("codec", "suffix"), [("libmp3lame", "flv"), ("ac3", "ts"), ("flac", "mkv")])
def test_sound_that_mp4_can_carry_stays_in_mp4(run, tmp_path: Path, codec: str, suffix: str) -> None:
    kind = "flv1" if suffix == "flv" else "mpeg2video"
    path = films.write(tmp_path / f"v.{suffix}", numbered(6), rate=25, sound_s=0.2, sound=codec, codec=kind)
    assert run("read", path, "-o", tmp_path / "out", "--every", 3)[0] == 0
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as copy:
        assert copy.streams.audio[0].codec_context.codec.canonical_name == codec.removeprefix("lib").removesuffix(
            "lame"
        )


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_alaw", "avi"), ("adpcm_ms", "avi"), ("pcm_s8", "mov")])
def test_sound_that_cannot_be_copied_is_left_out_and_named(
    run, clip: Path, tmp_path: Path, codec: str, suffix: str
) -> None:
    path = films.write(tmp_path / f"v.{suffix}", numbered(6), rate=15, sound_s=0.4, sound=codec)
    status, printed, errors = run("read", path, clip, "-o", tmp_path / "out")
    assert status == 1 and errors.startswith(f"mien: {path}: its sound ({codec}) cannot be copied")
    assert "10 frames" in printed  # of the next video
    with av.open(str(tmp_path / "out" / "v" / "annotated.mp4")) as copy:
        assert not copy.streams.audio and copy.streams.video[0].frames == 6


def test_damaged_sound_costs_no_picture(tmp_path: Path, tiny_model: Path) -> None:
    """Bytes of the second half, where the sound lies, are changed at random."""
    original = films.write(tmp_path / "v.ts", numbered(4), rate=5, sound_s=0.8).read_bytes()
    random, reader, problems = np.random.default_rng(1), mien.Reader(tiny_model, detector=Still()), []
    for _ in range(8):
        data = bytearray(original)
        for place in random.integers(len(data) // 2, len(data), 12):
            data[place] = random.integers(0, 256)
        path = tmp_path / "mutant.ts"
        path.write_bytes(data)
        clip = clips.read_clip(path, reader, out=tmp_path)
        with Video(tmp_path / "annotated.mp4") as copy:
            assert len(list(copy.frames())) == clip.frames > 0
        problems += clip.problems
    assert "its sound is damaged, and the annotated video lacks that part of it" in problems


@pytest.mark.parametrize("sound", ["aac", "pcm_s16le"])
def test_frames_of_the_same_time_are_all_in_the_copy(run, tmp_path: Path, sound: str) -> None:
    """As a webcam's stamps in whole ms have it. sound: with pcm_s16le the copy is Matroska, which counts in ms, too."""
    path = films.write_stamped(tmp_path / "v.mkv", numbered(6), [0, 40, 40, 80, 80, 120])
    heard = films.write(tmp_path / "sound.mkv", numbered(6), sound_s=0.2, sound=sound)
    both = tmp_path / "both.mkv"
    with av.open(str(path)) as film, av.open(str(heard)) as tone, av.open(str(both), "w") as container:
        sources = (film.streams.video[0], tone.streams.audio[0])
        copies = [container.add_stream_from_template(stream, opaque=True) for stream in sources]
        for stream, copied in zip(sources, copies, strict=True):
            for packet in stream.container.demux(stream):
                if packet.dts is not None:
                    packet.stream = copied
                    container.mux(packet)
    with Video(both) as video:
        assert [frame.time_s for frame in video.frames()] == [0, 0.04, 0.04, 0.08, 0.08, 0.12]
    status, _, errors = run("read", both, "-o", tmp_path / "out")
    assert (status, errors) == (0, "")
    with Video(next((tmp_path / "out").glob("annotated.*"))) as copy:
        times = [frame.time_s for frame in copy.frames()]
    assert times == pytest.approx([0, 0.04, 0.04, 0.08, 0.08, 0.12], abs=2e-3)


@pytest.mark.parametrize("format", tables.FORMATS)
def test_a_videos_table_is_not_replaced_by_that_of_a_picture(
    run, clip: Path, hopper: np.ndarray, tmp_path: Path, format: str
) -> None:
    out, picture = tmp_path / "out", tmp_path / "a.png"
    Image.fromarray(hopper).save(picture)
    assert run("read", clip, "-o", out, "--format", format)[0] == 0
    before = sorted(path.name for path in out.iterdir())
    status, _, errors = run("read", picture, "-o", out, "--format", format)
    assert status == 2 and f"{tables.place(format, out)} holds the frames of a video" in errors
    assert sorted(path.name for path in out.iterdir()) == before


@pytest.mark.parametrize("name", ["annotated.mp4", "annotated.mkv"])
@pytest.mark.parametrize("annotate", ["--annotate", "--no-annotate"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_video_is_not_replaced_by_what_is_read_of_it(
    run, clip: Path, tmp_path: Path, name: str, annotate: str, linked: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    source = clip.rename(out / name)
    before = source.read_bytes()
    if linked:
        (tmp_path / "link.mp4").symlink_to(source)
    status, _, errors = run("read", tmp_path / "link.mp4" if linked else source, "-o", out, "--every", 5, annotate)
    assert status == 2 and f"it is {name} in {out}" in errors and "choose another folder" in errors
    assert source.read_bytes() == before and [path.name for path in out.iterdir()] == [name]


def test_a_video_is_not_replaced_by_what_is_read_of_another(run, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / clip.stem).mkdir(parents=True)
    other = out / clip.stem / "annotated.mp4"
    other.write_bytes(clip.read_bytes())
    status, _, errors = run("read", clip, other, "-o", out, "--every", 5)
    assert status == 2 and f"{other} is there already" in errors
    assert other.read_bytes() == clip.read_bytes() and list(out.iterdir()) == [other.parent]


def test_a_folder_jobs_table_is_not_replaced(run, clip: Path, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(numbered(1)[0]).save(tmp_path / "pictures" / "a.png")
    out = tmp_path / "out"
    assert run("read", tmp_path / "pictures", "-o", out, "--workers", 1)[0] == 0
    before = (out / "faces.csv").read_bytes()
    with pytest.raises(UsageError, match=f"{out} holds the table of a folder job.* choose another"):
        clips.read_clip(clip, mien.Reader(tiny_model), out=out)
    assert (out / "faces.csv").read_bytes() == before and not (out / "annotated.mp4").exists()


@pytest.mark.parametrize("name", ["annotated.mp4", "timeline-1.png"])
def test_a_folder_where_a_file_goes_is_named(run, clip: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    status, _, errors = run("read", clip, "-o", tmp_path / "out")
    assert status == 2 and errors == (
        f"mien: {tmp_path / 'out' / name} is a folder, but a file of that name goes there; choose another for -o\n"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_what_an_earlier_video_left_is_removed(run, clip: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere.mp4"
    out.mkdir()
    elsewhere.write_text("not in the folder")
    (out / "annotated.mp4").symlink_to(elsewhere)
    own = {"annotated.mkv", "timeline-2.png", "timeline-10.png"}
    others = {"timeline-2-mine.png", "timeline-.png", "my-annotated.mkv", "notes.txt"}
    for name in own | others:
        (out / name).write_text("earlier")
    status, _, errors = run("read", clip, "-o", out)
    assert status == 2 and "is there already, and no table of mien's beside it" in errors
    (out / "faces.jsonl").write_text('{"source": "earlier.mp4", "frame": 0}\n')
    assert run("read", clip, "-o", out)[0] == 0
    now = {"annotated.mp4", "faces.csv", "timeline-1.png", "tracks.csv"}
    assert {path.name for path in out.iterdir()} == others | now
    assert elsewhere.read_text() == "not in the folder" and not (out / "annotated.mp4").is_symlink()


@pytest.mark.parametrize("format", tables.FORMATS)
def test_of_earlier_tables_only_a_videos_goes(run, clip: Path, tmp_path: Path, portrait: Actor, format: str) -> None:
    """A second video in another format removes the first one's table, but not one of pictures; in that one's place none comes."""
    other, third = (kind for kind in tables.FORMATS if kind != format)
    out = tmp_path / "out"
    Image.fromarray(films.screen([portrait], 0, SIZE)).save(tmp_path / "a.png")
    run("read", tmp_path / "a.png", "-o", out, "--format", format)
    assert run("read", clip, "-o", out, "--every", 5, "--no-annotate", "--format", other)[0] == 0
    assert tables.place(format, out).exists() and tables.place(other, out).exists()
    assert run("read", clip, "-o", out, "--every", 5, "--no-annotate", "--format", third)[0] == 0
    assert tables.place(format, out).exists() and not tables.place(other, out).exists()
    before = tables.sources(tables.place(format, out))
    status, _, errors = run("read", clip, "-o", out, "--every", 5, "--no-annotate", "--format", format)
    assert status == 2 and f"{tables.place(format, out)} holds pictures' rows" in errors
    assert tables.sources(tables.place(format, out)) == before == {str(tmp_path / "a.png")}
    assert tables.place(third, out).exists()


def test_a_video_takes_the_place_of_a_table_that_was_only_begun(run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "faces.parquet").mkdir(parents=True)
    (tmp_path / "out" / "faces.csv").touch()
    assert run("read", clip, "-o", tmp_path / "out", "--every", 5, "--format", "parquet")[0] == 0
    assert run("read", clip, "-o", tmp_path / "out", "--every", 5)[0] == 0


@pytest.mark.parametrize("name", ["faces.csv", "tracks.csv"])
def test_a_table_that_mien_did_not_write_is_not_replaced(run, clip: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("id,label\n")
    status, _, errors = run("read", clip, "-o", out)
    assert status == 2 and f"{out / name} is there already, and mien did not write it" in errors
    assert {path.name for path in out.iterdir()} == {name} and (out / name).read_text() == "id,label\n"


def test_what_was_read_before_an_interruption_is_in_the_tables(
    run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Follower.read

    def interrupted(self: Follower, image: np.ndarray, **options: Any) -> FrameReading:
        if options["frame"] == 6:
            raise KeyboardInterrupt
        return read(self, image, **options)

    monkeypatch.setattr(Follower, "read", interrupted)
    out = tmp_path / "out"
    status, _, errors = run("read", clip, "-o", out)
    assert status == 130 and errors == f"mien: stopped; the tables in {out} hold what was read until then\n"
    assert [row["frame"] for row in rows(out / "faces.csv")] == [str(number) for number in range(6)]
    (track,) = rows(out / "tracks.csv")
    assert track["frames"] == "6" and (out / "timeline-1.png").exists()
    with Video(out / "annotated.mp4") as copy:
        assert len(list(copy.frames())) == 6


def test_a_bad_video_or_option_removes_nothing(run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "timeline-2.png").write_text("earlier")
    tables.write_csv([], tmp_path / "tracks.csv", columns=tables.TRACK_COLUMNS)
    assert run("read", tmp_path / "bad.mp4", "-o", tmp_path)[0] == 1
    assert run("read", clip, "-o", tmp_path, "--format", "xlsx")[0] == 2
    assert (tmp_path / "timeline-2.png").exists()


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_unsure_faces_are_unsure_everywhere(run, clip: Path, tmp_path: Path, format: str) -> None:
    """The tiny model is never certain."""
    arguments = ["read", clip, "-o", tmp_path, "--no-annotate", "--format", format, "--abstain-below", 1]
    status, printed, _ = run(*arguments)
    assert status == 0 and "unsure" in printed
    path = tmp_path / f"faces.{format}"
    lines = path.read_text(encoding="utf-8").splitlines()
    table = rows(path) if format == "csv" else [json.loads(line) for line in lines]
    assert len(table) == 10
    for row in table:
        assert (row["expression"], row["smoothed_expression"]) == ("unsure", "unsure")
        assert float(row["smoothed_confidence"]) == max(float(row[f"s_{name}"]) for name in mien.EXPRESSIONS)
    (track,) = rows(tmp_path / "tracks.csv")
    assert (track["expression"], float(track["share"])) == ("unsure", 1.0)


def test_the_copy_shows_unsure_faces_as_such(clip: Path, tiny_model: Path) -> None:
    reading = next(mien.read_video(clip, reader=mien.Reader(tiny_model, min_face=60, abstain_below=1)))
    (drawn,), (face,) = clips.smoothed(reading).faces, reading.tracked
    assert (drawn.expression, drawn.confidence) == ("unsure", max(face.smoothed.values()))


def test_the_copy_shows_what_is_smoothed_and_the_table_both(
    clip: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, float]] = []

    def annotate(image: np.ndarray, reading: mien.Reading) -> Image.Image:
        drawn.extend(face.probabilities for face in reading)
        return Image.fromarray(image)

    monkeypatch.setattr(clips.draw, "annotate", annotate)
    clips.read_clip(clip, mien.Reader(tiny_model), out=tmp_path, pace=Pace(smoothing=0.5))
    table = rows(tmp_path / "faces.csv")
    assert len(drawn) == len(table) > 5
    for shown, row in zip(drawn, table, strict=True):
        assert shown == pytest.approx({name: float(row[f"s_{name}"]) for name in shown}, abs=1e-5)
    assert any(row["s_happy"] != row["p_happy"] for row in table)


def test_options_of_reading_a_video(run, clip: Path, tmp_path: Path) -> None:
    status, _, _ = run("read", clip, "-o", tmp_path / "a", "--every", 4, "--no-annotate", "--smoothing", 0)
    assert status == 0 and not (tmp_path / "a" / "annotated.mp4").exists()
    table = rows(tmp_path / "a" / "faces.csv")
    assert [row["frame"] for row in table] == ["0", "4", "8"]
    assert all(row["p_happy"] == row["s_happy"] for row in table)
    status, _, _ = run("read", clip, "-o", tmp_path / "b", "--fps", 5, "--format", "parquet", "--no-annotate")
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "b" / "faces.parquet")["frame"].to_pylist() == [0, 3, 6, 9]
    status, printed, _ = run("read", clip)
    assert status == 0 and "10 frames" in printed and "track" in printed


def test_several_videos_get_a_folder_each_and_a_bad_one_does_not_stop(run, clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    status, _, errors = run("read", bad, clip, "-o", tmp_path / "out", "--every", 5, "--no-annotate")
    assert status == 1 and errors.startswith(f"mien: {bad}: cannot be opened as a video")
    assert len(rows(tmp_path / "out" / "clip" / "faces.csv")) == 2


def test_wrong_usage_with_videos(run, clip: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["read", clip, tmp_path / "a.png"], "two commands"),
        (["read", clip, "--json"], "--format jsonl"),
        (["read", clip, "--every", 2, "--fps", 2], "choose one"),
        (["read", clip, "-o", tmp_path / "o", "--format", "xlsx"], "csv, jsonl, parquet"),
    ):
        status, _, errors = run(*arguments)
        assert status == 2 and words in errors


def test_a_frame_without_a_face_is_a_row(run, tmp_path: Path) -> None:
    path = films.write(tmp_path / "v.mp4", numbered(3))
    status, printed, _ = run("read", path, "-o", tmp_path / "out", "--no-annotate")
    assert status == 0 and "no face" in printed
    assert [row["status"] for row in rows(tmp_path / "out" / "faces.csv")] == ["no face"] * 3
    assert rows(tmp_path / "out" / "tracks.csv") == []


class Still:
    """Finds the same face in every frame, at no cost."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        return [Detection((10.0, 10.0, 100.0, 100.0), 1.0, None)]


@pytest.mark.parametrize(
    "annotated", [pytest.param(False, marks=pytest.mark.slow), pytest.param(True, marks=pytest.mark.soak)]
)
def test_memory_does_not_grow_with_the_video(tmp_path: Path, tiny_model: Path, annotated: bool) -> None:
    """The peak of 1,500 frames is no more than a few MB above what 150 frames took."""
    path = films.write(tmp_path / "v.mp4", itertools.chain.from_iterable(numbered(30) for _ in range(50)), rate=30)
    reader = mien.Reader(tiny_model, detector=Still())
    process, taken = psutil.Process(os.getpid()), {}

    def watch(done: int, total: int | None) -> None:
        taken[done] = process.memory_info().rss

    (tmp_path / "out").mkdir()
    clip = clips.read_clip(path, reader, out=tmp_path / "out", annotated=annotated, progress=watch)
    assert clip.frames == 1500
    assert max(taken.values()) - taken[150] < 20e6


@pytest.mark.slow
def test_bundled_model_on_a_smile_in_a_video(run, shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person = films.cast(images.load(shared("photos/obama.jpg")), face_height=120)
    actor = Actor(*person, lambda t: (60 + 20 * t, 30, 1.0))
    path = films.write(tmp_path / "v.mp4", (films.screen([actor], number / 15, SIZE) for number in range(15)), rate=15)
    with pytest.raises(SystemExit) as exit:
        cli.main(["read", str(path), "-o", str(tmp_path / "out")])
    assert not exit.value.code
    (track,) = rows(tmp_path / "out" / "tracks.csv")
    assert track["expression"] == "happy" and float(track["share"]) > 0.9


def test_colons_are_no_protocols(run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path whose name begins as a URL does."""
    monkeypatch.chdir(tmp_path)
    clip.rename("12:30.mp4")
    assert run("read", "12:30.mp4", "-o", "a:b")[0] == 0
    assert {"faces.csv", "annotated.mp4"} <= {path.name for path in Path("a:b").iterdir()}
    with Video("a:b/annotated.mp4") as copy:
        assert len(list(copy.frames())) == 10


def test_frames_that_outgrow_the_limit_end_the_video(tmp_path: Path) -> None:
    small = films.write(tmp_path / "a.ts", numbered(240))  # longer than what is looked at for the header
    large = films.write(tmp_path / "b.ts", [np.kron(image, np.ones((2, 2, 1), np.uint8)) for image in numbered(6)])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with Video(joined, max_pixels=SIZE[0] * SIZE[1]) as video:
        assert {frame.image.shape[:2] for frame in video.frames()} == {SIZE[::-1]}
    (problem,) = video.problems
    assert "s on it has 0.3 megapixels a frame, the limit is 0.1; reduce the video or raise the limit" in problem
    with Video(joined) as video:
        assert len({frame.image.shape for frame in video.frames()}) == 2


def test_a_full_disk_names_the_copy_as_a_path(tmp_path: Path) -> None:
    (tmp_path / "annotated.mp4").symlink_to("/dev/full")
    with (
        Video(films.write(tmp_path / "v.mp4", numbered(2))) as source,
        pytest.raises(OSError, match="No space left") as told,
    ):
        copy = AnnotatedVideo(tmp_path, source)
        copy.write(Image.fromarray(numbered(1)[0]), 0.0)
        copy.close()
    assert told.value.filename == str(tmp_path / "annotated.mp4")


def test_every_picture_of_the_copy_is_whole(tmp_path: Path) -> None:
    """Of whatever size behind the first one: the left half of each is white."""
    with Video(films.write(tmp_path / "v.mp4", numbered(1))) as source:
        copy = AnnotatedVideo(tmp_path, source)
        for number, (width, height) in enumerate([(201, 101), (201, 101), (402, 202), (100, 100), (402, 60)]):
            image = np.zeros((height, width, 3), np.uint8)
            image[:, : width // 2] = 255
            copy.write(Image.fromarray(image), number / 30)
        copy.close()
    with Video(copy.path) as copied:
        shown = [frame.image for frame in copied.frames()]
    assert [image.shape for image in shown] == [(100, 200, 3)] * 5
    for image in shown:
        assert image[:, :95].min() > 200 and image[:, 105:].max() < 55


@pytest.mark.parametrize(("size", "written"), [((17_000, 64), (16_384, 60)), ((1, 17_000), (2, 16_384))])
def test_pictures_too_long_for_the_copy_are_reduced(
    tmp_path: Path, size: tuple[int, int], written: tuple[int, int]
) -> None:
    with Video(films.write(tmp_path / "v.mp4", numbered(1))) as source:
        copy = AnnotatedVideo(tmp_path, source)
        copy.write(Image.new("RGB", size), 0.0)
        copy.close()
    with Video(copy.path) as copied:
        assert next(copied.frames()).image.shape == (written[1], written[0], 3)


def test_the_copy_carries_no_place_and_no_title(run, clip: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.mov"
    with (
        av.open(str(clip)) as film,
        av.open(str(told), "w", container_options={"movflags": "use_metadata_tags"}) as copy,
    ):
        copy.metadata.update({"location": "+48.1+011.5/", "com.apple.quicktime.location.ISO6709": "+48.1+011.5/"})
        streams = [copy.add_stream_from_template(stream) for stream in film.streams]
        for stream in streams:
            stream.metadata["handler_name"] = "a secret"
        for packet in film.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                copy.mux(packet)
    assert b"+48.1" in told.read_bytes() and b"secret" in told.read_bytes()
    assert run("read", told, "-o", tmp_path / "out", "--every", 5)[0] == 0
    written = (tmp_path / "out" / "annotated.mp4").read_bytes()
    assert b"+48.1" not in written and b"secret" not in written


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])  # turned by 0, 180, 90 and 270 degrees (EXIF 2.3, tag 274)
def test_frames_that_carry_exif_are_read_upright(tmp_path: Path, orientation: int) -> None:
    """As a camera's Motion JPEG does; a JPEG is one frame of it."""
    path, exif = tmp_path / "frame.jpg", Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera's maker"
    Image.fromarray(numbered(1)[0]).save(path, exif=exif)
    with Video(path) as video:
        (frame,) = video.frames()
    assert np.abs(frame.image.astype(int) - images.load(path)).mean() < 2
