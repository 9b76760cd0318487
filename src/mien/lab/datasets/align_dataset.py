"""`mien data align`: a whole dataset cut to upright faces of one size, as LBAN-IL prepares its data (MTCNN, 100x100).

Each picture's face is found with MTCNN (from the given box, where the owner gives one) and warped by its five points
onto the template that mien's own models use; LBAN-IL does not print its template. Where no five points are found the
given box, or else the whole picture, is resized: no row is lost, and ``manifest.csv`` says which way each one went and
why.

The output stands for the dataset: `--data NAME --root OUT` reads labels, splits and folds from the original folder,
which has to stay where it was, and pictures from OUT. `mien data pack` on it makes a copy that stands alone.
"""

import csv
import functools
import json
import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien import images, writing
from mien.card import CropSpec, InputSpec
from mien.errors import DataError, MienError, UsageError
from mien.faces.align import cut
from mien.faces.detect import Detection
from mien.faces.mtcnn import Mtcnn
from mien.lab.datasets import ALIGNED
from mien.lab.datasets.dataset import FaceDataset, fingerprint
from mien.lab.datasets.face_files import FaceFiles, read_object
from mien.lab.datasets.fer2013 import TEMPLATE
from mien.lab.orphans import end_with_parent

MANIFEST = "manifest.csv"
SIDE = 100  # px, as LBAN-IL's; 224 for networks with ImageNet's input
MIN_FACE = 20  # px, MTCNN's published minimum: datasets hold small faces on purpose
SURE = 0.5  # O-net's score above which its points are taken when the box is known already
_REMEDY = "run `mien data align` into a new folder"
_POINTS = [f"{name}_{axis}" for name in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"]
COLUMNS = (
    "split",
    "row",
    "id",
    "label",
    "path",
    "status",
    "reason",
    "score",
    "left",
    "top",
    "right",
    "bottom",
    *_POINTS,
)


@dataclass(frozen=True)
class Task:
    """One picture for a worker. source: a file, or RGB uint8 (H, W, 3). box: xyxy px, or None. target: the file to
    write."""

    source: Path | np.ndarray
    box: tuple[float, ...] | None
    target: Path
    side: int
    margin: float


@dataclass(frozen=True)
class Outcome:
    """status: "aligned", "box", "whole" or "unreadable". reason: why it is not "aligned", or "". found: what MTCNN saw, or None."""

    status: str
    reason: str
    found: Detection | None


def align(
    splits: Sequence[FaceDataset],
    out: Path,
    *,
    root: Path | None,
    side: int = SIDE,
    margin: float = 0.0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Counter[str]:
    """Align every picture of the splits into `out` and go on where an interrupted run stopped. Returns status ->
    pictures.

    root: where the splits were loaded from, noted for `load`. margin: context around the template, fraction of the
    side. workers: processes. Raises UsageError when `out` holds another alignment.
    """
    with writing.held(writing.folder(out)):
        _begin(splits, out, root, side, margin)
        return _align(splits, out, side=side, margin=margin, workers=workers, progress=progress)


def _align(
    splits: Sequence[FaceDataset],
    out: Path,
    *,
    side: int,
    margin: float,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Counter[str]:
    done = _done(out / MANIFEST)
    total = sum(map(len, splits))
    asked = {data.split for data in splits}
    counts: Counter[str] = Counter(status for (split, _), status in done.items() if split in asked)
    manifest = out / MANIFEST
    with writing.named(manifest), manifest.open("a", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        if file.tell() == 0:
            table.writerow(COLUMNS)
        jobs = _jobs(splits, out, done, side, margin)
        for (data, row, task), outcome in _outcomes(jobs, workers):
            table.writerow(_row(data, row, task, outcome, out))
            file.flush()
            counts[outcome.status] += 1
            if progress is not None:
                progress(counts.total(), total)
    return counts


def align_one(task: Task) -> Outcome:
    """Read, find, cut and write one face. The picture is complete on disk before this returns."""
    try:
        image = task.source if isinstance(task.source, np.ndarray) else images.load(task.source)
    except MienError as error:
        return Outcome("unreadable", str(error), None)
    outcome, face = _choose(image, task.box)
    shape = InputSpec(task.side, task.side, "rgb", (0.0,) * 3, (1.0,) * 3)
    (pixels,) = shape.pixels(cut(image, [face], crop=CropSpec(TEMPLATE, task.margin), input=shape))
    with writing.whole(task.target) as partial:
        Image.fromarray(pixels.transpose(1, 2, 0)).save(partial, "PNG", compress_level=3)
    return outcome


def _choose(image: np.ndarray, box: tuple[float, ...] | None) -> tuple[Outcome, Detection]:
    """What is told, and the face that is cut: the detection, or a Detection without points for a box or the whole
    picture."""
    height, width = image.shape[:2]
    frame = (0.0, 0.0, float(width), float(height))
    if box is None:
        faces = _detector().detect(image)
        if faces:
            return Outcome("aligned", "" if len(faces) == 1 else f"largest of {len(faces)} faces", faces[0]), faces[0]
    known = frame if box is None else _inside(box, frame)
    (found,) = _detector().refine(image, [known])
    if found.score >= SURE and found.landmarks is not None:
        return Outcome("aligned", "", found), found
    reason = (
        f"no face found (score {found.score:.2f})" if box is None else f"no face in the given box ({found.score:.2f})"
    )
    return Outcome("whole" if box is None else "box", reason, found), Detection(known, found.score, None)


def _inside(box: tuple[float, ...], frame: tuple[float, ...]) -> tuple[float, float, float, float]:
    """The part of the box inside the picture; the whole picture when they do not meet."""
    left, top = max(box[0], frame[0]), max(box[1], frame[1])
    right, bottom = min(box[2], frame[2]), min(box[3], frame[3])
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else (0.0, 0.0, frame[2], frame[3])


@functools.cache
def _detector() -> Mtcnn:
    """One per process."""
    return Mtcnn(min_face=MIN_FACE, threads=1)


def _begin(splits: Sequence[FaceDataset], out: Path, root: Path | None, side: int, margin: float) -> None:
    """Write the settings, or compare them with those of the run that is to be continued."""
    if not 16 <= side <= 1024 or not 0 <= margin <= 1:
        raise UsageError(f"side {side} px, margin {margin}: expected 16 to 1024 px and a fraction from 0 to 1")
    settings: dict[str, Any] = {
        "name": splits[0].name,
        "root": None if root is None else str(root.resolve()),
        "side": side,
        "margin": margin,
        "splits": {data.split: data.fingerprint for data in splits},
    }
    if (out / ALIGNED).is_file():
        before = _settings(out)
        settings["splits"] = before["splits"] | settings["splits"]  # further ones may follow
        before["splits"] = settings["splits"] | before["splits"]
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            told = "; ".join(f"{key} {before.get(key)!r} before, {settings[key]!r} now" for key in changed)
            raise UsageError(f"{out} holds another alignment: {told}; name a new folder")
    writing.text(out / ALIGNED, json.dumps(settings, indent=1))
    for data in splits:
        (out / data.split).mkdir(exist_ok=True)
        writing.clear(out / data.split)


def _done(manifest: Path) -> dict[tuple[str, int], str]:
    """(split, row) -> status of what a run before this one finished; a line that was cut off half-way is cut off for
    good."""
    if not manifest.is_file():
        return {}
    content = manifest.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        manifest.write_bytes(whole)
    return {(row["split"], int(row["row"])): row["status"] for row in _manifest_rows(manifest)}


def _manifest_rows(manifest: Path) -> Iterator[dict[str, str]]:
    """Raises DataError when the file cannot be read, or is not a manifest; an empty one has no rows."""
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            if table.fieldnames not in (None, list(COLUMNS)):
                raise DataError(f"{manifest}: its first line is not {','.join(COLUMNS)}; {_REMEDY}")
            yield from table
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{manifest}: cannot be read ({error}); {_REMEDY}") from None


Job = tuple[FaceDataset, int, Task]


def _jobs(
    splits: Sequence[FaceDataset], out: Path, done: dict[tuple[str, int], str], side: int, margin: float
) -> Iterator[Job]:
    for data in splits:
        for row in range(len(data)):
            if (data.split, row) not in done:
                source, box = _source(data, row)
                yield data, row, Task(source, box, out / data.split / f"{row:06d}.png", side, margin)


def _source(data: FaceDataset, row: int) -> tuple[Path | np.ndarray, tuple[float, ...] | None]:
    """The whole picture and the given box where the dataset lies in files, else the face as it is."""
    files = data.read
    if isinstance(files, FaceFiles):
        box = None if files.boxes is None else tuple(float(edge) for edge in files.boxes[row])
        return files.path(row), box
    return data.read(row), None


@contextmanager
def _told_of_a_killed_worker() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise MienError(
            "a worker process was killed, for want of memory, say; run the same command again, it goes on where it stopped, "
            "with --workers 1, if need be"
        ) from None


def _outcomes(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Outcome]]:
    """Each job with its outcome, in order, never more than a few jobs ahead."""
    context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
    with (
        _told_of_a_killed_worker(),
        nullcontext() if workers <= 1 else ProcessPoolExecutor(workers, context, end_with_parent) as pool,
    ):
        waiting: deque[tuple[Job, Future[Outcome]]] = deque()
        for job in jobs:
            if pool is None:
                yield job, align_one(job[2])
                continue
            waiting.append((job, pool.submit(align_one, job[2])))
            if len(waiting) >= 8 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _row(data: FaceDataset, row: int, task: Task, outcome: Outcome, out: Path) -> list[object]:
    path = "" if outcome.status == "unreadable" else task.target.relative_to(out).as_posix()
    told = [data.split, row, data.ids[row], data.classes[int(data.labels[row])], path, outcome.status, outcome.reason]
    if outcome.found is None:
        return told + [""] * (len(COLUMNS) - len(told))
    points: list[object] = [round(value, 2) for point in outcome.found.landmarks or () for value in point]
    box = [round(edge, 2) for edge in outcome.found.box]
    return [*told, round(outcome.found.score, 4), *box, *(points or [""] * len(_POINTS))]


# Reading an alignment


def original(root: Path, name: str) -> Path | None:
    """Where the dataset that was aligned lies. Raises DataError when it was another dataset, or lies there no more."""
    settings = _settings(root)
    if settings["name"] != name:
        raise DataError(f"{root} holds {settings['name']} aligned, asked for {name}; name the right --data or --root")
    if settings["root"] is None:
        return None
    place = Path(settings["root"])
    if not place.exists():
        raise DataError(
            f"{root} was aligned from {place}, which is not there; move it back, or name its new place as root in {root / ALIGNED}"
        )
    return place


def _settings(root: Path) -> dict[str, Any]:
    return read_object(root / ALIGNED, keys=("name", "root", "side", "margin", "splits"), remedy=_REMEDY)


def overlay(data: FaceDataset, root: Path) -> FaceDataset:
    """`data` with the aligned pictures in place of its own; other settings give other pictures, so other fingerprints. Raises
    DataError when rows are not aligned yet, or a file of the alignment is damaged."""
    settings = _settings(root)
    how = f"aligned with MTCNN, {settings['side']} px, margin {settings['margin']:g}"
    paths = {row["id"]: row["path"] for row in _manifest_rows(root / MANIFEST)}
    absent = [name for name in data.ids if name not in paths]
    if absent and settings["splits"].get(data.split, data.fingerprint) != data.fingerprint:
        raise DataError(
            f"{root}: {data.name} {data.split} has changed since it was aligned: {len(absent):,} of {len(data):,} rows are not, "
            f"e.g. {absent[0]}; run `mien data align` into a new folder"
        )
    if absent:
        raise DataError(
            f"{root}: {len(absent):,} of {len(data):,} rows of {data.name} {data.split} are not aligned, e.g. {absent[0]}; "
            f"run `mien data align` with --split {data.split} into the same folder; it goes on where it stopped"
        )
    kept = np.array([i for i, name in enumerate(data.ids) if paths[name]], np.int64)
    files = FaceFiles(str(root), tuple(paths[data.ids[i]] for i in kept))
    chosen = data if len(kept) == len(data) else data.subset(kept)
    lost = f"{len(data) - len(kept):,} unreadable pictures left out" if len(kept) < len(data) else ""
    note = "; ".join(part for part in (data.note, how, lost) if part)
    return replace(
        chosen, read=files, note=note, fingerprint=fingerprint(files.names, chosen.labels, chosen.fingerprint, how)
    )
