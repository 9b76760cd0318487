"""What `mien read` prints of folder jobs and videos, and `mien watch`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mien import jobs, writing
from mien.errors import VideoError
from mien.pace import Pace
from mien.terminal import complain, printable, show_table
from mien.worker import Settings

if TYPE_CHECKING:
    from mien.clips import Clip
    from mien.reader import Reader
    from mien.tables import Row


def read_folder(
    pictures: Sequence[Path | str],
    out: Path | str,
    *,
    settings: Settings,
    format: str,
    workers: int | None,
    engine: jobs.Engine | None = None,
    retry_failed: bool = False,
) -> bool:
    """Run a job with a progress bar; whether all could be read."""
    with progress_bar() as progress:
        summary = jobs.run(
            pictures,
            out,
            settings=settings,
            format=format,
            workers=workers,
            progress=progress,
            engine=engine,
            retry_failed=retry_failed,
        )
    print(f"{summary.read} read, {summary.no_face} without a face, {summary.failed} failed; {summary.faces} faces")
    print(f"wrote {printable(str(summary.out))}")
    if settings.copies:
        if Path(settings.copies).is_dir():
            print(f"annotated copies in {printable(settings.copies)}")
        elif summary.faces or summary.no_face:
            complain(f"the copies in {settings.copies} are gone; to have them written again, choose another -o")
    if summary.failed_before:
        complain(
            f"files that failed in an earlier run and were not tried again: {summary.failed_before}; to read them, "
            + ("choose another -o" if isinstance(summary.out, str) else "add --retry-failed")
        )
    if summary.changed:
        complain(
            f"files that have changed since they were read: {summary.changed}; to read them anew, choose another -o"
        )
    if summary.gone:
        complain(
            f"files that failed in an earlier run and are not among today's: {summary.gone}; the table still says why"
        )
    return summary.failed == summary.gone


@contextmanager
def progress_bar(unit: str = "files") -> Iterator[Callable[[int, int | None], None]]:
    """Gives what to call with the number done and their total (None while unknown): a bar with the rate and the time
    left on standard error where that is a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    rate = TextColumn("{task.fields[rate]}")
    with Progress(
        BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None, rate="")

        def show(done: int, total: int | None) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f} {unit}/s" if speed else "")

        yield show


def read_videos(
    paths: Sequence[Path], reader: "Reader", *, out: Path | None, pace: Pace, annotated: bool, format: str
) -> bool:
    """Read videos one after the other, each into its own folder where there are several; whether all are undamaged."""
    folders = _folders(paths, out, format=format)
    good = True
    for path, folder in zip(paths, folders, strict=True):
        try:
            clip = _read_video(path, reader, out=folder, pace=pace, annotated=annotated, format=format)
        except VideoError as error:
            complain(str(error))
            good = False
            continue
        _show_clip(path, clip)
        for problem in clip.problems:
            complain(f"{path}: {problem}")
        good &= not clip.problems
        if folder:
            print(f"wrote {printable(str(folder))}")
    return good


def watch(camera: str, reader: "Reader", *, smoothing: float) -> bool:
    """Show a camera's faces until it ends; whether it was whole."""
    from mien import watch

    with watch.open_camera(camera) as source:
        frames = watch.show(source, reader, smoothing=smoothing)
    print(f"{frames} frames read")
    for problem in source.problems:
        complain(f"{camera}: {problem}")
    return not source.problems


def _folders(paths: Sequence[Path], out: Path | None, *, format: str) -> list[Path | None]:
    """Where each video's files go: into `out` itself, or into a folder in it named like the video. Names are compared
    without case, as some file systems do."""
    if out is None:
        return [None] * len(paths)
    from mien.clips import check_place

    folders = [out] if len(paths) == 1 else [out / name for name in _names(paths)]
    for folder in folders:
        for path in paths:  # none may be replaced by what is read of another
            check_place(path, folder, format=format)
    return [writing.folder(folder) for folder in folders]


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each video, no two alike."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name = stem = path.stem.strip(".") or "video"  # "..", of ...mp4, is another folder
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def _read_video(path: Path, reader: "Reader", *, out: Path | None, pace: Pace, annotated: bool, format: str) -> "Clip":
    from mien.clips import read_clip

    with progress_bar("frames") as progress:
        return read_clip(
            path,
            reader,
            out=out,
            pace=pace,
            annotated=annotated,
            format=format,
            progress=progress,
        )


def _show_clip(path: Path, clip: "Clip") -> None:
    title = f"{printable(str(path))}  {clip.frames} frames"
    if not clip.tracks:
        print(f"{title}  no face")  # plain: rich would break a long path
        return
    names = ("track", "from", "to", "frames", "expression", "of the frames")
    show_table(title, names, map(_cells, clip.tracks))


def _cells(row: "Row") -> tuple[str, ...]:
    """Of one track, as text."""
    times = (f"{row[name]:.2f} s" for name in ("first_s", "last_s"))
    return (str(row["track"]), *times, str(row["frames"]), str(row["expression"]), f"{row['share']:.0%}")
