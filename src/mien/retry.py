"""A job's failed files forgotten, so that they are read again: the table and the journal are made anew without them.

Both are first written into a folder beside the old ones. Once that has its final name, whatever ends the process, `finish`
puts them into their places; it can be repeated until it is through.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mien import tables, writing

if TYPE_CHECKING:
    from mien.jobs import Outcome

READY, BEGUN = "journal.retry", "journal.retry-begun"  # folders in the job's
LINE = 1000  # outcomes in one line of the journal


def prepare(folder: Path, job: Mapping[str, Any], done: Mapping[str, "Outcome"], forgotten: Collection[str]) -> None:
    """Write what the job in `folder` has done, without the sources in `forgotten`, for `finish` to put in place. The table
    must end at the journal's mark."""
    new, kind = folder / BEGUN, str(job["format"])
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    with writing.named(tables.place(kind, new)):
        mark = tables.copy_without_failures(kind, folder, new, forgotten)
    kept = [outcome for source, outcome in done.items() if source not in forgotten]
    with writing.named(new / "journal"), (new / "journal").open("wb") as file:
        for entry in (job, *_commits(kept, mark, tables.checksum(kind, new, mark) if mark else None)):
            file.write(json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(folder / READY)


def finish(folder: Path, journal: IO[bytes]) -> None:
    """Put in place what `prepare` has written, if it had come to its end. journal: the open, locked file, whose content is
    replaced."""
    shutil.rmtree(folder / BEGUN, ignore_errors=True)
    ready = folder / READY
    if not ready.is_dir():
        return
    if (ready / "journal").is_file():
        content = (ready / "journal").read_bytes()
        kind = json.loads(content.partition(b"\n")[0])["format"]
        if tables.place(kind, ready).exists():
            if tables.place(kind, folder).is_dir():
                shutil.rmtree(tables.place(kind, folder))
            tables.place(kind, ready).replace(tables.place(kind, folder))
        with writing.named(Path(journal.name)):
            journal.truncate(0)
            journal.write(content)
            journal.flush()
            os.fsync(journal.fileno())
    shutil.rmtree(ready)


def _commits(kept: Sequence["Outcome"], mark: int, check: int | None) -> Iterator[dict[str, Any]]:
    for start in range(0, len(kept), LINE):
        files = [asdict(outcome) for outcome in kept[start : start + LINE]]
        yield {"mark": mark, "check": check, "files": files}
