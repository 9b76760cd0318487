"""The command line: it prints what other modules computed.

Exit status: 0 all read, 1 some failed, 2 wrong usage.
"""

import contextlib
import errno
import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mien
from mien import images, storage, terminal, writing
from mien.errors import DetectorError, ImageError, MienError, ModelError, UsageError
from mien.faces.detect import MIN_FACE, NAMES, NO_SEARCH
from mien.options import Detector, MinFace, Model, pixels_of
from mien.pace import SMOOTHING_S, Pace
from mien.terminal import complain, printable
from mien.worker import Settings

if TYPE_CHECKING:
    from mien.reader import Face, Reader, Reading

ENGINES = ("local", "ray")  # of a folder job
WATCHED_FACE = 80  # px: who sits before a camera is near
_EPILOG = "An expression is what a face shows, not what a person feels."


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on `arguments` (default: the process's) and exit."""
    terminal.spell_out_what_cannot_be_encoded()
    terminal.tame_pillow()
    try:
        application()(arguments, prog_name="mien")
    except MienError as error:
        complain(str(error))
        sys.exit(2 if isinstance(error, UsageError | ModelError | DetectorError) else 1)
    except OSError as error:
        reason = error.strerror or str(error)
        told = reason if error.filename is None else f"{error.filename}: {reason}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        complain(f"{told}: free some space or choose another place, and run the same command again" if full else told)
        sys.exit(1)
    except UnicodeEncodeError as error:
        # Of a name from the file system, which a library takes for text.
        if error.reason != "surrogates not allowed":
            raise
        complain(f"{error.object}: this name is not valid UTF-8, as is needed here; rename it, or choose another place")
        sys.exit(1)


def application() -> typer.Typer:
    """The whole application: reading here, the lab's commands from `mien.lab.cli`."""
    from mien.lab.cli import register
    from mien.web.serve_cli import serve

    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, epilog=_EPILOG, add_completion=False)
    app.callback()(_root)
    app.command("read")(read)
    app.command("watch")(watch)
    app.command("demo")(demo)
    app.command("serve")(serve)
    register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mien {mien.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    own: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="FILE.py|MODULE",
            help="Run this first: it may add networks and losses of your own.",
        ),
    ] = None,
) -> None:
    """Read facial expressions from pictures, with probabilities you can check."""
    for name in own or ():
        _run_first(name)


def _run_first(name: str) -> None:
    """Import a module by its name or its file. Raises UsageError where there is none; its own errors are its author's to see."""
    if not name.endswith(".py"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise UsageError(
                f"--import {name}: no such module; name one that Python finds, or a file, as own.py"
            ) from None
        return
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"--import {name}: no such file")
    spec = importlib.util.spec_from_file_location(f"imported_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)


def read(
    context: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Pictures, folders, lists of paths (.txt, .csv), or videos.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON array, a row for each face.")] = False,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write faces.csv and annotated copies into this folder."),
    ] = None,
    detector: Detector = NAMES[0],
    model: Model = None,
    min_face: MinFace = MIN_FACE,
    threads: Annotated[
        int,
        typer.Option(
            min=1, help="Threads for each network; a folder's or list's job has one in each of its --workers."
        ),
    ] = 1,
    abstain_below: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="P", help="Call a face unsure when its likeliest expression is less probable."
        ),
    ] = 0.0,
    max_pixels: Annotated[
        float, typer.Option(min=0, metavar="MEGAPIXELS", help="Larger pictures are refused.")
    ] = images.MAX_PIXELS / 1e6,
    format: Annotated[str, typer.Option(metavar="csv|jsonl|parquet", help="Of the table that -o writes.")] = "csv",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Reading processes for a folder or list; default: one for each core.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Of a folder or list, read the files again that failed before.")
    ] = False,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Of a folder or list: processes of this machine, or a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Of the Ray cluster's head; default: RAY_ADDRESS, else a Ray of this machine's cores.",
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of a video, read every N-th frame.")] = 1,
    fps: Annotated[float | None, typer.Option(metavar="F", help="Of a video, read F frames a second.")] = None,
    smoothing: Annotated[
        float, typer.Option(min=0, metavar="S", help="Time constant of a video's smoothing, in seconds; 0 is none.")
    ] = SMOOTHING_S,
    annotate: Annotated[
        bool | None,
        typer.Option(
            "--annotate/--no-annotate",
            help="With -o, write annotated copies, too; of a folder or list only when asked to.",
        ),
    ] = None,
) -> None:
    """Find the faces in pictures or videos and read their expressions.

    A folder or list with -o is a job: it is read in parallel, and after an
    interruption the same command goes on; copies go into DIR/annotated. With
    --engine ray the paths and DIR may be URLs (s3://, gs://, hdfs:// ...) that
    fsspec has a driver for.

    A video gives tables of its frames and its tracks, a timeline of each track
    of two frames or more and an annotated copy with its sound.
    """
    from mien import tables
    from mien.reader import Reader

    tables.check_format(format)
    _refuse_unused(context, paths, out=out)
    pixels = pixels_of(max_pixels)
    folder = _place(out, engine=engine, address=address)
    if folder:
        _refuse_an_input(tables.place(format, folder), paths)
    many = any(map(images.stands_for_many, paths))
    copies = str(folder / images.COPIES) if folder and many and annotate else None
    settings = Settings(None if model is None else str(model), detector, min_face, abstain_below, pixels, copies)
    if engine == "ray":
        good = _read_on_ray(
            paths,
            out,
            settings=settings,
            format=format,
            workers=workers,
            address=address,
            json=json,
            again=retry_failed,
        )
        if not good:
            raise typer.Exit(1)
        return
    if retry_failed and not (folder and many):
        raise UsageError("--retry-failed is for the job of a folder or list: name that, and the job's folder with -o")
    if any(map(images.is_video, paths)):
        reader = Reader(
            model, detector=detector, min_face=min_face, threads=threads, abstain_below=abstain_below, max_pixels=pixels
        )
        pace = Pace(every, fps, smoothing)
        if not _read_videos(
            paths, reader, out=folder, pace=pace, annotate=annotate is not False, format=format, json=json
        ):
            raise typer.Exit(1)
        return
    pictures = images.gather(paths)
    if folder and many:
        good = _read_folder(
            pictures, folder, settings=settings, format=format, workers=workers, json=json, again=retry_failed
        )
    else:
        reader = Reader(
            model, detector=detector, min_face=min_face, threads=threads, abstain_below=abstain_below, max_pixels=pixels
        )
        good = _read_all(pictures, reader, out=folder, format=format, json=json, annotate=annotate is not False)
    if not good:
        raise typer.Exit(1)


def watch(
    camera: Annotated[str, typer.Option(metavar="NUMBER|FILE", help="The camera, or a video in its place.")] = "0",
    model: Model = None,
    detector: Annotated[str, typer.Option(metavar="NAME", help="mtcnn, or yunet, which is faster.")] = NAMES[0],
    smoothing: Annotated[
        float, typer.Option(min=0, metavar="S", help="Time constant of the smoothing, in seconds; 0 is none.")
    ] = SMOOTHING_S,
    min_face: MinFace = WATCHED_FACE,
) -> None:
    """Watch a camera: the expressions of the faces in front of it, as bars in the terminal. Nothing is kept."""
    from mien import job_cli
    from mien.reader import Reader

    if detector == "whole" and min_face != WATCHED_FACE:
        raise UsageError(f"--min-face {NO_SEARCH}")
    if not job_cli.watch(camera, Reader(model, detector=detector, min_face=min_face), smoothing=smoothing):
        raise typer.Exit(1)


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where the table and the annotated copy go.")
    ] = Path("mien-demo"),
) -> None:
    """Read matplotlib's sample photograph of Grace Hopper."""
    from mien.demo import photograph
    from mien.reader import Reader

    if not _read_all([photograph()], Reader(), out=out, format="csv", json=False):
        raise typer.Exit(1)


def _read_folder(
    pictures: list[Path], out: Path, *, settings: Settings, format: str, workers: int | None, json: bool, again: bool
) -> bool:
    """Run a folder job; whether all could be read. again: also what an earlier run failed on."""
    from mien import job_cli

    if json:
        raise UsageError("--json prints a whole table at once: leave out -o, or write JSON lines with --format jsonl")
    if settings.copies and Path(settings.copies).exists() and not (out / images.JOURNAL).exists():
        raise UsageError(f"{settings.copies} is there already, and no job wrote it: choose another folder for -o")
    with terminal.stopped(f"the same command goes on in {out}"):
        return job_cli.read_folder(
            pictures, writing.folder(out), settings=settings, format=format, workers=workers, retry_failed=again
        )


def _place(out: str | None, *, engine: str, address: str | None) -> Path | None:
    """The folder that -o names, as a path. Raises UsageError for an unknown engine and for what only Ray does."""
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}")
    if engine == "local" and address is not None:
        raise UsageError(f"--address {address} is a Ray cluster's: add --engine ray")
    if engine == "local" and storage.is_url(out or ""):
        raise UsageError(f"-o {out} is a URL: add --engine ray, or name a folder")
    if out == "":
        raise UsageError("-o is empty: name a folder, . for the current one")
    return None if out is None else Path(out)


def _refuse_unused(context: typer.Context, paths: list[str], *, out: str | None) -> None:
    """Raises UsageError for an option that was given and that nothing named here uses."""
    on_ray = context.params["engine"] == "ray"
    many = on_ray or any(images.stands_for_many(path) or storage.is_url(path) for path in paths)
    copies = "is of the annotated copies that -o writes: name a folder with -o"
    if out is not None:
        copies = "asks for annotated copies, and a job on Ray writes none: leave out --engine ray"
    whole = context.params["detector"] == "whole"
    used = {
        "annotate": (not context.params["annotate"] or (out is not None and not on_ray), copies),
        "min-face": (not whole, NO_SEARCH),
        "format": (out is not None, "is of the table that -o writes: name a folder with -o"),
        "workers": (
            out is not None and many,
            "is for the job of a folder or list: name that, and the job's folder with -o",
        ),
        "threads": (
            out is None or not many,
            "is not for the job of a folder or list, whose workers have one thread each: say how many of those by --workers",
        ),
        **dict.fromkeys(("every", "fps", "smoothing"), (any(map(images.is_video, paths)), "is for videos: name one")),
    }
    for name, (yes, what) in used.items():
        source = context.get_parameter_source(name.replace("-", "_"))
        if not yes and source is not None and source.name != "DEFAULT":
            raise UsageError(f"--{name} {what}, or leave it out")


def _refuse_an_input(table: Path, paths: list[str]) -> None:
    """Raises UsageError where writing the table would destroy one of the paths that are to be read."""
    for path in paths:
        with contextlib.suppress(OSError):  # one of them is not there
            if table.samefile(path):
                raise UsageError(
                    f"{path} is to be read, but -o would write its table there: choose another folder for -o"
                )


def _read_on_ray(
    paths: list[str],
    out: str | None,
    *,
    settings: Settings,
    format: str,
    workers: int | None,
    address: str | None,
    json: bool,
    again: bool,
) -> bool:
    """Run a job on a Ray cluster; whether all could be read."""
    from mien import job_cli, ray_engine

    if out is None or json:
        raise UsageError("--engine ray runs a job: name a folder or URL with -o, and leave out --json (--format jsonl)")
    place = out if storage.is_url(out) else writing.folder(Path(out))
    engine = partial(ray_engine.tables, address=address)
    with terminal.stopped(f"the same command goes on in {place}"):
        return job_cli.read_folder(
            storage.gather(paths),
            place,
            settings=settings,
            format=format,
            workers=workers,
            engine=engine,
            retry_failed=again,
        )


def _read_videos(
    paths: list[str], reader: "Reader", *, out: Path | None, pace: Pace, annotate: bool, format: str, json: bool
) -> bool:
    """Read videos; whether all are undamaged."""
    from mien import job_cli

    others = [path for path in paths if not images.is_video(path)]
    if others:
        raise UsageError(f"{others[0]} is no video, but {paths[0]} or another path is: read them with two commands")
    if json:
        raise UsageError("--json prints a whole table at once: for a video write JSON lines with -o and --format jsonl")
    folder = writing.folder(out) if out else None
    videos = [Path(path) for path in paths]
    with terminal.stopped(f"the tables in {folder} hold what was read until then" if folder else ""):
        return job_cli.read_videos(videos, reader, out=folder, pace=pace, annotated=annotate, format=format)


def _read_all(
    pictures: list[Path], reader: "Reader", *, out: Path | None, format: str, json: bool, annotate: bool = True
) -> bool:
    """Read, print and write everything; whether all could be read and copied."""
    advice = f"the table in {out} holds what was read until then, or what it held before" if out else ""
    with terminal.stopped(advice), writing.held(writing.folder(out)) if out else contextlib.nullcontext():
        return _read_pictures(pictures, reader, out=out, format=format, json=json, annotate=annotate)


def _read_pictures(
    pictures: list[Path], reader: "Reader", *, out: Path | None, format: str, json: bool, annotate: bool
) -> bool:
    """`_read_all` into a folder that is there and nobody else's."""
    from mien import draw, jobs, tables

    if out:
        jobs.refuse_a_jobs_folder(out)
        _refuse_frames(tables.place(format, out))
        _tell_what_is_replaced(tables.place(format, out), pictures)
    copies: list[Path] | list[None] = [None] * len(pictures)
    if out and annotate:
        copies = draw.copy_paths(pictures, out)
        _refuse_what_lies_there(copies, out)
    table: list[tables.Row] = []
    written: list[Path] = []
    failed = 0
    interrupted = True
    try:
        for path, copy in zip(pictures, copies, strict=True):
            told = ""
            try:
                pixels = images.load(path, max_pixels=reader.max_pixels)
                reading = reader.read(pixels, source=str(path))
            except (ImageError, UsageError) as error:  # a folder, a video or a URL in a list is that row's error
                told = str(error)
            except MemoryError:
                told = f"{path}: not enough memory to read it"
            if told:
                failed += 1
                table.append(tables.failure(str(path), told.removeprefix(f"{path}: ")))
                complain(told)
                continue
            table += tables.rows(reading)
            if copy:
                try:
                    written.append(draw.save(draw.annotate(pixels, reading), copy))
                except OSError as error:  # what was read is kept
                    failed += 1
                    complain(f"{path}: {draw.no_copy(copy, error)}")
            if not json:
                _show(reading)
        interrupted = False
    finally:  # also what was read before Ctrl-C
        reached = {tables.spelt(row["source"]) for row in table}
        if out and interrupted and tables.sources(tables.place(format, out)) - reached:
            complain(f"{tables.place(format, out)}: left as it was, as it holds pictures that were not reached")
        elif out:
            _say(f"wrote {tables.write(table, format, out)}", *(f"wrote {copy}" for copy in written), quiet=json)
    if json:
        print(tables.to_json(table))
    return not failed


def _tell_what_is_replaced(table: Path, pictures: list[Path]) -> None:
    """Rows of an earlier call that this one does not write again."""
    from mien import tables

    for other in tables.own(table.parent):
        if other != table:
            complain(f"{other}: left as an earlier call wrote it")
    others = tables.sources(table) - {tables.spelt(str(path)) for path in pictures}
    if others:
        complain(
            f"{table}: the rows of {len(others)} other pictures there are replaced, as every call writes its own table; name all "
            "pictures in one call, or take another -o"
        )


def _refuse_frames(table: Path) -> None:
    """Raises UsageError where the table of pictures would take the place of a video's, or of what mien did not write."""
    from mien import tables

    tables.refuse_foreign(table)
    if table.exists() and tables.holds_frames(table):
        raise UsageError(f"{table} holds the frames of a video: choose another folder for -o")


def _refuse_what_lies_there(copies: list[Path], out: Path) -> None:
    """Raises UsageError where a copy would replace what mien did not write: beside a table of mien's the copies are mien's."""
    from mien import tables

    found = next((copy for copy in copies if copy.exists()), None)
    if found and not tables.own(out):
        raise UsageError(f"{found} is there already, and no table of mien's beside it: choose another folder for -o")


def _show(reading: "Reading") -> None:
    """One table for each picture."""
    title = f"{printable(reading.source)}  {reading.width} x {reading.height} px"
    if not reading.faces:
        print(f"{title}  {printable(reading.status)}")  # plain: rich would break a long path
        return
    names = ("face", "expression", "next likeliest", "at x, y", "size", "score")
    terminal.show_table(title, names, ((str(n), *_cells(face)) for n, face in enumerate(reading, start=1)))


def _cells(face: "Face") -> list[str]:
    """expression, next likeliest, place, size and score as text."""
    x1, y1, x2, y2 = face.box
    runners_up = sorted(face.probabilities.items(), key=lambda item: -item[1])[1:3]
    return [
        f"{face.expression} {face.confidence:.0%}",
        ", ".join(f"{name} {value:.0%}" for name, value in runners_up),
        f"{x1:.0f}, {y1:.0f}",
        f"{x2 - x1:.0f} x {y2 - y1:.0f}",
        f"{face.detection_score:.2f}",
    ]


def _say(*lines: str, quiet: bool) -> None:
    for line in lines if not quiet else ():
        print(printable(line))
