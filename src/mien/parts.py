"""A job's journal and table on storage whose files can neither be appended to nor locked: as numbered parts.

    OUT/journal/000000.json            names the job
    OUT/journal/000001.json ...        one commit each: the sources it covers and the table's mark after them
    OUT/faces.csv/part-000000.csv ...  the table; its mark counts the parts

As in `jobs`, the table is written first and the journal second, so a killed job leaves at most one part that no entry
covers; it is written again. Nothing needs to be atomic: an entry that was torn is not JSON, and counts for nothing.
"""

import json
import re
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mien import tables
from mien.errors import UsageError
from mien.jobs import JOURNAL, Outcome, differences
from mien.storage import Folder

_ENTRY = re.compile(r"\d{6,}\.json")


class PartJournal:
    """The record of one job at a URL, as `jobs.Journal` is in a folder. Raises UsageError when another job is there."""

    def __init__(self, out: str, job: dict[str, Any]) -> None:
        self._folder = Folder(f"{out.rstrip('/')}/journal")
        self.done: dict[str, Outcome] = {}
        self.mark = 0
        self._next = 0
        self._begun = ""  # the entry that is being written, or was when that failed: it may be there, whole or torn
        self._out, self._table = out.rstrip("/"), Folder(place(out, job["format"]))
        self._format = job["format"]
        self._take_up(job, kept=kept(out, job["format"]))

    def commit(self, outcomes: Sequence[Outcome], mark: int) -> None:
        """Record that the table holds the rows of `outcomes` up to `mark`."""
        check = self._checksum(mark)
        self._write({"mark": mark, "check": check, "files": [asdict(outcome) for outcome in outcomes]})
        self.done.update({outcome.source: outcome for outcome in outcomes})

    def close(self) -> None:
        """Nothing is held open."""

    def _take_up(self, job: dict[str, Any], *, kept: int) -> None:
        """Go through what is there, keep what the table can honour and remove the rest."""
        names = [name for name in self._folder.names() if _ENTRY.fullmatch(name)]
        entries = self._entries(names)
        if entries and entries[0] != job:
            raise UsageError(
                f"{self._folder.url} holds another job ({differences(entries[0], job)}); choose another for -o"
            )
        self._next = min(1, len(entries))
        check = None  # of the last entry that is taken up; None also where an earlier mien wrote it
        for entry in entries[1:]:
            if entry["mark"] > kept:
                break
            self.mark, self._next, check = entry["mark"], self._next + 1, entry.get("check")
            self.done.update({one["source"]: Outcome(**one) for one in entry["files"]})
        if check is not None and check != self._checksum(self.mark):
            raise UsageError(
                f"{self._table.url} is no longer the table that the job there wrote: put that back, or choose another for -o"
            )
        self._folder.remove(names[self._next :])
        if not entries:
            self._refuse_what_no_job_wrote()
            self._write(job)

    def _refuse_what_no_job_wrote(self) -> None:
        if self._table.names() or Folder(self._out).has(JOURNAL):
            raise UsageError(f"{self._table.url} is there already, and no job at a URL wrote it: choose another for -o")

    def _checksum(self, mark: int) -> int | None:
        """The CRC-32 of the table's last part, which tells it from another that lies in its place."""
        return zlib.crc32(self._table.read([_part(mark - 1, self._format)])[0]) if mark else None

    def _entries(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The entries in order; the last one may be torn, and is left out then."""
        found = [_parsed(data) for data in self._folder.read(names)]
        whole = found[:-1] if found and found[-1] is None else found
        incomplete = any(entry is None or not {"mark", "files"} <= entry.keys() for entry in whole[1:])
        if None in whole[:1] or incomplete or list(names) != [_entry(number) for number in range(len(names))]:
            raise UsageError(
                f"{self._folder.url}: not a journal that mien wrote, or a part of it is gone; choose another for -o"
            )
        return [entry for entry in whole if entry is not None]

    def _write(self, entry: dict[str, Any]) -> None:
        name = _entry(self._next)
        # No lock is to be had here: two jobs at once are noticed, not prevented.
        if name != self._begun and self._folder.has(name):
            raise UsageError(f"{self._folder.url}: another mien is writing here; wait for it or choose another for -o")
        self._begun = name
        self._folder.write(name, json.dumps(entry).encode())
        self._next += 1


class PartSink:
    """A table at a URL in parts of any format. A mark counts the parts."""

    ROWS = tables.ParquetSink.ROWS

    def __init__(self, out: str, kind: str, *, mark: int = 0) -> None:
        self._folder, self._kind, self._mark = Folder(place(out, kind)), kind, mark
        keep = {_part(number, kind) for number in range(mark)}
        parts = re.compile(rf"part-\d{{6,}}\.{kind}")
        self._folder.remove(name for name in self._folder.names() if parts.fullmatch(name) and name not in keep)
        self._rows: list[tables.Row] = []

    @property
    def full(self) -> bool:
        return len(self._rows) >= self.ROWS

    def add(self, table: Iterable[tables.Row]) -> None:
        self._rows += table

    def commit(self) -> int:
        if self._rows:
            self._folder.write(_part(self._mark, self._kind), _encoded(self._rows, self._kind))
            self._mark += 1
            self._rows = []
        return self._mark

    def close(self) -> None:
        self._rows = []


def place(out: str, kind: str) -> str:
    """Where the table of this format lies."""
    return f"{out.rstrip('/')}/faces.{kind}"


def kept(out: str, kind: str) -> int:
    """The largest mark that the parts at `out` can still honour."""
    names = set(Folder(place(out, kind)).names())
    return next(number for number in range(len(names) + 1) if _part(number, kind) not in names)


def _encoded(rows: Sequence[tables.Row], kind: str) -> bytes:
    """The rows as one file of the format, made by what makes it in a folder."""
    with tempfile.TemporaryDirectory() as name:
        sink = tables.open_sink(kind, Path(name))
        sink.add(rows)
        sink.commit()
        sink.close()
        path = tables.place(kind, Path(name))
        return (next(path.iterdir()) if path.is_dir() else path).read_bytes()


def _entry(number: int) -> str:
    return f"{number:06d}.json"


def _part(number: int, kind: str) -> str:
    return f"part-{number:06d}.{kind}"


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(data)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
