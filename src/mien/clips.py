"""One video read into a folder: a table of its frames, one of its tracks, a timeline of each, and the annotated video.

Everything is written as it comes. What grows with the video's length is the files, and a few numbers for each track.
Boxes and the annotated video are in displayed pixels, see `mien.video`.
"""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mien import draw, jobs, tables, timeline, writing
from mien.errors import UsageError
from mien.images import TIMELINE
from mien.pace import ALL_FRAMES, Pace
from mien.reader import UNSURE, Reader
from mien.tracking import Follower, FrameReading, TrackedFace
from mien.video import AnnotatedVideo, Frame, Video

SHORTEST_TIMELINE = 2  # frames
WRITTEN = ("annotated.mp4", "annotated.mkv", "tracks.csv")  # besides the table of the frames and the timelines


@dataclass(frozen=True)
class Clip:
    """How a video was read. frames: that were read; tracks: a row of tracks.csv each; problems: where it is damaged, and
    what of it the annotated video lacks."""

    frames: int
    tracks: tuple[tables.Row, ...]
    problems: tuple[str, ...]


class TrackSummary:
    """One track, added up as it goes."""

    def __init__(self, track: int, reading: FrameReading, names: tuple[str, ...]) -> None:
        self.track = track
        self._first_s = self._last_s = reading.time_s
        self.frames = 0
        self._sums = dict.fromkeys(names, 0.0)
        self._dominated = dict.fromkeys((*names, UNSURE), 0)
        self.strip = timeline.Strip(names, reading.time_s)

    def add(self, reading: FrameReading, face: TrackedFace) -> None:
        """One frame of the track."""
        self._last_s = reading.time_s
        self.frames += 1
        self._dominated[face.smoothed_expression] += 1
        for name, value in face.probabilities.items():
            self._sums[name] += value
        self.strip.add(reading.time_s, face.smoothed)

    def row(self, source: str) -> tables.Row:
        """Under `tables.TRACK_COLUMNS`. expression: the commonest answer, perhaps "unsure"; share: of the frames
        with that answer."""
        dominant = max(self._dominated, key=self._dominated.__getitem__)
        row: tables.Row = {
            "source": source,
            "track": self.track,
            "first_s": round(self._first_s, 6),
            "last_s": round(self._last_s, 6),
            "frames": self.frames,
            "expression": dominant,
            "share": round(self._dominated[dominant] / self.frames, 4),
            **{f"mean_{name}": round(value / self.frames, 6) for name, value in self._sums.items()},
        }
        return {column: row.get(column) for column in tables.TRACK_COLUMNS}


class Summaries:
    """The tracks that are going on, and the rows of those that have ended."""

    def __init__(self, names: tuple[str, ...], out: Path | None) -> None:
        self._names, self._out = names, out
        self._going: dict[int, TrackSummary] = {}
        self._rows: list[tables.Row] = []

    def add(self, reading: FrameReading) -> None:
        """Add one frame's faces to their tracks."""
        for face in reading.tracked:
            if face.track not in self._going:
                self._going[face.track] = TrackSummary(face.track, reading, self._names)
            self._going[face.track].add(reading, face)
        for track in self._going.keys() - {face.track for face in reading.tracked}:
            self._going[track].strip.absent(reading.time_s)

    def end(self, tracks: list[int], source: str) -> None:
        """Finish these tracks: keep the row and draw the timeline."""
        for track in tracks:
            summary = self._going.pop(track)
            row = summary.row(source)
            self._rows.append(row)
            if self._out and summary.frames >= SHORTEST_TIMELINE:
                path = self._out / f"timeline-{track}.png"
                timeline.save(summary.strip, path, title=f"track {track}: {row['expression']} {row['share']:.0%}")

    def finish(self, source: str) -> tuple[tables.Row, ...]:
        """End what is left; all rows by track."""
        self.end(list(self._going), source)
        return tuple(sorted(self._rows, key=lambda row: int(row["track"] or 0)))


def read_clip(
    path: Path,
    reader: Reader,
    *,
    out: Path | None = None,
    pace: Pace = ALL_FRAMES,
    annotated: bool = True,
    format: str = "csv",
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Clip:
    """Read a video; with the folder `out`, write faces.csv (or .jsonl, .parquet), tracks.csv, timeline-N.png and
    annotated.mp4 (left out without `annotated`) there.

    What an earlier video left in `out` under these names is removed first. Only the frames that `pace` picks are in the
    annotated video. progress: called with the number of the frame and how many the header promises. Whatever ends it, Ctrl-C,
    too, tables and timelines say what was read until then.

    Raises VideoError for what cannot be read as a video (a picture is one of one frame), and UsageError where the video itself,
    a folder, a folder job or what mien did not write is in the way in `out` (see `check_place`).
    """
    follower = Follower(reader, smoothing=pace.smoothing)
    summaries = Summaries(reader.classifier.card.head().labels, out)
    count = 0
    with ExitStack() as stack:
        if out:
            stack.enter_context(writing.held(out))
            check_place(path, out, format=format)
        video = stack.enter_context(Video(path, max_pixels=reader.max_pixels))
        frames = video.frames(pace)
        outputs, lacks = _outputs(stack, video, out, format=format, annotated=annotated) if out else ([], [])
        try:
            for frame in frames:
                reading = follower.read(frame.image, frame=frame.number, time_s=frame.time_s, source=str(path))
                count += 1
                summaries.add(reading)
                summaries.end(follower.ended, str(path))
                for output in outputs:
                    output(frame, reading)
                progress(frame.number + 1, video.expected_frames)
        finally:
            tracks = summaries.finish(str(path))
            if out:
                tables.write_csv(tracks, out / "tracks.csv", columns=tables.TRACK_COLUMNS)
    return Clip(count, tracks, (*video.problems, *lacks))


def check_place(path: Path, out: Path, *, format: str) -> None:
    """Raises UsageError where writing into `out` would destroy the video at `path`, a table of pictures or one that mien did not
    write, or where a folder has the name of a file that goes there. Whatever else `_earlier` names is mien's own to
    replace where a table of mien's lies beside it."""
    jobs.refuse_a_jobs_folder(out)
    tracks = out / "tracks.csv"
    for table in (tables.place(format, out), tracks):
        tables.refuse_foreign(table)
    table = tables.place(format, out)
    if table.exists() and not tables.holds_frames(table) and tables.sources(table):
        raise UsageError(f"{table} holds pictures' rows: choose another folder for -o")
    ours = tracks.exists() or any(tables.own(out))
    for file in _earlier(out):
        if file.is_dir():
            raise UsageError(f"{file} is a folder, but a file of that name goes there; choose another for -o")
        if file.exists() and path.exists() and file.samefile(path):
            raise UsageError(f"{path} would be replaced: it is {file.name} in {out}; choose another folder for -o")
        if not ours:
            raise UsageError(f"{file} is there already, and no table of mien's beside it: choose another folder for -o")


def _earlier(out: Path) -> list[Path]:
    """What lies in `out` under a name that a video's files have, tables of faces aside."""
    named = [*(out / name for name in WRITTEN), *out.glob("timeline-*.png")]
    return [
        file for file in named if os.path.lexists(file) and (file.name in WRITTEN or re.fullmatch(TIMELINE, file.name))
    ]


def _outputs(
    stack: ExitStack, video: Video, out: Path, *, format: str, annotated: bool
) -> tuple[list[Callable[[Frame, FrameReading], None]], list[str]]:
    """What to call with each frame and its reading: the table's sink, and the annotated video; and what that lacks of
    the video. The stack closes them."""
    for file in (*_earlier(out), *filter(tables.holds_frames, tables.own(out))):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    sink = tables.open_sink(format, out, columns=tables.FRAME_COLUMNS)
    stack.callback(sink.close)
    stack.callback(sink.commit)

    def write_rows(frame: Frame, reading: FrameReading) -> None:
        sink.add(reading.rows())
        if sink.full:
            sink.commit()

    if not annotated:
        return [write_rows], []
    copy = AnnotatedVideo(out, video)
    stack.callback(copy.close)

    def draw_faces(frame: Frame, reading: FrameReading) -> None:
        copy.write(draw.annotate(frame.image, smoothed(reading)), frame.time_s)

    return [write_rows, draw_faces], copy.problems


def smoothed(reading: FrameReading) -> FrameReading:
    """The same reading with the smoothed probabilities in the place of the frame's own, for drawing."""
    faces = [
        replace(
            face,
            expression=face.smoothed_expression,
            confidence=face.smoothed_confidence,
            probabilities=face.smoothed,
        )
        for face in reading.tracked
    ]
    return replace(reading, faces=tuple(faces))
