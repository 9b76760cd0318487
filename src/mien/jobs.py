"""Folders and lists of any length: read in parallel, streamed to a table, and gone on with after any interruption.

The journal in the output folder is the truth. Its first line names the job; each further line is one commit: the
sources it covers and the table's mark after them. The table is written first and the journal second, so a job that was
killed, at whatever moment, finds at most rows that no journal line covers; it cuts them off and reads those files
again. A line without its newline was never finished and counts for nothing.
"""

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mien import images, retry, storage, tables, writing
from mien.cores import cores
from mien.errors import UsageError
from mien.worker import Settings, Worker

if TYPE_CHECKING:
    from mien.reader import Reader, Reading

JOURNAL = images.JOURNAL
SCHEMA = 1
# Reading processes, not threads: on two cores benchmarks/jobs.py found them a seventh faster (35.2 against 30.8 pictures
# a second, benchmarks/results/jobs.json), and a decoder that crashes ends only one.
AHEAD = 8  # files handed out beyond the one that is waited for, per worker: one slow file does not stop the others

# What reads the sources that are left: each source with its rows, in order. The number is of workers, None for one a core.
Engine = Callable[[Sequence[str], Settings, int | None], Iterator[tuple[str, list[tables.Row]]]]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Summary:
    """How a job ended, over all its runs. read, no_face, failed: files; faces: rows with a face; out: the table, a path
    or a URL. Of those failed, in an earlier run: failed_before, asked for again and left alone; gone, no longer asked for. changed:
    asked for again, and another file by now than the one whose rows the table has."""

    read: int
    no_face: int
    failed: int
    faces: int
    out: Path | str
    failed_before: int = field(default=0, compare=False)
    gone: int = field(default=0, compare=False)
    changed: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Outcome:
    """One file of a job. status: "ok", "no face" or "error: reason", as in the table. stamp: the file's size and time of change
    just after it was read; None where there was none, as of a URL."""

    source: str
    status: str
    faces: int
    stamp: str | None = None


class Record(Protocol):
    """What a job has done: the outcomes so far, by source, and the mark of the table that holds their rows."""

    done: dict[str, Outcome]
    mark: int

    def commit(self, outcomes: Sequence[Outcome], mark: int) -> None: ...
    def close(self) -> None: ...


class Journal:
    """The append-only record of one job. Raises UsageError when the folder holds another job, or a table that is not
    this job's, or is being written."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        path = folder / JOURNAL
        table = tables.place(job["format"], folder)
        if not path.exists() and (tables.kept(job["format"], folder) or tables.is_foreign(table)):
            raise UsageError(
                f"{table} is there already, and no job wrote it: move it away, or choose another folder for -o"
            )
        self._folder, self._job, self._format = folder, job, job["format"]
        self._held = ExitStack()
        self._held.enter_context(writing.held(folder))
        self._file = self._held.enter_context(path.open("a+b"))
        self.done: dict[str, Outcome] = {}
        self.mark = 0
        try:
            writing.lock(self._file, folder)  # for file systems over a network, where a folder cannot be held
            retry.finish(folder, self._file)
            self._take_up(job, path)
        except BaseException:
            self._held.close()
            raise

    def commit(self, outcomes: Sequence[Outcome], mark: int) -> None:
        """Record that the table holds the rows of `outcomes` up to `mark`."""
        check = tables.checksum(self._format, self._folder, mark)
        self._write({"mark": mark, "check": check, "files": [asdict(outcome) for outcome in outcomes]})
        self.done.update({outcome.source: outcome for outcome in outcomes})

    def forget(self, sources: Collection[str]) -> None:
        """Take back what is recorded of these failed sources, here and in the table."""
        tables.open_sink(self._format, self._folder, mark=self.mark).close()  # which cuts off what no line covers
        retry.prepare(self._folder, self._job, self.done, sources)
        retry.finish(self._folder, self._file)
        self.done, self.mark = {}, 0
        self._take_up(self._job, self._folder / JOURNAL)

    def close(self) -> None:
        with writing.named(self._folder / JOURNAL):
            self._held.close()

    def _take_up(self, job: dict[str, Any], path: Path) -> None:
        """Go through what is there, keep what the table can honour and cut off the rest."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):
            if not _line(job).startswith(first):  # else it was killed before its first line was whole
                raise UsageError(
                    f"{path} is there already, and mien did not write it: move it away, or choose another folder for -o"
                )
            tables.refuse_foreign(tables.place(self._format, path.parent))
            self._cut(0)
            return self._write(job)
        found = _parsed(first, path)
        if found != job:
            raise UsageError(f"{path.parent} holds another job ({differences(found, job)}); choose another for -o")
        end, limit = self._file.tell(), tables.kept(job["format"], path.parent)
        check = None  # of the last commit that is taken up; None also where an earlier mien wrote it
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            mark, outcomes, found_check = _commit(line, path)
            if mark > limit:
                break
            end, self.mark, check = end + len(line), mark, found_check
            self.done.update({outcome.source: outcome for outcome in outcomes})
        if not self.mark:
            tables.refuse_foreign(tables.place(self._format, path.parent))
        self._refuse_another_table(check)
        self._cut(end)

    def _refuse_another_table(self, check: int | None) -> None:
        if check is not None and check != tables.checksum(self._format, self._folder, self.mark):
            raise UsageError(
                f"{tables.place(self._format, self._folder)} is no longer the table that the job in its folder wrote: put "
                "that back, or choose another folder for -o"
            )

    def _write(self, entry: dict[str, Any]) -> None:
        with writing.named(self._folder / JOURNAL):
            self._file.write(_line(entry))
            self._file.flush()

    def _cut(self, end: int) -> None:
        self._file.truncate(end)
        self._file.seek(end)


def _line(entry: Mapping[str, Any]) -> bytes:
    """Of the journal."""
    return json.dumps(entry).encode() + b"\n"


def run(
    pictures: Sequence[Path | str],
    out: Path | str,
    *,
    settings: Settings,
    format: str = "csv",
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    engine: Engine | None = None,
    retry_failed: bool = False,
) -> Summary:
    """Read `pictures` into a table in the folder `out`, in their order, going on where an earlier run stopped.

    Every file gets at least one row, whatever happens to it; files that an earlier run finished are not read again.
    pictures, out: paths, or URLs as text (`mien.storage`). workers: reading processes, None is one for each core.
    progress: called with the files done and their total. engine: what reads, None is processes of this machine; see
    `mien.ray_engine.tables` for a cluster. retry_failed: read the files again that an earlier run failed on.
    Raises UsageError for an unknown format or a folder that holds another job, ModelError and DetectorError as `Reader`,
    and what the engine raises.
    """
    tables.check_format(format)
    journal, sink, table = _opened(out, _job(settings, format), format, pictures if retry_failed else ())
    try:
        if settings.copies:
            writing.clear(Path(settings.copies), below=True)
        asked = dict.fromkeys(map(str, pictures))
        left = [source for source in asked if source not in journal.done]
        failed = {source for source, outcome in journal.done.items() if _failed(outcome)}
        changed = sum(_changed(journal.done[source]) for source in asked.keys() & journal.done.keys() - failed)
        found = (engine or processes)(left, settings, workers)
        _stream(found, journal, sink, total=len(journal.done) + len(left), progress=progress)
    finally:
        sink.close()
        journal.close()
    return replace(
        _summary(journal, table),
        failed_before=len(failed & asked.keys()),
        gone=len(failed - asked.keys()),
        changed=changed,
    )


def refuse_a_jobs_folder(folder: Path) -> None:
    """Raises UsageError where a job keeps its table: anything else written there would take that table's place."""
    if (folder / JOURNAL).exists() or (folder / "journal" / "000000.json").exists():  # the latter of a job at a URL
        raise UsageError(f"{folder} holds the table of a folder job, which goes on there: choose another folder for -o")


def read_folder(
    folder: str | Path, *, reader: "Reader | None" = None, threads: int | None = None
) -> Iterator["Reading"]:
    """A reading for each picture in `folder` and below, in order, as they are asked for; never all in memory.

    A file that cannot be read gives an `UnreadableFile`, a reading without faces that says why, instead of ending the iteration.
    reader: None is a `Reader` with the bundled model. threads: that read ahead at once, None is one for each core.
    Raises UsageError when `folder` is no folder or holds no picture, or for threads under 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads={threads}: expected 1 or more, or None for one a core")
    if not images.is_folder(folder):
        raise UsageError(f"{folder} is not a folder: call mien.read for a picture, mien.read_video for a video")
    from mien.reader import Reader

    return _readings(images.in_folder(Path(folder)), reader or Reader(), threads or cores())


def in_order(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    threads: int,
    ahead: int = AHEAD,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """`work` on each item in `threads` threads, the results in the items' order; at most `ahead` per thread wait. stop: called at
    the end, however that comes, so that nobody has to wait for work whose result is not."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads * ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()


def _opened(
    out: Path | str, job: dict[str, Any], format: str, again: Sequence[Path | str]
) -> tuple[Record, tables.Sink, Path | str]:
    """The job's journal, its table open at the journal's mark, and where that lies: in a folder or at a URL. again: what to
    forget first, where it failed."""
    if isinstance(out, str) and storage.is_url(out):
        from mien import parts

        if again:
            raise UsageError(f"--retry-failed changes a table in a folder, not at a URL: choose another -o than {out}")
        record = parts.PartJournal(out, job)
        return record, parts.PartSink(out, format, mark=record.mark), parts.place(out, format)
    journal = Journal(Path(out), job)
    try:
        asked = {str(path) for path in again}
        known = [source for source, outcome in journal.done.items() if asked and _failed(outcome)]
        # A folder that opens by now has its pictures among those that are asked for.
        failed = {source for source in known if source in asked or images.is_open_folder(source)}
        if failed:
            journal.forget(failed)
        return journal, tables.open_sink(format, Path(out), mark=journal.mark), tables.place(format, Path(out))
    except BaseException:
        journal.close()
        raise


def _stream(
    found: Iterator[tuple[str, list[tables.Row]]],
    journal: Record,
    sink: tables.Sink,
    *,
    total: int,
    progress: Callable[[int, int], None],
) -> None:
    """Take the rows of the files that are left and commit them, the table first and the journal second."""
    before = len(journal.done)
    progress(before, total)
    pending: list[Outcome] = []
    agree = True  # the rows that the sink has and the files that are pending
    try:
        for number, (source, table) in enumerate(found, start=1):
            agree = False
            sink.add(table)
            pending.append(_outcome(source, table))
            agree = True
            if sink.full:
                journal.commit(pending, sink.commit())
                pending = []
            progress(before + number, total)
    finally:  # also what was read before Ctrl-C, or before the engine gave up
        if pending and agree:
            journal.commit(pending, sink.commit())


def processes(
    left: Sequence[str], settings: Settings, workers: int | None = None
) -> Iterator[tuple[str, list[tables.Row]]]:
    """Each source with its rows, in order, from as many reading processes as there is work for: the engine of one
    machine."""
    team = [Worker(settings) for _ in range(min(workers or cores(), len(left)))]
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in team:
        idle.put(worker)

    def read(source: str) -> tuple[str, list[tables.Row]]:
        worker = idle.get()
        try:
            return source, worker.read(source)
        finally:
            idle.put(worker)

    def stop() -> None:
        for worker in team:
            worker.stop()

    try:
        yield from in_order(left, read, threads=max(1, len(team)), stop=stop)
    finally:
        for worker in team:
            worker.close()


def _readings(pictures: Sequence[Path], reader: "Reader", threads: int) -> Iterator["Reading"]:
    from mien.errors import ImageError
    from mien.reader import UnreadableFile

    def read(path: Path) -> "Reading":
        try:
            return reader.read(path)
        except ImageError as error:
            return UnreadableFile(str(path), reason=str(error).removeprefix(f"{path}: "))

    yield from in_order(pictures, read, threads=threads)


def _job(settings: Settings, format: str) -> dict[str, Any]:
    """What makes two jobs the same: the model's and detector's identity and the table's format. Loads both once, so
    that what is wrong with them is said before any file is opened."""
    import mien
    from mien.faces import detect
    from mien.reader import Reader

    reader = Reader(
        settings.model, detector=settings.detector, min_face=settings.min_face, abstain_below=settings.abstain_below
    )
    named = asdict(replace(settings, model=reader.classifier.sha256, detector=detect.identity(settings.detector)))
    del named["max_pixels"]  # a larger limit reads the same, and more
    if named.pop("copies"):
        named[images.COPIES] = True  # which `images.in_folder` looks for
    return {"schema": SCHEMA, "mien": mien.__version__, **named, "format": format}


def _outcome(source: str, table: Sequence[tables.Row]) -> Outcome:
    faces = sum(row["face"] is not None for row in table)
    return Outcome(source, str(table[0]["status"]), faces, _stamp(source))


def _stamp(source: str) -> str | None:
    if storage.is_url(source):
        return None
    try:
        found = os.stat(source)  # noqa: PTH116 as of millions of files
    except (OSError, ValueError):
        return None
    return f"{found.st_size} {found.st_mtime_ns}"


def _changed(outcome: Outcome) -> bool:
    """Whether the file is another one by now; one that is gone, or that an earlier mien read, is taken as it was."""
    return outcome.stamp is not None and _stamp(outcome.source) not in (None, outcome.stamp)


def _summary(journal: Record, out: Path | str) -> Summary:
    kinds = Counter(outcome.status.split(":")[0] for outcome in journal.done.values())
    faces = sum(outcome.faces for outcome in journal.done.values())
    return Summary(kinds["ok"], kinds["no face"], kinds["error"], faces, out)


def _failed(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.status.startswith("error")


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise _no_journal(path)
    return entry


def _commit(line: bytes, path: Path) -> tuple[int, list[Outcome], int | None]:
    """The mark, the outcomes and the table's checksum of one line."""
    entry = _parsed(line, path)
    try:
        return int(entry["mark"]), [Outcome(**one) for one in entry["files"]], entry.get("check")
    except (KeyError, TypeError, ValueError):
        raise _no_journal(path) from None


def _no_journal(path: Path) -> UsageError:
    return UsageError(f"{path}: not a journal that mien wrote; choose another folder for -o")


def differences(found: dict[str, Any], job: dict[str, Any]) -> str:
    keys = [key for key in {**found, **job} if found.get(key) != job.get(key)]
    return "; ".join(f"{key} was {found.get(key)!r}, now {job.get(key)!r}" for key in keys)
