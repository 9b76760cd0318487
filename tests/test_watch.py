"""Watching, with a video in the camera's place."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import films
import mien
from films import Actor
from mien import cli, job_cli, watch
from mien.draw import COLOURS
from mien.errors import VideoError
from mien.tracking import FrameReading, TrackedFace
from mien.video import Video


@pytest.fixture
def clip(tmp_path: Path, hopper: np.ndarray) -> Path:
    """One second: nobody, then a portrait."""
    actor = Actor(*films.cast(hopper, face_height=110), lambda t: (60, 30, 1.0) if t >= 0.5 else None)
    frames = (films.screen([actor], number / 10, (320, 240)) for number in range(10))
    return films.write(tmp_path / "clip.mp4", frames, rate=10)


@pytest.fixture
def reader(tiny_model: Path) -> mien.Reader:
    return mien.Reader(tiny_model, min_face=60)


def test_every_frame_is_read_and_paced(clip: Path, reader: mien.Reader) -> None:
    ticks = iter(number / 20 for number in range(100))
    with Video(clip) as source:
        seen = list(watch.watch(source, reader, clock=lambda: next(ticks)))
    assert [len(reading) for reading, _ in seen] == [0] * 5 + [1] * 5  # at 10 frames/s it is searched for in each
    assert [pace for _, pace in seen] == pytest.approx([20] * 10)


def test_the_panel_shows_bars_for_each_face(clip: Path, reader: mien.Reader) -> None:
    with Video(clip) as source:
        *_, (reading, _) = watch.watch(source, reader)
    output = io.StringIO()
    Console(file=output, width=80).print(watch.panel(reading, 29.6))
    text = output.getvalue()
    assert "320 x 240 px  30 frames/s" in text and "face 1" in text
    (face,) = reading.tracked
    for name, value in face.smoothed.items():
        (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
        assert line.count("█") == round(value * watch.BAR) and line.rstrip().endswith(f"{value:.0%}")


def test_the_bars_have_the_colours_of_pictures_and_page(clip: Path, reader: mien.Reader) -> None:
    with Video(clip) as source:
        *_, (reading, _) = watch.watch(source, reader)
    output = io.StringIO()
    Console(file=output, width=80, force_terminal=True, color_system="truecolor").print(watch.panel(reading, 30))
    (face,) = reading.tracked
    name = max(face.smoothed, key=lambda one: face.smoothed[one])
    (line,) = [line for line in output.getvalue().splitlines() if f" {name} " in line]
    assert re.search(r"38;2;(\d+);(\d+);(\d+)m█", line).groups() == tuple(map(str, COLOURS[name]))


def test_the_panel_says_when_nobody_is_there(clip: Path, reader: mien.Reader) -> None:
    with Video(clip) as source:
        reading, pace = next(watch.watch(source, reader))
    output = io.StringIO()
    Console(file=output, width=80).print(watch.panel(reading, pace))
    assert "no face" in output.getvalue() and watch.line(reading) == "no face"


def test_from_the_command_line(clip: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["watch", "--camera", str(clip), "--model", str(tiny_model), "--min-face", "60"])
    assert not exit.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0.00 s: no face" and lines[1].startswith("0.50 s: face 1 ") and lines[-1] == "10 frames read"


def test_faces_that_change_places_in_size_are_no_change_of_expression() -> None:
    answer = {"happy": 1.0, "sad": 0.0}
    near, far = (TrackedFace((0.0, 0.0, 9.0, 9.0), None, 1.0, "happy", 1.0, answer, track, answer) for track in (2, 1))
    lines = {watch.line(FrameReading("film", 9, 9, faces, 0, 0.0)) for faces in ((near, far), (far, near))}
    assert lines == {"face 1 happy, face 2 happy"}


def test_a_source_that_breaks_off_is_named(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = films.write(
        tmp_path / "cut.mkv", (films.screen([], number / 30, (320, 240)) for number in range(90)), rate=30
    )
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(SystemExit) as exit:
        cli.main(["watch", "--camera", str(cut), "--model", str(tiny_model), "--detector", "whole"])
    assert exit.value.code == 1
    assert f"mien: {cut}: it ends at" in capsys.readouterr().err


def test_the_options_reach_the_reader(clip: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[mien.Reader] = []
    monkeypatch.setattr(job_cli, "watch", lambda camera, reader, *, smoothing: seen.append(reader))
    options = ["--camera", str(clip), "--model", str(tiny_model)]
    for name, kind, size in (("mtcnn", "Mtcnn", ["--min-face", "77"]), ("whole", "Whole", [])):
        with pytest.raises(SystemExit):
            cli.main(["watch", *options, "--detector", name, *size])
        assert kind.lower() in type(seen[-1].detector).__name__.lower()
    assert seen[0].detector.min_face == 77 and seen[0].classifier.path == tiny_model
    with pytest.raises(SystemExit) as ended:
        cli.main(["watch", *options, "--detector", "whole", "--min-face", "77"])
    assert ended.value.code == 2 and len(seen) == 2


def test_ctrl_c_stops_cleanly(clip: Path, reader: mien.Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(reading: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "line", interrupt)
    with Video(clip) as source:
        assert watch.show(source, reader) == 1


def test_cameras_have_a_name_on_each_platform() -> None:
    assert watch.device(2, "linux") == ("v4l2", "/dev/video2")
    assert watch.device(0, "darwin") == ("avfoundation", "0")
    assert watch.device(0, "win32") == ("vfwcap", "0")


def test_an_absent_camera_says_what_to_check() -> None:
    with pytest.raises(VideoError, match=r"camera 77: .*plugged in"):
        watch.open_camera("77")


@pytest.mark.parametrize("camera", ["", "-1", "1.5", "http://x/y", "absent.mp4", "a\0b"])
def test_what_is_no_camera_says_what_is_expected(camera: str) -> None:
    said = f"camera {camera!r}: no such file; expected a camera's number, from 0 on, or a video file"
    with pytest.raises(VideoError, match=re.escape(said)):
        watch.open_camera(camera)
